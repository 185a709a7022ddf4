//! What the buckets of many clients take of the memory: the figure that the settings count on.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "what helps tests may panic as tests may")]

use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::{fs, iter};

use corral_limiter::{BodyFacts, HeadFacts, Limiter, LimiterSettings, Nanos, compile};
use corral_wire::{
    EndpointClass, IdentityDoc, KeyPart, LimitDoc, Mode, PLAN_VERSION, PlanDoc, PoolRef, QueueDoc, RateDoc,
    Scope,
};

const LIMITS: usize = 4;
const CLIENTS: u32 = 50_000;
/// What the settings count on.
const MOST_BYTES_PER_KEY: usize = 160;

/// Limits that keep a bucket for each client, so slow that none is full again.
fn limiter() -> Limiter {
    let limit = |number: usize| LimitDoc {
        policy: "llm/fair-use".into(),
        name: format!("l{number}"),
        mode: Mode::Enforce,
        endpoints: Vec::new(),
        models: Vec::new(),
        per: vec![KeyPart::Client],
        scope: Scope::Pool,
        requests: Some(RateDoc { count_milli: 1000, window_seconds: 86_400, burst: 1000 }),
        concurrency: None,
        ..LimitDoc::default()
    };
    let doc = PlanDoc {
        version: PLAN_VERSION,
        pool: PoolRef { namespace: "llm".into(), name: "chat".into() },
        sequence: 1,
        identity: IdentityDoc::default(),
        queue: QueueDoc { max_depth: 1, max_wait_ms: 1000, ..QueueDoc::default() },
        limits: (0..LIMITS).map(limit).collect(),
        ..PlanDoc::default()
    };
    let mut limiter = Limiter::new(LimiterSettings { hash_key: [7; 16], keys_per_limit: CLIENTS as usize });
    limiter.swap(Arc::new(compile(&doc).unwrap()), NonZeroU32::MIN, Nanos::ZERO);
    limiter
}

fn ask(limiter: &mut Limiter, client: u32, now: Nanos) {
    let head = HeadFacts::new(Ipv4Addr::from(client).into(), EndpointClass::Chat, "/api/chat");
    let mut ticket = limiter.enter(&head, now).unwrap();
    limiter.commit(&mut ticket, &BodyFacts::default(), now, |_| Ok::<_, ()>(())).unwrap();
    limiter.finish(ticket, None, now);
}

/// Bytes of memory that this process has.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[test]
fn a_client_costs_each_limit_no_more_than_the_settings_count_on() {
    let mut limiter = limiter();
    let before = resident();
    for (client, now) in iter::zip(0..CLIENTS, (0..).map(Nanos)) {
        ask(&mut limiter, client, now);
    }
    let keys: usize = limiter.stats().iter().map(|stats| stats.keys).sum();
    assert_eq!(keys, LIMITS * CLIENTS as usize);
    let bytes_per_key = (resident() - before) / keys;
    println!("{bytes_per_key} bytes per key");
    assert!(bytes_per_key <= MOST_BYTES_PER_KEY, "{bytes_per_key}");
}
