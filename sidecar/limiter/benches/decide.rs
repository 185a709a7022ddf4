//! What a decision costs: enter, commit and finish of one request, in the ways that differ.

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    sync::Arc,
    thread,
    time::Instant,
};

use corral_limiter::{BodyFacts, HeadFacts, Limiter, LimiterSettings, ModelName, Nanos, Usage, compile};
use corral_wire::{
    EndpointClass, IdentityDoc, KeyPart, LimitDoc, Mode, PLAN_VERSION, PlanDoc, PoolRef, QueueDoc, RateDoc,
    Scope,
};
use criterion::{Criterion, criterion_group, criterion_main};
use governor::{Quota, RateLimiter};
use parking_lot::Mutex;

fn limit(name: &str, per: &[KeyPart], rate: RateDoc) -> LimitDoc {
    LimitDoc {
        policy: "llm/fair-use".into(),
        name: name.into(),
        mode: Mode::Enforce,
        endpoints: vec![],
        models: vec![],
        per: per.to_vec(),
        scope: Scope::Pool,
        requests: Some(rate),
        concurrency: None,
        ..LimitDoc::default()
    }
}

/// Faster than any bench can ask.
const WIDE: RateDoc = RateDoc { count_milli: 1_000_000_000_000, window_seconds: 1, burst: 1_000_000 };
/// One a month.
const NARROW: RateDoc = RateDoc { count_milli: 1000, window_seconds: 31 * 86_400, burst: 1 };

/// With room for a million keys.
fn limiter(limits: Vec<LimitDoc>) -> Limiter {
    let doc = PlanDoc {
        version: PLAN_VERSION,
        pool: PoolRef { namespace: "llm".into(), name: "chat".into() },
        sequence: 1,
        identity: IdentityDoc::default(),
        queue: QueueDoc { max_depth: 100, max_wait_ms: 30_000, ..QueueDoc::default() },
        limits,
        ..PlanDoc::default()
    };
    let mut limiter = Limiter::new(LimiterSettings { hash_key: [7; 16], keys_per_limit: 1_000_000 });
    if let Ok(plan) = compile(&doc) {
        limiter.swap(Arc::new(plan), NonZeroU32::MIN, Nanos::ZERO);
    }
    limiter
}

/// One request from its head to its end; whether it was admitted.
fn decide(limiter: &mut Limiter, client: u32, model: &ModelName, now: Nanos) -> bool {
    let head = HeadFacts::new(Ipv4Addr::from(client).into(), EndpointClass::Chat, "/api/chat");
    let Ok(mut ticket) = limiter.enter(&head, now) else {
        return false;
    };
    let body = BodyFacts { model: Some(model), ..BodyFacts::default() };
    let admitted = limiter.commit(&mut ticket, &body, now, |_| Ok::<_, ()>(())).is_ok();
    limiter.finish(ticket, None, now);
    admitted
}

fn bench(criterion: &mut Criterion, name: &str, mut limiter: Limiter, mut next_client: impl FnMut() -> u32) {
    let Ok(model) = ModelName::parse("llama3.2:3b") else { return };
    let mut now = Nanos::ZERO;
    criterion.bench_function(name, |bencher| {
        bencher.iter(|| {
            now = now.plus(Nanos(1));
            black_box(decide(&mut limiter, next_client(), &model, now))
        });
    });
}

/// Pseudo-random clients: a linear congruential step is far below what is measured.
fn random_clients(among: u32) -> impl FnMut() -> u32 {
    let mut state = 1_u64;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(state >> 33).unwrap_or(0) % among
    }
}

/// So many limits, of shapes that plans have.
fn many(count: usize) -> Vec<LimitDoc> {
    let shapes: [&[KeyPart]; 8] = [
        &[KeyPart::Client],
        &[KeyPart::Client],
        &[KeyPart::ClientIP],
        &[KeyPart::Global],
        &[KeyPart::Global],
        &[KeyPart::Endpoint],
        &[KeyPart::Model],
        &[KeyPart::Client, KeyPart::Model],
    ];
    let shapes = shapes.iter().cycle().take(count).enumerate();
    shapes.map(|(place, per)| limit(&format!("l{place}"), per, WIDE)).collect()
}

