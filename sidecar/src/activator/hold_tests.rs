use std::sync::atomic::{AtomicBool, Ordering};

use corral_limiter::queue::{FlowKey, Priority};
use corral_wire::{Backend, PoolRef};
use tokio::time::{Instant, advance};

use super::*;

const SETTINGS: HoldSettings = HoldSettings {
    max_requests: 8,
    max_bytes: 8000,
    max_body_bytes: 1000,
    max_hold: Duration::from_mins(10),
};

fn hold() -> Arc<Hold> {
    Hold::new(SETTINGS, Clock::start())
}

fn ways() -> Ways {
    Ways { connect_timeout: Duration::from_secs(1), metrics: Arc::new(Metrics::new()) }
}

fn duty(slots: &[(&str, u32)], start_left_ms: u64) -> Duty {
    let backend = |(uid, slots): &(&str, u32)| Backend {
        uid: (*uid).to_owned(),
        address: ([127, 0, 0, 1], 1).into(),
        slots: *slots,
        free: *slots,
    };
    Duty {
        pool: PoolRef { namespace: "llm".into(), name: "chat".into() },
        backends: slots.iter().map(backend).collect(),
        start_left_ms,
        patience_ms: 0,
        wake_above: 0,
        stopped: false,
    }
}

fn ask(client: u128) -> Ask {
    Ask { flow: FlowKey(client), priority: Priority::Medium, bytes: 10 }
}

fn ticket(hold: &Arc<Hold>, client: u128) -> Ticket {
    match hold.arrive(ask(client)) {
        Ok((_, Turn::Wait(ticket))) => ticket,
        Ok((_, Turn::Now(_))) => panic!("it need not wait"),
        Err(refused) => panic!("{refused}"),
    }
}

