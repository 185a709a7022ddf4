//! Looks at a request through every limit that applies to it, and says what a refusal must say. Changes nothing.

use std::num::NonZeroU32;

use corral_wire::{Action, Algorithm, Mode, Scope};
use smallvec::SmallVec;

use crate::{
    HeadFacts, Limit, ModelName, Nanos, Oversized, Plan, Refusal, Retry, Unit, Usage, Violation,
    key::{BucketKey, KeyHasher},
    plan::{Covering, Factor, Traits},
    reserve::Held,
    state::{Exceeded, LimitState, Moment, Seen, Seens, Verdict},
};

/// What a client is told to wait for a place in a concurrency limit: nobody knows when one comes free.
pub(crate) const CONCURRENCY_WAIT: Nanos = Nanos::from_secs(1);

/// What the limits may ask of a request.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) head: &'a HeadFacts,
    pub(crate) traits: &'a Traits<'a>,
    pub(crate) model: Option<&'a ModelName>,
    pub(crate) usage: &'a Usage,
    /// What it holds already.
    pub(crate) held: &'a [Held],
    /// At [`Moment::Head`] only limits that the head decides are asked.
    pub(crate) moment: Moment,
    pub(crate) now: Nanos,
}

/// Why a request may not go on.
pub(crate) enum Stop {
    Refused(Refusal),
    Oversized(Oversized),
}

/// The limits as they are.
#[derive(Clone, Copy)]
pub(crate) struct Judge<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) states: &'a [LimitState],
    pub(crate) divisor: NonZeroU32,
    pub(crate) hasher: &'a KeyHasher,
}

impl<'a> Judge<'a> {
    /// Asks every enforced limit, or says why the request may not go on.
    pub(crate) fn decide(
        &self,
        asked: &Asked<'_>,
        (seens, known): (&mut Seens, &mut KnownKeys),
    ) -> Result<(), Box<Stop>> {
        self.look_into((seens, known), Mode::Enforce, asked, |_| true);
        if let Some(oversized) = seens.iter().find_map(|seen| self.oversized(seen, asked)) {
            return Err(Box::new(Stop::Oversized(oversized)));
        }
        if seens.iter().all(|seen| seen.verdict != Verdict::Refuse) {
            return Ok(());
        }
        Err(Box::new(Stop::Refused(self.refusal(seens, asked))))
    }

    /// Looks through all limits of a mode that apply.
    pub(crate) fn look(&self, mode: Mode, asked: &Asked<'_>) -> Seens {
        self.look_where(mode, asked, |_| true)
    }

    /// Looks through those limits of a mode that apply and are of a kind.
    pub(crate) fn look_where(
        &self,
        mode: Mode,
        asked: &Asked<'_>,
        is_kind: impl Fn(&Limit) -> bool,
    ) -> Seens {
        let mut seens = Seens::default();
        self.look_into((&mut seens, &mut KnownKeys::new()), mode, asked, is_kind);
        seens
    }

    #[inline]
    fn look_into(
        &self,
        (seens, known): (&mut Seens, &mut KnownKeys),
        mode: Mode,
        asked: &Asked<'_>,
        is_kind: impl Fn(&Limit) -> bool,
    ) {
        let mut keys = Keys::new(*self, asked, known);
        for (place, limit, state) in self.applying(mode, asked) {
            if is_kind(limit)
                && let Some(seen) = seens.add()
            {
                (seen.place, seen.key) = (place, keys.key(limit));
                see(limit, state, seen, asked);
            }
        }
    }

