//! What is counted of a request, whatever becomes of it: the table of [`corral_wire::Counters`].

use std::time::Duration;

use corral_limiter::queue::Due;
use corral_wire::{Action, Counters, EndpointClass, ExceedDoc, KeyPart, LimitDoc, Oversize, RateDoc};
use tokio::time::sleep;

use super::tests::{CLIENT, core, plan, want};
use super::*;

/// So many requests an hour, and so many more that wait for it as the action says.
fn hourly(burst: u64, action: Action) -> LimitDoc {
    LimitDoc {
        policy: "llm/p".into(),
        name: "hourly".into(),
        per: vec![KeyPart::Client],
        requests: Some(RateDoc { count_milli: 1000, window_seconds: 3600, burst }),
        on_exceed: ExceedDoc { action, max_wait_ms: None, oversize: Oversize::Debt },
        ..LimitDoc::default()
    }
}

/// At most so many at one time, and others wait in the queue until that allows it.
fn at_one_time(most: u32) -> LimitDoc {
    let on_exceed = ExceedDoc { action: Action::Queue, max_wait_ms: Some(2000), oversize: Oversize::Debt };
    LimitDoc {
        policy: "llm/p".into(),
        name: "few".into(),
        per: vec![KeyPart::Client],
        concurrency: Some(most),
        on_exceed,
        ..LimitDoc::default()
    }
}

fn come(core: &Arc<Core>, want: Want) -> Result<Place, Denied> {
    Entered::enter(core, &CLIENT).map_err(Denied::Limit)?.queue(want, Usage::default())
}

fn retry() -> Want {
    Want { is_retry: true, ..want("m") }
}

/// Arrivals, retries, refused by a limit, refused by the queue.
fn counted(core: &Core) -> [u64; 4] {
    let Counters { arrivals, retries, policy_rejects, capacity_rejects, .. } = core.counters();
    [arrivals, retries, policy_rejects, capacity_rejects]
}

#[tokio::test(start_paused = true)]
async fn who_is_let_in_is_one_arrival_however_it_ends() {
    let core = core(2, &plan(10, 60_000, vec![]));
    let mut served = come(&core, want("m")).unwrap().slot().await.unwrap();
    served.settle(1, 1);
    drop(served);
    drop(come(&core, retry()).unwrap().slot().await.unwrap());
    let _running = [come(&core, want("m")).unwrap(), come(&core, want("m")).unwrap()];
    drop(come(&core, want("m")).unwrap());
    assert_eq!(counted(&core), [5, 1, 0, 0], "served, failed, two that run, and one that left the queue");
}

