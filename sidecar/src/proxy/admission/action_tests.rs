//! What limits do instead of refusing, seen by requests: they wait before the queue, in it, or behind everybody.

use std::num::NonZeroU32;
use std::time::Duration;

use corral_limiter::queue::ShedReason;
use corral_wire::{Action, ExceedDoc, KeyPart, LimitDoc, Oversize, RateDoc};
use proptest::prelude::*;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::tests::{CLIENT, core, load, model, plan, reason, want};
use super::*;

/// One a second, two at one instant.
fn paced(action: Action, max_wait_ms: Option<u64>) -> LimitDoc {
    LimitDoc {
        policy: "llm/p".into(),
        name: "paced".into(),
        per: vec![KeyPart::Client],
        requests: Some(RateDoc { count_milli: 1000, window_seconds: 1, burst: 2 }),
        on_exceed: ExceedDoc { action, max_wait_ms, oversize: Oversize::Debt },
        ..LimitDoc::default()
    }
}

fn place(core: &Arc<Core>) -> Result<Place, Denied> {
    Entered::enter(core, &CLIENT).map_err(Denied::Limit)?.queue(want("m"), Usage::default())
}

/// A core whose waiters are asked again.
fn watched(per_model: u32, limits: Vec<LimitDoc>) -> Arc<Core> {
    let core = core(per_model, &plan(50, 60_000, limits));
    let asked = Arc::clone(&core);
    tokio::spawn(async move { recall(&asked).await });
    core
}

/// Starts so many requests at one instant, which hold their slots for no time, and tells when each got its slot, in
/// milliseconds; none for those that were denied.
async fn starts(core: &Arc<Core>, count: usize) -> Vec<Option<u128>> {
    let began = Instant::now();
    let places: Vec<_> = (0..count).map(|_| place(core)).collect();
    let mut all = Vec::new();
    for place in places {
        all.push(tokio::spawn(async move {
            let mut permit = place?.slot().await?;
            permit.settle(0, 0);
            Ok::<_, Denied>(began.elapsed().as_millis())
        }));
    }
    let mut told = Vec::new();
    for one in all {
        told.push(one.await.unwrap().ok());
    }
    told
}

fn near(told: &[Option<u128>], expected: &[Option<u128>]) -> bool {
    let close = |(told, expected): (&Option<u128>, &Option<u128>)| match (told, expected) {
        (Some(told), Some(expected)) => told.abs_diff(*expected) <= 5,
        (told, expected) => told.is_none() && expected.is_none(),
    };
    told.len() == expected.len() && told.iter().zip(expected).all(close)
}

fn at_rest(core: &Core) -> bool {
    let state = core.lock();
    let gauges = state.queue.gauges(core.clock().now());
    state.hall.is_empty() && (gauges.depth, gauges.in_flight, gauges.booked) == (0, 0, 0)
}

#[tokio::test(start_paused = true)]
async fn a_delay_spaces_starts_evenly_and_refuses_what_is_too_far_away() {
    let core = watched(4, vec![paced(Action::Delay, Some(2000))]);
    let told = starts(&core, 5).await;
    assert!(near(&told, &[Some(0), Some(0), Some(1000), Some(2000), None]), "{told:?}");
    assert!(at_rest(&core));
}