    /// The limits of a mode that apply, with their places and states.
    pub(crate) fn applying<'b>(
        &self,
        mode: Mode,
        asked: &'b Asked<'b>,
    ) -> impl Iterator<Item = (usize, &'a Limit, &'a LimitState)> + use<'a, 'b> {
        let Self { plan, states, .. } = *self;
        plan.covering(asked.head.endpoint, mode)
            .filter(move |(covering, limit)| applies(covering, limit, asked))
            .filter_map(|(covering, limit)| Some((covering.place, limit, states.get(covering.place)?)))
    }

    /// What a limit has against the request for good.
    #[inline]
    pub(crate) fn oversized(&self, seen: &Seen, asked: &Asked<'_>) -> Option<Oversized> {
        let limit = self.plan.limits().get(seen.place)?;
        if limit.exceed().rejects_oversize { Self::oversized_for(limit, seen, asked) } else { None }
    }

    fn oversized_for(limit: &Limit, seen: &Seen, asked: &Asked<'_>) -> Option<Oversized> {
        let factor = Factor::of(limit.scales().get(seen.scale)?.milli, 1000);
        limit.info().rates().iter().find_map(|(unit, rate)| {
            let most = match limit.algorithm() {
                Algorithm::TokenBucket | Algorithm::LeakyBucket => rate.burst,
                _ => rate.count(),
            };
            let most = factor.times(most.saturating_mul(unit.permits()));
            let cost = asked.usage.permits(*unit);
            (cost > most).then(|| Oversized {
                limit: limit.info().clone(),
                unit: *unit,
                asked: unit.of_permits(cost),
                most: unit.of_permits(most),
            })
        })
    }

    #[cold]
    fn refusal(&self, seens: &[Seen], asked: &Asked<'_>) -> Refusal {
        let mut refusal = Refusal {
            violations: SmallVec::new(),
            retry: Retry { wait: Nanos::ZERO, estimate: false, shared: false, split: false },
        };
        for seen in seens.iter().filter(|seen| seen.verdict == Verdict::Refuse) {
            self.accuse(seen, asked, &mut refusal);
        }
        if refusal.violations.iter().any(|violation| violation.unit.is_over_time()) {
            refusal.retry.wait = refusal.retry.wait.max(self.wait_elsewhere(asked));
        }
        refusal
    }

    /// What some limits have against a request, without regard to other pods; none when they have nothing.
    pub(crate) fn accusation(&self, seens: &[Seen], asked: &Asked<'_>) -> Option<Refusal> {
        let refusal = self.refusal(seens, asked);
        (!refusal.violations.is_empty()).then_some(refusal)
    }

    /// Adds to a refusal what one limit has against the request.
    fn accuse(&self, seen: &Seen, asked: &Asked<'_>, refusal: &mut Refusal) {
        let head = asked.head;
        let (Some(limit), Some(state)) = (self.plan.limits().get(seen.place), self.states.get(seen.place))
        else {
            return;
        };
        for exceeded in state.exceeded(limit, seen, (asked.usage, asked.held), (asked.moment, asked.now)) {
            let Exceeded { unit, used, allowed, asked, wait, overflowed, .. } = exceeded;
            let retry = &mut refusal.retry;
            retry.estimate |= wait.is_none();
            retry.shared |= overflowed || !limit.is_per_client(head);
            retry.split |= limit.scope() == Scope::Pool && self.divisor > NonZeroU32::MIN;
            let wait = wait.unwrap_or(CONCURRENCY_WAIT);
            retry.wait = retry.wait.max(wait);
            let limit = limit.info().clone();
            refusal.violations.push(Violation { limit, unit, used, allowed, asked, wait });
        }
    }

    /// With several pods the next try may meet another one, whose buckets are not known here: the longest wait that
    /// any bucket that applies could need if it were used up, violated here or not. A pod that is owed nothing then
    /// admits. Zero with one pod.
    ///
    /// While the body is unread, limits that list models are left out, for most requests are for other models, and so
    /// are units whose cost only the body says.
    fn wait_elsewhere(&self, asked: &Asked<'_>) -> Nanos {
        if self.divisor == NonZeroU32::MIN {
            return Nanos::ZERO;
        }
        let by_head = asked.moment == Moment::Head;
        let asked = &Asked { moment: Moment::Body { waits: false }, ..*asked };
        let mut longest = Nanos::ZERO;
        for (_, limit, state) in self.applying(Mode::Enforce, asked) {
            let patience = if limit.action() == Action::Queue { limit.max_wait() } else { None };
            let known = |unit| !by_head || unit == Unit::Requests;
            let meters = state.meters(limit.scale_place(asked.traits.scale)).iter();
            for meter in meters.filter(|meter| known(meter.unit) && limit.action() != Action::Deprioritize) {
                let wait = meter.longest_wait(asked.usage.permits(meter.unit), asked.now);
                longest = longest.max(wait.since(patience.unwrap_or(Nanos::ZERO)));
            }
        }
        longest
    }
}

#[inline]
fn applies(covering: &Covering, limit: &Limit, asked: &Asked<'_>) -> bool {
    let known = match asked.moment {
        Moment::Head => covering.is_decided_by_head,
        Moment::Body { .. } | Moment::Slot => covering.takes_all_models || limit.covers_model(asked.model),
    };
    known && (covering.takes_all_heads || limit.covers_head(asked.head, asked.traits).is_ok())
}

/// How a limit that applies sees a request; the place of the limit and the key are there already.
#[inline]
pub(crate) fn see(limit: &Limit, state: &LimitState, seen: &mut Seen, asked: &Asked<'_>) {
    seen.scale = limit.scale_place(asked.traits.scale);
    // A limit in shadow is asked once, with all of its numbers.
    let moment = match (limit.mode(), limit.action(), asked.moment) {
        (Mode::Shadow, Action::Queue, Moment::Body { .. }) => Moment::Slot,
        (_, _, moment) => moment,
    };
    state.look(limit, seen, (asked.usage, asked.held), (moment, asked.now));
}

/// Keys by the numbers of their `per`.
pub(crate) type KnownKeys = Vec<(usize, BucketKey)>;

/// The keys of one request, each hashed once however many limits share its `per`.
pub(crate) struct Keys<'a> {
    hasher: &'a KeyHasher,
    asked: &'a Asked<'a>,
    /// Those that are known already, of the same request under the same plan, and those that become known.
    known: &'a mut KnownKeys,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(judge: Judge<'a>, asked: &'a Asked<'a>, known: &'a mut KnownKeys) -> Self {
        Self { hasher: judge.hasher, asked, known }
    }

    #[inline]
    pub(crate) fn key(&mut self, limit: &Limit) -> BucketKey {
        let per = limit.per_id();
        match self.known.iter().find(|(known, _)| *known == per) {
            Some((_, key)) => *key,
            None => self.hashed(limit),
        }
    }

    fn hashed(&mut self, limit: &Limit) -> BucketKey {
        let per = limit.per_id();
        let Asked { head, traits, model, .. } = *self.asked;
        let key = self.hasher.key(limit.per(), (head, traits.tier), model);
        self.known.push((per, key));
        key
    }
}