fn refused(hold: &Arc<Hold>, ask: Ask) -> NotHeld {
    match hold.arrive(ask) {
        Err(refused) => refused,
        Ok(_) => panic!("it is held"),
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_get_pods_in_order_and_only_as_many_as_there_are_slots() {
    let hold = hold();
    let tickets: Vec<Ticket> = (0..5).map(|client| ticket(&hold, client)).collect();
    assert_eq!(hold.gauges().requests, 5);
    hold.obey(&duty(&[("a", 2)], 0), &ways());
    assert_eq!((hold.gauges().requests, hold.gauges().forwarding), (3, 2));
    let mut tickets = tickets.into_iter();
    let (first, second) = (tickets.next().unwrap().seat().await, tickets.next().unwrap().seat().await);
    assert_eq!((first.as_ref().map(Seat::pod), second.map(|_| ())), (Ok("a"), Ok(())), "the second is over");
    let third = tickets.next().unwrap().seat().await.unwrap();
    assert_eq!((hold.gauges().requests, hold.gauges().forwarding), (2, 2));
    drop((first, third));
    for ticket in tickets {
        ticket.seat().await.unwrap();
    }
    assert_eq!((hold.gauges().requests, hold.gauges().forwarding, hold.gauges().bytes), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn whoever_has_gone_is_skipped_and_a_pod_already_given_to_it_goes_to_the_next() {
    let hold = hold();
    let (gone, given, next) = (ticket(&hold, 1), ticket(&hold, 2), ticket(&hold, 3));
    drop(gone);
    hold.obey(&duty(&[("a", 1)], 0), &ways());
    assert_eq!((hold.gauges().requests, hold.gauges().forwarding), (1, 1));
    drop(given);
    assert_eq!(next.seat().await.map(|seat| seat.pod().to_owned()), Ok("a".to_owned()));
    assert_eq!(hold.gauges().forwarding, 0);
}

#[tokio::test(start_paused = true)]
async fn while_nobody_waits_and_a_pod_is_ready_requests_are_only_passed_on() {
    let hold = hold();
    hold.obey(&duty(&[("a", 1)], 0), &ways());
    let seats: Vec<_> = (0..20).map(|_| hold.arrive(ask(1)).unwrap().1).collect();
    assert!(seats.iter().all(|turn| matches!(turn, Turn::Now(_))), "neither slots nor a quarter bind them");
    let large = Ask { bytes: 100_000, ..ask(1) };
    assert!(matches!(hold.arrive(large), Ok((_, Turn::Now(_)))), "nor does the longest body that is held");
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_while_a_pod_is_ready_passes_those_who_are_let_go_one_after_another() {
    let hold = hold();
    let waiting: Vec<Ticket> = (0..3).map(|client| ticket(&hold, client)).collect();
    hold.obey(&duty(&[("a", 1)], 0), &ways());
    assert_eq!(hold.gauges().requests, 2);
    let passing: Vec<_> = (0..20).map(|_| hold.arrive(Ask { bytes: 100_000, ..ask(9) }).unwrap().1).collect();
    assert!(
        passing.iter().all(|turn| matches!(turn, Turn::Now(_))),
        "no line, no share and no length binds them"
    );
    assert!(hold.pass().is_some());
    for ticket in waiting {
        ticket.seat().await.unwrap();
    }
    assert_eq!(hold.gauges().requests, 0, "and what passes keeps nobody who was held");
}

#[tokio::test(start_paused = true)]
async fn whoever_was_held_too_long_beside_a_pod_that_serves_goes_to_its_queue() {
    let hold = hold();
    let (first, second) = (ticket(&hold, 1), ticket(&hold, 2));
    hold.obey(&duty(&[("a", 1)], 0), &ways());
    let _long = first.seat().await.unwrap();
    advance(Duration::from_secs(595)).await;
    hold.obey(&duty(&[("a", 1)], 0), &ways());
    let began = Instant::now();
    assert_eq!(second.seat().await.map(|seat| seat.pod().to_owned()), Ok("a".to_owned()));
    assert_eq!(Instant::now() - began, Duration::from_secs(5));
    assert_eq!(hold.gauges().requests, 0);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_answers_is_had_without_the_operator_and_frees_whoever_waits() {
    let hold = hold();
    hold.obey(&duty(&[("a", 9)], 0), &ways());
    advance(Duration::from_secs(50)).await;
    hold.pass().unwrap().answered();
    advance(Duration::from_secs(50)).await;
    assert!(hold.pass().is_some(), "a Duty is 100 s old, its last answer 50 s");
    advance(Duration::from_secs(11)).await;
    let waits = ticket(&hold, 1);
    assert_eq!(hold.quiet().len(), 1);
    hold.answered("a");
    assert_eq!(waits.seat().await.map(|seat| seat.pod().to_owned()), Ok("a".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_body_has_its_room_before_it_is_read_and_one_client_a_quarter() {
    let hold = hold();
    let slow = |client| hold.read(Ask { bytes: 900, ..ask(client) });
    let first = [slow(1).unwrap(), slow(1).unwrap()];
    assert_eq!(slow(1).map(|_| ()).unwrap_err().why, Why::ClientFull);
    assert_eq!(hold.read(Ask { bytes: 1001, ..ask(2) }).map(|_| ()).unwrap_err().why, Why::TooLarge);
    assert_eq!(hold.gauges().requests, 0, "nobody is held yet");
    drop(first);
    let _again = slow(1).unwrap().unwrap();
    hold.obey(&duty(&[("a", 1)], 0), &ways());
    assert!(hold.read(Ask { bytes: 1 << 30, ..ask(1) }).unwrap().is_none(), "a pod is there");
}

#[tokio::test(start_paused = true)]
async fn four_clients_do_not_close_the_hold_to_a_fifth() {
    let hold = Hold::new(HoldSettings { max_requests: 16, ..SETTINGS }, Clock::start());
    let waiting: Vec<Ticket> = (0..16).map(|number| ticket(&hold, number / 4)).collect();
    let fifth = ticket(&hold, 9);
    assert_eq!(hold.gauges().requests, 16);
    let mut told = waiting.into_iter().map(|ticket| tokio::spawn(ticket.seat())).collect::<Vec<_>>();
    advance(Duration::from_secs(1)).await;
    told.retain(tokio::task::JoinHandle::is_finished);
    assert_eq!(told.len(), 1);
    let why = told.remove(0).await.unwrap().map(|_| ()).unwrap_err().why;
    assert_eq!(why, Why::Full);
    drop(fifth);
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_goes_before_what_came_later() {
    let hold = hold();
    let first = ticket(&hold, 1);
    let visit = first.visit;
    let second = ticket(&hold, 2);
    hold.obey(&duty(&[("a", 1)], 0), &ways());
    let seat = first.seat().await.unwrap();
    seat.set_aside();
    drop(seat);
    let Turn::Wait(first) = hold.again(visit) else { panic!("the pod is set aside") };
    hold.obey(&duty(&[("b", 1)], 0), &ways());
    let seat = first.seat().await.unwrap();
    assert_eq!((seat.pod(), hold.gauges().requests), ("b", 1));
    drop(seat);
    assert_eq!(second.seat().await.map(|seat| seat.pod().to_owned()), Ok("b".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_held_for_longer_than_may_be_and_is_told_when_to_come_back() {
    let hold = hold();
    let began = Instant::now();
    let waits = ticket(&hold, 1);
    hold.obey(&duty(&[], 700_000), &ways());
    let told = waits.seat().await.map(|_| ()).unwrap_err();
    assert_eq!(Instant::now() - began, Duration::from_mins(10));
    assert_eq!(
        (told.why, told.wait),
        (Why::TooLate, Some(Nanos::from_secs(100))),
        "what is left of the start"
    );
    assert_eq!(hold.gauges().requests, 0);
}

#[tokio::test(start_paused = true)]
async fn whoever_finds_no_room_is_told_what_is_left_of_the_start() {
    let hold = hold();
    let _held: Vec<Ticket> = (0..8).map(|client| ticket(&hold, client)).collect();
    assert_eq!((refused(&hold, ask(9)).why, refused(&hold, ask(9)).wait), (Why::Full, Some(UNKNOWN_START)));
    hold.obey(&duty(&[], 60_000), &ways());
    advance(Duration::from_secs(20)).await;
    assert_eq!(refused(&hold, ask(9)).wait, Some(Nanos::from_secs(40)));
    advance(Duration::from_mins(2)).await;
    assert_eq!(refused(&hold, ask(9)).wait, Some(SOON), "it should be there by now");
    let large = Ask { bytes: 1001, ..ask(9) };
    assert_eq!(refused(&hold, large).why, Why::TooLarge);
}

#[tokio::test(start_paused = true)]
async fn where_no_pod_is_asked_for_whoever_waits_is_told_so_at_once_and_nobody_is_held_until_one_is() {
    let hold = hold();
    let began = Instant::now();
    let stopped = Duty { stopped: true, ..duty(&[], 60_000) };
    let (waiting, reading) = (ticket(&hold, 1), hold.read(ask(2)).unwrap());
    hold.obey(&stopped, &ways());
    let told = waiting.seat().await.map(|_| ()).unwrap_err();
    assert_eq!((told.why, told.wait), (Why::Stopped, None));
    assert_eq!(reading.unwrap().taken().await.why, Why::Stopped);
    assert_eq!((refused(&hold, ask(3)).why, Instant::now()), (Why::Stopped, began));
    assert!(hold.read(ask(3)).is_err_and(|refused| refused.why == Why::Stopped));
    let (visit, _) = {
        hold.obey(&Duty { stopped: true, ..duty(&[("a", 1)], 0) }, &ways());
        hold.arrive(ask(4)).unwrap()
    };
    hold.obey(&stopped, &ways());
    let Turn::Wait(back) = hold.again(visit) else { panic!("the pod is gone") };
    assert_eq!(back.seat().await.map(|_| ()).unwrap_err().why, Why::Stopped, "the last pod went");
    assert_eq!((hold.gauges().requests, hold.gauges().bytes), (0, 0));
    hold.obey(&duty(&[], 60_000), &ways());
    ticket(&hold, 5);
}

#[tokio::test(start_paused = true)]
async fn one_client_does_not_fill_the_hold() {
    let hold = hold();
    let _held = [ticket(&hold, 1), ticket(&hold, 1)];
    assert_eq!(refused(&hold, ask(1)).why, Why::ClientFull);
    ticket(&hold, 2);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_was_set_aside_is_tried_again_without_anybody_saying_so() {
    let hold = hold();
    hold.obey(&duty(&[("a", 1)], 0), &ways());
    let (visit, Turn::Now(seat)) = hold.arrive(ask(1)).unwrap() else { panic!("it waits") };
    seat.set_aside();
    drop(seat);
    let Turn::Wait(ticket) = hold.again(visit) else { panic!("the pod is set aside") };
    let began = Instant::now();
    let watched = Arc::clone(&hold);
    let watch = tokio::spawn(async move { watched.watch(|| false).await });
    ticket.seat().await.unwrap();
    let waited = Instant::now() - began;
    assert!((2000..=2400).contains(&waited.as_millis()), "{waited:?}");
    watch.abort();
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_for_pods_hears_of_the_first_that_is_held() {
    let hold = hold();
    let listening = Arc::clone(&hold);
    let heard = tokio::spawn(async move { listening.above(0).await });
    tokio::task::yield_now().await;
    assert!(!heard.is_finished());
    let _held = ticket(&hold, 1);
    heard.await.unwrap();
    hold.above(0).await;
    let more = timeout_at(Instant::now() + Duration::from_secs(1), hold.above(1)).await;
    assert!(more.is_err(), "one is not more than one");
}

#[tokio::test(start_paused = true)]
async fn who_waits_where_this_shuts_down_is_answered_once_nobody_asks_for_pods_any_more() {
    let (hold, drains) = (hold(), Arc::new(AtomicBool::new(false)));
    let (watched, flag) = (Arc::clone(&hold), Arc::clone(&drains));
    let watch = tokio::spawn(async move { watched.watch(|| flag.load(Ordering::Relaxed)).await });
    hold.obey(&duty(&[], 60_000), &ways());
    let waits = tokio::spawn(ticket(&hold, 1).seat());
    advance(Duration::from_mins(2)).await;
    sleep(Duration::from_secs(1)).await;
    assert!(!waits.is_finished(), "an operator may be away for a while");
    drains.store(true, Ordering::Relaxed);
    sleep(Duration::from_secs(50)).await;
    hold.obey(&duty(&[], 60_000), &ways());
    sleep(Duration::from_secs(59)).await;
    assert!(!waits.is_finished(), "another may lead soon");
    sleep(Duration::from_secs(2)).await;
    let NotHeld { why, wait, .. } = waits.await.unwrap().map(drop).unwrap_err();
    assert_eq!((why, wait.is_some()), (Why::Draining, true));
    assert_eq!(refused(&hold, ask(2)).why, Why::Draining);
    hold.obey(&duty(&[], 60_000), &ways());
    ticket(&hold, 3);
    watch.abort();
}
