//! What every limit would say to a request, for the person who runs the pool. Consumes nothing.

use std::sync::Arc;

use corral_wire::Mode;

use super::Limiter;
use crate::{
    BodyFacts, HeadFacts, Limit, LimitInfo, Mismatch, Nanos, Standing,
    judge::{Asked, CONCURRENCY_WAIT, Judge, Keys, KnownKeys, see},
    key::BucketKey,
    state::{LimitState, Moment, Seen, Verdict},
};

/// One limit of the plan, and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// Which.
    pub limit: Arc<LimitInfo>,
    /// Whether it refuses or only counts.
    pub mode: Mode,
    /// Why it does not apply; none: it does.
    pub mismatch: Option<Mismatch>,
    /// How the request stands with it; empty when it does not apply.
    pub standings: Vec<Standing>,
    /// What it would do now; none when it does not apply.
    pub would: Option<Would>,
    /// It decides: of the enforced limits it is the one with the gravest word, of several such the one with the longest
    /// wait. None does when all admit.
    pub wins: bool,
}

/// What a limit would do with a request now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Would {
    /// Let it pass.
    Admit,
    /// Let it run when nobody else wants the slot.
    Deprioritize,
    /// Let it wait in the queue, so long at least; zero: until another request ends.
    Queue(Nanos),
    /// Let it start so much later.
    Delay(Nanos),
    /// Refuse it; when to come back, which is an estimate for what counts at one time.
    Reject(Nanos),
    /// Refuse it for good: it costs more than the limit ever lets one request use.
    Never,
    /// Count that it would refuse; it is in shadow.
    CountRefusal,
}

impl Would {
    /// The graver comes later.
    fn gravity(self) -> (u8, Nanos) {
        match self {
            Self::Admit | Self::CountRefusal => (0, Nanos::ZERO),
            Self::Deprioritize => (1, Nanos::ZERO),
            Self::Queue(wait) => (2, wait),
            Self::Delay(wait) => (3, wait),
            Self::Reject(wait) => (4, wait),
            Self::Never => (5, Nanos::ZERO),
        }
    }
}

impl Limiter {
    /// What every limit of the plan would say to a request, in the order of the plan. Consumes nothing.
    pub fn explain(&self, head: &HeadFacts, body: &BodyFacts<'_>, now: Nanos) -> Vec<Explained> {
        let Some(judge) = self.judge() else { return Vec::new() };
        let traits = judge.plan.traits(head);
        let asked = &Asked {
            head,
            traits: &traits,
            model: body.model,
            usage: &body.estimate,
            held: &[],
            moment: Moment::Body { waits: body.waits },
            now: now.max(self.latest),
        };
        let mut known = KnownKeys::new();
        let mut keys = Keys::new(judge, asked, &mut known);
        let limits = judge.plan.limits().iter().zip(judge.states).enumerate();
        let mut all: Vec<_> =
            limits.map(|(place, limit)| explained(judge, (place, limit), keys.key(limit.0), asked)).collect();
        let gravity = |one: &Explained| one.would.map(Would::gravity).filter(|(grave, _)| *grave > 0);
        let gravest = all.iter().filter_map(gravity).max();
        let winner = gravest.and_then(|gravest| all.iter().position(|one| gravity(one) == Some(gravest)));
        if let Some(winner) = winner.and_then(|winner| all.get_mut(winner)) {
            winner.wins = true;
        }
        all
    }
}

fn explained(
    judge: Judge<'_>,
    (place, (limit, state)): (usize, (&Limit, &LimitState)),
    key: BucketKey,
    asked: &Asked<'_>,
) -> Explained {
    let mismatch = mismatch(limit, asked);
    let mut explained = Explained {
        limit: limit.info().clone(),
        mode: limit.mode(),
        mismatch,
        standings: Vec::new(),
        would: None,
        wins: false,
    };
    if mismatch.is_none() {
        let mut seen = Seen { place, key, ..Seen::default() };
        see(limit, state, &mut seen, asked);
        explained.standings = judge.standings_of(limit, state, key, asked);
        explained.would = Some(would(judge, limit, state, &seen, asked));
    }
    explained
}

fn mismatch(limit: &Limit, asked: &Asked<'_>) -> Option<Mismatch> {
    if !limit.covers_endpoint(asked.head.endpoint) {
        return Some(Mismatch::Endpoint);
    }
    match limit.covers_head(asked.head, asked.traits) {
        Err(mismatch) if mismatch != Mismatch::Exempt => Some(mismatch),
        _ if !limit.covers_model(asked.model) => Some(Mismatch::Model),
        covered => covered.err(),
    }
}

fn would(judge: Judge<'_>, limit: &Limit, state: &LimitState, seen: &Seen, asked: &Asked<'_>) -> Would {
    let never = judge.oversized(seen, asked).is_some();
    if limit.mode() == Mode::Shadow {
        let fits = matches!(seen.verdict, Verdict::Admit | Verdict::Delay(_));
        return if fits && !never { Would::Admit } else { Would::CountRefusal };
    }
    let wait = || {
        let all = state.exceeded(limit, seen, (asked.usage, asked.held), (asked.moment, asked.now));
        all.iter().map(|one| one.wait.unwrap_or(CONCURRENCY_WAIT)).max().unwrap_or(Nanos::ZERO)
    };
    let bucket_wait = seen.looks.iter().map(|looked| looked.look.wait).max().unwrap_or(Nanos::ZERO);
    match seen.verdict {
        _ if never => Would::Never,
        Verdict::Admit | Verdict::Later { fits: true } => Would::Admit,
        Verdict::Delay(wait) => Would::Delay(wait),
        Verdict::Later { fits: false } => Would::Queue(bucket_wait),
        Verdict::Deprioritize => Would::Deprioritize,
        Verdict::Refuse => Would::Reject(wait()),
    }
}
