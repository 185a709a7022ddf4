//! The cases of `tests/cases`: objects, and what the API says of them.

use serde::Deserialize;
use serde_json::Value;

/// One object, and what the API says of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// What it is about: each has objects that are accepted and objects that are refused.
    pub(crate) about: String,
    pub(crate) name: String,
    pub(crate) object: Value,
    pub(crate) expect: Expect,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Expect {
    Word(Word),
    Refused { field: String, message: String },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Word {
    Accepted,
}

/// Something that is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) field: String,
    pub(crate) message: String,
}

impl Case {
    /// Whether what was found is what is expected: nothing, or this cause and none about another field.
    pub(crate) fn is_met_by(&self, causes: &[Cause]) -> bool {
        match &self.expect {
            Expect::Word(Word::Accepted) => causes.is_empty(),
            Expect::Refused { field, message } => {
                causes.iter().any(|cause| cause.field == *field && cause.message.contains(message))
                    && causes.iter().all(|cause| cause.field.starts_with(field))
            }
        }
    }
}

/// All cases, pools first.
pub(crate) fn all() -> Vec<Case> {
    let files = [include_str!("../cases/ollamapools.yaml"), include_str!("../cases/ratelimitpolicies.yaml")];
    files.iter().flat_map(|file| serde_yaml::from_str::<Vec<Case>>(file).unwrap()).collect()
}
