//! What the fair queue decides, as requests see it.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use corral_limiter::compile;
use corral_limiter::queue::{Due, FlowKey, ShedReason, Slots, Strain};
use corral_wire::{
    CostModel, EndpointClass, EndpointPriorityDoc, KeyPart, LimitDoc, PlanDoc, PriorityDoc, RateDoc,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, advance, sleep};

use super::tests::{core, load, model, plan, reason, want};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A client by the last byte of its address, at an endpoint.
fn head(client: u8, endpoint: EndpointClass) -> HeadFacts {
    HeadFacts::new(IpAddr::from([10, 0, 0, client]), endpoint, "/api/chat")
}

fn come(core: &Arc<Core>, head: &HeadFacts, want: Want) -> Result<Place, Denied> {
    Entered::enter(core, head).map_err(Denied::Limit)?.queue(want, Usage::default())
}

fn chat(core: &Arc<Core>, client: u8) -> Result<Place, Denied> {
    come(core, &head(client, EndpointClass::Chat), want("m"))
}

type Task = JoinHandle<Result<Permit, Denied>>;

/// One that waits in a task of its own, and has looked.
async fn waits(place: Result<Place, Denied>) -> Task {
    let task = tokio::spawn(place.unwrap().slot());
    tokio::task::yield_now().await;
    task
}

async fn slot(task: Task) -> Permit {
    task.await.unwrap().unwrap()
}

/// A limit of so many requests an hour for each client.
fn hourly(burst: u64) -> LimitDoc {
    LimitDoc {
        policy: "llm/p".into(),
        name: "hourly".into(),
        per: vec![KeyPart::Client],
        requests: Some(RateDoc { count_milli: 1000, window_seconds: 3600, burst }),
        ..LimitDoc::default()
    }
}

fn left(core: &Core, client: u8) -> u64 {
    core.standing(&head(client, EndpointClass::Chat), None).iter().map(|standing| standing.remaining).sum()
}

fn at_rest(core: &Core) -> bool {
    let state = core.lock();
    let gauges = state.queue.gauges(core.clock().now());
    state.hall.is_empty() && (gauges.depth, gauges.in_flight, gauges.booked) == (0, 0, 0)
}

