//! From the plan on the wire to a [`Plan`], or to everything that is wrong with it at once.

use std::{collections::HashSet, fmt, num::NonZeroU32, sync::Arc};

use corral_wire::{EndpointClass, KeyPart, LimitDoc, Mode, PLAN_VERSION, PlanDoc, QueueDoc, RateDoc, Scope};
use hashbrown::HashMap;
use ipnet::IpNet;

use super::{BUILT_IN_POLICY, Limit, LimitInfo, Plan, Rate, matching::MatchTable};
use crate::{ModelName, Nanos, QueueBounds};

/// The most limits of a plan.
const MOST_LIMITS: usize = 256;
/// The most models that one limit lists.
const MOST_MODELS: usize = 256;
/// The most trusted proxies.
const MOST_PROXIES: usize = 256;
/// The most requests that may wait.
const MOST_WAITING: u32 = 100_000;
/// The longest that a request may wait, in milliseconds: one hour.
const LONGEST_WAIT_MS: u64 = 3_600_000;
/// The longest window, and the longest that one permit may take: 31 days.
const LONGEST_WINDOW_SECONDS: u64 = 31 * 86_400;
/// The highest rate, a permit each nanosecond, in thousandths of a permit a second.
const HIGHEST_MILLI_PER_SECOND: u64 = 1_000_000_000_000;
/// The largest burst.
const LARGEST_BURST: u64 = 1_000_000_000;
/// The highest concurrency.
const HIGHEST_CONCURRENCY: u32 = 1_000_000;

/// One thing that is wrong with a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct CompileError {
    /// Where, as in `limits[3].requests.burst`.
    pub path: String,
    /// What, in words for the author of the policy.
    pub message: String,
}

/// Everything that is wrong with a plan, in the order of the document; at least one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct CompileErrors(pub Vec<CompileError>);

impl fmt::Display for CompileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if place == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

/// Compiles a plan. The operator runs it before it sends one, the sidecar before it obeys one: the same function, so
/// that what is accepted there is enforced here.
pub fn compile(doc: &PlanDoc) -> Result<Plan, CompileErrors> {
    let mut errors = Errors::default();
    errors.check(doc.version == PLAN_VERSION, "version", || {
        format!("this build reads plan version {PLAN_VERSION}, not {}", doc.version)
    });
    // Another version may mean something else by the same words: nothing more can be said of it.
    let plan = if errors.is_empty() { read(doc, &mut errors) } else { None };
    plan.ok_or(CompileErrors(errors.0))
}

fn read(doc: &PlanDoc, errors: &mut Errors) -> Option<Plan> {
    let queue = read_queue(&doc.queue, errors);
    let trusted_proxies = read_proxies(&doc.identity.trusted_proxies, errors);
    let mut limits = read_limits(&doc.limits, errors);
    if !errors.is_empty() {
        return None;
    }
    limits.push(metadata_limit());
    limits.sort_by(|a, b| a.info.identity().cmp(&b.info.identity()));
    Some(Plan {
        sequence: doc.sequence,
        digest: doc.digest(),
        pool: doc.pool.clone(),
        queue,
        trusted_proxies,
        clients: HashMap::new(),
        digest_key: doc.identity.digest_key.clone(),
        unauthenticated: doc.identity.unauthenticated,
        headers: Vec::new(),
        tokens: doc.tokens.clone(),
        table: MatchTable::new(&mut limits),
        limits,
    })
}

/// Metadata costs Ollama little, but not nothing: 20 a second for each client IP, 20 of them at one instant.
fn metadata_limit() -> Limit {
    Limit {
        info: Arc::new(LimitInfo {
            policy: BUILT_IN_POLICY.to_owned(),
            name: "metadata".to_owned(),
            rate: Some(Rate { count_milli: 20_000, window: Nanos::from_secs(1), burst: 20 }),
            concurrency: None,
        }),
        mode: Mode::Enforce,
        endpoints: vec![EndpointClass::Metadata],
        models: Vec::new(),
        model_ids: Box::default(),
        per: vec![KeyPart::ClientIP],
        scope: Scope::Pod,
    }
}

fn read_queue(doc: &QueueDoc, errors: &mut Errors) -> QueueBounds {
    errors.check(doc.max_depth <= MOST_WAITING, "queue.maxDepth", || format!("is at most {MOST_WAITING}"));
    errors.check((1..=LONGEST_WAIT_MS).contains(&doc.max_wait_ms), "queue.maxWaitMs", || {
        format!("is 1 to {LONGEST_WAIT_MS}, one hour")
    });
    QueueBounds { max_depth: doc.max_depth, max_wait: Nanos::from_millis(doc.max_wait_ms) }
}

fn read_proxies(cidrs: &[String], errors: &mut Errors) -> Vec<IpNet> {
    errors.check(cidrs.len() <= MOST_PROXIES, "identity.trustedProxies", || {
        format!("has at most {MOST_PROXIES} entries")
    });
    let mut read = |(place, cidr): (usize, &String)| {
        let net = cidr.parse().ok();
        errors.check(net.is_some(), format!("identity.trustedProxies[{place}]"), || {
            "is no CIDR such as 10.0.0.0/8 or fd00::/64".to_owned()
        });
        net
    };
    cidrs.iter().enumerate().take(MOST_PROXIES).filter_map(&mut read).collect()
}

