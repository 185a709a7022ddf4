use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use corral_limiter::queue::{Runner, ShedReason, Slots};
use corral_limiter::{LimiterSettings, QueueBounds, compile};
use corral_wire::{
    CostModel, EndpointClass, IdentityDoc, KeyPart, LimitDoc, Mode, PLAN_VERSION, PlanDoc, PoolRef, QueueDoc,
    RateDoc, Scope,
};
use proptest::prelude::*;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::*;
use crate::core::CoreSettings;
use crate::health::Health;
use crate::metrics::Metrics;

pub(super) const CLIENT: HeadFacts =
    HeadFacts::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), EndpointClass::Chat, "/api/chat");

pub(super) fn plan(max_depth: u32, max_wait_ms: u64, limits: Vec<LimitDoc>) -> PlanDoc {
    PlanDoc {
        version: PLAN_VERSION,
        pool: PoolRef { namespace: "llm".into(), name: "chat".into() },
        sequence: 1,
        identity: IdentityDoc::default(),
        queue: QueueDoc { max_depth, max_wait_ms, ..QueueDoc::default() },
        limits,
        ..PlanDoc::default()
    }
}

fn limit(burst: u64, concurrency: u32) -> LimitDoc {
    LimitDoc {
        policy: "llm/p".into(),
        name: "l".into(),
        mode: Mode::Enforce,
        endpoints: Vec::new(),
        models: Vec::new(),
        per: vec![KeyPart::Client],
        scope: Scope::Pool,
        requests: Some(RateDoc { count_milli: 1000, window_seconds: 3600, burst }),
        concurrency: Some(concurrency),
        ..LimitDoc::default()
    }
}

pub(super) fn core(per_model: u32, doc: &PlanDoc) -> Arc<Core> {
    let settings = CoreSettings {
        limiter: LimiterSettings { hash_key: [7; 16], keys_per_limit: 1000 },
        slots: Slots { per_model, models: 2 },
    };
    let core = Core::new(settings, Arc::new(Health::new()), Arc::new(Metrics::new()));
    core.take_plan(Arc::new(compile(doc).unwrap()), NonZeroU32::MIN);
    Arc::new(core)
}

pub(super) fn model(name: &str) -> ModelName {
    ModelName::parse(name).unwrap()
}

/// A slot of this model for a second, by estimate.
pub(super) fn want(name: &str) -> Want {
    Want {
        runner: Runner::of(&model(name)),
        cost: 1_000_000_000,
        cost_model: CostModel::SlotTime,
        slot_time: Nanos::from_secs(1),
        bytes: 0,
        due: None,
        is_retry: false,
    }
}

fn place(core: &Arc<Core>, name: &str) -> Result<Place, Denied> {
    Entered::enter(core, &CLIENT).map_err(Denied::Limit)?.queue(want(name), Usage::default())
}

/// Why the queue does not keep it.
pub(super) fn reason(denied: Option<Denied>) -> ShedReason {
    match denied {
        Some(Denied::Shed(shedding)) => shedding.reason(),
        other => panic!("{other:?}"),
    }
}

fn remaining(core: &Core) -> Vec<u64> {
    core.standing(&CLIENT, None).iter().map(|standing| standing.remaining).collect()
}

