//! Limits: what they cover, what they keep buckets for, and what becomes of what exceeds them.

use std::{collections::HashSet, sync::Arc};

use corral_wire::{
    Action, Algorithm, EndpointClass, HeaderDoc, KeyPart, LimitDoc, Oversize, PathDoc, PlanDoc, TierDoc,
};

use super::{
    errors::Errors,
    identity::{NAME_RULE, is_name, read_cidrs},
    rates, sorted,
};
use crate::{
    ModelName, Nanos,
    pattern::Pattern,
    plan::{BUILT_IN_POLICY, Exceed, Limit, Scaled, UNSCALED, limit::is_scaled, matching::Cover},
};

/// The most limits of a plan.
const MOST_LIMITS: usize = 256;
/// The most models, paths, tiers or headers that one limit lists.
const MOST_LISTED: usize = 256;
/// The longest path, header value or such.
const LONGEST_TEXT: usize = 1024;
/// The longest that one limit lets a request wait, in milliseconds: ten minutes.
const LONGEST_MAX_WAIT_MS: u64 = 600_000;

pub(super) fn read(doc: &PlanDoc, errors: &mut Errors) -> Vec<Limit> {
    let docs = &doc.limits;
    errors.check(docs.len() <= MOST_LIMITS, "limits", || {
        format!(
            "a pool has at most {MOST_LIMITS} limits, of all its policies together; here are {}",
            docs.len()
        )
    });
    let mut seen = HashSet::new();
    let mut limits = Vec::new();
    for (place, limit) in docs.iter().enumerate().take(MOST_LIMITS) {
        let path = format!("limits[{place}]");
        errors.check(seen.insert((&limit.policy, &limit.name)), format!("{path}.name"), || {
            format!("policy {} has another limit {:?}", limit.policy, limit.name)
        });
        limits.push(read_limit(&path, limit, doc, errors));
    }
    limits
}

/// Reads one limit; what is returned is worth nothing if there are errors.
fn read_limit(path: &str, doc: &LimitDoc, plan: &PlanDoc, errors: &mut Errors) -> Limit {
    check_identity(path, doc, errors);
    check_per(path, doc, plan, errors);
    let scales = scales_of(doc, &plan.tiers);
    let largest = scales.iter().map(|scaled| scaled.milli).max().unwrap_or(UNSCALED);
    let info = rates::read(path, doc, largest, errors);
    let exempts = |(place, exempt): (usize, &corral_wire::ExemptDoc)| {
        exempt.policy.as_ref().is_none_or(|policy| *policy == doc.policy).then_some(place)
    };
    Limit {
        info: Arc::new(info),
        mode: doc.mode,
        cover: read_cover(path, doc, plan, errors),
        per: sorted(doc.per.clone()),
        per_id: 0,
        scope: doc.scope,
        algorithm: doc.algorithm,
        day: rates::read_day(path, doc, errors),
        exceed: read_exceed(path, doc, errors),
        adaptive_min: read_adaptive(path, doc, errors),
        scales,
        exemptions: plan.exempt.iter().enumerate().filter_map(exempts).collect(),
    }
}

fn check_identity(path: &str, doc: &LimitDoc, errors: &mut Errors) {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-./".contains(&byte);
    let is_policy = (1..=317).contains(&doc.policy.len()) && doc.policy.bytes().all(plain);
    errors.check(is_policy, format!("{path}.policy"), || {
        "is namespace/name, in letters, digits, - and .".to_owned()
    });
    errors.check(doc.policy != BUILT_IN_POLICY, format!("{path}.policy"), || {
        format!("{BUILT_IN_POLICY} is built in")
    });
    errors.check(is_name(&doc.name), format!("{path}.name"), || NAME_RULE.to_owned());
}

fn check_per(path: &str, doc: &LimitDoc, plan: &PlanDoc, errors: &mut Errors) {
    let path = format!("{path}.per");
    errors.check(!doc.per.is_empty(), &path, || {
        "says whom a bucket is for: Client, ApiKey, ClientIP, Tier, Model, Endpoint, Header:<name> or, for all \
         together, Global"
            .to_owned()
    });
    errors.check(!doc.per.contains(&KeyPart::Global) || doc.per.len() == 1, &path, || {
        "Global means everybody together, so it stands alone".to_owned()
    });
    for (place, part) in doc.per.iter().enumerate() {
        if let KeyPart::Header(name) = part {
            check_trusted(&format!("{path}[{place}]"), name, plan, errors);
        }
    }
}

