//! What becomes of what exceeds a limit, and whether a limit's numbers move.

use serde::{Deserialize, Serialize};

#[cfg(feature = "kube")]
use crate::{bounds, rules};

/// What becomes of a request that exceeds a limit. Of several limits that it exceeds, `Reject` wins over `Delay`, that over
/// `Queue`, and that over `Deprioritize`; the longest of their waits counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
#[cfg_attr(feature = "kube", schemars(extend("x-kubernetes-validations" = rules::cel(&[rules::MAX_WAIT_WHERE_WAITING]))))]
pub struct OnExceed {
    /// What is done; default `Reject`.
    pub action: Action,
    /// The longest that `Queue` and `Delay` let a request wait before it is refused: whole seconds or minutes, `1s` to `10m`, at
    /// most 8 characters. Needed for these two, and not for the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_WAIT_TEXT), extend("x-kubernetes-validations" = rules::cel(&[rules::MAX_WAIT]))))]
    pub max_wait: Option<String>,
    /// What becomes of a request that costs more than the limit can ever hold; default `Debt`.
    pub oversize: Oversize,
}

/// What is done with a request that exceeds a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum Action {
    /// It is refused with 429 and told when to come back.
    #[default]
    Reject,
    /// It waits in the pool's queue until the limit allows; it is charged when it starts.
    Queue,
    /// It is paced: it gets a start time at once, in order of arrival, and is charged when it comes.
    Delay,
    /// It is not charged to this limit, and gets a slot only when nobody else wants it. The bound of the limit is soft then.
    Deprioritize,
}

/// What becomes of a request that costs more than a limit can ever hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum Oversize {
    /// It is admitted when nothing else is used, and what is above delays the next ones.
    #[default]
    Debt,
    /// It is refused with 400, for it would never be admitted.
    Reject,
}

/// Lets a limit's numbers follow how Ollama fares, in each pod by itself: halved when requests wait too long or fail, and up by a
/// tenth after each 30 s without trouble. Status and bounds tell the whole numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Adaptive {
    /// How much of its numbers is left at least, in percent; 1 to 99. The most is what the limit says.
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 99)))]
    pub min_percent: u32,
}

impl OnExceed {
    /// The longest wait in milliseconds; none where there is none, or what is written is none.
    pub fn max_wait_ms(&self) -> Option<u64> {
        wait_ms(self.max_wait.as_deref()?)
    }
}

/// `1s` to `10m`, in milliseconds.
pub(crate) fn wait_ms(text: &str) -> Option<u64> {
    let (end, unit) = text.char_indices().next_back()?;
    let (factor, most) = match unit {
        's' => (1000, 600),
        'm' => (60_000, 10),
        _ => return None,
    };
    let number = text.get(..end)?;
    let plain =
        !number.starts_with('0') && number.len() <= 3 && number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = plain.then(|| number.parse().ok())??;
    (number <= most).then_some(number * factor)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use regex::Regex;

    use super::*;
    use crate::{bounds, rules};

    static GRAMMAR: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(rules::MAX_WAIT.cel.split('\'').nth(1).unwrap()).unwrap());

    #[test]
    fn waits_are_seconds_or_minutes_up_to_ten() {
        assert_eq!(wait_ms("1s"), Some(1000));
        assert_eq!(wait_ms("90s"), Some(90_000));
        assert_eq!((wait_ms("600s"), wait_ms("10m")), (Some(bounds::MAX_WAIT_MS), Some(bounds::MAX_WAIT_MS)));
        for bad in
            ["", "s", "0s", "601s", "11m", "1h", "1m30s", "500ms", "01s", "1.5s", "-1s", "+1s", "1 s", "é"]
        {
            assert_eq!(wait_ms(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn the_grammar_is_that_of_the_schema(text in "[0-9]{0,4}[smh]{0,2}") {
            prop_assert_eq!(wait_ms(&text).is_some(), GRAMMAR.is_match(&text), "{}", text);
        }
    }
}
