//! Whatever is seen.

use std::time::Duration;

use corral_scaler::{
    Config, Decision, Down, Heard, Held, Holder, Observation, Phase, PodSeen, Preset, Scaler, Scarce,
    Shortage, Sizing, VICTIM_COST,
};
use corral_wire::{Counters, Gauges};
use proptest::prelude::*;

/// Small, usual, and as large as can be.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..20_u64, 2 => 0..5000_u64, 1 => any::<u64>(), 1 => Just(u64::MAX)]
}

fn small() -> impl Strategy<Value = u32> {
    prop_oneof![6 => 0..12_u32, 1 => any::<u32>()]
}

fn time() -> impl Strategy<Value = Duration> {
    prop_oneof![
        8 => (0..2000_u64).prop_map(Duration::from_secs),
        1 => any::<u64>().prop_map(Duration::from_millis),
        1 => Just(Duration::MAX),
    ]
}

fn sizing() -> impl Strategy<Value = Sizing> {
    let preset = prop_oneof![Just(Preset::Economy), Just(Preset::Balanced), Just(Preset::Fast)];
    prop_oneof![
        4 => (small(), preset).prop_map(|(utilization_percent, preset)| Sizing::Work { utilization_percent, preset }),
        1 => small().prop_map(Sizing::QueuePerReplica),
        1 => time().prop_map(Sizing::OldestWait),
        1 => small().prop_map(Sizing::InFlightPerReplica),
        1 => small().prop_map(Sizing::TokensPerSecond),
    ]
}

fn config() -> impl Strategy<Value = Config> {
    let down = (time(), small(), time()).prop_map(|(window, max_percent, period)| Down {
        window,
        max_percent,
        period,
    });
    let times = (time(), time(), prop::option::of(time()));
    (small(), small(), sizing(), small(), down, times, (any::<bool>(), holder())).prop_map(
        |(min, max, sizing, slots_per_pod, down, (expected_service, drain_timeout, to_zero), flags)| Config {
            min: min.min(max),
            max,
            sizing,
            slots_per_pod,
            expected_service,
            down,
            drain_timeout,
            trend: flags.0,
            to_zero,
            holder: flags.1,
        },
    )
}

fn holder() -> impl Strategy<Value = Holder> {
    prop_oneof![Just(Holder::Heard), Just(Holder::Unheard), Just(Holder::Nobody)]
}

fn heard() -> impl Strategy<Value = Heard> {
    let counters = (number(), number(), number(), number(), number(), number(), number(), number());
    let gauges = (small(), small(), small(), number());
    (time(), 0..3_u64, counters, gauges, any::<(bool, bool)>(), prop::collection::vec("[ab]", 0..3)).prop_map(
        |(at, epoch, counters, gauges, (retiring, ready), models)| Heard {
            at,
            epoch,
            counters: Counters {
                arrivals: counters.0,
                retries: counters.1,
                completions: counters.2,
                capacity_rejects: counters.3,
                policy_rejects: counters.4,
                slot_millis: counters.5,
                tokens_out: counters.6,
                looks: counters.7,
                ..Counters::default()
            },
            gauges: Gauges {
                slots: gauges.0,
                in_flight: gauges.1,
                queued: gauges.2,
                oldest_wait_ms: gauges.3,
                ..Gauges::default()
            },
            models,
            retiring,
            ready,
        },
    )
}

fn pod() -> impl Strategy<Value = PodSeen> {
    let phase = prop_oneof![1 => Just(Phase::Pending), 1 => Just(Phase::Unknown), 6 => Just(Phase::Running)];
    let cost = prop_oneof![3 => Just(0), 3 => Just(VICTIM_COST), 1 => any::<i32>()];
    let times = (time(), prop::option::of(time()), prop::option::of(time()));
    let flags = (any::<bool>(), prop::bool::weighted(0.1));
    (
        prop::option::weighted(0.9, 0..3_u8),
        phase,
        flags,
        times,
        small(),
        cost,
        prop::option::weighted(0.9, heard()),
    )
        .prop_map(|(node, phase, (ready, terminating), times, restarts, deletion_cost, heard)| PodSeen {
            node: node.map(|node| format!("n{node}")),
            phase,
            ready,
            ready_since: times.1,
            restarts,
            created: times.0,
            scheduled: times.2,
            terminating,
            deletion_cost,
            heard,
            ..PodSeen::default()
        })
}

fn observation() -> impl Strategy<Value = Observation> {
    let held =
        (small(), number(), 0..2_u64, number()).prop_map(|(requests, arrivals, epoch, oldest_wait_ms)| {
            Held { requests, arrivals, epoch, oldest_wait_ms }
        });
    let scarce = prop_oneof![Just(Scarce::Gpu), Just(Scarce::Quota), Just(Scarce::Node)];
    let shortage = prop::option::of((scarce, time()).prop_map(|(of, since)| Shortage { of, since }));
    let pods = prop::collection::vec(prop::option::weighted(0.7, pod()), 0..9).prop_map(|pods| {
        let named = pods.into_iter().enumerate().filter_map(|(name, pod)| Some((name, pod?)));
        named.map(|(name, pod)| PodSeen { uid: format!("p{name}"), ..pod }).collect()
    });
    (small(), any::<bool>(), pods, held, shortage).prop_map(|(replicas, rollout, pods, held, shortage)| {
        Observation { replicas, exist: 0, rollout, pods, held, shortage }
    })
}

