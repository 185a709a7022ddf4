//! Judges runners: pure, by the signs of life that are handed in, and by time that is counted here.
//!
//! A runner from which something is waited for, and nothing comes, is *suspected* after a while: it may read a long
//! prompt, or buffer a tool call. So Ollama is asked about it ([`super::canary`]). An answer clears it for another while;
//! none within patience, and still nothing else from it, convicts it. Whatever comes meanwhile, for whomever, clears it.
//!
//! A runner whose streams have all been silent for far longer is convicted even if it answers: it does not compute.
//!
//! Convicted, it is asked on, one question at a time, until an answer acquits it. That question is also what heals
//! it: Ollama tries a runner twice before a new request, ten seconds each, and then starts another in its place.
//!
//! Only time in which the judge was awake counts. A process that was stopped, or had no processor, has seen nothing.

use std::time::Duration;

use tokio::time::Instant;

use super::canary::{Heard, Question};
use super::residency::{Need, Runner};

/// From one failed question about a convicted runner to the next.
const AGAIN: Duration = Duration::from_secs(5);

/// When a runner from which nothing comes has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// How long nothing may come from a runner before Ollama is asked about it. Default 8 s; zero: it never is.
    pub suspicion: Duration,
    /// How long Ollama has to answer then. Default 10 s: as long as it waits for a runner itself.
    pub patience: Duration,
    /// How long all streams of a runner may be silent, whatever Ollama answers. Default 10 min, for a tool call is silent
    /// until it is whole; zero: for ever.
    pub limit: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        let (suspicion, patience) = (Duration::from_secs(8), Duration::from_secs(10));
        Self { suspicion, patience, limit: Duration::from_mins(10) }
    }
}

impl Bounds {
    /// From one look to the next.
    pub(crate) fn tick(&self) -> Duration {
        let often = if self.suspicion.is_zero() { self.limit } else { self.suspicion };
        (often / 16).clamp(Duration::from_millis(5), Duration::from_millis(500))
    }
}

/// Why a runner is convicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// Nothing came from it, and Ollama could not answer for it.
    Unanswering,
    /// Its streams were silent for longer than any may be.
    Silent,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// Ask about it; the answer goes to [`Judge::heard`].
    Ask(Need, Question),
    /// End all that its model was asked for.
    Convict(Need, Why),
}

/// A runner from which something is waited for.
#[derive(Debug)]
struct Case {
    need: Need,
    beats: u64,
    /// For how long nothing has come from it, or since Ollama answered for it.
    silent: Duration,
    /// For how long its streams have been silent.
    still: Duration,
    /// For how long the question about it has been open; none if it is not suspected.
    asked: Option<Duration>,
}

#[derive(Debug)]
struct Convict {
    need: Need,
    question: Question,
    /// Until it is asked again.
    rest: Duration,
}

/// Remembers what it has seen of each runner.
#[derive(Debug)]
pub(crate) struct Judge {
    bounds: Bounds,
    last: Instant,
    cases: Vec<Case>,
    convicts: Vec<Convict>,
    /// Questions without an answer yet.
    open: Vec<(Need, Question)>,
}

impl Judge {
    pub(crate) fn new(bounds: Bounds, now: Instant) -> Self {
        Self { bounds, last: now, cases: Vec::new(), convicts: Vec::new(), open: Vec::new() }
    }

    /// Looks at the runners from which something is waited for.
    pub(crate) fn look(&mut self, runners: &[Runner], now: Instant) -> Vec<Order> {
        let step = now.saturating_duration_since(self.last).min(self.bounds.tick() * 2);
        self.last = now;
        self.cases.retain(|case| runners.iter().any(|runner| runner.need == case.need));
        for runner in runners {
            self.note(runner, step);
        }
        let mut orders = self.convictions();
        orders.extend(self.questions(step));
        orders
    }

    fn note(&mut self, runner: &Runner, step: Duration) {
        let Some(case) = self.cases.iter_mut().find(|case| case.need == runner.need) else {
            let (need, beats) = (runner.need.clone(), runner.beats);
            self.cases.push(Case { need, beats, silent: Duration::ZERO, still: Duration::ZERO, asked: None });
            return;
        };
        if case.beats == runner.beats {
            case.silent += step;
            case.still = if runner.streams { case.still + step } else { Duration::ZERO };
            case.asked = case.asked.map(|asked| asked + step);
        } else {
            case.beats = runner.beats;
            case.still = Duration::ZERO;
            case.clear();
        }
    }

    fn convictions(&mut self) -> Vec<Order> {
        let Bounds { patience, limit, .. } = self.bounds;
        let mut orders = Vec::new();
        for case in &self.cases {
            let (why, question) = match case.asked {
                Some(asked) if asked >= patience => (Why::Unanswering, Question::Alive),
                _ if !limit.is_zero() && case.still >= limit => (Why::Silent, Question::Token),
                _ => continue,
            };
            if self.convicts.iter().any(|convict| convict.need.model == case.need.model) {
                continue;
            }
            self.convicts.push(Convict { need: case.need.clone(), question, rest: Duration::ZERO });
            orders.push(Order::Convict(case.need.clone(), why));
        }
        let convicts = &self.convicts;
        self.cases.retain(|case| !convicts.iter().any(|convict| convict.need.model == case.need.model));
        orders
    }

    fn questions(&mut self, step: Duration) -> Vec<Order> {
        let suspicion = self.bounds.suspicion;
        let mut orders = Vec::new();
        for case in &mut self.cases {
            let suspected = !suspicion.is_zero() && case.silent >= suspicion;
            if suspected && super::canary::request(&case.need, Question::Alive).is_some() {
                case.asked.get_or_insert_default();
                ask(&mut self.open, &case.need, Question::Alive, &mut orders);
            }
        }
        for convict in &mut self.convicts {
            convict.rest = convict.rest.saturating_sub(step);
            if convict.rest.is_zero() {
                ask(&mut self.open, &convict.need, convict.question, &mut orders);
            }
        }
        orders
    }

    /// Takes in what came of a question. True if a convict is acquitted, and none is left.
    pub(crate) fn heard(&mut self, need: &Need, question: Question, heard: Heard) -> bool {
        self.open.retain(|(open, put)| open != need || *put != question);
        if heard != Heard::Nothing {
            self.cases.iter_mut().filter(|case| case.need == *need).for_each(Case::clear);
        }
        let before = self.convicts.len();
        let meant = |convict: &Convict| convict.need == *need && convict.question == question;
        if matches!(heard, Heard::Works | Heard::Gone) {
            self.convicts.retain(|convict| !meant(convict));
        }
        for convict in self.convicts.iter_mut().filter(|convict| meant(convict)) {
            convict.rest = AGAIN;
        }
        before > 0 && self.convicts.is_empty()
    }
}

impl Case {
    fn clear(&mut self) {
        self.silent = Duration::ZERO;
        self.asked = None;
    }
}

/// The same question about a runner is put once at a time.
fn ask(open: &mut Vec<(Need, Question)>, need: &Need, question: Question, orders: &mut Vec<Order>) {
    if !open.iter().any(|(about, put)| about == need && *put == question) {
        open.push((need.clone(), question));
        orders.push(Order::Ask(need.clone(), question));
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
