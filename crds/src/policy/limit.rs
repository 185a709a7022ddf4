//! One limit: what it counts, for whom, and how.

use serde::{Deserialize, Serialize};

use super::{Adaptive, Match, Mode, OnExceed};
use crate::units::Rate;
#[cfg(feature = "kube")]
use crate::{bounds, rules};

/// One named limit. It has at least one unit; a request passes when each of them admits it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "kube", schemars(extend("x-kubernetes-validations" = rules::cel(&rules::LIMIT))))]
pub struct Limit {
    /// Its name, unique in the policy: refusals, headers, metrics and status call it by this. Counters live on by it
    /// when the policy changes. A DNS label of at most 63 characters.
    #[cfg_attr(feature = "kube", schemars(length(min = 1, max = bounds::MAX_LIMIT_NAME), extend("x-kubernetes-validations" = rules::cel(&[rules::LIMIT_NAME]))))]
    pub name: String,
    /// Whether it refuses. Default: as its policy says; it is in `Shadow` where either of them says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// What it covers. Without it: every model, on the inference endpoints (`Chat`, `Generate`, `Embed`).
    #[serde(rename = "match", default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<Match>,
    /// What a separate count is kept for: one count for each distinct combination of these, 1 to 4 of them, each of at most
    /// 71 characters.
    ///
    /// `Client`: who is charged, by the API key if one is known, else by the IP address. `ApiKey`: the client of the API key;
    /// all without a known one together. `ClientIP`: the IP address; for IPv6 its /64. `Tier`: the tier. `Model`: the model,
    /// whichever way it is spelled. `Endpoint`: the endpoint class, whichever API family is called. `Header:<name>`: the
    /// value of a header that the pool trusts, its name in lower case. `Global`: everybody together; it stands alone.
    #[cfg_attr(feature = "kube", schemars(schema_with = "crate::schema::key_parts"))]
    pub per: Vec<String>,
    /// Whether its numbers hold for the pool as a whole (`Pool`, the default) or for each pod (`Pod`).
    #[serde(default)]
    pub scope: Scope,
    /// How its rates are counted; default `TokenBucket`.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// When days begin, `HH:MM`, 5 characters; default `00:00`. Only for `FixedWindow` with a window of a day. A time that a
    /// day does not have is the first moment after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_TIME_OF_DAY), extend("x-kubernetes-validations" = rules::cel(&[rules::TIME_OF_DAY]))))]
    pub reset_at: Option<String>,
    /// The time zone of `resetAt` by its name in the IANA database, such as `Europe/Kyiv`, at most 64 characters; default
    /// `UTC`. Only for `FixedWindow` with a window of a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_TIME_ZONE), extend("x-kubernetes-validations" = rules::cel(&[rules::TIME_ZONE]))))]
    pub time_zone: Option<String>,
    /// The rate of requests, `<count>/<window>`: `60/m`, `1.5/s`, `2k/6h`, `100/15m`; from 1 in 31 days to a billion a second. At
    /// most 24 characters.
    ///
    /// By default it is a bucket that refills steadily and holds `burst.requests`, not a calendar window: `60/m` lets 10
    /// requests through at one instant, refuses the 11th, and then admits one each second. Any window of length `t` admits
    /// at most burst + rate × t: for `60/m`, 70 in any minute. `algorithm` has other ways to count, and their bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_RATE), extend("x-kubernetes-validations" = rules::cel(&[rules::RATE]))))]
    pub requests: Option<String>,
    /// The rate of tokens, of prompts and answers together, as `requests` is written: `40k/m`. At most 24 characters.
    ///
    /// A request is charged an estimate, more while its answer grows beyond it, and what Ollama counted in the end: what was
    /// too little delays the next requests. Any window admits at most burst + rate × t, and what requests in flight turn
    /// out to take above their estimates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_RATE), extend("x-kubernetes-validations" = rules::cel(&[rules::RATE]))))]
    pub tokens: Option<String>,
    /// The rate of prompt tokens, as `requests` is written. At most 24 characters.
    ///
    /// Charged and bounded as `tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_RATE), extend("x-kubernetes-validations" = rules::cel(&[rules::RATE]))))]
    pub input_tokens: Option<String>,
    /// The rate of answer tokens, as `requests` is written. At most 24 characters.
    ///
    /// Charged and bounded as `tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_RATE), extend("x-kubernetes-validations" = rules::cel(&[rules::RATE]))))]
    pub output_tokens: Option<String>,
    /// The rate of seconds for which slots of Ollama are held, as `requests` is written: `600/h`. At most 24 characters.
    ///
    /// Charged and bounded as `tokens`. It is no GPU time: with several slots their seconds run side by side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_RATE), extend("x-kubernetes-validations" = rules::cel(&[rules::RATE]))))]
    pub slot_seconds: Option<String>,
    /// How many requests may be inside at one time, waiting for Ollama or running in it; 1 to 1,000,000. With the action `Queue`
    /// those that run alone count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = bounds::MAX_CONCURRENCY)))]
    pub concurrency: Option<u32>,
    /// How many requests may wait for a slot at one time; 1 to 1,000,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = bounds::MAX_CONCURRENCY)))]
    pub queued: Option<u32>,
    /// How many prompt tokens, as estimated, may wait for a slot at one time; 1 to 1,000,000,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = bounds::MAX_BURST)))]
    pub queued_tokens: Option<u32>,
    /// How much may come at one instant, by unit. Not for algorithms that count windows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<Burst>,
    /// What becomes of a request that exceeds it. Default: it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_exceed: Option<OnExceed>,
    /// Whether its numbers follow how Ollama fares. Default: they stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<Adaptive>,
}

