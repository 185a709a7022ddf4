//! Classes of clients, and clients that are exempt.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Priority;

#[cfg(feature = "kube")]
use crate::{bounds, rules};

/// A class of clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Tier {
    /// What the pool's API keys and the policy's limits call it: a DNS label of at most 63 characters.
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = bounds::MAX_LIMIT_NAME), extend("x-kubernetes-validations" = rules::cel(&[rules::TIER_NAME]))))]
    pub name: String,
    /// What rates, bursts and concurrency are multiplied by for its clients, as a decimal text from `"0.001"` to `"1000"` with
    /// at most three places, 8 characters at most; default `"1"`. It counts in every limit of the pool whose `per` tells
    /// clients or tiers apart, and never in a bucket that clients of several tiers share. That of a policy in `Shadow`
    /// counts as 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_SCALE), extend("x-kubernetes-validations" = rules::cel(&[rules::SCALE]))))]
    pub scale: Option<String>,
    /// The share that each of its clients has of the slots, against other clients that wait with requests of the same priority:
    /// one of weight 5 gets five times as much as one of weight 1. 1 to 1000, default 1; 0 is refused. That of a policy in
    /// `Shadow` counts as 1.
    #[serde(default = "one")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = bounds::MAX_WEIGHT)))]
    pub weight: u32,
    /// How urgent the requests of its clients are, where no trusted header says so: `critical`, `high`, `medium` or `low`.
    /// Default: as `endpointPriorities` say of what they ask for, else `medium`. That of a policy in `Shadow` counts for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(with = "Priority"))]
    pub priority: Option<Priority>,
}

const fn one() -> u32 {
    1
}

impl Default for Tier {
    fn default() -> Self {
        Self { name: String::new(), scale: None, weight: one(), priority: None }
    }
}

impl Tier {
    /// Its scale in thousandths, 1 to 1,000,000; none where what is written is no scale.
    pub fn scale_milli(&self) -> Option<u32> {
        let scale = self.scale.as_deref().map_or(Ok(Scale::ONE), str::parse);
        scale.ok().map(Scale::milli)
    }
}

/// What the numbers of a limit are multiplied by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale(u32);

/// A text that is no scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", crate::rules::SCALE.message)]
pub struct BadScale;

impl Scale {
    const ONE: Self = Self(1000);

    /// In thousandths, 1 to 1,000,000.
    pub fn milli(self) -> u32 {
        self.0
    }
}

impl FromStr for Scale {
    type Err = BadScale;

    fn from_str(text: &str) -> Result<Self, BadScale> {
        let (whole, fraction) =
            text.split_once('.').map_or((text, None), |(whole, rest)| (whole, Some(rest)));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let leading = whole.len() > 1 && whole.starts_with('0');
        let placed = fraction.is_none_or(|fraction| digits(fraction) && fraction.len() <= 3);
        if !digits(whole) || whole.len() > 4 || leading || !placed {
            return Err(BadScale);
        }
        let padded = format!("{whole}{:0<3}", fraction.unwrap_or_default());
        match padded.parse() {
            Ok(milli @ 1..=1_000_000) => Ok(Self(milli)),
            _ => Err(BadScale),
        }
    }
}

/// Whom limits do not apply to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Exempt {
    /// Addresses of clients, as CIDRs; at most 64, each of at most 43 characters. An address that is claimed in
    /// `X-Forwarded-For` counts only where the pool trusts who says so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kube", schemars(schema_with = "crate::schema::networks"))]
    pub cidrs: Vec<String>,
    /// Clients by the names of their entries in the pool's key Secrets; at most 64, each of at most 63 characters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kube", schemars(schema_with = "crate::schema::client_names"))]
    pub api_keys: Vec<String>,
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use regex::Regex;

    use super::*;
    use crate::rules;

    static GRAMMAR: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(rules::SCALE.cel.split('\'').nth(1).unwrap()).unwrap());

    #[test]
    fn scales_are_decimals_of_three_places() {
        let milli = |text: &str| text.parse::<Scale>().map(Scale::milli).ok();
        for (text, expected) in [
            ("1", 1000),
            ("0.001", 1),
            ("0.5", 500),
            ("2.25", 2250),
            ("1000", 1_000_000),
            ("1000.000", 1_000_000),
            ("5.0", 5000),
        ] {
            assert_eq!(milli(text), Some(expected), "{text}");
        }
        for bad in
            ["", "0", "0.0", "0.0001", "1000.001", "1001", "01", "-1", "+1", "1.", ".5", "1e3", "1,5", "٣"]
        {
            assert_eq!(milli(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn the_grammar_is_that_of_the_schema(text in "[0-2]{0,2}[0-9]{0,3}[.]?[0-9]{0,4}") {
            prop_assert_eq!(text.parse::<Scale>().is_ok(), GRAMMAR.is_match(&text), "{}", text);
        }
    }
}