#[tokio::test(start_paused = true)]
async fn who_is_delayed_has_a_place_in_the_queue_and_is_no_load() {
    let core = core(1, &plan(2, 60_000, vec![paced(Action::Delay, Some(60_000))]));
    let first = place(&core).unwrap().slot().await.unwrap();
    let _second = place(&core).unwrap();
    let delayed = place(&core).unwrap();
    assert_eq!(reason(place(&core).err()), ShedReason::QueueFull, "the queue has two places");
    assert_eq!(load(&core), (1, 1));
    drop(delayed);
    assert!(place(&core).is_ok());
    drop(first);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_while_it_is_delayed_gets_its_turn_back() {
    let core = watched(4, vec![paced(Action::Delay, Some(60_000))]);
    let (_first, _second) = (place(&core).unwrap(), place(&core).unwrap());
    let leaver = tokio::spawn(place(&core).unwrap().slot());
    sleep(Duration::from_millis(100)).await;
    leaver.abort();
    assert!(leaver.await.is_err_and(|error| error.is_cancelled()));
    let began = Instant::now();
    place(&core).unwrap().slot().await.unwrap();
    assert!(began.elapsed() <= Duration::from_millis(905), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_queues_lets_waiters_go_as_it_allows_in_their_order() {
    let core = watched(4, vec![paced(Action::Queue, Some(10_000))]);
    let told = starts(&core, 5).await;
    assert!(near(&told, &[Some(0), Some(0), Some(1000), Some(2000), Some(3000)]), "{told:?}");
    assert!(at_rest(&core));
}

#[tokio::test(start_paused = true)]
async fn who_waited_too_long_for_a_limit_is_told_which() {
    let core = watched(4, vec![paced(Action::Queue, Some(1500))]);
    let (_first, _second) = (place(&core).unwrap(), place(&core).unwrap());
    let served = tokio::spawn(place(&core).unwrap().slot());
    let began = Instant::now();
    let denied = place(&core).unwrap().slot().await.err();
    let Some(Denied::Limit(refusal)) = denied else { panic!("{denied:?}") };
    assert_eq!(refusal.violations[0].limit.name, "paced");
    assert!((1500..1510).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    assert!(served.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_leaves_a_limits_line_takes_nothing_with_it() {
    let core = watched(4, vec![paced(Action::Queue, Some(60_000))]);
    drop((place(&core).unwrap().slot().await.unwrap(), place(&core).unwrap().slot().await.unwrap()));
    let first = place(&core).unwrap().slot().await.unwrap();
    let second = place(&core).unwrap().slot().await.unwrap();
    let leaver = place(&core).unwrap();
    drop((leaver, first, second));
    assert!(at_rest(&core));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_share_of_concurrency_goes_as_soon_as_the_share_grows() {
    let limit = LimitDoc { requests: None, concurrency: Some(2), ..paced(Action::Queue, Some(60_000)) };
    let core = watched(4, vec![limit]);
    core.set_divisor(NonZeroU32::new(2).unwrap());
    let _first = place(&core).unwrap().slot().await.unwrap();
    let second = tokio::spawn(place(&core).unwrap().slot());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(load(&core), (1, 1));
    core.set_divisor(NonZeroU32::MIN);
    assert_eq!(load(&core), (0, 2));
    second.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn concurrency_that_queues_counts_only_what_runs() {
    let limit = LimitDoc {
        policy: "llm/p".into(),
        name: "one".into(),
        per: vec![KeyPart::Client],
        concurrency: Some(1),
        on_exceed: ExceedDoc { action: Action::Queue, max_wait_ms: Some(60_000), oversize: Oversize::Debt },
        ..LimitDoc::default()
    };
    let core = watched(4, vec![limit]);
    let first = place(&core).unwrap().slot().await.unwrap();
    let second = tokio::spawn(place(&core).unwrap().slot());
    sleep(Duration::from_secs(3)).await;
    assert_eq!(load(&core), (1, 1), "slots are free, and the limit holds it back");
    drop(first);
    let waited = timeout(Duration::from_millis(10), second).await.unwrap().unwrap().unwrap().waited();
    assert!((2_990..3_010).contains(&(waited.0 / 1_000_000)), "{waited:?}");
    assert!(at_rest(&core));
}

#[tokio::test(start_paused = true)]
async fn who_has_used_up_its_share_is_served_when_nobody_else_wants_the_slot() {
    let core = watched(1, vec![paced(Action::Deprioritize, None)]);
    let held = place(&core).unwrap().slot().await.unwrap();
    let normal = place(&core).unwrap();
    let spare = tokio::spawn(place(&core).unwrap().slot());
    // Its bucket has something again: it is a normal request, and comes after the one that may only have what is spare.
    sleep(Duration::from_millis(1100)).await;
    let later = tokio::spawn(place(&core).unwrap().slot());
    tokio::task::yield_now().await;
    drop(held);
    let permit = normal.slot().await.unwrap();
    assert!(!spare.is_finished() && !later.is_finished());
    drop(permit);
    drop(timeout(Duration::from_millis(10), later).await.unwrap().unwrap().unwrap());
    assert!(timeout(Duration::from_millis(10), spare).await.unwrap().unwrap().is_ok());
    assert!(at_rest(&core));
}

#[tokio::test(start_paused = true)]
async fn only_who_waits_counts_as_queued() {
    let limit = LimitDoc {
        policy: "llm/p".into(),
        name: "line".into(),
        per: vec![KeyPart::Client],
        queued: Some(1),
        ..LimitDoc::default()
    };
    let core = watched(1, vec![limit]);
    let first = place(&core).unwrap().slot().await.unwrap();
    let second = tokio::spawn(place(&core).unwrap().slot());
    tokio::task::yield_now().await;
    let denied = place(&core).err();
    assert!(
        matches!(&denied, Some(Denied::Limit(refusal)) if refusal.violations[0].limit.name == "line"),
        "{denied:?}"
    );
    // What needs no slot does not wait for one.
    assert!(Entered::enter(&core, &CLIENT).unwrap().pass(Some(&model("m"))).await.is_ok());
    drop(first);
    let second = second.await.unwrap().unwrap();
    let third = tokio::spawn(place(&core).unwrap().slot());
    drop(second);
    assert!(third.await.unwrap().is_ok());
    assert!(at_rest(&core));
}

#[tokio::test(start_paused = true)]
async fn what_needs_no_slot_waits_for_its_limits_too_and_can_leave() {
    for action in [Action::Delay, Action::Queue] {
        let core = watched(1, vec![paced(action, Some(5000))]);
        let pass = || async { Entered::enter(&core, &CLIENT).unwrap().pass(None).await };
        let began = Instant::now();
        for _ in 0..3 {
            assert!(pass().await.is_ok());
        }
        assert!((1000..1060).contains(&began.elapsed().as_millis()), "{action:?}: {:?}", began.elapsed());
        assert!(timeout(Duration::from_millis(100), pass()).await.is_err(), "{action:?}");
        assert!(at_rest(&core), "{action:?}");
    }
}

/// One client: when it comes, when it loses patience, how long its answer takes, and how many tokens it has.
fn clients() -> impl Strategy<Value = Vec<(u64, u64, u64, u64)>> {
    prop::collection::vec((0u64..3000, 0u64..2500, 0u64..300, 0u64..20), 1..40)
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let one = prop_oneof![
        Just(Action::Reject),
        Just(Action::Delay),
        Just(Action::Queue),
        Just(Action::Deprioritize)
    ];
    prop::collection::vec(one, 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_leaks_whatever_limits_do_and_whenever_clients_leave(
        clients in clients(), actions in actions(), per_model in 1u32..3,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let waits = |action| matches!(action, Action::Delay | Action::Queue).then_some(1200);
            let limits = actions.iter().enumerate().map(|(place, action)| {
                let tokens = RateDoc { count_milli: 20_000, window_seconds: 1, burst: 30 };
                let concurrency = (*action == Action::Queue).then_some(2);
                let name = format!("l{place}");
                LimitDoc { name, output_tokens: Some(tokens), concurrency, ..paced(*action, waits(*action)) }
            });
            let core = watched(per_model, limits.collect());
            let mut all = JoinSet::new();
            for (comes, patience, takes, tokens) in clients {
                let core = Arc::clone(&core);
                all.spawn(async move {
                    sleep(Duration::from_millis(comes)).await;
                    let served = async {
                        let estimate = Usage { input: 3, output: 10, slot: Nanos::ZERO };
                        let entered = Entered::enter(&core, &CLIENT).map_err(Denied::Limit)?;
                        let mut permit = entered.queue(want("m"), estimate)?.slot().await?;
                        sleep(Duration::from_millis(takes)).await;
                        permit.progress(3, tokens);
                        permit.settle(3, tokens);
                        Ok::<_, Denied>(())
                    };
                    let _ = timeout(Duration::from_millis(patience), served).await;
                });
            }
            while let Some(done) = all.join_next().await {
                done.unwrap();
            }
            assert!(at_rest(&core));
            let busy = core.standing(&CLIENT, None).into_iter().find(|s| s.window_seconds.is_none() && s.remaining < s.quota);
            assert!(busy.is_none(), "{busy:?}");
        });
    }
}
