//! What a `ScaledObject` asks for, read from the `metadata` of its trigger. Pure.

use std::collections::BTreeMap;

use corral_wire::PoolRef;

use super::externalscaler::ScaledObjectRef;
use super::measure::Metric;

/// What a `ScaledObject` asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Of which pool.
    pub pool: PoolRef,
    /// What is measured.
    pub metric: Metric,
    /// How much of it one replica should have; none: [`Metric::usual_target`].
    pub target: Option<f64>,
}

/// The largest target.
const MAX_TARGET: f64 = 1_000_000.0;
/// The longest name of a pool or a namespace.
const MAX_NAME: usize = 63;
/// The most characters of a wrong value that are repeated.
const MAX_SHOWN: usize = 64;
/// What the trigger's `metadata` may hold for the scaler.
const OURS: [&str; 4] = ["pool", "namespace", "metric", "target"];
/// What it holds for KEDA itself.
const KEDAS: [&str; 6] =
    ["scalerAddress", "enableTLS", "unsafeSsl", "caCert", "tlsClientCert", "tlsClientKey"];

/// What is wrong with the `metadata` of a trigger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMetadata {
    /// No pool is named.
    #[error("metadata.pool is missing: write the name of an OllamaPool")]
    NoPool,
    /// The `ScaledObject` says nothing of itself.
    #[error("scaledObjectRef is missing: KEDA always sends it")]
    NoReference,
    /// No namespace is known.
    #[error("metadata.namespace is missing, and the ScaledObject has none")]
    NoNamespace,
    /// What cannot be a name.
    #[error(
        "metadata.{key}: {value:?} is no name: 1 to {MAX_NAME} of a-z, 0-9 and -, and none of those at its ends but letters and digits"
    )]
    BadName {
        /// The key.
        key: &'static str,
        /// What stands there.
        value: String,
    },
    /// A metric that nobody knows.
    #[error("metadata.metric: {0:?} is none of desiredReplicas, queuedRequests, busySlots")]
    BadMetric(String),
    /// A target that no number of replicas reaches.
    #[error("metadata.target: {0:?} is no number above 0 and up to 1000000")]
    BadTarget(String),
    /// A target that would change how many pods are asked for.
    #[error(
        "metadata.target: with metric desiredReplicas it is always 1, as the value is a number of pods; leave it out"
    )]
    NeedlessTarget,
    /// A key that nobody reads.
    #[error("metadata.{0} is no key of this scaler; it reads pool, namespace, metric and target")]
    UnknownKey(String),
}

impl Wanted {
    /// Reads it.
    pub fn of(reference: &ScaledObjectRef) -> Result<Self, BadMetadata> {
        let all = &reference.scaler_metadata;
        let is_known = |key: &str| OURS.contains(&key) || KEDAS.contains(&key);
        if let Some(unknown) = all.keys().find(|key| !is_known(key)) {
            return Err(BadMetadata::UnknownKey(shown(unknown)));
        }
        let metric = metric(all)?;
        Ok(Self { pool: pool(reference)?, metric, target: target(all, metric)? })
    }
}

fn given<'a>(all: &'a BTreeMap<String, String>, key: &str) -> Option<&'a str> {
    all.get(key).map(|value| value.trim()).filter(|value| !value.is_empty())
}

fn pool(reference: &ScaledObjectRef) -> Result<PoolRef, BadMetadata> {
    let all = &reference.scaler_metadata;
    let own = Some(reference.namespace.as_str()).filter(|own| !own.is_empty());
    let namespace = given(all, "namespace").or(own).ok_or(BadMetadata::NoNamespace)?;
    let name = given(all, "pool").ok_or(BadMetadata::NoPool)?;
    Ok(PoolRef { namespace: checked("namespace", namespace)?, name: checked("pool", name)? })
}

fn checked(key: &'static str, name: &str) -> Result<String, BadMetadata> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_name = name.len() <= MAX_NAME
        && name.bytes().all(inner)
        && !name.is_empty()
        && !name.starts_with('-')
        && !name.ends_with('-');
    if is_name { Ok(name.to_owned()) } else { Err(BadMetadata::BadName { key, value: shown(name) }) }
}