/// How many waits ended so in this band.
fn ended(core: &Core, band: &str, outcome: &str) -> u64 {
    let text = core.metrics.render(&crate::metrics::Standing::default());
    let of = format!("corral_queue_wait_seconds_count{{band=\"{band}\",outcome=\"{outcome}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&of));
    line.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_a_leaver_had_goes_on_at_once() {
    let core = core(1, &plan(10, 60_000, vec![]));
    let holder = chat(&core, 1).unwrap().slot().await.unwrap();
    let (leaver, next) = (waits(chat(&core, 2)).await, waits(chat(&core, 3)).await);
    sleep(SECOND).await;
    leaver.abort();
    let began = Instant::now();
    drop(holder);
    drop(slot(next).await);
    assert!(began.elapsed() < Duration::from_millis(1), "{:?}", began.elapsed());
    assert!(leaver.await.is_err_and(|error| error.is_cancelled()));
    assert!(at_rest(&core));
    assert_eq!((ended(&core, "standard", "cancelled"), ended(&core, "standard", "started")), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn who_has_to_go_is_told_at_once_and_gets_its_charge_back() {
    let core = core(1, &plan(3, 60_000, vec![hourly(10)]));
    let _holder = chat(&core, 1).unwrap().slot().await.unwrap();
    let mut greedy = Vec::new();
    for _ in 0..3 {
        greedy.push(waits(chat(&core, 2)).await);
    }
    assert_eq!((left(&core, 2), load(&core)), (7, (3, 1)));
    let began = Instant::now();
    let modest = waits(chat(&core, 3)).await;
    let told = greedy.pop().unwrap().await.unwrap().err();
    assert_eq!(began.elapsed(), Duration::ZERO);
    let Some(Denied::Shed(shedding)) = &told else { panic!("{told:?}") };
    assert_eq!((shedding.reason(), shedding.waited), (ShedReason::PushedOut, Nanos::ZERO));
    assert_eq!(
        (left(&core, 2), left(&core, 3), load(&core)),
        (8, 9, (3, 1)),
        "and nobody else has lost anything"
    );
    assert!(!modest.is_finished() && greedy.iter().all(|task| !task.is_finished()));
    assert_eq!((ended(&core, "standard", "pushed_out"), core.counters().capacity_rejects), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn who_is_shed_on_arrival_is_charged_nothing() {
    let mut doc = plan(50, 60_000, vec![hourly(10)]);
    doc.queue.max_depth_per_client = Some(1);
    let core = core(1, &doc);
    let _holder = chat(&core, 1).unwrap().slot().await.unwrap();
    let _first = chat(&core, 2).unwrap();
    for _ in 0..5 {
        assert_eq!(reason(chat(&core, 2).err()), ShedReason::ClientFull);
    }
    assert_eq!((left(&core, 2), load(&core)), (9, (1, 1)));
    assert!(chat(&core, 3).is_ok(), "another client is not in the way of this one");
}

#[tokio::test(start_paused = true)]
async fn the_urgent_go_first_and_batch_comes_too() {
    let mut doc = plan(90, 60_000, vec![]);
    doc.queue.max_depth_per_client = Some(90);
    let priority = |endpoint, priority| EndpointPriorityDoc { endpoint, priority, policy: "llm/p".into() };
    doc.endpoint_priorities = vec![
        priority(EndpointClass::Chat, PriorityDoc::High),
        priority(EndpointClass::Embed, PriorityDoc::Low),
    ];
    let core = core(1, &doc);
    let holder = chat(&core, 1).unwrap().slot().await.unwrap();
    let (order, mut tasks) = (Arc::new(parking_lot::Mutex::new(String::new())), Vec::new());
    for number in 0..60 {
        let (endpoint, letter) =
            if number < 30 { (EndpointClass::Embed, 'b') } else { (EndpointClass::Chat, 'c') };
        let (place, order) = (come(&core, &head(number, endpoint), want("m")).unwrap(), Arc::clone(&order));
        tasks.push(tokio::spawn(async move {
            let permit = place.slot().await.unwrap();
            order.lock().push(letter);
            sleep(SECOND).await;
            drop(permit);
        }));
    }
    drop(holder);
    for task in tasks {
        task.await.unwrap();
    }
    let order = order.lock().clone();
    let batch = order[..32].matches('b').count();
    assert!((1..=4).contains(&batch), "16 to 1, and never nothing: {order}");
    assert_eq!(order.len(), 60);
    assert!(at_rest(&core));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_half_of_its_own_timeout() {
    let core = core(1, &plan(10, 60_000, vec![hourly(10)]));
    let _holder = chat(&core, 1).unwrap().slot().await.unwrap();
    let due = Due { at: core.clock().now().plus(Nanos::from_secs(20)), needs: Nanos::from_secs(1) };
    let began = Instant::now();
    let hasty = come(&core, &head(2, EndpointClass::Chat), Want { due: Some(due), ..want("m") });
    let denied = hasty.unwrap().slot().await.err();
    let Some(Denied::Shed(shedding)) = denied else { panic!("{denied:?}") };
    assert_eq!(shedding.reason(), ShedReason::TimedOut);
    assert_eq!(shedding.bound, WaitBound::OwnTimeout(Nanos::from_secs(10)));
    assert!((10_000..10_010).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    assert_eq!(left(&core, 2), 10);
}

#[tokio::test(start_paused = true)]
async fn who_could_only_be_answered_too_late_gets_no_slot() {
    let core = core(1, &plan(10, 60_000, vec![hourly(10)]));
    let holder = chat(&core, 1).unwrap().slot().await.unwrap();
    // Its answer takes longer than it has: it may wait, and when its turn comes there is no use in it.
    let due = Due { at: core.clock().now().plus(Nanos::from_secs(40)), needs: Nanos::from_secs(38) };
    let late = waits(come(&core, &head(2, EndpointClass::Chat), Want { due: Some(due), ..want("m") })).await;
    let next = waits(chat(&core, 3)).await;
    advance(Duration::from_secs(3)).await;
    drop(holder);
    assert_eq!(reason(late.await.unwrap().err()), ShedReason::DeadlineMissed);
    assert_eq!(slot(next).await.waited(), Nanos::from_secs(3), "and who is next does not wait for it");
    assert_eq!((left(&core, 2), ended(&core, "standard", "deadline")), (10, 1));
}

#[tokio::test(start_paused = true)]
async fn a_change_of_plan_loses_nobody_who_waits() {
    let core = core(1, &plan(20, 60_000, vec![hourly(100)]));
    let served = |place: Result<Place, Denied>| async {
        let mut permit = place?.slot().await?;
        sleep(SECOND).await;
        permit.settle(1, 1);
        Ok::<_, Denied>(())
    };
    let tasks: Vec<_> = (1..=12).map(|client| tokio::spawn(served(chat(&core, client)))).collect();
    for (sequence, per_model, cost_model) in
        [(2, 2, CostModel::Tokens), (3, 1, CostModel::SlotTime), (4, 3, CostModel::Tokens)]
    {
        let mut doc = plan(0, 1, vec![]);
        doc.sequence = sequence;
        doc.queue.cost_model = cost_model;
        let slots = Slots { per_model, models: 1 };
        core.take_plan_and_slots(Arc::new(compile(&doc).unwrap()), NonZeroU32::MIN, Some(slots));
        sleep(Duration::from_millis(1500)).await;
    }
    for task in tasks {
        assert_eq!(task.await.unwrap(), Ok(()));
    }
    assert!(at_rest(&core));
    assert_eq!(core.counters().capacity_rejects, 0);
}

#[tokio::test(start_paused = true)]
async fn a_slot_given_back_for_another_try_is_waited_for_in_front_of_the_others_of_its_client() {
    let core = core(1, &plan(20, 60_000, vec![]));
    let first = chat(&core, 1).unwrap().slot().await.unwrap();
    let second = waits(chat(&core, 1)).await;
    let other = waits(chat(&core, 2)).await;
    sleep(SECOND).await;
    let again = tokio::spawn(first.again((10, 0), 1_000_000_000));
    // The other client has had nothing yet.
    let other = slot(other).await;
    sleep(SECOND).await;
    assert!(!again.is_finished() && !second.is_finished());
    drop(other);
    let again = slot(again).await;
    assert_eq!(again.waited(), Nanos::from_secs(1));
    sleep(SECOND).await;
    assert_eq!(again.held(), Nanos::from_secs(2), "both times");
    drop(again);
    drop(slot(second).await);
    assert!(at_rest(&core));
    assert!((3000..3010).contains(&core.counters().slot_millis), "{:?}", core.counters());
}

#[tokio::test(start_paused = true)]
async fn who_leaves_while_it_waits_for_another_try_leaves_nothing() {
    let core = core(1, &plan(20, 60_000, vec![hourly(10)]));
    let first = chat(&core, 1).unwrap().slot().await.unwrap();
    let other = waits(chat(&core, 2)).await;
    sleep(SECOND).await;
    let again = tokio::spawn(first.again((1, 0), 1));
    let other = slot(other).await;
    tokio::task::yield_now().await;
    again.abort();
    assert!(again.await.is_err_and(|error| error.is_cancelled()));
    drop(other);
    assert!(at_rest(&core));
    assert_eq!((left(&core, 1), left(&core, 2)), (10, 10), "unsettled, both get their charge back");
}

/// One slot, for one model at a time.
fn one_model(doc: &PlanDoc) -> Arc<Core> {
    let core = core(1, doc);
    let slots = Slots { per_model: 1, models: 1 };
    core.take_plan_and_slots(Arc::new(compile(doc).unwrap()), NonZeroU32::MIN, Some(slots));
    core
}

#[tokio::test(start_paused = true)]
async fn an_idle_model_gives_way_in_time_though_nothing_else_happens() {
    let core = one_model(&plan(20, 60_000, vec![]));
    let watched = Arc::clone(&core);
    tokio::spawn(async move { recall(&watched).await });
    let first = chat(&core, 1).unwrap().slot().await.unwrap();
    sleep(SECOND).await;
    first.loaded();
    drop(first);
    let other = come(&core, &head(2, EndpointClass::Chat), want("other")).unwrap().slot().await.unwrap();
    let waited = Duration::from(other.waited());
    assert!((SECOND..SECOND * 2).contains(&waited), "for as long as a load takes: {waited:?}");
    drop(other);
    assert!(at_rest(&core));
}

#[tokio::test(start_paused = true)]
async fn a_sign_of_strain_leaves_fewer_slots_at_once() {
    let core = core(2, &plan(20, 60_000, vec![]));
    let first = chat(&core, 1).unwrap().slot().await.unwrap();
    core.strain(&model("m"), Strain::Busy);
    let second = waits(chat(&core, 2)).await;
    sleep(SECOND).await;
    assert!(!second.is_finished());
    drop(first);
    assert_eq!(slot(second).await.waited(), Nanos::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_told_as_time_of_slots() {
    let core = core(1, &plan(20, 60_000, vec![]));
    let _holder = chat(&core, 1).unwrap().slot().await.unwrap();
    let tasks = [waits(chat(&core, 2)).await, waits(chat(&core, 3)).await];
    assert_eq!((core.gauges().queued, core.gauges().queued_cost_ms), (2, 2000));
    let (bands, models) = core.queue_gauges();
    assert_eq!(bands.map(|band| (band.waiting, band.cost)), [(0, 0), (2, 2_000_000_000), (0, 0), (0, 0)]);
    assert_eq!((models[0].in_flight, models[0].waiting), (1, 2));
    tasks.iter().for_each(JoinHandle::abort);
    tokio::task::yield_now().await;
    assert_eq!((core.gauges().queued, core.gauges().queued_cost_ms), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_who_come_and_leave_cost_those_who_stay_nothing() {
    let core = core(1, &plan(50, 600_000, vec![hourly(100_000)]));
    let holder = chat(&core, 1).unwrap().slot().await.unwrap();
    let stays = waits(chat(&core, 2)).await;
    for number in 0..1000_u32 {
        let client = 3 + u8::try_from(number % 200).unwrap();
        if let Ok(place) = chat(&core, client) {
            let task = tokio::spawn(place.slot());
            if number % 2 == 0 {
                tokio::task::yield_now().await;
            }
            task.abort();
        }
        if number % 7 == 0 {
            tokio::task::yield_now().await;
        }
    }
    sleep(SECOND).await;
    assert_eq!(load(&core), (1, 1));
    drop(holder);
    assert_eq!(slot(stays).await.waited(), Nanos::from_secs(1));
    assert!(at_rest(&core));
}

/// Whatever a client says of itself, its place in the queue is that of its key or its address.
#[test]
fn a_flow_is_the_client_and_nothing_that_it_may_choose() {
    let core = core(1, &plan(20, 60_000, vec![]));
    let flow = |head: &HeadFacts| -> FlowKey { core.lock().limiter.place(head).flow };
    let chat = head(1, EndpointClass::Chat);
    let mut forged = head(1, EndpointClass::Embed);
    forged.headers = vec![("x-priority".into(), "critical".into())];
    assert_eq!(flow(&chat), flow(&forged));
    let priority = |head: &HeadFacts| core.lock().limiter.place(head).priority;
    assert_eq!(priority(&chat), priority(&forged));
    assert_ne!(flow(&chat), flow(&head(2, EndpointClass::Chat)));
}

#[tokio::test(start_paused = true)]
async fn requests_that_fail_at_once_make_no_wait_look_short() {
    let core = core(1, &plan(50, 60_000, Vec::new()));
    let mut first = chat(&core, 1).unwrap().slot().await.unwrap();
    first.loaded();
    sleep(20 * SECOND).await;
    first.settle(10, 10);
    drop(first);
    for _ in 0..20 {
        drop(chat(&core, 1).unwrap().slot().await.unwrap());
    }
    let _running = chat(&core, 1).unwrap();
    assert_eq!(core.load().predicted_wait, Nanos::from_secs(20));
}
