//! Plans, clients and traces for the laws.

use std::{net::Ipv4Addr, num::NonZeroU32, sync::Arc};

use corral_limiter::{
    BodyFacts, CommitError, HeadFacts, Limiter, LimiterSettings, ModelName, Nanos, Plan, Refusal, Ticket,
    Usage, compile,
};
use corral_wire::{
    Action, Algorithm, EndpointClass, ExceedDoc, IdentityDoc, KeyPart, LimitDoc, Mode, PLAN_VERSION, PlanDoc,
    PoolRef, QueueDoc, RateDoc, Scope,
};
use proptest::prelude::*;

pub(crate) const SECOND: u64 = 1_000_000_000;

pub(crate) fn doc(limits: Vec<LimitDoc>) -> PlanDoc {
    PlanDoc {
        version: PLAN_VERSION,
        pool: PoolRef { namespace: "llm".into(), name: "chat".into() },
        sequence: 1,
        identity: IdentityDoc::default(),
        queue: QueueDoc { max_depth: 100, max_wait_ms: 30_000, ..QueueDoc::default() },
        limits,
        ..PlanDoc::default()
    }
}

pub(crate) fn plan(limits: &[LimitDoc]) -> Arc<Plan> {
    plan_of(&doc(limits.to_vec()))
}

pub(crate) fn plan_of(doc: &PlanDoc) -> Arc<Plan> {
    Arc::new(compile(doc).unwrap_or_else(|errors| panic!("{errors}")))
}

