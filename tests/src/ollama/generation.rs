//! One generation in its slot: token after token at the script's pace, until it ends, breaks, or is dropped because
//! the client left.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::fault::Fault;
use super::record::{Outcome, Record};
use super::sched::Slot;
use super::settings::{Gate, Pace, Wedge};

/// The next thing that a generation does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// One token's text.
    Token(String),
    /// The end, and what it reports.
    End(Finish),
    /// The runner died.
    Crash,
    /// The body ends as if all were well.
    Silence,
    /// The connection breaks.
    Break,
}

/// What a generation reports at its end. Durations are in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finish {
    pub(crate) text: String,
    pub(crate) reason: &'static str,
    pub(crate) prompt_tokens: i64,
    pub(crate) tokens: i64,
    pub(crate) total_ns: u64,
    pub(crate) load_ns: u64,
    pub(crate) prompt_ns: u64,
    pub(crate) eval_ns: u64,
}

/// How much is to be said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) most: i64,
    pub(crate) stops_after_z: bool,
    pub(crate) prompt_tokens: i64,
}

/// When a generation may go on.
#[derive(Clone)]
pub(crate) struct Rhythm {
    pub(crate) pace: Arc<Mutex<Pace>>,
    pub(crate) gate: Option<Gate>,
    pub(crate) wedge: Wedge,
}

pub(crate) struct Generation {
    extent: Extent,
    rhythm: Rhythm,
    fault: Option<Fault>,
    slot: Option<Slot>,
    ending: Ending,
    text: String,
    tokens: usize,
    arrived: Instant,
    /// When it was given to a runner.
    scheduled: Instant,
    /// When it got its slot. What lies between is in no duration but the total.
    placed: Instant,
    first: Option<Instant>,
}

impl Generation {
    pub(crate) fn new(
        extent: Extent,
        slot: Slot,
        rhythm: Rhythm,
        fault: Option<Fault>,
        record: Record,
        arrived: Instant,
    ) -> Self {
        let ending = Ending::new(record);
        let (scheduled, placed) = (slot.scheduled, Instant::now());
        let slot = Some(slot);
        Self {
            extent,
            rhythm,
            fault,
            slot,
            ending,
            text: String::new(),
            tokens: 0,
            arrived,
            scheduled,
            placed,
            first: None,
        }
    }

    /// Does the next thing; after anything but a token there is nothing more to do.
    pub(crate) async fn step(&mut self) -> Step {
        if self.tokens == 0 {
            let prompt = self.rhythm.pace.lock().prompt;
            pause(prompt).await;
        }
        if let Some(step) = self.meet_fault().await {
            return step;
        }
        if let Some(gate) = &self.rhythm.gate {
            gate.pass().await;
        }
        let token = self.rhythm.pace.lock().token;
        pause(token).await;
        self.rhythm.wedge.passed().await;
        self.first.get_or_insert_with(Instant::now);
        let Some(text) = self.next_text() else { return self.end() };
        self.tokens += 1;
        self.text.push_str(&text);
        Step::Token(text)
    }

    async fn meet_fault(&mut self) -> Option<Step> {
        let due = match &self.fault {
            Some(Fault::Crash { after } | Fault::Cut { after } | Fault::NoEnd { after }) => {
                *after == self.tokens
            }
            Some(Fault::Stall { after, .. }) => *after == self.tokens,
            _ => false,
        };
        if !due {
            return None;
        }
        let step = match self.fault.take()? {
            Fault::Crash { .. } => Step::Crash,
            Fault::Cut { .. } => {
                // What was said gets out before the connection breaks.
                sleep(Duration::from_millis(5)).await;
                Step::Break
            }
            Fault::NoEnd { .. } => Step::Silence,
            Fault::Stall { lasts, .. } => {
                sleep(lasts).await;
                return None;
            }
            _ => return None,
        };
        self.slot = None;
        self.ending.outcome = Outcome::Faulted;
        Some(step)
    }

    fn next_text(&mut self) -> Option<String> {
        if i64::try_from(self.tokens).unwrap_or(i64::MAX) >= self.extent.most {
            return None;
        }
        if self.tokens == 0
            && let Some(Fault::BigToken { bytes }) = self.fault
        {
            return Some("x".repeat(bytes));
        }
        if self.extent.stops_after_z && self.tokens >= 26 {
            return None;
        }
        let letter = u8::try_from(self.tokens % 27).unwrap_or_default();
        Some(if letter == 26 { " ".to_owned() } else { char::from(b'a' + letter).to_string() })
    }

    /// The slot is free before anybody hears of the end: nobody who reacts to it can find it taken.
    fn end(&mut self) -> Step {
        self.slot = None;
        self.ending.outcome = Outcome::Finished;
        let said = i64::try_from(self.tokens).unwrap_or(i64::MAX);
        let stopped = said < self.extent.most;
        let now = Instant::now();
        let first = self.first.unwrap_or(now);
        // The token that means "stop" counts, but has no text.
        let tokens = said + i64::from(stopped);
        let untold = self.fault == Some(Fault::NoPromptCount);
        let prompt_tokens = if untold { 0 } else { self.extent.prompt_tokens };
        self.ending.record.told(prompt_tokens, tokens);
        Step::End(Finish {
            text: std::mem::take(&mut self.text),
            reason: if stopped { "stop" } else { "length" },
            prompt_tokens,
            tokens,
            total_ns: nanos(now - self.arrived),
            load_ns: nanos(self.scheduled - self.arrived),
            prompt_ns: nanos(first - self.placed),
            eval_ns: nanos(now - first),
        })
    }
}

/// At least one, because a zero would be left out of the answer.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1)
}

pub(crate) async fn pause(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

/// Writes down how a request ended that held a slot; until told otherwise, because its client left.
pub(crate) struct Ending {
    record: Record,
    pub(crate) outcome: Outcome,
}

impl Ending {
    pub(crate) fn new(record: Record) -> Self {
        Self { record, outcome: Outcome::Cancelled }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.record.ended(self.outcome);
    }
}
