//! Whose fault a plan's error is: from the plan's paths back to the fields that a person wrote.

use corral_limiter::CompileError;
use corral_wire::{LimitDoc, PlanDoc};

use crate::{merge::PolicyInput, policy::Limit, pool::ApiKeySecret, valid::Problem};

/// Who is at fault, and what to tell them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Culprit {
    /// `namespace/name` of the policy; none when it is the pool, or the plan as a whole.
    pub(crate) policy: Option<String>,
    /// What is wrong, by the culprit's own fields.
    pub(crate) problem: Problem,
}

/// Finds who wrote what the compiler refused.
pub(crate) fn culprit(
    doc: &PlanDoc,
    policies: &[PolicyInput<'_>],
    secrets: &[ApiKeySecret],
    error: CompileError,
) -> Culprit {
    let limit = place(&error.path, "limits[").and_then(|(place, rest)| Some((doc.limits.get(place)?, rest)));
    if let Some((limit, rest)) = limit {
        let policy = policies.iter().find(|policy| policy.identity() == limit.policy);
        let place = policy
            .and_then(|policy| policy.spec.limits.iter().position(|written| written.name == limit.name));
        let written = policy.zip(place).and_then(|(policy, place)| policy.spec.limits.get(place));
        let rest =
            written.and_then(|written| as_written(rest, limit, written)).unwrap_or_else(|| rest.to_owned());
        let path = place.map_or_else(|| "spec.limits".to_owned(), |place| format!("spec.limits[{place}]"));
        let problem = Problem { path: format!("{path}{}", limit_path(&rest)), message: error.message };
        return Culprit { policy: Some(limit.policy.clone()), problem };
    }
    let exempt = place(&error.path, "exempt[").and_then(|(place, rest)| Some((doc.exempt.get(place)?, rest)));
    if let Some((Some(policy), rest)) = exempt.map(|(exempt, rest)| (exempt.policy.clone(), rest)) {
        let path = format!("spec.exempt{}", rest.replacen(".clients", ".apiKeys", 1));
        return Culprit { policy: Some(policy), problem: Problem { path, message: error.message } };
    }
    let path = pool_path(&error.path, doc, secrets);
    Culprit { policy: None, problem: Problem { path, message: error.message } }
}

/// `limits[3].requests.burst` is place 3 and `.requests.burst`.
fn place<'a>(path: &'a str, list: &str) -> Option<(usize, &'a str)> {
    let (place, rest) = path.strip_prefix(list)?.split_once(']')?;
    Some((place.parse().ok()?, rest))
}

/// The same with the place that an item of a list has in the policy: a plan has its lists in order.
fn as_written(rest: &str, limit: &LimitDoc, written: &Limit) -> Option<String> {
    let (field, more) = rest.strip_prefix('.')?.split_once('[')?;
    let (place, more) = more.split_once(']')?;
    let place: usize = place.parse().ok()?;
    let matches = written.matches.as_ref();
    let find = |item: &str, list: &[String]| list.iter().position(|other| other.eq_ignore_ascii_case(item));
    let place = match field {
        "per" => find(&limit.per.get(place)?.to_string(), &written.per),
        "models" => find(limit.models.get(place)?, &matches?.models),
        "tiers" => find(limit.tiers.get(place)?, &matches?.tiers),
        "cidrs" => find(limit.cidrs.get(place)?, &matches?.cidrs),
        "headers" => {
            let name = &limit.headers.get(place)?.name;
            matches?.headers.iter().position(|header| header.name == *name)
        }
        _ => None,
    };
    Some(format!(".{field}[{}]{more}", place?))
}

