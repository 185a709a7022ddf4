//! When Ollama is left alone because what it is sent fails: pure, times are handed in.
//!
//! ```text
//! closed ── 5 failures in a row, or half of at least 10 in 10 s ──▶ open ── 5 s, then twice as long up to 60 s ──▶ half open
//!    ▲                                                                ▲                                              │
//!    └──────────────── one trial is answered, or kept for 5 s ────────┼── it fails ──────────────────────────────────┘
//! ```
//!
//! A failure is no connection, or none of an answer's bytes on it. Whatever Ollama answers is none: neither an error nor
//! that it is busy. What began before the last change of state says nothing about the new one.

use std::time::Duration;

use corral_limiter::Nanos;

/// So many failures without an answer between them open it.
const IN_A_ROW: u32 = 5;
/// So many exchanges of [`WINDOW`] must be over before their failures are compared with them.
const ENOUGH: u32 = 10;
/// Over this time exchanges are compared, in steps of a second.
const WINDOW: usize = 10;
/// For how long it is open first.
const SHORTEST: Duration = Duration::from_secs(5);
/// For how long it is open at the most, before it is varied.
const LONGEST: Duration = Duration::from_mins(1);
/// A trial that Ollama keeps for so long has passed: what fails, fails at once, and an answer may take minutes to begin.
const TRIAL: Nanos = Nanos::from_secs(5);

/// Whether Ollama is sent anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Circuit {
    /// All that has a slot.
    #[default]
    Closed,
    /// Nothing.
    Open,
    /// One request, to see how it fares.
    HalfOpen,
}

impl Circuit {
    /// Every state, for metrics that show them all.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The word in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// What became of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// A head came.
    Answered,
    /// There was no connection, or it ended without a head.
    Failed,
    /// Nobody waited for it.
    Unknown,
}

/// The right to send one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    era: u64,
}

#[derive(Debug, Default)]
pub(super) struct Breaker {
    state: State,
    /// Changes of state so far.
    era: u64,
    /// Failures since the last answer.
    in_a_row: u32,
    window: Window,
    /// How often it has opened since it was closed.
    opened: u32,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Closed,
    Open {
        until: Nanos,
    },
    HalfOpen {
        /// Since when a trial runs, if one does.
        trial: Option<Nanos>,
    },
}

impl Breaker {
    pub(super) fn circuit(&self) -> Circuit {
        match self.state {
            State::Closed => Circuit::Closed,
            State::Open { .. } => Circuit::Open,
            State::HalfOpen { .. } => Circuit::HalfOpen,
        }
    }

    /// Until when it is open, if it is.
    pub(super) fn open_until(&self) -> Option<Nanos> {
        match self.state {
            State::Open { until } => Some(until),
            State::Closed | State::HalfOpen { .. } => None,
        }
    }

    /// When it changes by itself, if it does.
    pub(super) fn changes_at(&self) -> Option<Nanos> {
        match self.state {
            State::Open { until } => Some(until),
            State::HalfOpen { trial } => trial.map(|since| since.plus(TRIAL)),
            State::Closed => None,
        }
    }

    /// Time goes by.
    pub(super) fn look(&mut self, now: Nanos) {
        match self.state {
            State::Open { until } if until <= now => self.enter(State::HalfOpen { trial: None }),
            State::HalfOpen { trial: Some(since) } if now.since(since) >= TRIAL => self.close(),
            State::Closed | State::Open { .. } | State::HalfOpen { .. } => {}
        }
    }

    /// Whether a request may be sent.
    pub(super) fn ask(&mut self, now: Nanos) -> Option<Ticket> {
        self.look(now);
        match &mut self.state {
            State::Closed => {}
            State::HalfOpen { trial: trial @ None } => *trial = Some(now),
            State::Open { .. } | State::HalfOpen { trial: Some(_) } => return None,
        }
        Some(Ticket { era: self.era })
    }

    /// It was sent, and this is what became of it; `vary` makes a time longer or shorter by chance.
    pub(super) fn ended(
        &mut self,
        ticket: Ticket,
        fate: Fate,
        now: Nanos,
        vary: impl FnOnce(Duration) -> Duration,
    ) {
        self.look(now);
        if ticket.era != self.era {
            return;
        }
        match (&mut self.state, fate) {
            (State::HalfOpen { trial }, Fate::Unknown) => *trial = None,
            (State::HalfOpen { .. }, Fate::Answered) => self.close(),
            (State::HalfOpen { .. }, Fate::Failed) => self.open(now, vary),
            (State::Closed, Fate::Answered) => {
                self.in_a_row = 0;
                self.window.count(now, false);
            }
            (State::Closed, Fate::Failed) => {
                self.in_a_row = self.in_a_row.saturating_add(1);
                self.window.count(now, true);
                if self.in_a_row >= IN_A_ROW || self.window.is_bad() {
                    self.open(now, vary);
                }
            }
            (State::Closed, Fate::Unknown) | (State::Open { .. }, _) => {}
        }
    }

    /// Ollama has come back, as its probes say: there is nothing to wait for any more.
    pub(super) fn came_back(&mut self) {
        if matches!(self.state, State::Open { .. }) {
            self.enter(State::HalfOpen { trial: None });
        }
    }

    fn open(&mut self, now: Nanos, vary: impl FnOnce(Duration) -> Duration) {
        let length = SHORTEST.saturating_mul(1 << self.opened.min(8)).min(LONGEST);
        self.opened = self.opened.saturating_add(1);
        self.enter(State::Open { until: now.plus(vary(length).into()) });
    }

    fn close(&mut self) {
        self.opened = 0;
        self.enter(State::Closed);
    }

    fn enter(&mut self, state: State) {
        self.era += 1;
        self.in_a_row = 0;
        self.window = Window::default();
        self.state = state;
    }
}

/// The exchanges of the last ten seconds.
#[derive(Debug, Default)]
struct Window {
    /// One for each second, by its number modulo their count.
    seconds: [Second; WINDOW],
}

#[derive(Debug, Default, Clone, Copy)]
struct Second {
    number: u64,
    over: u32,
    failed: u32,
}

impl Window {
    fn count(&mut self, now: Nanos, failed: bool) {
        let number = now.0 / 1_000_000_000;
        let oldest = number.saturating_sub(WINDOW as u64 - 1);
        for second in self.seconds.iter_mut().filter(|second| second.number < oldest) {
            *second = Second::default();
        }
        let place = usize::try_from(number % WINDOW as u64).unwrap_or_default();
        let Some(second) = self.seconds.get_mut(place) else { return };
        second.number = number;
        second.over = second.over.saturating_add(1);
        second.failed = second.failed.saturating_add(u32::from(failed));
    }

    fn is_bad(&self) -> bool {
        let sum = |of: fn(&Second) -> u32| self.seconds.iter().map(of).fold(0, u32::saturating_add);
        let (over, failed) = (sum(|second| second.over), sum(|second| second.failed));
        over >= ENOUGH && failed.saturating_mul(2) >= over
    }
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