pub(crate) fn limiter_by(doc: &PlanDoc) -> Limiter {
    let mut limiter = Limiter::new(LimiterSettings { hash_key: *b"a key for tests!", keys_per_limit: 1000 });
    limiter.swap(plan_of(doc), pods(1), Nanos::ZERO);
    limiter
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

/// What a client asks of a model costs the same each time: up to three tokens in, up to two out, and some time.
pub(crate) fn usage(client: u32, model: &ModelName) -> Usage {
    let output = if model.as_str().starts_with("model0") { 1 } else { 2 };
    let slot = Nanos::from_millis(100 * (1 + u64::from(client % 4)));
    Usage { input: 1 + u64::from(client % 3), output, slot }
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
    let arrival = |_: &_| if queue_admits { Ok(()) } else { Err(()) };
    let waits = client % 2 == 1;
    let body = BodyFacts { model: Some(model), estimate: usage(client, model), waits };
    match limiter.commit(&mut ticket, &body, Nanos(now), arrival) {
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
    /// Gives a slot to the oldest request that limits hold back.
    Dispatch,
    /// The oldest request under way waits no more, and so many tokens have come.
    Progress(u64),
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
        2 => Just(Act::Dispatch),
        1 => (0..5u64).prop_map(Act::Progress),
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
    Admitted(Way),
    Refused(Refusal),
    NoPlace,
    Nothing,
    Dispatched,
    Blocked(String, Option<Nanos>),
}

/// How a request was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) delay: Nanos,
    pub(crate) is_pending: bool,
    pub(crate) is_deprioritized: bool,
    pub(crate) deadline: Option<Nanos>,
}

impl Way {
    fn of(ticket: &Ticket) -> Self {
        Self {
            delay: ticket.terms().delay,
            is_pending: ticket.is_pending(),
            is_deprioritized: ticket.terms().is_deprioritized,
            deadline: ticket.deadline(),
        }
    }
}

/// A trace under way.
#[derive(Default)]
pub(crate) struct Trace {
    pub(crate) under_way: Vec<Ticket>,
    /// The longest answers that are told of; 0: none outruns what was reserved.
    pub(crate) most_output: u64,
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
                        let way = Way::of(&ticket);
                        self.under_way.push(ticket);
                        Came::Admitted(way)
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
                let ticket = self.under_way.remove(0);
                let client = step.client;
                // Never more than was reserved by anybody, so that no debt is left.
                let real = Usage { input: 1, output: 0, slot: Nanos::from_millis(u64::from(client) * 20) };
                limiter.finish(ticket, (client > 0).then_some(real), now);
                Came::Nothing
            }
            Act::Dispatch => match self.under_way.iter_mut().find(|ticket| ticket.is_pending()) {
                None => Came::Nothing,
                Some(ticket) => match limiter.dispatch(ticket, now) {
                    Ok(()) => Came::Dispatched,
                    Err(blocked) => Came::Blocked(blocked.limit.to_string(), blocked.wait),
                },
            },
            Act::Progress(output) => {
                if let Some(ticket) = self.under_way.first_mut() {
                    limiter.started(ticket);
                    limiter.progress(ticket, output.min(self.most_output), now);
                }
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

/// Up to four limits of requests and concurrency, of all shapes and algorithms, slow enough that a trace exceeds them.
pub(crate) fn limits() -> impl Strategy<Value = Vec<LimitDoc>> {
    named(one())
}

/// The same, and with all units and all that can be done with what exceeds them.
pub(crate) fn mixed() -> impl Strategy<Value = Vec<LimitDoc>> {
    let tokens = (12..60u64, 0..5u8, 1..6u32, any::<bool>());
    let acts = (0..7u8, 1..3000u64);
    named(
        (one(), tokens, acts).prop_map(|(limit, tokens, acts)| with_action(with_tokens(limit, tokens), acts)),
    )
}

fn named(one: impl Strategy<Value = LimitDoc>) -> impl Strategy<Value = Vec<LimitDoc>> {
    prop::collection::vec(one, 1..5).prop_map(|limits| {
        let named = limits.into_iter().enumerate();
        named.map(|(place, limit)| LimitDoc { name: format!("l{place}"), ..limit }).collect()
    })
}

fn one() -> impl Strategy<Value = LimitDoc> {
    let shape = prop_oneof![
        Just(vec![KeyPart::Client]),
        Just(vec![KeyPart::ClientIP, KeyPart::Model]),
        Just(vec![KeyPart::Model]),
        Just(vec![KeyPart::Endpoint]),
        Just(vec![KeyPart::Global]),
    ];
    let algorithm = prop_oneof![
        2 => Just(Algorithm::TokenBucket),
        1 => Just(Algorithm::SlidingWindow),
        1 => Just(Algorithm::SlidingLog),
        1 => Just(Algorithm::FixedWindow),
    ];
    let numbers = (1..15_000u64, 1..4u64, 1..6u64, prop::option::of(1..5u32), any::<bool>());
    (shape, numbers, any::<bool>(), algorithm).prop_map(|(per, numbers, one_model, algorithm)| {
        let (count_milli, window_seconds, burst, concurrency, is_rated) = numbers;
        let is_rated = is_rated || concurrency.is_none();
        let rate = RateDoc { count_milli, window_seconds: in_seconds(algorithm, window_seconds), burst };
        LimitDoc {
            requests: is_rated.then_some(rate),
            concurrency,
            models: if one_model { vec!["model0".into()] } else { vec![] },
            algorithm: if is_rated { algorithm } else { Algorithm::default() },
            ..limit("x", &per)
        }
    })
}

/// Those that refuse.
pub(crate) fn algorithms() -> impl Strategy<Value = Algorithm> {
    prop::sample::select(algorithms_that_refuse().collect::<Vec<_>>())
}

/// The same, one after the other.
pub(crate) fn algorithms_that_refuse() -> impl Iterator<Item = Algorithm> {
    [Algorithm::TokenBucket, Algorithm::SlidingWindow, Algorithm::SlidingLog, Algorithm::FixedWindow]
        .into_iter()
}

fn in_seconds(algorithm: Algorithm, seconds: u64) -> u64 {
    if algorithm == Algorithm::FixedWindow { 60 } else { seconds }
}

/// Enough of them that a share of three pods holds any one request.
fn with_tokens(limit: LimitDoc, (count, which, most, waits): (u64, u8, u32, bool)) -> LimitDoc {
    let window_seconds = in_seconds(limit.algorithm, 2);
    let rate = Some(RateDoc { count_milli: count * 1000, window_seconds, burst: count });
    let limit = LimitDoc { queued: waits.then_some(most), queued_tokens: waits.then_some(most * 2), ..limit };
    match which {
        _ if limit.algorithm == Algorithm::SlidingLog => limit,
        0 => LimitDoc { tokens: rate, ..limit },
        1 => LimitDoc { input_tokens: rate, ..limit },
        2 => LimitDoc { output_tokens: rate, tokens: rate, ..limit },
        3 => LimitDoc { slot_seconds: Some(rate_of(1 + count % 5, window_seconds)), ..limit },
        _ => limit,
    }
}

fn rate_of(count: u64, window_seconds: u64) -> RateDoc {
    RateDoc { count_milli: count * 1000, window_seconds, burst: count }
}

fn with_action(limit: LimitDoc, (which, wait): (u8, u64)) -> LimitDoc {
    let exceed = |action, wait| ExceedDoc { action, max_wait_ms: wait, ..ExceedDoc::default() };
    let unheld = |limit| LimitDoc { concurrency: None, queued: None, queued_tokens: None, ..limit };
    let unqueued = |limit| LimitDoc { queued: None, queued_tokens: None, ..limit };
    let is_paced = limit.algorithm == Algorithm::TokenBucket;
    let has_rate =
        [limit.requests, limit.tokens, limit.input_tokens, limit.output_tokens, limit.slot_seconds]
            .iter()
            .any(Option::is_some);
    match which {
        0 if is_paced && has_rate => {
            LimitDoc { on_exceed: exceed(Action::Delay, Some(wait)), ..unheld(limit) }
        }
        1 if is_paced && has_rate => LimitDoc { algorithm: Algorithm::LeakyBucket, ..unheld(limit) },
        2 if has_rate || limit.concurrency.is_some() => {
            LimitDoc { on_exceed: exceed(Action::Queue, Some(wait)), ..unqueued(limit) }
        }
        3 => LimitDoc { on_exceed: exceed(Action::Deprioritize, None), ..limit },
        _ => limit,
    }
}