/// Where a field of the plan's limit stands in the policy's.
fn limit_path(rest: &str) -> String {
    const RATES: [&str; 5] = ["requests", "tokens", "inputTokens", "outputTokens", "slotSeconds"];
    const MATCHES: [&str; 6] = ["endpoints", "paths", "models", "tiers", "headers", "cidrs"];
    let field = rest.strip_prefix('.').unwrap_or(rest);
    let (first, more) = field.split_once('.').unwrap_or((field, ""));
    let name = first.split_once('[').map_or(first, |(name, _)| name);
    match (name, more) {
        ("reset", "timeZone") => ".timeZone".to_owned(),
        ("reset", _) => ".resetAt".to_owned(),
        ("onExceed", "maxWaitMs") => ".onExceed.maxWait".to_owned(),
        ("adaptive", _) => ".adaptive.minPercent".to_owned(),
        (rate, "burst") if RATES.contains(&rate) => format!(".burst.{rate}"),
        (rate, _) if RATES.contains(&rate) => format!(".{rate}"),
        ("paths", _) => format!(".match.{first}.value"),
        (matches, _) if MATCHES.contains(&matches) => format!(".match{rest}"),
        _ => rest.to_owned(),
    }
}

/// Where a field of the plan stands in the pool. An API key stands in a Secret, which its tier may tell.
fn pool_path(path: &str, doc: &PlanDoc, secrets: &[ApiKeySecret]) -> String {
    if let Some((key, _)) = place(path, "identity.apiKeys[") {
        let tier = doc.identity.api_keys.get(key).and_then(|key| key.tier.as_ref());
        let secret = secrets.iter().position(|secret| tier.is_some() && secret.tier.as_ref() == tier);
        let named = secret.map(|place| format!("[{place}]")).unwrap_or_default();
        return format!("spec.identity.apiKeys{named}");
    }
    match path {
        "queue.maxDepth" => "spec.capacity.queue.maxDepth".to_owned(),
        "queue.maxWaitMs" => "spec.capacity.queue.maxWaitSeconds".to_owned(),
        "queue.batchMaxWaitMs" => "spec.capacity.queue.batchMaxWaitSeconds".to_owned(),
        "queue.maxDepthPerClient" => "spec.capacity.queue.maxDepthPerClient".to_owned(),
        "tokens.cachedWeightMilli" => "spec.tokens.cachedTokenPercent".to_owned(),
        "tokens.contextLength" => "spec.ollama.contextLength".to_owned(),
        _ if path.starts_with("identity.") || path.starts_with("tokens.") => format!("spec.{path}"),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_plan_become_paths_of_the_policy() {
        for (plan, policy) in [
            (".requests.burst", ".burst.requests"),
            (".requests.countMilli", ".requests"),
            (".requests", ".requests"),
            (".slotSeconds.burst", ".burst.slotSeconds"),
            (".models[2]", ".match.models[2]"),
            (".endpoints", ".match.endpoints"),
            (".headers[1].name", ".match.headers[1].name"),
            (".paths[0]", ".match.paths[0].value"),
            (".tiers[0]", ".match.tiers[0]"),
            (".reset.timeZone", ".timeZone"),
            (".reset.minuteOfDay", ".resetAt"),
            (".onExceed.maxWaitMs", ".onExceed.maxWait"),
            (".onExceed.action", ".onExceed.action"),
            (".adaptive.minMilli", ".adaptive.minPercent"),
            (".per", ".per"),
            (".per[1]", ".per[1]"),
        ] {
            assert_eq!(limit_path(plan), policy);
        }
        assert_eq!(place("limits[12].per", "limits["), Some((12, ".per")));
        assert_eq!(place("limits", "limits["), None);
    }

    #[test]
    fn paths_of_the_plan_become_paths_of_the_pool() {
        let doc = PlanDoc::default();
        for (plan, pool) in [
            ("identity.trustedProxies[1]", "spec.identity.trustedProxies[1]"),
            ("queue.maxWaitMs", "spec.capacity.queue.maxWaitSeconds"),
            ("queue.batchMaxWaitMs", "spec.capacity.queue.batchMaxWaitSeconds"),
            ("queue.maxDepthPerClient", "spec.capacity.queue.maxDepthPerClient"),
            ("identity.priorityHeader", "spec.identity.priorityHeader"),
            ("tokens.outputCap", "spec.tokens.outputCap"),
            ("tokens.contextLength", "spec.ollama.contextLength"),
            ("identity.apiKeys[7].digest", "spec.identity.apiKeys"),
            ("limits", "limits"),
        ] {
            assert_eq!(pool_path(plan, &doc, &[]), pool);
        }
    }
}