fn metric(all: &BTreeMap<String, String>) -> Result<Metric, BadMetadata> {
    let Some(name) = given(all, "metric") else { return Ok(Metric::default()) };
    let exact = Metric::ALL.into_iter().find(|metric| metric.as_str() == name);
    exact.ok_or_else(|| BadMetadata::BadMetric(shown(name)))
}

fn target(all: &BTreeMap<String, String>, metric: Metric) -> Result<Option<f64>, BadMetadata> {
    let Some(text) = given(all, "target") else { return Ok(None) };
    let number = text.parse::<f64>().ok().filter(|number| *number > 0.0 && *number <= MAX_TARGET);
    let number = number.ok_or_else(|| BadMetadata::BadTarget(shown(text)))?;
    // A number that is written as 1 is 1.
    if metric == Metric::DesiredReplicas && (number - 1.0).abs() > 0.0 {
        return Err(BadMetadata::NeedlessTarget);
    }
    Ok(Some(number))
}

/// As much of a value as a message repeats.
fn shown(value: &str) -> String {
    value.chars().take(MAX_SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Wanted, BadMetadata> {
        let metadata = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let (name, namespace) = ("chat".to_owned(), "llm".to_owned());
        Wanted::of(&ScaledObjectRef { name, namespace, scaler_metadata: metadata.collect() })
    }

    fn said(pairs: &[(&str, &str)]) -> String {
        read(pairs).unwrap_err().to_string()
    }

    #[test]
    fn a_pool_is_enough_and_lies_where_the_scaled_object_does() {
        let wanted = read(&[("pool", "chat"), ("scalerAddress", "corral-keda:9090")]).unwrap();
        let pool = PoolRef { namespace: "llm".into(), name: "chat".into() };
        assert_eq!(wanted, Wanted { pool, metric: Metric::DesiredReplicas, target: None });
    }

    #[test]
    fn everything_can_be_said() {
        let all = [("pool", "chat"), ("namespace", "gpu"), ("metric", "busySlots"), ("target", "2.5")];
        let wanted = read(&all).unwrap();
        assert_eq!((wanted.pool.namespace.as_str(), wanted.metric), ("gpu", Metric::BusySlots));
        assert_eq!(wanted.target, Some(2.5));
        assert!(read(&[("pool", "chat"), ("target", "1")]).is_ok());
    }

    #[test]
    fn what_is_wrong_is_named_by_its_key() {
        assert!(said(&[]).starts_with("metadata.pool is missing"));
        for (key, value) in [
            ("metric", "cpu"),
            ("metric", "busyslots"),
            ("target", "0"),
            ("target", "-3"),
            ("target", "NaN"),
            ("target", "inf"),
            ("target", "1e9"),
            ("target", "4"),
            ("pool", "Chat"),
            ("pool", "-chat"),
            ("pool", "a/b"),
            ("namespace", "gpu_1"),
            ("targets", "4"),
        ] {
            let pairs = if key == "pool" { vec![(key, value)] } else { vec![("pool", "chat"), (key, value)] };
            let said = said(&pairs);
            assert!(said.starts_with(&format!("metadata.{key}")), "{key}={value}: {said}");
        }
    }

    #[test]
    fn a_long_value_is_not_repeated_whole() {
        let long = "x".repeat(10_000);
        for pairs in [[("pool", long.as_str())], [("metric", &long)], [("target", &long)], [(&long, "1")]] {
            assert!(said(&pairs).len() < 300, "{}", said(&pairs));
        }
    }

    #[test]
    fn without_a_namespace_there_is_no_pool() {
        let metadata = BTreeMap::from([("pool".to_owned(), "chat".to_owned())]);
        let nowhere = ScaledObjectRef { scaler_metadata: metadata, ..ScaledObjectRef::default() };
        assert_eq!(Wanted::of(&nowhere), Err(BadMetadata::NoNamespace));
    }
}