/// How the rates of a limit are counted. N is the count of a rate and W its window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum Algorithm {
    /// A bucket that refills steadily (GCRA). Any window of length t admits at most burst + N × t / W.
    #[default]
    TokenBucket,
    /// One after the other at an even pace. What comes too early waits, as many as the burst says. Any window of length t
    /// starts at most 1 + N × t / W.
    LeakyBucket,
    /// The window before, weighted by how much of it still counts, and this one. Any window W admits less than 2 × N.
    SlidingWindow,
    /// Every request by its time: any window W admits at most N. For `requests` alone, at most 10,000 in a window.
    SlidingLog,
    /// Windows of a minute, an hour or a day by the clock. Around an edge of two windows up to 2 × N may come close together.
    FixedWindow,
}

/// Whom the numbers of a limit are for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum Scope {
    /// The pool as a whole: each serving pod enforces its share.
    #[default]
    Pool,
    /// Each pod has the whole of it.
    Pod,
}

/// How much may come at one instant, by unit; each member needs the rate of the same name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Burst {
    /// Requests at one instant, 1 to 1,000,000,000. Default: a sixth of the count in `requests`, rounded up
    /// (`1/s` → 1, `60/m` → 10, `3600/h` → 600).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = bounds::MAX_BURST)))]
    pub requests: Option<u32>,
    /// Tokens at one instant, 1 to 1,000,000,000. Default: the count in `tokens`, rounded up.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = bounds::MAX_BURST)))]
    pub tokens: Option<u32>,
    /// Prompt tokens at one instant, 1 to 1,000,000,000. Default: the count in `inputTokens`, rounded up.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = bounds::MAX_BURST)))]
    pub input_tokens: Option<u32>,
    /// Answer tokens at one instant, 1 to 1,000,000,000. Default: the count in `outputTokens`, rounded up.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = bounds::MAX_BURST)))]
    pub output_tokens: Option<u32>,
    /// Seconds of slots at one instant, 1 to 1,000,000,000. Default: the count in `slotSeconds`, rounded up.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = bounds::MAX_BURST)))]
    pub slot_seconds: Option<u32>,
}

/// One rate of a limit, with the burst that is written for it.
#[derive(Debug, Clone, Copy)]
pub struct WrittenRate<'a> {
    /// What the field is called.
    pub field: &'static str,
    /// The rate, as it is written.
    pub rate: Option<&'a str>,
    /// The burst, if one is written.
    pub burst: Option<u32>,
}

impl WrittenRate<'_> {
    /// What may come at once where no burst is written: a sixth of the requests, of anything else the whole count; of an
    /// algorithm that counts windows always the whole.
    pub(crate) fn default_burst(&self, algorithm: Algorithm, rate: Rate) -> u64 {
        match self.field {
            "requests" if !algorithm.counts_windows() => rate.sixth(),
            _ => rate.whole(),
        }
    }
}

impl Algorithm {
    /// Whether it counts windows, and so takes no burst.
    pub fn counts_windows(self) -> bool {
        matches!(self, Self::SlidingWindow | Self::SlidingLog | Self::FixedWindow)
    }
}

impl Limit {
    /// Its rates, whether they are written or not: requests, tokens, inputTokens, outputTokens, slotSeconds.
    pub fn rates(&self) -> [WrittenRate<'_>; 5] {
        let burst = self.burst.clone().unwrap_or_default();
        [
            WrittenRate { field: "requests", rate: self.requests.as_deref(), burst: burst.requests },
            WrittenRate { field: "tokens", rate: self.tokens.as_deref(), burst: burst.tokens },
            WrittenRate {
                field: "inputTokens",
                rate: self.input_tokens.as_deref(),
                burst: burst.input_tokens,
            },
            WrittenRate {
                field: "outputTokens",
                rate: self.output_tokens.as_deref(),
                burst: burst.output_tokens,
            },
            WrittenRate {
                field: "slotSeconds",
                rate: self.slot_seconds.as_deref(),
                burst: burst.slot_seconds,
            },
        ]
    }

    /// Whether it counts anything.
    pub fn has_unit(&self) -> bool {
        let counts = [self.concurrency, self.queued, self.queued_tokens];
        self.rates().iter().any(|rate| rate.rate.is_some()) || counts.iter().any(Option::is_some)
    }
}
