//! Plans, clients and traces for the laws.

use std::{net::Ipv4Addr, num::NonZeroU32, sync::Arc};

use corral_limiter::{
    BodyFacts, CommitError, HeadFacts, Limiter, LimiterSettings, ModelName, Nanos, Plan, Refusal,
};
use corral_limiter::{Ticket, compile};
use corral_wire::{EndpointClass, IdentityDoc, KeyPart, LimitDoc, Mode, PLAN_VERSION, PlanDoc, PoolRef};
use corral_wire::{QueueDoc, RateDoc, Scope};
use proptest::prelude::*;

pub(crate) const SECOND: u64 = 1_000_000_000;

pub(crate) fn doc(limits: Vec<LimitDoc>) -> PlanDoc {
    PlanDoc {
        version: PLAN_VERSION,
        pool: PoolRef { namespace: "llm".into(), name: "chat".into() },
        sequence: 1,
        identity: IdentityDoc::default(),
        queue: QueueDoc { max_depth: 100, max_wait_ms: 30_000 },
        limits,
        ..PlanDoc::default()
    }
}

pub(crate) fn plan(limits: &[LimitDoc]) -> Arc<Plan> {
    Arc::new(compile(&doc(limits.to_vec())).unwrap())
}

pub(crate) fn limit(name: &str, per: &[KeyPart]) -> LimitDoc {
    LimitDoc {
        policy: "llm/fair-use".into(),
        name: name.into(),
        mode: Mode::Enforce,
        endpoints: vec![],
        models: vec![],
        per: per.to_vec(),
        scope: Scope::Pool,
        requests: None,
        concurrency: None,
        ..LimitDoc::default()
    }
}

pub(crate) fn rated(name: &str, per: &[KeyPart], rate: RateDoc) -> LimitDoc {
    LimitDoc { requests: Some(rate), ..limit(name, per) }
}

pub(crate) fn rate(count: u64, window_seconds: u64, burst: u64) -> RateDoc {
    RateDoc { count_milli: count * 1000, window_seconds, burst }
}

pub(crate) fn pods(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

pub(crate) fn limiter(limits: &[LimitDoc]) -> Limiter {
    limiter_of(limits, 1, 1000)
}

pub(crate) fn limiter_of(limits: &[LimitDoc], divisor: u32, keys_per_limit: usize) -> Limiter {
    let mut limiter = Limiter::new(LimiterSettings { hash_key: *b"a key for tests!", keys_per_limit });
    limiter.swap(plan(limits), pods(divisor), Nanos::ZERO);
    limiter
}

pub(crate) fn head(client: u32) -> HeadFacts {
    HeadFacts::new(Ipv4Addr::from(client).into(), EndpointClass::Chat, "/api/chat")
}

pub(crate) fn model(number: u8) -> ModelName {
    ModelName::parse(&format!("model{number}")).unwrap()
}

/// Sends one request through enter and commit.
pub(crate) fn ask(
    limiter: &mut Limiter,
    client: u32,
    model: &ModelName,
    now: u64,
) -> Result<Ticket, Refusal> {
    ask_through(limiter, client, model, now, true).map_err(Option::unwrap)
}

/// The same with a queue that says yes or no; `Err(None)` is its no.
pub(crate) fn ask_through(
    limiter: &mut Limiter,
    client: u32,
    model: &ModelName,
    now: u64,
    queue_admits: bool,
) -> Result<Ticket, Option<Refusal>> {
    let mut ticket = limiter.enter(&head(client), Nanos(now)).map_err(Some)?;
    let arrival = || if queue_admits { Ok(()) } else { Err(()) };
    match limiter.commit(
        &mut ticket,
        &BodyFacts { model: Some(model), ..BodyFacts::default() },
        Nanos(now),
        arrival,
    ) {
        Ok(()) => Ok(ticket),
        Err(error) => {
            limiter.finish(ticket, None, Nanos(now));
            Err(match error {
                CommitError::Refused(refusal) => Some(refusal),
                CommitError::Arrival(()) => None,
                CommitError::Oversized(oversized) => panic!("{oversized:?}"),
            })
        }
    }
}

/// One request, told from others by its outcome.
pub(crate) fn passes(limiter: &mut Limiter, client: u32, now: u64) -> bool {
    ask(limiter, client, &model(0), now).map(|ticket| limiter.finish(ticket, None, Nanos(now))).is_ok()
}

/// What a client does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    /// Nanoseconds since the step before.
    pub(crate) after: u64,
    pub(crate) client: u32,
    pub(crate) model: u8,
    pub(crate) act: Act,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Act {
    /// Asks, and keeps what it got.
    Ask,
    /// Asks, and the queue has no place.
    AskInVain,
    /// Sends a bad body.
    Bad,
    /// Ends the oldest request under way, served.
    Finish,
    /// Ends the newest request under way, unserved.
    Abandon,
}

/// Times that meet: many at one instant, many at multiples of 50 ms, some anywhere.
pub(crate) fn gap() -> impl Strategy<Value = u64> {
    prop_oneof![3 => Just(0), 3 => (1..8u64).prop_map(|n| n * 50_000_000), 2 => 1..400_000_000u64]
}

pub(crate) fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let act = prop_oneof![
        8 => Just(Act::Ask),
        1 => Just(Act::AskInVain),
        1 => Just(Act::Bad),
        2 => Just(Act::Finish),
        2 => Just(Act::Abandon),
    ];
    let step = (gap(), 0..4u32, 0..2u8, act).prop_map(|(after, client, model, act)| Step {
        after,
        client,
        model,
        act,
    });
    prop::collection::vec(step, 1..most)
}