/// Depth of the queue and requests in flight.
pub(super) fn load(core: &Core) -> (u32, u32) {
    let gauges = core.gauges();
    (gauges.queued, gauges.in_flight)
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_comes_back_goes_to_who_waited_longest() {
    let core = core(1, &plan(10, 60_000, vec![]));
    let first = place(&core, "m").unwrap().slot().await.unwrap();
    assert_eq!(first.waited(), Nanos::ZERO);
    let second = tokio::spawn(place(&core, "m").unwrap().slot());
    let third = tokio::spawn(place(&core, "m").unwrap().slot());
    sleep(Duration::from_secs(2)).await;
    assert_eq!(load(&core), (2, 1));
    drop(first);
    let second = second.await.unwrap().unwrap();
    assert!((2_000..2_100).contains(&(second.waited().0 / 1_000_000)), "{:?}", second.waited());
    assert_eq!(load(&core), (1, 1));
    drop(second);
    let third = third.await.unwrap().unwrap();
    drop(third);
    assert_eq!(load(&core), (0, 0));
    assert!(core.counters().slot_millis >= 2000);
}

#[tokio::test(start_paused = true)]
async fn more_slots_go_to_waiters_at_once_and_fewer_wait_for_who_runs() {
    let doc = plan(10, 60_000, vec![]);
    let core = core(1, &doc);
    let slots = |per_model| {
        let slots = Slots { per_model, models: 2 };
        core.take_plan_and_slots(Arc::new(compile(&doc).unwrap()), NonZeroU32::MIN, Some(slots));
    };
    let first = place(&core, "m").unwrap().slot().await.unwrap();
    let second = tokio::spawn(place(&core, "m").unwrap().slot());
    let third = tokio::spawn(place(&core, "m").unwrap().slot());
    slots(2);
    let second = second.await.unwrap().unwrap();
    assert_eq!((load(&core), core.gauges().slots), ((1, 2), 2));
    slots(1);
    assert_eq!((load(&core), core.gauges().slots), ((1, 2), 1), "nobody is cut");
    drop(first);
    assert_eq!(load(&core), (1, 1), "one still runs, and one is all there is");
    drop(second);
    assert_eq!(third.await.unwrap().unwrap().waited(), Nanos::ZERO);
    assert_eq!(load(&core), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_full_model_blocks_nobody_who_wants_another() {
    let core = core(1, &plan(10, 60_000, vec![]));
    let held = place(&core, "a").unwrap().slot().await.unwrap();
    held.loaded();
    let _waits = place(&core, "a").unwrap();
    assert_eq!(place(&core, "b").unwrap().slot().await.unwrap().waited(), Nanos::ZERO);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_the_longest_wait() {
    let core = core(1, &plan(10, 5_000, vec![]));
    let _held = place(&core, "m").unwrap().slot().await.unwrap();
    let started = Instant::now();
    let denied = place(&core, "m").unwrap().slot().await.err().unwrap();
    let waited = Instant::now() - started;
    assert_eq!(reason(Some(denied)), ShedReason::TimedOut);
    assert!((5_000..5_050).contains(&waited.as_millis()), "{waited:?}");
    assert_eq!(load(&core), (0, 1));
    assert_eq!(core.counters().capacity_rejects, 1);
}

/// What one that waits for `m` in vain is told: how long it has waited, and how long it would wait again; in seconds.
async fn waits_in_vain(core: &Arc<Core>) -> (u64, u64) {
    let denied = place(core, "m").unwrap().slot().await.err();
    let Some(Denied::Shed(Shedding { shed, waited, bound: WaitBound::MaxWait })) = denied else {
        panic!("{denied:?}");
    };
    assert_eq!(shed.reason, ShedReason::TimedOut);
    (waited.0 / 1_000_000_000, shed.estimated_wait.0 / 1_000_000_000)
}

#[tokio::test(start_paused = true)]
async fn who_waited_in_vain_is_told_how_long_it_would_wait_again() {
    let core = core(1, &plan(10, 60_000, vec![]));
    let mut first = place(&core, "m").unwrap().slot().await.unwrap();
    assert_eq!(waits_in_vain(&core).await, (60, 1), "nothing is known of the model");
    first.settle(1, 1);
    drop(first);
    let max_wait = Nanos::from_secs(5);
    let bounds = QueueBounds { max_depth: 10, max_depth_per_client: 10, max_wait, batch_max_wait: max_wait };
    core.lock().queue.set_bounds(bounds);
    let _second = place(&core, "m").unwrap().slot().await.unwrap();
    let (waited, again) = waits_in_vain(&core).await;
    assert_eq!(waited, 5);
    assert!(again >= 55, "it does not wait behind itself, and the last one took a minute: {again}");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_and_consumes_nothing() {
    let core = core(1, &plan(1, 60_000, vec![limit(10, 10)]));
    let _held = place(&core, "m").unwrap();
    let _waits = place(&core, "m").unwrap();
    let before = remaining(&core);
    assert_eq!(reason(place(&core, "m").err()), ShedReason::QueueFull);
    assert_eq!(remaining(&core), before);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_the_queue_is_unlinked_at_once_and_gets_its_charge_back() {
    let core = core(1, &plan(1, 60_000, vec![limit(10, 10)]));
    let held = place(&core, "m").unwrap();
    let before = remaining(&core);
    let waiting = tokio::spawn(place(&core, "m").unwrap().slot());
    tokio::task::yield_now().await;
    assert_ne!(remaining(&core), before);
    waiting.abort();
    assert!(waiting.await.is_err_and(|error| error.is_cancelled()));
    assert_eq!((load(&core), remaining(&core)), ((0, 1), before));
    drop(held);
    assert_eq!(load(&core), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_slot_handed_to_one_who_leaves_at_that_moment_is_not_lost() {
    let core = core(1, &plan(10, 60_000, vec![]));
    let held = place(&core, "m").unwrap().slot().await.unwrap();
    let leaver = place(&core, "m").unwrap();
    let next = tokio::spawn(place(&core, "m").unwrap().slot());
    tokio::task::yield_now().await;
    drop(held);
    assert_eq!(load(&core), (1, 1), "the slot is the leaver's, who has not looked yet");
    drop(leaver);
    assert!(next.await.unwrap().is_ok());
    assert_eq!(load(&core), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_was_served_stays_charged_and_what_was_not_does_not() {
    let core = core(4, &plan(10, 60_000, vec![limit(10, 10)]));
    let mut served = place(&core, "m").unwrap().slot().await.unwrap();
    served.settle(0, 0);
    drop(served);
    assert_eq!(remaining(&core).iter().sum::<u64>(), 19);
    drop(place(&core, "m").unwrap().slot().await.unwrap());
    assert_eq!(remaining(&core).iter().sum::<u64>(), 19);
    drop(Entered::enter(&core, &CLIENT).unwrap());
    assert_eq!(remaining(&core).iter().sum::<u64>(), 19);
    Entered::enter(&core, &CLIENT).unwrap().bad_request();
    assert_eq!(remaining(&core).iter().sum::<u64>(), 18);
    drop(Entered::enter(&core, &CLIENT).unwrap().pass(None).await.unwrap());
    assert_eq!(remaining(&core).iter().sum::<u64>(), 17);
}

#[tokio::test(start_paused = true)]
async fn a_limit_refuses_before_the_queue_is_asked() {
    let core = core(1, &plan(10, 60_000, vec![limit(1, 1)]));
    let _held = place(&core, "m").unwrap();
    let Some(Denied::Limit(refusal)) = place(&core, "m").err() else { panic!("both limits are used up") };
    assert!(refusal.violations.iter().all(|violation| violation.limit.name == "l"));
    assert_eq!(load(&core), (0, 1));
    assert_eq!(core.counters().policy_rejects, 1);
}

/// One client: when it comes, for which model, when it loses patience, and how long its answer takes.
fn clients() -> impl Strategy<Value = Vec<(u64, u8, u64, u64)>> {
    prop::collection::vec((0u64..2000, 0u8..3, 0u64..1500, 0u64..600), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_slot_and_no_guard_leaks_whenever_clients_leave(clients in clients(), per_model in 1u32..4) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let core = core(per_model, &plan(8, 400, vec![limit(1_000_000, 1000)]));
            let mut all = JoinSet::new();
            for (comes, name, patience, takes) in clients {
                let core = Arc::clone(&core);
                all.spawn(async move {
                    sleep(Duration::from_millis(comes)).await;
                    let served = async {
                        let mut permit = place(&core, &format!("m{name}"))?.slot().await?;
                        assert!(core.gauges().in_flight <= per_model * 2);
                        permit.settle(0, 0);
                        sleep(Duration::from_millis(takes)).await;
                        Ok::<_, Denied>(())
                    };
                    let _ = tokio::time::timeout(Duration::from_millis(patience), served).await;
                });
            }
            while let Some(done) = all.join_next().await {
                done.unwrap();
            }
            assert_eq!(load(&core), (0, 0));
            assert!(core.lock().hall.is_empty());
            let concurrency = core.standing(&CLIENT, None).into_iter().find(|s| s.window_seconds.is_none());
            assert_eq!(concurrency.map(|standing| standing.remaining), Some(1000));
        });
    }
}
