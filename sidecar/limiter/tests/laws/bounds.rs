//! Law 1 over whole plans: no window of any bucket of any algorithm holds more real cost than its bound, but for what
//! real costs exceed what was reserved and for costs above the burst.

use std::collections::BTreeMap;

use corral_limiter::{Limiter, Nanos, Ticket, Usage};
use corral_wire::{Action, Algorithm, ExceedDoc, KeyPart, LimitDoc, RateDoc};
use proptest::prelude::*;

use crate::{
    oracle::{Windows, worst_excess},
    support::{SECOND, ask, gap, limiter, mixed, model, usage},
};

#[derive(Debug, Clone, Copy)]
enum Act {
    Ask,
    /// With what it really cost, or not knowing it.
    Finish(Option<(u64, u64, u64)>),
    Abandon,
    Dispatch,
    Progress(u64),
}

/// How long after the one before, who, which model, what; and which of those under way, if it is one of these.
type Step = (u64, u32, u8, Act, prop::sample::Index);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let real = prop::option::of((0..6u64, 0..6u64, 0..900u64));
    let act = prop_oneof![
        8 => Just(Act::Ask),
        3 => real.prop_map(Act::Finish),
        1 => Just(Act::Abandon),
        3 => Just(Act::Dispatch),
        2 => (0..7u64).prop_map(Act::Progress),
    ];
    prop::collection::vec((gap(), 0..4u32, 0..2u8, act, any::<prop::sample::Index>()), 1..90)
}

/// A request that was admitted.
struct Served {
    client: u32,
    model: u8,
    committed: u64,
    /// When it was told to start.
    starts: u64,
    /// None while limits that queue hold it back.
    dispatched: Option<u64>,
    was_spared: bool,
    reserved: Usage,
    real: Usage,
}

impl Served {
    fn new(ticket: &Ticket, (client, number): (u32, u8), now: u64) -> Self {
        let reserved = usage(client, &model(number));
        Self {
            client,
            model: number,
            committed: now,
            starts: now + ticket.terms().delay.0,
            dispatched: (!ticket.is_pending()).then_some(now),
            was_spared: ticket.terms().is_deprioritized,
            reserved,
            real: reserved,
        }
    }

    /// When a limit charged it, if it did.
    fn charged_at(&self, limit: &LimitDoc) -> Option<u64> {
        match limit.on_exceed.action {
            Action::Deprioritize if self.was_spared => None,
            Action::Queue => self.dispatched,
            Action::Delay => Some(self.starts),
            _ if limit.algorithm == Algorithm::LeakyBucket => Some(self.starts),
            _ => Some(self.committed),
        }
    }
}

/// Runs a trace; says what was admitted and not given up.
fn run(limiter: &mut Limiter, steps: &[Step], stretch: u64) -> Vec<Served> {
    let mut under_way: Vec<(Ticket, Served)> = Vec::new();
    let mut over = Vec::new();
    let mut now = 0;
    for (after, client, number, act, which) in steps {
        now += after * stretch;
        if let Act::Ask = act {
            if let Ok(ticket) = ask(limiter, *client, &model(*number), now) {
                let served = Served::new(&ticket, (*client, *number), now);
                under_way.push((ticket, served));
            }
            continue;
        }
        if under_way.is_empty() {
            continue;
        }
        let place = which.index(under_way.len());
        let (ticket, served) = &mut under_way[place];
        match act {
            Act::Ask => {}
            Act::Dispatch => {
                if ticket.is_pending() && limiter.dispatch(ticket, Nanos(now)).is_ok() {
                    served.dispatched = Some(now);
                }
            }
            Act::Progress(output) => {
                limiter.progress(ticket, *output, Nanos(now));
                served.real.output = served.real.output.max(*output);
            }
            Act::Abandon => {
                let (ticket, _) = under_way.remove(place);
                limiter.abandon(ticket, Nanos(now));
            }
            Act::Finish(real) => {
                let (ticket, mut served) = under_way.remove(place);
                let real =
                    real.map(|(input, output, slot)| Usage { input, output, slot: Nanos::from_millis(slot) });
                limiter.finish(ticket, real, Nanos(now));
                served.real = real.unwrap_or(served.real);
                over.push(served);
            }
        }
    }
    over.extend(under_way.into_iter().map(|(_, served)| served));
    over
}

/// What a request costs.
type Cost = fn(&Usage) -> u64;

/// The units of a limit, each with its rate and what a request costs of it.
fn units(limit: &LimitDoc) -> Vec<(RateDoc, u64, Cost)> {
    let all: [(Option<RateDoc>, u64, Cost); 5] = [
        (limit.requests, 1, |_| 1),
        (limit.tokens, 1, |usage| usage.input + usage.output),
        (limit.input_tokens, 1, |usage| usage.input),
        (limit.output_tokens, 1, |usage| usage.output),
        (limit.slot_seconds, 1000, |usage| usage.slot.millis_ceil()),
    ];
    all.into_iter().filter_map(|(rate, permits, cost)| Some((rate?, permits, cost))).collect()
}