#[tokio::test(start_paused = true)]
async fn who_has_several_slots_one_after_another_is_one_arrival() {
    let core = core(1, &plan(10, 60_000, vec![]));
    let mut permit = come(&core, retry()).unwrap().slot().await.unwrap();
    for _ in 0..5 {
        permit = permit.again((16, 0), 1_000_000_000).await.unwrap();
    }
    drop(permit);
    assert_eq!(counted(&core), [1, 1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn whom_the_queue_refuses_counts_there_once_on_arrival_and_after_a_wait() {
    let core = core(1, &plan(1, 5_000, vec![]));
    let _held = come(&core, want("m")).unwrap();
    let waits = come(&core, want("m")).unwrap();
    assert!(come(&core, retry()).is_err(), "the queue is full");
    assert_eq!(counted(&core), [3, 1, 0, 1]);
    assert!(waits.slot().await.is_err(), "it has waited too long");
    assert_eq!(counted(&core), [3, 1, 0, 2]);
}

#[tokio::test(start_paused = true)]
async fn whom_the_queue_pushes_out_or_tells_that_it_is_too_late_counts_there_once() {
    let core = core(1, &plan(2, 60_000, vec![]));
    let held = come(&core, want("m")).unwrap().slot().await.unwrap();
    let due = Due { at: core.clock().now().plus(Nanos::from_secs(3)), needs: Nanos::from_secs(1) };
    let hasty = tokio::spawn(come(&core, Want { due: Some(due), ..want("m") }).unwrap().slot());
    sleep(Duration::from_millis(2500)).await;
    drop(held);
    assert!(hasty.await.unwrap().is_err());
    assert_eq!(counted(&core), [2, 0, 0, 1]);

    let _held = come(&core, want("m")).unwrap().slot().await.unwrap();
    let greedy: Vec<_> = (0..2).map(|_| tokio::spawn(come(&core, want("m")).unwrap().slot())).collect();
    let other = HeadFacts { client_ip: [10, 0, 0, 9].into(), ..CLIENT };
    let modest = Entered::enter(&core, &other).unwrap().queue(want("m"), Usage::default());
    sleep(Duration::from_millis(1)).await;
    assert!(modest.is_ok() && greedy.iter().filter(|one| one.is_finished()).count() == 1);
    assert_eq!(counted(&core), [6, 0, 0, 2]);
    greedy.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn who_gets_no_second_slot_is_refused_by_the_queue_once() {
    let core = core(1, &plan(10, 5_000, vec![]));
    let permit = come(&core, want("m")).unwrap().slot().await.unwrap();
    let other = HeadFacts { client_ip: [10, 0, 0, 9].into(), ..CLIENT };
    let next = Entered::enter(&core, &other).unwrap().queue(want("m"), Usage::default()).unwrap();
    let next = tokio::spawn(next.slot());
    sleep(Duration::from_millis(1)).await;
    assert!(permit.again((16, 0), 1_000_000_000).await.is_err(), "the other one keeps the slot");
    assert_eq!(counted(&core), [2, 0, 0, 1]);
    drop(next.await.unwrap().unwrap());
}

#[tokio::test(start_paused = true)]
async fn whom_a_limit_refuses_counts_there_once_and_is_no_retry() {
    let core = core(1, &plan(10, 60_000, vec![hourly(1, Action::Reject)]));
    let _held = come(&core, want("m")).unwrap();
    for _ in 0..3 {
        assert!(matches!(come(&core, retry()).err(), Some(Denied::Limit(_))));
    }
    assert_eq!(counted(&core), [4, 0, 3, 0]);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_limit_in_vain_counts_there_once() {
    let core = core(4, &plan(10, 60_000, vec![at_one_time(1)]));
    let _held = come(&core, want("m")).unwrap().slot().await.unwrap();
    let waits = come(&core, retry()).unwrap();
    assert_eq!(counted(&core), [2, 1, 0, 0]);
    assert!(matches!(waits.slot().await.err(), Some(Denied::Limit(_))));
    assert_eq!(counted(&core), [2, 1, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_needs_no_slot_counts_nowhere_whatever_limits_say_to_it() {
    let endpoints = vec![EndpointClass::Metadata];
    let limit = LimitDoc { endpoints, per: vec![KeyPart::ClientIP], ..hourly(2, Action::Reject) };
    let core = core(1, &plan(10, 60_000, vec![limit]));
    let metadata = HeadFacts { endpoint: EndpointClass::Metadata, path: "/api/tags", ..CLIENT };
    for passes in [true, true, false, false] {
        let passed = match Entered::enter(&core, &metadata) {
            Ok(entered) => entered.pass(None).await.is_ok(),
            Err(_) => false,
        };
        assert_eq!(passed, passes);
    }
    assert!(core.turn_away(&metadata).is_err());
    assert_eq!(core.counters(), Counters::default());
}

#[tokio::test(start_paused = true)]
async fn who_is_wrong_or_leaves_before_anything_is_decided_counts_nowhere() {
    let core = core(1, &plan(10, 60_000, vec![hourly(9, Action::Reject)]));
    drop(Entered::enter(&core, &CLIENT).unwrap());
    Entered::enter(&core, &CLIENT).unwrap().bad_request();
    core.turn_away(&CLIENT).unwrap();
    assert_eq!(core.counters(), Counters::default());
}
