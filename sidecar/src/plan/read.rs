//! Reads a plan: from bytes to a compiled plan, or to one sentence that says what is wrong with it.

use std::sync::Arc;

use corral_limiter::{CompileErrors, Plan, compile};
use corral_wire::{PLAN_VERSION, PlanDoc, PoolRef};
use serde_json::Value;

/// The most bytes of a plan: what fits a Secret.
pub const MAX_PLAN_BYTES: usize = 1024 * 1024;

/// Why a plan was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// It is larger than a Secret can be.
    #[error("the plan has more than {MAX_PLAN_BYTES} bytes")]
    TooLarge,
    /// It is not a plan of a version that this build reads.
    #[error("the plan has version {0}; this build reads {PLAN_VERSION}")]
    Version(u64),
    /// It cannot be read.
    #[error("the plan cannot be read: {0}")]
    Unreadable(String),
    /// It is for another pool.
    #[error("the plan is for pool {found}, not {expected}")]
    OtherPool {
        /// This sidecar's pool.
        expected: String,
        /// The plan's.
        found: String,
    },
    /// It says what cannot be.
    #[error("the plan does not compile: {0}")]
    Compile(#[from] CompileErrors),
    /// A later one is in force.
    #[error("the plan has sequence {offered}, and {held} is in force")]
    Behind {
        /// The sequence offered.
        offered: u64,
        /// The sequence in force.
        held: u64,
    },
    /// Another plan of the same sequence is in force.
    #[error("another plan with the same sequence {0} is in force")]
    Conflict(u64),
}

/// Reads a plan from its text.
pub fn from_bytes(bytes: &[u8]) -> Result<PlanDoc, PlanError> {
    if bytes.len() > MAX_PLAN_BYTES {
        return Err(PlanError::TooLarge);
    }
    let value = serde_json::from_slice(bytes).map_err(|e| PlanError::Unreadable(e.to_string()))?;
    from_value(value)
}

/// Reads a plan from JSON. The version comes first: a later one may hold anything.
pub fn from_value(value: Value) -> Result<PlanDoc, PlanError> {
    match value.get("version").and_then(Value::as_u64) {
        Some(version) if version == u64::from(PLAN_VERSION) => {
            serde_json::from_value(value).map_err(|e| PlanError::Unreadable(e.to_string()))
        }
        Some(version) => Err(PlanError::Version(version)),
        None => Err(PlanError::Unreadable("it has no version".to_owned())),
    }
}

/// Compiles a plan for this pool.
pub fn compiled(doc: &PlanDoc, pool: &PoolRef) -> Result<Arc<Plan>, PlanError> {
    if doc.pool != *pool {
        return Err(PlanError::OtherPool { expected: named(pool), found: named(&doc.pool) });
    }
    Ok(Arc::new(compile(doc)?))
}

/// `namespace/name`.
pub(crate) fn named(pool: &PoolRef) -> String {
    format!("{}/{}", pool.namespace, pool.name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan() -> Value {
        json!({
            "version": 1, "sequence": 3,
            "pool": {"namespace": "llm", "name": "chat"},
            "identity": {"trustedProxies": []},
            "queue": {"maxDepth": 8, "maxWaitMs": 1000},
            "limits": [],
        })
    }

    #[test]
    fn a_plan_is_read_whole_or_not_at_all() {
        assert_eq!(from_value(plan()).unwrap().sequence, 3);
        let mut newer = plan();
        newer["version"] = json!(2);
        newer["surprise"] = json!(true);
        assert_eq!(from_value(newer), Err(PlanError::Version(2)));
        let mut unknown = plan();
        unknown["surprise"] = json!(true);
        assert!(matches!(from_value(unknown), Err(PlanError::Unreadable(why)) if why.contains("surprise")));
        assert!(matches!(from_bytes(b"{\"version\":1"), Err(PlanError::Unreadable(_))));
        assert_eq!(from_bytes(&vec![b' '; MAX_PLAN_BYTES + 1]), Err(PlanError::TooLarge));
    }

    #[test]
    fn a_plan_for_another_pool_is_refused() {
        let doc = from_value(plan()).unwrap();
        let other = PoolRef { namespace: "llm".into(), name: "code".into() };
        let error = compiled(&doc, &other).unwrap_err();
        assert_eq!(error.to_string(), "the plan is for pool llm/chat, not llm/code");
        assert!(compiled(&doc, &doc.pool).is_ok());
    }
}