/// The requests that a limit charged, a list for each of its buckets.
fn groups<'a>(limit: &LimitDoc, served: &'a [Served]) -> Vec<Vec<(u64, &'a Served)>> {
    let mut groups = BTreeMap::<_, Vec<_>>::new();
    for one in served.iter().filter(|one| limit.models.is_empty() || one.model == 0) {
        let by_client = limit.per.iter().any(|part| matches!(part, KeyPart::Client | KeyPart::ClientIP));
        let by_model = limit.per.contains(&KeyPart::Model);
        let key = (by_client.then_some(one.client), by_model.then_some(one.model));
        groups.entry(key).or_default().extend(one.charged_at(limit).map(|at| (at, one)));
    }
    groups.into_values().collect()
}

/// By how much a bucket exceeded the bound of its algorithm.
fn excess(limit: &LimitDoc, rate: &RateDoc, permits: u64, charged: Vec<(u64, u64)>) -> u128 {
    let count_milli = rate.count_milli * permits;
    let window = rate.window_seconds * SECOND;
    let count = u128::from(rate.count_milli.div_ceil(1000) * permits);
    let interval = Windows::new(count_milli, window, 1).interval;
    match limit.algorithm {
        Algorithm::TokenBucket => worst_excess(charged, interval, u128::from(rate.burst * permits)),
        Algorithm::LeakyBucket => worst_excess(charged, interval, 1),
        Algorithm::SlidingLog => worst_in(charged, window).saturating_sub(count),
        Algorithm::SlidingWindow => worst_in(charged, window).saturating_sub(2 * count - 1),
        Algorithm::FixedWindow => {
            let mut windows = BTreeMap::<u64, u128>::new();
            for (at, cost) in charged {
                *windows.entry(at / window).or_default() += u128::from(cost);
            }
            windows.into_values().map(|sum| sum.saturating_sub(count)).max().unwrap_or(0)
        }
    }
}

/// The most in any half-open window of a length.
fn worst_in(mut charged: Vec<(u64, u64)>, window: u64) -> u128 {
    charged.sort_unstable();
    let from = |at: u64| charged.iter().filter(move |(other, _)| (at..at + window).contains(other));
    charged.iter().map(|(at, _)| from(*at).map(|(_, cost)| u128::from(*cost)).sum()).max().unwrap_or(0)
}

/// Of several numbers that delay, a request starts when the last lets it, and is booked with each for when that one
/// does: only of a single one can be told from outside when that was.
fn with_one_delay(limits: Vec<LimitDoc>) -> Vec<LimitDoc> {
    let mut is_first = true;
    let delays = |limit: &LimitDoc| {
        limit.on_exceed.action == Action::Delay || limit.algorithm == Algorithm::LeakyBucket
    };
    let single = |mut limit: LimitDoc| {
        if !delays(&limit) {
            return limit;
        }
        if !std::mem::replace(&mut is_first, false) {
            return LimitDoc { algorithm: Algorithm::TokenBucket, on_exceed: ExceedDoc::default(), ..limit };
        }
        if limit.requests.is_none() {
            limit.output_tokens = None;
            return limit;
        }
        LimitDoc { tokens: None, input_tokens: None, output_tokens: None, slot_seconds: None, ..limit }
    };
    limits.into_iter().map(single).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_window_of_any_limit_holds_more_than_its_bound(
        limits in mixed(), steps in steps(), stretch in prop_oneof![Just(1u64), Just(20)],
    ) {
        let limits = with_one_delay(limits);
        let mut limiter = limiter(&limits);
        let served = run(&mut limiter, &steps, stretch);
        for limit in &limits {
            for (rate, permits, cost) in units(limit) {
                let most = if limit.algorithm == Algorithm::LeakyBucket { 1 } else { rate.burst * permits };
                for group in groups(limit, &served) {
                    let more: u64 =
                        group.iter().map(|(_, one)| cost(&one.real).saturating_sub(cost(&one.reserved))).sum();
                    let above = group.iter().map(|(_, one)| cost(&one.reserved).saturating_sub(most)).max();
                    let charged = group.iter().map(|(at, one)| (*at, cost(&one.real))).collect();
                    let allowed = u128::from(more + above.unwrap_or(0));
                    let excess = excess(limit, &rate, permits, charged);
                    prop_assert!(excess <= allowed, "{} above the bound of {:?}, {} allowed", excess, limit, allowed);
                }
            }
        }
    }
}
