//! Looks at a request through every limit that applies to it, and says what a refusal must say. Changes nothing.

use std::num::NonZeroU32;

use corral_wire::{KeyPart, Mode, Scope};
use smallvec::SmallVec;

use crate::{
    HeadFacts, Limit, ModelName, Nanos, Plan, Refusal, Retry, Unit, Violation,
    key::{BucketKey, KeyHasher},
    plan::ModelId,
    reserve::Held,
    state::{LimitState, ONE, Seen},
    store::Place,
};

/// What a client is told to wait for a place in a concurrency limit: nobody knows when one comes free.
const CONCURRENCY_WAIT: Nanos = Nanos::from_secs(1);

/// How the limits see one request.
pub(crate) type Seens = SmallVec<[Seen; 4]>;

/// What the limits may ask of a request.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) head: &'a HeadFacts,
    pub(crate) body: Body<'a>,
    pub(crate) now: Nanos,
}

#[derive(Clone, Copy)]
pub(crate) enum Body<'a> {
    /// Only limits that the head decides are asked.
    Unread,
    /// All limits are asked.
    Read(Option<&'a ModelName>),
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
    pub(crate) fn enforced(&self, asked: Asked<'_>, held: &[Held]) -> Result<Seens, Refusal> {
        let seens = self.look(Mode::Enforce, asked, held);
        let fits = |seen: &Seen| self.states.get(seen.place).is_some_and(|state| state.fits(seen, asked.now));
        if seens.iter().all(fits) { Ok(seens) } else { Err(self.refusal(&seens, asked)) }
    }

    /// Looks through all limits of a mode that apply.
    pub(crate) fn look(&self, mode: Mode, asked: Asked<'_>, held: &[Held]) -> Seens {
        let mut keys = Keys::new(self.hasher, asked);
        self.applying(mode, asked)
            .map(|(place, limit, state)| state.look(place, keys.key(limit.per()), held, asked.now))
            .collect()
    }

    /// The limits of a mode that apply, with their places and states.
    pub(crate) fn applying(
        &self,
        mode: Mode,
        asked: Asked<'_>,
    ) -> impl Iterator<Item = (usize, &'a Limit, &'a LimitState)> + use<'a> {
        let Self { plan, states, .. } = *self;
        let body_read = matches!(asked.body, Body::Read(_));
        let model = asked.model().and_then(|model| plan.model_id(model));
        plan.covering(asked.head.endpoint)
            .filter(move |(_, limit)| limit.mode() == mode && applies(limit, body_read, model))
            .filter_map(|(place, limit)| Some((place, limit, states.get(place)?)))
    }

    #[cold]
    fn refusal(&self, seens: &Seens, asked: Asked<'_>) -> Refusal {
        let mut refusal = Refusal {
            violations: SmallVec::new(),
            retry: Retry { wait: Nanos::ZERO, estimate: false, shared: false, split: false },
        };
        for seen in seens {
            if let (Some(limit), Some(state)) =
                (self.plan.limits().get(seen.place), self.states.get(seen.place))
            {
                self.judge(limit, state, seen, asked.now, &mut refusal);
            }
        }
        if refusal.violations.iter().any(|violation| violation.unit == Unit::Requests) {
            refusal.retry.wait = refusal.retry.wait.max(self.wait_elsewhere(asked));
        }
        refusal
    }

    /// Adds to a refusal what one limit has against the request.
    fn judge(&self, limit: &Limit, state: &LimitState, seen: &Seen, now: Nanos, refusal: &mut Refusal) {
        let before = refusal.violations.len();
        let wait = state.wait(seen, now);
        if let (Some(look), Some(store)) = (&seen.rate, state.store())
            && wait > Nanos::ZERO
        {
            refusal.violations.push(Violation {
                limit: limit.info().clone(),
                unit: Unit::Requests,
                used: look.bucket.used(store.pace(), now),
                allowed: store.pace().burst(),
                wait,
            });
            refusal.retry.wait = refusal.retry.wait.max(wait);
        }
        if let Some((allowed, used)) = state.concurrency(seen.key)
            && state.is_crowded(seen)
        {
            refusal.violations.push(Violation {
                limit: limit.info().clone(),
                unit: Unit::Concurrency,
                used: u64::from(used),
                allowed: u64::from(allowed),
                wait: CONCURRENCY_WAIT,
            });
            refusal.retry.wait = refusal.retry.wait.max(CONCURRENCY_WAIT);
            refusal.retry.estimate = true;
        }
        if refusal.violations.len() > before {
            let overflowed = seen.rate.is_some_and(|look| look.place == Place::Overflow);
            refusal.retry.shared |= overflowed || !limit.is_per_client();
            refusal.retry.split |= limit.scope() == Scope::Pool && self.divisor > NonZeroU32::MIN;
        }
    }

    /// With several pods the next try may meet another one, whose buckets are not known here: the longest wait that
    /// any bucket that applies could need if it were used up, violated here or not. A pod that is owed nothing then
    /// admits. Zero with one pod.
    ///
    /// While the body is unread, limits that list models are left out: most requests are for other models.
    fn wait_elsewhere(&self, asked: Asked<'_>) -> Nanos {
        if self.divisor == NonZeroU32::MIN {
            return Nanos::ZERO;
        }
        let asked = match asked.body {
            Body::Unread => Asked { body: Body::Read(None), ..asked },
            Body::Read(_) => asked,
        };
        let stores = self.applying(Mode::Enforce, asked).filter_map(|(_, _, state)| state.store());
        stores.map(|store| store.pace().time_of(ONE)).max().unwrap_or(Nanos::ZERO)
    }
}

fn applies(limit: &Limit, body_read: bool, model: Option<ModelId>) -> bool {
    if body_read { limit.covers_model(model) } else { limit.is_decided_by_head() }
}

impl<'a> Asked<'a> {
    fn model(&self) -> Option<&'a ModelName> {
        match self.body {
            Body::Unread => None,
            Body::Read(model) => model,
        }
    }
}

/// The keys of one request, each hashed once however many limits share its `per`.
pub(crate) struct Keys<'a> {
    hasher: &'a KeyHasher,
    asked: Asked<'a>,
    known: SmallVec<[(&'a [KeyPart], BucketKey); 4]>,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(hasher: &'a KeyHasher, asked: Asked<'a>) -> Self {
        Self { hasher, asked, known: SmallVec::new() }
    }

    pub(crate) fn key(&mut self, per: &'a [KeyPart]) -> BucketKey {
        if let Some((_, key)) = self.known.iter().find(|(known, _)| *known == per) {
            return *key;
        }
        let key = self.hasher.key(per, self.asked.head, self.asked.model());
        self.known.push((per, key));
        key
    }
}
