//! What of a pool shapes its pods, and the identity that this gives a revision.
//!
//! It is what the user wrote, and nothing that the operator adds: a release with another sidecar image, another Ollama
//! image or another builder finds the same inputs. A field that the user left alone counts as much as one set to its
//! default, so a release with a new field finds the same inputs as well.

use std::fmt;

use corral_crds::pool::OllamaPoolSpec;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::pool::validate::ValidPool;

/// Hexadecimal digits of the inputs' hash in an identity.
const INPUT_DIGITS: usize = 12;
/// Hexadecimal digits of the hash of an update that was asked for.
const UPDATE_DIGITS: usize = 8;

/// Which inputs a revision was rendered from, and at which request. As text `3f9a0c1b2d4e` or `3f9a0c1b2d4e-5e6f7a8b`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionId {
    inputs: String,
    update: Option<String>,
}

impl RevisionId {
    /// What a pool asks for.
    pub fn of(pool: &ValidPool) -> Result<Self, serde_json::Error> {
        let inputs = serde_json::to_vec(&inputs(&pool.spec)?)?;
        let update = pool.update.as_ref().map(|update| short(update.as_bytes(), UPDATE_DIGITS));
        Ok(Self { inputs: short(&inputs, INPUT_DIGITS), update })
    }

    /// Reads an identity; none for what is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (inputs, update) =
            text.split_once('-').map_or((text, None), |(inputs, rest)| (inputs, Some(rest)));
        let is_id =
            is_hash(inputs, INPUT_DIGITS) && update.is_none_or(|update| is_hash(update, UPDATE_DIGITS));
        is_id.then(|| Self { inputs: inputs.to_owned(), update: update.map(str::to_owned) })
    }

    /// The identity in the name of a pool's revision.
    pub fn of_name(pool: &str, name: &str) -> Option<Self> {
        Self::parse(name.strip_prefix(pool)?.strip_prefix('-')?)
    }

    /// What the revision of a pool is called.
    pub fn name(&self, pool: &str) -> String {
        format!("{pool}-{self}")
    }

    /// Whether a pool that asks for this is served by `other`. One that asks for no update stays with what it has: taking
    /// the annotation away must not take the update back.
    pub fn is_served_by(&self, other: &Self) -> bool {
        self.inputs == other.inputs && (self.update.is_none() || self.update == other.update)
    }
}

impl fmt::Display for RevisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inputs)?;
        self.update.iter().try_for_each(|update| write!(f, "-{update}"))
    }
}

