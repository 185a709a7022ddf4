use std::num::NonZeroU32;

use corral_limiter::queue::{FlowKey, Runner, WaiterId, Wish};
use corral_limiter::{ModelName, compile};
use corral_wire::{IdentityDoc, PLAN_VERSION, PlanDoc, PoolRef, QueueDoc, Relief as Told};
use tokio::time::sleep;

use super::*;
use crate::health::Reason;
use crate::plan::core_for_tests;

/// A core that serves, with a queue for two and Ollama's slots taken as tests need them.
fn serving(max_depth: u32) -> Arc<Core> {
    let core = core_for_tests();
    let plan = PlanDoc {
        version: PLAN_VERSION,
        pool: PoolRef { namespace: "llm".into(), name: "chat".into() },
        sequence: 1,
        identity: IdentityDoc::default(),
        queue: QueueDoc { max_depth, max_wait_ms: 10_000, ..QueueDoc::default() },
        limits: vec![],
        ..PlanDoc::default()
    };
    core.take_plan(Arc::new(compile(&plan).unwrap()), NonZeroU32::MIN);
    core.health.plan_accepted();
    core.health.told_to_serve();
    core.health.upstream_answered();
    let watched = Arc::clone(&core);
    tokio::spawn(watch(watched, OverloadSettings::default()));
    core
}

/// More requests than there are slots and places, each without an end.
fn crowd(core: &Core, requests: u64) {
    let runner = Runner::of(&ModelName::parse("m").unwrap());
    let now = core.clock().now();
    for id in 0..requests {
        let refused = core
            .lock()
            .queue
            .arrive(WaiterId(id), Wish { flow: FlowKey(id.into()), ..Wish::slot(&runner) }, now)
            .is_err();
        if refused {
            core.tally().capacity_rejected();
        }
    }
}

fn go(core: &Core, requests: u64) {
    (0..requests).for_each(|id| core.lock().queue.leave(WaiterId(id), core.clock().now()));
}

/// Lets time pass while the leader says the same every two seconds.
async fn pass(core: &Core, seconds: u64, relief: bool) {
    for second in 0..seconds {
        if second % 2 == 0 {
            core.desk.permit(relief, core.clock().now());
        }
        sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_that_refuses_makes_a_permitted_pod_leave_and_an_empty_one_brings_it_back() {
    let core = serving(2);
    pass(&core, 40, false).await;
    let left = async {
        for second in 0..15 {
            crowd(&core, 9);
            pass(&core, 1, true).await;
            if core.health.readiness().reason == Reason::Overloaded {
                return second;
            }
        }
        panic!("it stays: {:?}", core.desk.view());
    };
    let left = left.await;
    assert!((5..=11).contains(&left), "{left}");
    assert_eq!(core.health.unavailable(), None, "whoever still comes is served");
    assert_eq!(core.desk.view().relief, Told::Taken);
    go(&core, 9);
    pass(&core, 9, true).await;
    assert_eq!(core.health.readiness().reason, Reason::Overloaded);
    pass(&core, 8, true).await;
    assert!(core.health.readiness().ready());
    assert_eq!(core.desk.view().relief, Told::Unneeded);
    assert!(core.desk.view().permille < 10, "{:?}", core.desk.view());
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_it_never_leaves_and_one_that_withdraws_is_heard_at_once() {
    let core = serving(2);
    pass(&core, 40, false).await;
    for _ in 0..60 {
        crowd(&core, 9);
        sleep(Duration::from_secs(1)).await;
        assert!(core.health.readiness().ready());
    }
    assert_eq!(core.desk.view().relief, Told::Wanted);
    assert!(core.desk.view().permille > 1000);
    core.desk.permit(true, core.clock().now());
    sleep(Duration::from_secs(2)).await;
    assert_eq!(core.health.readiness().reason, Reason::Overloaded);
    core.desk.permit(false, core.clock().now());
    sleep(Duration::from_millis(1)).await;
    assert!(core.health.readiness().ready());
}

#[tokio::test(start_paused = true)]
async fn what_limits_refuse_is_no_load() {
    let core = serving(2);
    for _ in 0..600 {
        (0..100).for_each(|_| core.tally().policy_rejected());
        core.desk.permit(true, core.clock().now());
        sleep(Duration::from_millis(100)).await;
        assert!(core.health.readiness().ready());
        assert_eq!((core.desk.view().permille, core.desk.view().relief), (0, Told::Unneeded));
    }
}

#[tokio::test(start_paused = true)]
async fn where_nobody_may_wait_refusals_alone_make_it_leave() {
    let core = serving(0);
    pass(&core, 40, false).await;
    crowd(&core, 2);
    pass(&core, 30, true).await;
    assert!(core.health.readiness().ready(), "busy is not overloaded: {:?}", core.desk.view());
    for _ in 0..11 {
        crowd(&core, 9);
        pass(&core, 1, true).await;
    }
    assert_eq!(core.health.readiness().reason, Reason::Overloaded);
}
