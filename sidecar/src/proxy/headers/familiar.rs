//! The scarcest bucket of a unit under the names that SDKs know: `x-ratelimit-*` as `OpenAI` has them, on every answer,
//! and `anthropic-ratelimit-*` on `/v1/messages`.

use corral_limiter::{Nanos, Standing, Unit};
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

use super::Reset;
use crate::clock;
use crate::proxy::route::Family;
use crate::proxy::wording;

/// Three headers about one unit.
struct Trio {
    units: &'static [Unit],
    limit: HeaderName,
    remaining: HeaderName,
    reset: HeaderName,
}

macro_rules! trio {
    ($units:expr, $prefix:literal, $unit:literal) => {
        Trio {
            units: $units,
            limit: HeaderName::from_static(concat!($prefix, "limit-", $unit)),
            remaining: HeaderName::from_static(concat!($prefix, "remaining-", $unit)),
            reset: HeaderName::from_static(concat!($prefix, "reset-", $unit)),
        }
    };
    (anthropic $units:expr, $unit:literal) => {
        Trio {
            units: $units,
            limit: HeaderName::from_static(concat!("anthropic-ratelimit-", $unit, "-limit")),
            remaining: HeaderName::from_static(concat!("anthropic-ratelimit-", $unit, "-remaining")),
            reset: HeaderName::from_static(concat!("anthropic-ratelimit-", $unit, "-reset")),
        }
    };
}

const REQUESTS: &[Unit] = &[Unit::Requests];
/// Either kind may be what runs out first.
const TOKENS: &[Unit] = &[Unit::Tokens, Unit::InputTokens, Unit::OutputTokens];

static OPENAI: [Trio; 2] =
    [trio!(REQUESTS, "x-ratelimit-", "requests"), trio!(TOKENS, "x-ratelimit-", "tokens")];
static ANTHROPIC: [Trio; 4] = [
    trio!(anthropic REQUESTS, "requests"),
    trio!(anthropic TOKENS, "tokens"),
    trio!(anthropic & [Unit::InputTokens], "input-tokens"),
    trio!(anthropic & [Unit::OutputTokens], "output-tokens"),
];

pub(super) fn insert(out: &mut HeaderMap, standings: &[Standing], reset: Reset<'_>, family: Family) {
    for trio in &OPENAI {
        trio.insert(out, standings, reset, wording::duration);
    }
    if family == Family::Anthropic {
        for trio in &ANTHROPIC {
            trio.insert(out, standings, reset, clock::date_after);
        }
    }
}

impl Trio {
    /// Of standings that come scarcest first.
    fn insert(
        &self,
        out: &mut HeaderMap,
        standings: &[Standing],
        reset: Reset<'_>,
        written: fn(Nanos) -> String,
    ) {
        let Some(scarcest) = standings.iter().find(|standing| self.units.contains(&standing.unit)) else {
            return;
        };
        out.insert(&self.limit, HeaderValue::from(scarcest.quota));
        out.insert(&self.remaining, HeaderValue::from(scarcest.remaining));
        let reset = reset.of(scarcest).map(written).map(HeaderValue::try_from);
        if let Some(Ok(reset)) = reset {
            out.insert(&self.reset, reset);
        }
    }
}