fn check_trusted(path: &str, name: &str, plan: &PlanDoc, errors: &mut Errors) {
    let trusted = plan.identity.trusted_headers.iter().any(|trusted| trusted == name);
    errors.check(trusted, path, || {
        format!("the pool does not trust header {name}: add it to identity.trustedHeaders")
    });
}

fn read_cover(path: &str, doc: &LimitDoc, plan: &PlanDoc, errors: &mut Errors) -> Cover {
    let (models, model_texts) = read_models(path, &doc.models, errors);
    check_paths(path, &doc.paths, errors);
    check_tiers(path, &doc.tiers, plan, errors);
    Cover {
        endpoints: read_endpoints(&doc.endpoints),
        paths: doc.paths.clone(),
        models,
        model_texts,
        tiers: sorted(doc.tiers.clone()),
        headers: read_headers(path, &doc.headers, plan, errors),
        cidrs: read_cidrs(&format!("{path}.cidrs"), &doc.cidrs, errors),
    }
}

fn read_endpoints(endpoints: &[EndpointClass]) -> Vec<EndpointClass> {
    match endpoints {
        [] => vec![EndpointClass::Chat, EndpointClass::Generate, EndpointClass::Embed],
        named => sorted(named.to_vec()),
    }
}

fn read_models(path: &str, texts: &[String], errors: &mut Errors) -> (Vec<Pattern>, Vec<String>) {
    check_length(&format!("{path}.models"), texts.len(), errors);
    let mut shown = Vec::new();
    for (place, text) in texts.iter().enumerate().take(MOST_LISTED) {
        match normal_form(text) {
            Ok(text) => shown.push(text),
            Err(why) => errors.add(format!("{path}.models[{place}]"), why),
        }
    }
    let shown = sorted(shown);
    (shown.iter().filter_map(|text| Pattern::parse(text).ok()).collect(), shown)
}

/// The normal form of a name, or a pattern as it stands.
fn normal_form(text: &str) -> Result<String, String> {
    Pattern::parse(text).map_err(|error| error.to_string())?;
    if text.contains('*') {
        return Ok(text.to_ascii_lowercase());
    }
    ModelName::parse(text).map(|name| name.to_string()).map_err(|error| error.to_string())
}

fn check_paths(path: &str, paths: &[PathDoc], errors: &mut Errors) {
    check_length(&format!("{path}.paths"), paths.len(), errors);
    for (place, listed) in paths.iter().enumerate().take(MOST_LISTED) {
        let (PathDoc::Exact(text) | PathDoc::Prefix(text)) = listed;
        errors.check(
            text.starts_with('/') && text.len() <= LONGEST_TEXT,
            format!("{path}.paths[{place}]"),
            || format!("begins with / and has at most {LONGEST_TEXT} bytes"),
        );
    }
}

fn check_tiers(path: &str, tiers: &[String], plan: &PlanDoc, errors: &mut Errors) {
    check_length(&format!("{path}.tiers"), tiers.len(), errors);
    for (place, name) in tiers.iter().enumerate().take(MOST_LISTED) {
        let known = plan.tiers.iter().any(|tier| tier.name == *name);
        errors.check(known, format!("{path}.tiers[{place}]"), || format!("there is no tier {name:?}"));
    }
}

fn read_headers(
    path: &str,
    headers: &[HeaderDoc],
    plan: &PlanDoc,
    errors: &mut Errors,
) -> Vec<(Box<str>, Box<str>)> {
    check_length(&format!("{path}.headers"), headers.len(), errors);
    for (place, header) in headers.iter().enumerate().take(MOST_LISTED) {
        let path = format!("{path}.headers[{place}]");
        check_trusted(&format!("{path}.name"), &header.name, plan, errors);
        errors.check(header.value.len() <= LONGEST_TEXT, format!("{path}.value"), || {
            format!("has at most {LONGEST_TEXT} bytes")
        });
    }
    let parts = |header: &HeaderDoc| (header.name.as_str().into(), header.value.as_str().into());
    headers.iter().take(MOST_LISTED).map(parts).collect()
}

fn check_length(path: &str, length: usize, errors: &mut Errors) {
    errors.check(length <= MOST_LISTED, path, || format!("lists at most {MOST_LISTED}"));
}