fn looks() -> impl Strategy<Value = Vec<(Observation, Duration)>> {
    let wild = prop::collection::vec((observation(), time()), 1..12);
    let tame = prop::collection::vec((observation(), 0..20_u64), 1..30).prop_map(|looks| {
        let mut now = 1000;
        let follow = looks.into_iter().map(|(seen, passed)| {
            now += passed;
            (tame(seen, now), Duration::from_secs(now))
        });
        follow.collect()
    });
    prop_oneof![wild, tame]
}

/// With reports that are some seconds old, and times that have been.
fn tame(mut seen: Observation, now: u64) -> Observation {
    let before = |time: Duration, most: u64| Duration::from_secs(now - time.as_secs() % most);
    for pod in &mut seen.pods {
        pod.created = before(pod.created, 1000);
        pod.scheduled = pod.scheduled.map(|at| before(at, 500));
        pod.ready_since = pod.ready_since.map(|at| before(at, 300));
        if let Some(heard) = pod.heard.as_mut() {
            heard.at = before(heard.at, 12);
        }
    }
    seen
}

/// Decides over all of these, and gives each decision with what was seen.
fn decide(config: &Config, looks: &[(Observation, Duration)]) -> Vec<(Observation, Decision)> {
    let mut scaler = Scaler::new(Duration::ZERO);
    looks.iter().map(|(seen, now)| (seen.clone(), scaler.decide(config, seen, *now))).collect()
}

fn live(seen: &Observation) -> Vec<&PodSeen> {
    seen.pods.iter().filter(|pod| !pod.terminating).collect()
}

/// A pod that tells now that it works.
fn works(pod: &PodSeen, now: Duration) -> bool {
    let fresh = pod.heard.as_ref().filter(|heard| now.saturating_sub(heard.at) <= Duration::from_secs(10));
    fresh.is_some_and(|heard| heard.gauges.in_flight > 0 || heard.gauges.queued > 0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn desired_is_within_the_range(config in config(), looks in looks()) {
        for (_, decision) in decide(&config, &looks) {
            let least = if config.to_zero.is_some() { config.min } else { config.min.max(1) };
            prop_assert!(decision.desired >= least.min(config.max) && decision.desired <= config.max);
            prop_assert!(decision.replicas >= decision.desired);
        }
    }

    #[test]
    fn numbers_are_numbers(config in config(), looks in looks()) {
        for (_, Decision { numbers, .. }) in decide(&config, &looks) {
            for number in [
                numbers.rate, numbers.service_seconds, numbers.startup_seconds, numbers.drain_seconds, numbers.slots,
            ] {
                prop_assert!(number.is_finite() && number >= 0.0, "{numbers:?}");
            }
        }
    }

    #[test]
    fn asked_twice_it_says_the_same(config in config(), looks in looks()) {
        let mut scaler = Scaler::new(Duration::ZERO);
        for (seen, now) in &looks {
            let first = scaler.decide(&config, seen, *now);
            let second = scaler.decide(&config, seen, *now);
            prop_assert_eq!(
                (first.desired, first.replicas, &first.retire, &first.costs, first.numbers.needed),
                (second.desired, second.replicas, &second.retire, &second.costs, second.numbers.needed)
            );
            prop_assert_eq!(second.wrong_victim, 0);
        }
    }

    #[test]
    fn whoever_retires_or_is_priced_lives_and_is_too_many(config in config(), looks in looks()) {
        for (seen, decision) in decide(&config, &looks) {
            let uids: Vec<&str> = live(&seen).iter().map(|pod| pod.uid.as_str()).collect();
            prop_assert!(decision.retire.iter().all(|uid| uids.contains(&uid.as_str())));
            prop_assert!(decision.costs.keys().all(|uid| decision.retire.contains(uid)));
            // Or the Deployment was asked for fewer already.
            let wanted = decision.desired.min(seen.replicas);
            let excess = uids.len().saturating_sub(usize::try_from(wanted).unwrap());
            prop_assert!(decision.retire.len() <= excess);
        }
    }

    #[test]
    fn the_deployment_is_never_asked_for_fewer_than_the_pods_that_work_and_are_not_to_go(
        config in config(), looks in looks(),
    ) {
        let mut scaler = Scaler::new(Duration::ZERO);
        for (seen, now) in &looks {
            let decision = scaler.decide(&config, seen, *now);
            let needed = live(seen).into_iter().filter(|pod| works(pod, *now) && !decision.retire.contains(&pod.uid));
            if decision.replicas < seen.replicas {
                prop_assert!(usize::try_from(decision.replicas).unwrap() >= needed.count());
            }
        }
    }

    #[test]
    fn in_a_rollout_nobody_goes(config in config(), looks in looks()) {
        for (seen, decision) in decide(&config, &looks) {
            if seen.rollout {
                prop_assert!(decision.replicas >= seen.replicas && decision.retire.is_empty());
            }
        }
    }

    #[test]
    fn with_too_many_silent_no_fewer_are_wanted_and_the_deployment_is_asked_for_no_fewer(config in config(), looks in looks()) {
        let mut before = 0;
        for (seen, decision) in decide(&config, &looks) {
            if !decision.metrics_available {
                prop_assert!(decision.replicas >= seen.replicas);
                prop_assert!(decision.desired >= before.min(config.max));
            }
            before = decision.desired;
        }
    }

    #[test]
    fn a_new_scaler_does_not_shrink(config in config(), seen in observation(), now in time()) {
        let decision = Scaler::new(now).decide(&config, &seen, now);
        prop_assert!(decision.desired >= seen.replicas.min(config.max));
    }
}
