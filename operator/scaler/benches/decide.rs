//! How long a decision takes for a pool of a thousand pods.

use std::hint::black_box;
use std::time::Duration;

use corral_scaler::{Config, Heard, Observation, Phase, PodSeen, Scaler, deletion_order};
use criterion::{Criterion, criterion_group, criterion_main};

const PODS: u64 = 1000;

fn pods() -> Vec<PodSeen> {
    let pod = |number: u64| PodSeen {
        uid: format!("5f9c1a52-0000-4000-8000-{number:012}"),
        name: format!("chat-{number}"),
        node: Some(format!("node-{}", number / 8)),
        phase: Phase::Running,
        ready: true,
        ready_since: Some(Duration::from_secs(number)),
        created: Duration::from_secs(number),
        heard: Some(Heard {
            ready: true,
            models: (0..8).map(|model| format!("model-{}", (number + model) % 40)).collect(),
            ..Heard::default()
        }),
        ..PodSeen::default()
    };
    (0..PODS).map(pod).collect()
}

/// Time goes on by a report of each pod.
fn tick(seen: &mut Observation, now: Duration, busy: bool) {
    for (pod, number) in seen.pods.iter_mut().zip(0_u64..) {
        let Some(heard) = pod.heard.as_mut() else { continue };
        heard.at = now.saturating_sub(Duration::from_millis(number * 2));
        heard.counters.arrivals += u64::from(busy);
        heard.counters.completions += u64::from(busy);
        heard.counters.slot_millis += 4000;
        heard.gauges.slots = 4;
        heard.gauges.in_flight = u32::from(busy) * 3;
    }
}

fn decide(criterion: &mut Criterion, name: &str, busy: bool) {
    let config = Config { max: 1000, trend: true, ..Config::default() };
    let mut seen = Observation { replicas: 1000, pods: pods(), ..Observation::default() };
    let mut now = Duration::from_secs(10_000);
    let mut scaler = Scaler::new(now);
    criterion.bench_function(name, |bencher| {
        bencher.iter(|| {
            now += Duration::from_secs(2);
            tick(&mut seen, now, busy);
            black_box(scaler.decide(&config, &seen, now))
        });
    });
}

fn all(criterion: &mut Criterion) {
    decide(criterion, "decide, 1,000 pods at work", true);
    decide(criterion, "decide, 1,000 pods of which ever more go", false);
    let (pods, now) = (pods(), Duration::from_secs(10_000));
    criterion.bench_function("the order of deletion of 1,000 pods", |bencher| {
        bencher.iter(|| black_box(deletion_order(&pods, now).len()));
    });
}

criterion_group!(benches, all);
criterion_main!(benches);