fn read_exceed(path: &str, doc: &LimitDoc, errors: &mut Errors) -> Exceed {
    let path = format!("{path}.onExceed");
    let action = match (doc.algorithm, doc.on_exceed.action) {
        (Algorithm::LeakyBucket, Action::Reject) => Action::Delay,
        (_, action) => action,
    };
    check_action(&path, action, doc, errors);
    check_max_wait(&path, action, doc, errors);
    let rejects_oversize = doc.on_exceed.oversize == Oversize::Reject;
    let has_rate = rates::over_time(doc).next().is_some();
    errors.check(!rejects_oversize || has_rate, format!("{path}.oversize"), || {
        "is about rates, and the limit has none".to_owned()
    });
    Exceed { action, max_wait: Nanos::from_millis(doc.on_exceed.max_wait_ms.unwrap_or(0)), rejects_oversize }
}

fn check_action(path: &str, action: Action, doc: &LimitDoc, errors: &mut Errors) {
    let path = format!("{path}.action");
    let leaks = doc.algorithm == Algorithm::LeakyBucket;
    errors.check(!leaks || action == Action::Delay, &path, || {
        "a LeakyBucket delays by itself: leave the action out, or take a TokenBucket".to_owned()
    });
    let is_paced = leaks || doc.algorithm == Algorithm::TokenBucket;
    errors.check(action != Action::Delay || is_paced, &path, || {
        "Delay needs algorithm TokenBucket or LeakyBucket: only these know when a request may start"
            .to_owned()
    });
    let holds = rates::at_one_time(doc).next().is_some();
    errors.check(action != Action::Delay || !holds, &path, || {
        "Delay is for rates, for nobody knows when a place comes free: put concurrency, queued and queuedTokens \
         into a limit of their own"
            .to_owned()
    });
    let waits = doc.queued.is_some() || doc.queued_tokens.is_some();
    errors.check(action != Action::Queue || !waits, &path, || {
        "Queue is how requests come to wait: put queued and queuedTokens, which bound it, into a limit of their \
         own"
            .to_owned()
    });
}

fn check_max_wait(path: &str, action: Action, doc: &LimitDoc, errors: &mut Errors) {
    let path = format!("{path}.maxWaitMs");
    match (action, doc.on_exceed.max_wait_ms) {
        (Action::Delay | Action::Queue, Some(wait)) => {
            errors.check((1..=LONGEST_MAX_WAIT_MS).contains(&wait), path, || {
                format!("is 1 to {LONGEST_MAX_WAIT_MS}, ten minutes")
            });
        }
        (Action::Delay, None) if doc.algorithm == Algorithm::LeakyBucket => {}
        (Action::Delay | Action::Queue, None) => {
            errors.add(path, format!("is missing: {action:?} says how long a request waits at most"));
        }
        (Action::Reject | Action::Deprioritize, given) => {
            errors.check(given.is_none(), path, || format!("has no meaning for {action:?}: nothing waits"));
        }
    }
}

fn read_adaptive(path: &str, doc: &LimitDoc, errors: &mut Errors) -> Option<u32> {
    let adaptive = doc.adaptive?;
    errors.check((1..=1000).contains(&adaptive.min_milli), format!("{path}.adaptive.minMilli"), || {
        "is 1 to 1000 thousandths".to_owned()
    });
    Some(adaptive.min_milli)
}

/// The different scales of the clients that a limit covers, in ascending order.
fn scales_of(doc: &LimitDoc, tiers: &[TierDoc]) -> Vec<Scaled> {
    let plain = Scaled { milli: UNSCALED, tiers: Vec::new() };
    if !is_scaled(&doc.per) {
        return vec![plain];
    }
    let covered = |tier: &&TierDoc| doc.tiers.is_empty() || doc.tiers.contains(&tier.name);
    let mut scales = if doc.tiers.is_empty() { vec![plain] } else { Vec::new() };
    for tier in tiers.iter().filter(covered) {
        match scales.iter_mut().find(|group| group.milli == tier.scale_milli) {
            Some(group) => group.tiers.push(tier.name.clone()),
            None => scales.push(Scaled { milli: tier.scale_milli, tiers: vec![tier.name.clone()] }),
        }
    }
    if scales.is_empty() {
        scales.push(Scaled { milli: UNSCALED, tiers: Vec::new() });
    }
    for group in &mut scales {
        group.tiers.sort();
    }
    scales.sort_by_key(|group| group.milli);
    scales
}
