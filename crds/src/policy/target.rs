//! Which pools a policy applies to.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::Labels;
#[cfg(feature = "kube")]
use crate::{bounds, rules};

/// The kind that a target names; there is no other yet.
pub const TARGET_KIND: &str = "OllamaPool";

/// Names a pool in the policy's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", schemars(extend("x-kubernetes-validations" = rules::cel(&[rules::TARGET_KIND, rules::TARGET_GROUP]))))]
pub struct TargetRef {
    /// The API group of the target: `corral.dev`, which is also the default; at most 63 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_TARGET_WORD)))]
    pub group: Option<String>,
    /// The kind of the target: `OllamaPool`; at most 63 characters.
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_TARGET_WORD)))]
    pub kind: String,
    /// The pool's name, 1 to 253 characters.
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = bounds::MAX_NAME)))]
    pub name: String,
}

/// Selects pools by their labels: those that keep all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// Labels that a pool has with just these values; at most 16, each value of at most 63 characters.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "kube", schemars(schema_with = "crate::schema::labels"))]
    pub match_labels: Labels,
    /// What else is asked of its labels; at most 16.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_SELECTOR), extend("x-kubernetes-list-type" = "atomic")))]
    pub match_expressions: Vec<LabelRequirement>,
}

/// One requirement on a pool's labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", schemars(extend("x-kubernetes-validations" = rules::cel(&[rules::SELECTOR_VALUES]))))]
pub struct LabelRequirement {
    /// The label, 1 to 317 characters.
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = bounds::MAX_LABEL_KEY)))]
    pub key: String,
    /// How the label's value compares with `values`.
    pub operator: SelectorOperator,
    /// What it is compared with: one or more for `In` and `NotIn`, none for `Exists` and `DoesNotExist`. At most 16, each of
    /// at most 63 characters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_SELECTOR_VALUES), inner(length(max = bounds::MAX_LABEL_VALUE)), extend("x-kubernetes-list-type" = "atomic")))]
    pub values: Vec<String>,
}

/// How a label's value compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum SelectorOperator {
    /// It is one of the values.
    In,
    /// It is none of the values, or the label is not there.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
}

impl SelectorOperator {
    /// Whether it compares with values.
    pub fn takes_values(self) -> bool {
        matches!(self, Self::In | Self::NotIn)
    }
}

impl LabelSelector {
    /// Whether a pool with these labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.holds(labels))
    }
}

impl LabelRequirement {
    fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            SelectorOperator::In => value.is_some_and(|value| self.values.contains(value)),
            SelectorOperator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            SelectorOperator::Exists => value.is_some(),
            SelectorOperator::DoesNotExist => value.is_none(),
        }
    }
}

/// As `kubectl get --selector` takes it, cut to 256 characters; of `{}` it says `all pools`.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 256;
        let equal = self.match_labels.iter().map(|(key, value)| format!("{key}={value}"));
        let parts: Vec<_> = equal.chain(self.match_expressions.iter().map(ToString::to_string)).collect();
        let all = parts.join(",");
        match all.char_indices().nth(SHOWN) {
            _ if all.is_empty() => f.write_str("all pools"),
            Some((end, _)) => write!(f, "{}…", all.get(..end).unwrap_or_default()),
            None => f.write_str(&all),
        }
    }
}

impl fmt::Display for LabelRequirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match self.operator {
            SelectorOperator::In => write!(f, "{key} in ({values})"),
            SelectorOperator::NotIn => write!(f, "{key} notin ({values})"),
            SelectorOperator::Exists => write!(f, "{key}"),
            SelectorOperator::DoesNotExist => write!(f, "!{key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirement(operator: SelectorOperator, values: &[&str]) -> LabelRequirement {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        LabelRequirement { key: "env".to_owned(), operator, values }
    }

    #[test]
    fn requirements_hold_as_kubernetes_reads_them() {
        use SelectorOperator::{DoesNotExist, Exists, In, NotIn};
        for (operator, values, holds, text) in [
            (In, &["dev", "test"][..], [true, false, false], "env in (dev,test)"),
            (NotIn, &["dev"], [false, true, true], "env notin (dev)"),
            (Exists, &[], [true, true, false], "env"),
            (DoesNotExist, &[], [false, false, true], "!env"),
        ] {
            let asked = requirement(operator, values);
            let selector = LabelSelector { match_expressions: vec![asked], ..LabelSelector::default() };
            let env = |value: &str| Labels::from([("env".to_owned(), value.to_owned())]);
            let found = [env("dev"), env("prod"), Labels::new()].map(|labels| selector.matches(&labels));
            assert_eq!((found, selector.to_string().as_str()), (holds, text));
        }
    }

    #[test]
    fn an_empty_selector_selects_every_pool() {
        assert!(LabelSelector::default().matches(&Labels::new()));
        assert_eq!(LabelSelector::default().to_string(), "all pools");
    }
}