fn is_hash(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn short(bytes: &[u8], digits: usize) -> String {
    hex::encode(Sha256::digest(bytes)).chars().take(digits).collect()
}

/// Where a spec that shapes pods is not as an empty one.
fn inputs(spec: &OllamaPoolSpec) -> Result<Value, serde_json::Error> {
    Ok(beyond(&shaping(spec)?, &shaping(&OllamaPoolSpec::default())?))
}

/// The part of a spec that shapes pods. A new field has to be put on one side or the other here.
fn shaping(spec: &OllamaPoolSpec) -> Result<Value, serde_json::Error> {
    let OllamaPoolSpec {
        image,
        gpu,
        ollama,
        storage,
        sidecar,
        drain,
        pod_template,
        replicas: _,
        autoscaling: _,
        capacity: _,
        identity: _,
        rollout: _,
        service: _,
        tokens: _,
    } = spec;
    Ok(json!({
        "image": serde_json::to_value(image)?,
        "gpu": serde_json::to_value(gpu)?,
        "ollama": serde_json::to_value(ollama)?,
        "storage": serde_json::to_value(storage)?,
        "sidecar": serde_json::to_value(sidecar)?,
        "drain": serde_json::to_value(drain)?,
        "podTemplate": serde_json::to_value(pod_template)?,
    }))
}

/// What of `value` is not as in `default`; a field that only the default has is told as null.
fn beyond(value: &Value, default: &Value) -> Value {
    let (Value::Object(fields), Value::Object(defaults)) = (value, default) else { return value.clone() };
    let own = fields.iter().filter(|(name, value)| defaults.get(*name) != Some(value));
    let mut left: Map<String, Value> = own
        .map(|(name, value)| (name.clone(), beyond(value, defaults.get(name).unwrap_or(&Value::Null))))
        .collect();
    let gone = defaults.keys().filter(|name| !fields.contains_key(*name));
    left.extend(gone.map(|name| (name.clone(), Value::Null)));
    Value::Object(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(spec: Value, update: Option<&str>) -> ValidPool {
        let text = || "chat".to_owned();
        let spec = serde_json::from_value(spec).unwrap();
        let (labels, update) = (corral_crds::policy::Labels::new(), update.map(str::to_owned));
        ValidPool { name: text(), namespace: text(), uid: text(), labels, spec, update }
    }

    fn id(spec: Value) -> String {
        RevisionId::of(&pool(spec, None)).unwrap().to_string()
    }

    /// Another hash is another revision, and a release that computes one restarts the pods of every pool there is.
    #[test]
    fn the_hash_of_a_spec_is_the_same_in_every_release() {
        let full = json!({
            "image": "registry.example/ollama:9",
            "gpu": {"vendor": "amd", "count": 2, "resourceName": "amd.com/mi300",
                "requirements": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]},
            "ollama": {"numParallel": 4, "maxLoadedModels": 2, "contextLength": 8192, "keepAlive": "24h",
                "flashAttention": true, "kvCacheType": "q8_0", "env": [{"name": "OLLAMA_DEBUG", "value": "1"}]},
            "storage": {"persistentVolumeClaim": {"claimName": "models", "readOnly": true}},
            "sidecar": {"image": "registry.example/sidecar:9", "resources": {"requests": {"cpu": 1}}},
            "drain": {"delaySeconds": 10, "timeoutSeconds": 600},
            "podTemplate": {"spec": {"priorityClassName": "high"}},
        });
        assert_eq!([id(json!({})), id(full)], ["44136fa355b3", "de7c7d84e7f2"]);
    }

    #[test]
    fn a_default_that_is_written_out_is_no_other_input() {
        let written = json!({"drain": {"timeoutSeconds": 300}, "gpu": {"vendor": "nvidia"}, "storage": {"emptyDir": {}}});
        assert_eq!(id(written), id(json!({})));
    }

    #[test]
    fn what_does_not_shape_a_pod_is_no_input_and_what_does_is_one() {
        let base = id(json!({}));
        for spec in [
            json!({"replicas": 7}),
            json!({"capacity": {"queue": {"maxDepth": 1}}}),
            json!({"rollout": {"maxUnavailable": 2}}),
            json!({"service": {"port": 80}}),
        ] {
            assert_eq!(id(spec.clone()), base, "{spec}");
        }
        let claim = json!({"storage": {"persistentVolumeClaim": {"claimName": "m"}}});
        let kept = json!({"storage": {"emptyDir": {}, "persistentVolumeClaim": {"claimName": "m"}}});
        for spec in [
            json!({"image": "x"}),
            json!({"gpu": {"count": 2}}),
            json!({"ollama": {"numParallel": 2}}),
            json!({"sidecar": {"image": "x"}}),
            json!({"drain": {"delaySeconds": 6}}),
            json!({"podTemplate": {"metadata": {"labels": {"a": "b"}}}}),
            claim.clone(),
        ] {
            assert_ne!(id(spec.clone()), base, "{spec}");
        }
        assert_ne!(id(claim), id(kept));
    }

    #[test]
    fn an_identity_reads_back_from_a_name_and_nothing_else_does() {
        for update in [None, Some("now")] {
            let id = RevisionId::of(&pool(json!({}), update)).unwrap();
            assert_eq!(RevisionId::of_name("chat", &id.name("chat")), Some(id));
        }
        for name in
            ["chat-", "chat-zz", "chat", "other-44136fa355b3", "chat-44136fa355b3-1", "chat-44136fa355b3-"]
        {
            assert_eq!(RevisionId::of_name("chat", name), None, "{name}");
        }
    }

    #[test]
    fn an_update_is_asked_for_by_another_value_and_not_taken_back_by_none() {
        let id = |update| RevisionId::of(&pool(json!({}), update)).unwrap();
        assert!(!id(Some("2")).is_served_by(&id(Some("1"))) && !id(Some("2")).is_served_by(&id(None)));
        assert!(id(None).is_served_by(&id(Some("1"))) && id(Some("1")).is_served_by(&id(Some("1"))));
    }
}