fn decisions(criterion: &mut Criterion) {
    let one = |rate| limiter(vec![limit("l", &[KeyPart::Client], rate)]);
    let held = LimitDoc { concurrency: Some(1000), ..limit("l", &[KeyPart::Client], WIDE) };
    // Slow enough that no bucket is full again, so that every key keeps its entry.
    let keeps = RateDoc { count_milli: 1000, window_seconds: 86_400, burst: 1_000_000_000 };
    bench(criterion, "hot key", one(WIDE), || 1);
    bench(criterion, "hot key, rate and concurrency", limiter(vec![held]), || 1);
    bench(criterion, "100k keys", one(keeps), random_clients(100_000));
    bench(criterion, "1M keys", one(keeps), random_clients(1_000_000));
    bench(criterion, "4 limits, hot", limiter(many(4)), || 1);
    bench(criterion, "16 limits, hot", limiter(many(16)), || 1);
    bench(criterion, "16 limits, 100k clients", limiter(many(16)), random_clients(100_000));
    bench(criterion, "refusal", one(NARROW), || 1);
}

/// What one request costs beside its limits: its body is estimated, told of once and settled.
fn tokens(criterion: &mut Criterion) {
    let limit = LimitDoc { tokens: Some(WIDE), ..limit("l", &[KeyPart::Client], WIDE) };
    let mut limiter = limiter(vec![limit]);
    let Ok(model) = ModelName::parse("llama3.2:3b") else { return };
    let mut now = Nanos::ZERO;
    criterion.bench_function("hot key, tokens settled", |bencher| {
        bencher.iter(|| {
            now = now.plus(Nanos(1));
            let head = HeadFacts::new(Ipv4Addr::LOCALHOST.into(), EndpointClass::Chat, "/api/chat");
            let Ok(mut ticket) = limiter.enter(&head, now) else { return };
            let estimate = Usage { input: 10, output: 10, slot: Nanos::ZERO };
            let body = BodyFacts { model: Some(&model), estimate, waits: false };
            let _admitted = black_box(limiter.commit(&mut ticket, &body, now, |_| Ok::<_, ()>(())));
            limiter.progress(&mut ticket, 12, now);
            limiter.finish(ticket, Some(Usage { input: 9, output: 14, slot: Nanos::ZERO }), now);
        });
    });
}

/// The limiter of the crate `governor`, beside ours: one cell, and one cell a key. It only decides: no guard, no body,
/// no settling, no other limit.
fn governor(criterion: &mut Criterion) {
    let quota = Quota::per_second(NonZeroU32::MAX);
    let alone = RateLimiter::direct(quota);
    criterion.bench_function("governor, hot", |bencher| bencher.iter(|| black_box(alone.check().is_ok())));
    for (name, keys) in [("governor, keyed, hot", 1), ("governor, keyed, 1M keys", 1_000_000)] {
        let keyed = RateLimiter::keyed(quota);
        let mut next = random_clients(keys);
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| black_box(keyed.check_key(&IpAddr::from(Ipv4Addr::from(next()))).is_ok()));
        });
    }
}

/// Two threads through the one lock that a sidecar keeps around its limiter: the time of both together for a decision.
#[expect(clippy::disallowed_methods, reason = "what a bench is for is to read the time")]
fn two_threads(criterion: &mut Criterion) {
    let Ok(model) = ModelName::parse("llama3.2:3b") else { return };
    let limiter = Mutex::new(limiter(vec![limit("l", &[KeyPart::Client], WIDE)]));
    let decide_all = |client: u32, count: u64| {
        for number in 0..count {
            black_box(decide(&mut limiter.lock(), client, &model, Nanos(number)));
        }
    };
    criterion.bench_function("hot keys, two threads", |bencher| {
        bencher.iter_custom(|count| {
            let begun = Instant::now();
            thread::scope(|scope| {
                scope.spawn(|| decide_all(1, count / 2));
                decide_all(2, count - count / 2);
            });
            begun.elapsed()
        });
    });
}

/// The longest single decision while a limit comes to know half a million keys. What a busy machine does in between is in
/// it.
#[expect(clippy::disallowed_methods, reason = "what a bench is for is to read the time")]
fn longest(criterion: &mut Criterion) {
    let Ok(model) = ModelName::parse("llama3.2:3b") else { return };
    let keeps = RateDoc { count_milli: 1000, window_seconds: 86_400, burst: 1_000_000_000 };
    criterion.bench_function("longest of 500k new keys", |bencher| {
        bencher.iter_custom(|count| {
            let mut limiter = limiter(vec![limit("l", &[KeyPart::Client], keeps)]);
            let times = (0..500_000).map(|client| {
                let begun = Instant::now();
                black_box(decide(&mut limiter, client, &model, Nanos(u64::from(client))));
                begun.elapsed()
            });
            times.max().unwrap_or_default() * u32::try_from(count).unwrap_or(u32::MAX)
        });
    });
}

criterion_group!(benches, decisions, tokens, two_threads, longest, governor);
criterion_main!(benches);