fn read_limits(docs: &[LimitDoc], errors: &mut Errors) -> Vec<Limit> {
    errors.check(docs.len() <= MOST_LIMITS, "limits", || {
        format!(
            "a pool has at most {MOST_LIMITS} limits, of all its policies together; here are {}",
            docs.len()
        )
    });
    let mut seen = HashSet::new();
    let mut limits = Vec::new();
    for (place, doc) in docs.iter().enumerate().take(MOST_LIMITS) {
        let path = format!("limits[{place}]");
        errors.check(seen.insert((&doc.policy, &doc.name)), format!("{path}.name"), || {
            format!("policy {} has another limit {:?}", doc.policy, doc.name)
        });
        limits.push(read_limit(&path, doc, errors));
    }
    limits
}

/// Reads one limit; what is returned is worth nothing if there are errors.
fn read_limit(path: &str, doc: &LimitDoc, errors: &mut Errors) -> Limit {
    check_identity(path, doc, errors);
    check_per(path, &doc.per, errors);
    errors.check(doc.requests.is_some() || doc.concurrency.is_some(), path, || {
        "limits nothing: it needs requests or concurrency".to_owned()
    });
    let concurrency = doc.concurrency.and_then(|most| read_concurrency(path, most, errors));
    let info = LimitInfo {
        policy: doc.policy.clone(),
        name: doc.name.clone(),
        rate: doc.requests.map(|rate| read_rate(&format!("{path}.requests"), rate, errors)),
        concurrency,
    };
    Limit {
        info: Arc::new(info),
        mode: doc.mode,
        endpoints: read_endpoints(&doc.endpoints),
        models: read_models(path, &doc.models, errors),
        model_ids: Box::default(),
        per: sorted(doc.per.clone()),
        scope: doc.scope,
    }
}

fn check_identity(path: &str, doc: &LimitDoc, errors: &mut Errors) {
    let plain = |text: &str, longest: usize, marks: &[u8]| {
        (1..=longest).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || marks.contains(&byte))
    };
    errors.check(plain(&doc.policy, 317, b"-./"), format!("{path}.policy"), || {
        "is namespace/name, in letters, digits, - and .".to_owned()
    });
    errors.check(doc.policy != BUILT_IN_POLICY, format!("{path}.policy"), || {
        format!("{BUILT_IN_POLICY} is built in")
    });
    // The name stands in headers and metrics.
    errors.check(plain(&doc.name, 63, b"-_."), format!("{path}.name"), || {
        "has 1 to 63 letters, digits, -, _ and .".to_owned()
    });
}

fn check_per(path: &str, per: &[KeyPart], errors: &mut Errors) {
    errors.check(!per.is_empty(), format!("{path}.per"), || {
        "says whom a bucket is for: Client, ClientIP, Model, Endpoint or, for all together, Global".to_owned()
    });
    errors.check(!per.contains(&KeyPart::Global) || per.len() == 1, format!("{path}.per"), || {
        "Global means everybody together, so it stands alone".to_owned()
    });
}

fn read_endpoints(endpoints: &[EndpointClass]) -> Vec<EndpointClass> {
    match endpoints {
        [] => vec![EndpointClass::Chat, EndpointClass::Generate, EndpointClass::Embed],
        named => sorted(named.to_vec()),
    }
}

fn read_models(path: &str, names: &[String], errors: &mut Errors) -> Vec<ModelName> {
    errors.check(names.len() <= MOST_MODELS, format!("{path}.models"), || {
        format!("lists at most {MOST_MODELS} models")
    });
    let mut read = |(place, name): (usize, &String)| match ModelName::parse(name) {
        Ok(model) => Some(model),
        Err(error) => {
            errors.add(format!("{path}.models[{place}]"), error.to_string());
            None
        }
    };
    sorted(names.iter().enumerate().take(MOST_MODELS).filter_map(&mut read).collect())
}

fn read_concurrency(path: &str, most: u32, errors: &mut Errors) -> Option<NonZeroU32> {
    errors.check((1..=HIGHEST_CONCURRENCY).contains(&most), format!("{path}.concurrency"), || {
        format!("is 1 to {HIGHEST_CONCURRENCY}; 0 does not mean unlimited")
    });
    NonZeroU32::new(most)
}

fn read_rate(path: &str, doc: RateDoc, errors: &mut Errors) -> Rate {
    let window = doc.window_seconds;
    errors.check((1..=LONGEST_WINDOW_SECONDS).contains(&window), format!("{path}.windowSeconds"), || {
        "is 1 to 2678400, 31 days".to_owned()
    });
    let rate = Rate { count_milli: doc.count_milli, window: Nanos::from_secs(window), burst: doc.burst };
    let fastest = HIGHEST_MILLI_PER_SECOND.saturating_mul(window);
    errors.check(rate.count_milli >= 1, format!("{path}.countMilli"), || {
        "is at least 1; 0 does not mean unlimited".to_owned()
    });
    errors.check(rate.count_milli <= fastest, format!("{path}.countMilli"), || {
        "is above a thousand million a second".to_owned()
    });
    let slowest = Nanos::from_secs(LONGEST_WINDOW_SECONDS);
    errors.check(rate.count_milli == 0 || rate.interval() <= slowest, format!("{path}.countMilli"), || {
        "is less than one in 31 days".to_owned()
    });
    errors.check((1..=LARGEST_BURST).contains(&doc.burst), format!("{path}.burst"), || {
        format!("is 1 to {LARGEST_BURST}")
    });
    rate
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort();
    list.dedup();
    list
}

/// Errors as they are found.
#[derive(Default)]
struct Errors(Vec<CompileError>);

impl Errors {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, path: impl Into<String>, message: String) {
        self.0.push(CompileError { path: path.into(), message });
    }

    fn check(&mut self, holds: bool, path: impl Into<String>, message: impl FnOnce() -> String) {
        if !holds {
            self.add(path, message());
        }
    }
}