/// What came of a step.
#[derive(Debug, PartialEq)]
pub(crate) enum Came {
    Admitted,
    Refused(Refusal),
    NoPlace,
    Nothing,
}

/// A trace under way.
#[derive(Default)]
pub(crate) struct Trace {
    pub(crate) under_way: Vec<Ticket>,
    pub(crate) now: u64,
}

impl Trace {
    pub(crate) fn step(&mut self, limiter: &mut Limiter, step: &Step) -> Came {
        self.now += step.after;
        let now = Nanos(self.now);
        match step.act {
            Act::Ask | Act::AskInVain => {
                let wanted = matches!(step.act, Act::Ask);
                match ask_through(limiter, step.client, &model(step.model), self.now, wanted) {
                    Ok(ticket) => {
                        self.under_way.push(ticket);
                        Came::Admitted
                    }
                    Err(Some(refusal)) => Came::Refused(refusal),
                    Err(None) => Came::NoPlace,
                }
            }
            Act::Bad => match limiter.enter(&head(step.client), now) {
                Ok(ticket) => {
                    limiter.bad_request(ticket, now);
                    Came::Nothing
                }
                Err(refusal) => Came::Refused(refusal),
            },
            Act::Finish if !self.under_way.is_empty() => {
                limiter.finish(self.under_way.remove(0), None, now);
                Came::Nothing
            }
            Act::Abandon => {
                self.under_way.pop().into_iter().for_each(|ticket| limiter.abandon(ticket, now));
                Came::Nothing
            }
            Act::Finish => Came::Nothing,
        }
    }
}

/// Up to four limits of all shapes, slow enough that a trace exceeds them.
pub(crate) fn limits() -> impl Strategy<Value = Vec<LimitDoc>> {
    let shape = prop_oneof![
        Just(vec![KeyPart::Client]),
        Just(vec![KeyPart::ClientIP, KeyPart::Model]),
        Just(vec![KeyPart::Model]),
        Just(vec![KeyPart::Endpoint]),
        Just(vec![KeyPart::Global]),
    ];
    let numbers = (1..15_000u64, 1..4u64, 1..6u64, prop::option::of(1..5u32), any::<bool>());
    let one = (shape, numbers, any::<bool>()).prop_map(|(per, numbers, one_model)| {
        let (count_milli, window_seconds, burst, concurrency, is_rated) = numbers;
        let rate = RateDoc { count_milli, window_seconds, burst };
        LimitDoc {
            requests: (is_rated || concurrency.is_none()).then_some(rate),
            concurrency,
            models: if one_model { vec!["model0".into()] } else { vec![] },
            ..limit("x", &per)
        }
    });
    prop::collection::vec(one, 1..5).prop_map(|limits| {
        let named = limits.into_iter().enumerate();
        named.map(|(place, limit)| LimitDoc { name: format!("l{place}"), ..limit }).collect()
    })
}
