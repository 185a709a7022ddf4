//! What is changed in a body before Ollama gets it: two members at most, in place; no other byte is touched.
//!
//! - A stream of the `OpenAI` API tells its counts only to who asks for them: `stream_options.include_usage` is added, and
//!   what it adds to the stream is taken out again ([`super::strip`]).
//! - Where the pool has an `outputCap`, the member that caps the answer is lowered to it, or added. What Ollama takes for
//!   "no cap" (0, negative, null) is lowered too. A cap that Ollama would refuse is left for it to refuse.
//!
//! The body is known to be one object without equal outermost keys. Inside an object the last of equal keys wins, as Go
//! reads it, so a member that is put last needs no look at the others.

use smallvec::SmallVec;

use super::dialect::Dialect;
use crate::proxy::inspect::{Knobs, Raw, Room};

/// One change: `length` bytes from `at` on become `text`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) at: usize,
    pub(crate) length: usize,
    pub(crate) text: String,
}

/// Changes, in the order of their places.
pub(super) type Edits = SmallVec<[Edit; 2]>;

/// What becomes of a body.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) edits: Edits,
    /// The most tokens that the answer will have; none where nothing bounds it.
    pub(super) cap: Option<u64>,
    /// The counts are asked for in the client's place.
    pub(super) hides_usage: bool,
}

/// Plans the changes of a body.
pub(super) fn plan(dialect: Dialect, streams: bool, knobs: &Knobs<'_>, most: Option<u64>) -> Plan {
    let mut plan = Plan::default();
    if dialect.counts_on_demand() && streams && !knobs.include_usage {
        plan.ask_for_usage(knobs);
    }
    match dialect {
        Dialect::Chat | Dialect::Generate => plan.cap_option(knobs, most),
        Dialect::ChatCompletions | Dialect::Completions => plan.cap_completion(dialect, knobs, most),
        Dialect::Responses => plan.cap_member("max_output_tokens", knobs.max_output_tokens, knobs, most),
        Dialect::Messages => plan.cap_required(knobs.max_tokens, most),
        Dialect::Embed | Dialect::Embeddings | Dialect::OpenAiEmbeddings => {}
    }
    plan.edits.sort_by_key(|edit| edit.at);
    plan
}

impl Plan {
    fn ask_for_usage(&mut self, knobs: &Knobs<'_>) {
        self.hides_usage = self.put(knobs, knobs.stream_options, "stream_options", "\"include_usage\":true");
    }

    /// `options.num_predict`. Go reads options as numbers of any form, and cuts off fractions.
    fn cap_option(&mut self, knobs: &Knobs<'_>, most: Option<u64>) {
        let asked = knobs.num_predict.map(str::parse::<f64>);
        if matches!(asked, Some(Err(_))) {
            return;
        }
        self.cap = asked.and_then(Result::ok).and_then(positive);
        let Some(most) = most.filter(|most| self.cap.is_none_or(|cap| cap > *most)) else {
            return;
        };
        if self.put(knobs, knobs.options, "options", &format!("\"num_predict\":{most}")) {
            self.cap = Some(most);
        }
    }

    /// `max_tokens`. Ollama ignores `max_completion_tokens`, so it bounds nothing; where a cap is set anyway, it is
    /// honoured with it.
    fn cap_completion(&mut self, dialect: Dialect, knobs: &Knobs<'_>, most: Option<u64>) {
        let newer = knobs.max_completion_tokens.filter(|_| dialect == Dialect::ChatCompletions);
        let asked = newer.and_then(|raw| whole(raw.text)).and_then(at_least_one);
        let both = most.map(|most| asked.map_or(most, |asked| asked.min(most)));
        self.cap_member("max_tokens", knobs.max_tokens, knobs, both);
        if let (Some(raw), Some(most)) = (newer, most) {
            self.lower(raw, most);
        }
    }

    /// An outermost member that is a whole number, or null.
    fn cap_member(&mut self, name: &str, member: Option<Raw<'_>>, knobs: &Knobs<'_>, most: Option<u64>) {
        let Some(raw) = member else {
            if let Some(most) = most {
                self.edits.push(insert(knobs.close, format!(",\"{name}\":{most}")));
                self.cap = Some(most);
            }
            return;
        };
        self.cap = whole(raw.text).and_then(at_least_one);
        if let Some(most) = most {
            self.cap = self.lower(raw, most).or(self.cap);
        }
    }

    /// `max_tokens` of `/v1/messages`: without a positive one the request is refused by Ollama.
    fn cap_required(&mut self, member: Option<Raw<'_>>, most: Option<u64>) {
        let Some(raw) = member else { return };
        self.cap = whole(raw.text).and_then(at_least_one);
        if let Some(most) = most.filter(|_| self.cap.is_some()) {
            self.cap = self.lower(raw, most).or(self.cap);
        }
    }

    /// Replaces a number that is higher, or stands for no cap. Says to what, if it did.
    fn lower(&mut self, raw: Raw<'_>, most: u64) -> Option<u64> {
        let open =
            raw.text == "null" || whole(raw.text).is_some_and(|asked| asked <= 0 || asked > i128::from(most));
        open.then(|| {
            self.edits.push(Edit { at: raw.at, length: raw.text.len(), text: most.to_string() });
            most
        })
    }

    /// Puts a member last into an object that is an outermost member. Says whether that is possible.
    fn put(&mut self, knobs: &Knobs<'_>, room: Room, name: &str, member: &str) -> bool {
        let edit = match room {
            Room::Absent => insert(knobs.close, format!(",\"{name}\":{{{member}}}")),
            Room::Null { at } => Edit { at, length: 4, text: format!("{{{member}}}") },
            Room::Object { close, empty: true } => insert(close, member.to_owned()),
            Room::Object { close, empty: false } => insert(close, format!(",{member}")),
            Room::Other => return false,
        };
        self.edits.push(edit);
        true
    }
}

fn insert(at: usize, text: String) -> Edit {
    Edit { at, length: 0, text }
}

/// A whole number as Go reads one into an integer: no fraction, no exponent, 64 bits.
fn whole(raw: &str) -> Option<i128> {
    raw.parse::<i64>().ok().map(i128::from)
}

fn at_least_one(number: i128) -> Option<u64> {
    u64::try_from(number).ok().filter(|number| *number > 0)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "cut off and saturated, as it is meant"
)]
fn positive(number: f64) -> Option<u64> {
    (number >= 1.0).then_some(number as u64)
}

#[cfg(test)]
#[path = "edit_tests.rs"]
mod tests;
