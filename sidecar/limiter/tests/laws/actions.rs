//! What becomes of what exceeds a limit: it is delayed, queued, deprioritized, refused for good, or only counted.

use corral_limiter::{
    Blocked, BodyFacts, CommitError, LimitStats, Limiter, Mismatch, Nanos, Refusal, Ticket, Unit, Usage,
    Would,
};
use corral_wire::{Action, Algorithm, ExceedDoc, KeyPart, LimitDoc, Mode, Oversize, Scope};

use crate::support::{SECOND, ask, head, limit, limiter, limiter_of, model, plan, pods, rate, rated};

const CLIENT: [KeyPart; 1] = [KeyPart::Client];
const GLOBAL: [KeyPart; 1] = [KeyPart::Global];

fn exceed(action: Action, max_wait_ms: Option<u64>) -> ExceedDoc {
    ExceedDoc { action, max_wait_ms, oversize: Oversize::Debt }
}

fn of_tokens(name: &str, count: u64, window: u64) -> LimitDoc {
    LimitDoc { tokens: Some(rate(count, window, count)), ..limit(name, &CLIENT) }
}

/// A request with its estimate; whether it would wait for a slot.
fn commit(
    limiter: &mut Limiter,
    client: u32,
    (input, output): (u64, u64),
    waits: bool,
    now: u64,
) -> Result<Ticket, CommitError<()>> {
    let mut ticket = limiter.enter(&head(client), Nanos(now)).map_err(CommitError::Refused)?;
    let name = model(0);
    let estimate = Usage { input, output, slot: Nanos::ZERO };
    let body = BodyFacts { model: Some(&name), estimate, waits };
    match limiter.commit(&mut ticket, &body, Nanos(now), |_| Ok(())) {
        Ok(()) => Ok(ticket),
        Err(error) => {
            limiter.finish(ticket, None, Nanos(now));
            Err(error)
        }
    }
}

fn refused(came: Result<Ticket, CommitError<()>>) -> Refusal {
    match came {
        Err(CommitError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

fn stats(limiter: &Limiter, name: &str) -> LimitStats {
    limiter.stats().into_iter().find(|stats| stats.limit.name == name).unwrap()
}

fn remaining(limiter: &Limiter, unit: Unit, now: u64) -> u64 {
    let standings = limiter.standing(&head(1), Some(&model(0)), Nanos(now));
    standings.into_iter().find(|standing| standing.unit == unit).unwrap().remaining
}

#[test]
fn a_delay_tells_each_request_its_start_in_order_of_arrival_until_the_wait_is_too_long() {
    let delays =
        LimitDoc { on_exceed: exceed(Action::Delay, Some(2000)), ..rated("d", &CLIENT, rate(1, 1, 1)) };
    let mut limiter = limiter(&[delays]);
    let waits: Vec<_> = (0..3).map(|_| ask(&mut limiter, 1, &model(0), 0).unwrap().terms().delay).collect();
    assert_eq!(waits, [Nanos::ZERO, Nanos(SECOND), Nanos(2 * SECOND)]);
    let refusal = ask(&mut limiter, 1, &model(0), 0).unwrap_err();
    // It would start after 3 s; after one more it is told to wait two.
    assert_eq!((refusal.retry.wait, refusal.violations[0].wait), (Nanos(SECOND), Nanos(SECOND)));
    assert!(ask(&mut limiter, 1, &model(0), SECOND - 1).is_err());
    assert_eq!(ask(&mut limiter, 1, &model(0), SECOND).unwrap().terms().delay, Nanos(2 * SECOND));
    let stats = stats(&limiter, "d");
    assert_eq!((stats.admitted, stats.delayed, stats.refused), (4, 3, 2));
}

#[test]
fn what_is_given_back_before_a_booking_that_has_not_started_is_dropped() {
    let delays =
        LimitDoc { on_exceed: exceed(Action::Delay, Some(9000)), ..rated("d", &CLIENT, rate(1, 1, 1)) };
    let mut limiter = limiter(&[delays]);
    let first = ask(&mut limiter, 1, &model(0), 0).unwrap();
    let second = ask(&mut limiter, 1, &model(0), 0).unwrap();
    limiter.abandon(first, Nanos(0));
    // The second starts at 1 s as it was told; a third must not start beside it.
    let third = ask(&mut limiter, 1, &model(0), 0).unwrap();
    assert_eq!((second.terms().delay, third.terms().delay), (Nanos(SECOND), Nanos(2 * SECOND)));
    // The last has nobody behind it.
    limiter.abandon(third, Nanos(0));
    assert_eq!(ask(&mut limiter, 1, &model(0), 0).unwrap().terms().delay, Nanos(2 * SECOND));
}

#[test]
fn a_leaky_bucket_lets_one_through_at_a_time_and_as_many_wait_as_its_burst_says() {
    let leaky = |algorithm| LimitDoc { algorithm, ..rated("l", &CLIENT, rate(10, 1, 5)) };
    let mut limiter = limiter(&[leaky(Algorithm::LeakyBucket)]);
    let delays: Vec<_> = (0..9)
        .filter_map(|_| ask(&mut limiter, 1, &model(0), 0).ok())
        .map(|ticket| ticket.terms().delay.0)
        .collect();
    let tenths = [0, 1, 2, 3, 4, 5].map(|tenth| tenth * SECOND / 10);
    assert_eq!(delays, tenths);
    // A share of two pods: half the pace, and two wait.
    let mut share = limiter_of(&[leaky(Algorithm::LeakyBucket)], 2, 1000);
    let delays: Vec<_> = (0..9)
        .filter_map(|_| ask(&mut share, 1, &model(0), 0).ok())
        .map(|ticket| ticket.terms().delay.0)
        .collect();
    assert_eq!(delays, [0, SECOND / 5, 2 * SECOND / 5]);
    // With a token bucket in its place the client goes on with what it has.
    let summary = limiter.swap(plan(&[leaky(Algorithm::TokenBucket)]), pods(1), Nanos(0));
    assert!(summary.fresh.is_empty());
    assert!(ask(&mut limiter, 1, &model(0), 0).is_err());
}

#[test]
fn a_queueing_limit_takes_nothing_until_there_is_a_slot() {
    let queues = LimitDoc {
        concurrency: Some(1),
        on_exceed: exceed(Action::Queue, Some(5000)),
        ..rated("q", &CLIENT, rate(1, 1, 1))
    };
    let mut limiter = limiter(&[queues]);
    let mut first = ask(&mut limiter, 1, &model(0), 0).unwrap();
    let mut second = ask(&mut limiter, 1, &model(0), 0).unwrap();
    assert!(first.is_pending() && second.is_pending() && second.terms().delay == Nanos::ZERO);
    assert_eq!(second.deadline(), Some(Nanos(5 * SECOND)));
    assert_eq!(remaining(&limiter, Unit::Requests, 0), 1);
    assert_eq!(limiter.dispatch(&mut first, Nanos(0)), Ok(()));
    assert!(!first.is_pending() && first.deadline().is_none());
    let Blocked { wait, bucket, unit, .. } = limiter.dispatch(&mut second, Nanos(0)).unwrap_err();
    // The wait is known, but a place is lacking as well: whoever is behind may take from the bucket.
    assert_eq!((wait, bucket, unit), (Some(Nanos(SECOND)), None, Unit::Requests));
    assert_eq!(limiter.dispatch(&mut second, Nanos(SECOND)).unwrap_err().wait, None);
    limiter.finish(first, None, Nanos(SECOND));
    assert_eq!(limiter.dispatch(&mut second, Nanos(SECOND)), Ok(()));
    limiter.abandon(second, Nanos(SECOND));
    assert_eq!(remaining(&limiter, Unit::Requests, SECOND), 1);
    assert_eq!(remaining(&limiter, Unit::Concurrency, SECOND), 1);
}

#[test]
fn a_blocked_request_says_of_which_bucket_it_lacks_permits_and_who_else_draws_on_it() {
    let queues = LimitDoc { on_exceed: exceed(Action::Queue, Some(90_000)), ..of_tokens("q", 10, 10) };
    let mut limiter = limiter(&[queues]);
    let mut one = commit(&mut limiter, 1, (6, 0), false, 0).unwrap();
    let mut two = commit(&mut limiter, 1, (6, 0), false, 0).unwrap();
    let three = commit(&mut limiter, 1, (1, 0), false, 0).unwrap();
    let other = commit(&mut limiter, 2, (1, 0), false, 0).unwrap();
    assert_eq!(limiter.dispatch(&mut one, Nanos(0)), Ok(()));
    let blocked = limiter.dispatch(&mut two, Nanos(0)).unwrap_err();
    assert_eq!(blocked.wait, Some(Nanos(2 * SECOND)));
    let bucket = blocked.bucket.unwrap();
    assert!(limiter.draws_on(&three, bucket, Nanos(0)));
    assert!(!limiter.draws_on(&other, bucket, Nanos(0)));
    assert_eq!(limiter.dispatch(&mut two, Nanos(2 * SECOND)), Ok(()));
}

#[test]
fn who_waits_as_long_as_a_queueing_limit_lets_it_is_refused_by_its_name() {
    let queues =
        LimitDoc { on_exceed: exceed(Action::Queue, Some(3000)), ..rated("q", &CLIENT, rate(1, 2, 1)) };
    let mut limiter = limiter(&[queues]);
    let mut first = ask(&mut limiter, 1, &model(0), 0).unwrap();
    let second = ask(&mut limiter, 1, &model(0), 0).unwrap();
    assert_eq!(limiter.dispatch(&mut first, Nanos(0)), Ok(()));
    let mut third = ask(&mut limiter, 1, &model(0), 2 * SECOND).unwrap();
    assert_eq!(limiter.dispatch(&mut third, Nanos(2 * SECOND)), Ok(()));
    assert_eq!(limiter.overdue(&second, Nanos(3 * SECOND - 1)), None);
    let refusal = limiter.overdue(&second, Nanos(3 * SECOND)).unwrap();
    assert_eq!(refusal.violations[0].limit.name, "q");
    assert_eq!(refusal.retry.wait, Nanos(SECOND));
    // Nothing is in its way then but that there is no slot.
    assert_eq!(limiter.overdue(&second, Nanos(4 * SECOND)), None);
    limiter.abandon(second, Nanos(4 * SECOND));
}

#[test]
fn a_wait_that_is_known_to_be_too_long_is_refused_on_arrival() {
    let queues =
        LimitDoc { on_exceed: exceed(Action::Queue, Some(500)), ..rated("q", &CLIENT, rate(1, 2, 1)) };
    let mut limiter = limiter(&[queues]);
    let mut first = ask(&mut limiter, 1, &model(0), 0).unwrap();
    assert_eq!(limiter.dispatch(&mut first, Nanos(0)), Ok(()));
    let refusal = ask(&mut limiter, 1, &model(0), 0).unwrap_err();
    assert_eq!(refusal.retry.wait, Nanos(1_500_000_000));
    assert!(ask(&mut limiter, 1, &model(0), 1_500_000_000).unwrap().is_pending());
}

#[test]
fn what_is_deprioritized_is_charged_to_the_other_limits_only() {
    let soft =
        LimitDoc { on_exceed: exceed(Action::Deprioritize, None), ..rated("soft", &CLIENT, rate(1, 60, 1)) };
    let mut limiter = limiter(&[soft, rated("hard", &CLIENT, rate(3, 60, 3))]);
    let spared: Vec<_> =
        (0..3).map(|_| ask(&mut limiter, 1, &model(0), 0).unwrap().terms().is_deprioritized).collect();
    assert_eq!(spared, [false, true, true]);
    assert_eq!(ask(&mut limiter, 1, &model(0), 0).unwrap_err().violations[0].limit.name, "hard");
    let soft = stats(&limiter, "soft");
    assert_eq!((soft.admitted, soft.deprioritized, soft.refused), (1, 2, 0));
    assert_eq!(stats(&limiter, "hard").admitted, 3);
}

#[test]
fn only_those_that_wait_are_counted_as_queued_and_only_while_they_do() {
    let waiting = LimitDoc { queued: Some(1), queued_tokens: Some(10), ..limit("w", &CLIENT) };
    let mut limiter = limiter(&[waiting]);
    let runs = commit(&mut limiter, 1, (50, 0), false, 0).unwrap();
    let mut waits = commit(&mut limiter, 1, (8, 0), true, 0).unwrap();
    let units = |refusal: &Refusal| {
        refusal.violations.iter().map(|one| (one.unit, one.used, one.asked)).collect::<Vec<_>>()
    };
    let refusal = refused(commit(&mut limiter, 1, (3, 0), true, 0));
    assert_eq!(units(&refusal), [(Unit::Queued, 1, 1), (Unit::QueuedTokens, 8, 3)]);
    assert!(refusal.retry.estimate);
    limiter.started(&mut waits);
    limiter.started(&mut waits);
    // More than there ever is room for waits alone.
    let large = commit(&mut limiter, 1, (11, 0), true, 0).unwrap();
    limiter.abandon(large, Nanos(0));
    assert_eq!(remaining(&limiter, Unit::Queued, 0), 1);
    for ticket in [runs, waits] {
        limiter.finish(ticket, None, Nanos(0));
    }
    assert_eq!(stats(&limiter, "w").keys, 0);
}

#[test]
fn whom_a_limit_delays_waits_as_those_in_the_queue_do() {
    let delays =
        LimitDoc { on_exceed: exceed(Action::Delay, Some(9000)), ..rated("d", &CLIENT, rate(1, 1, 1)) };
    let waiting = LimitDoc { queued: Some(1), ..limit("w", &CLIENT) };
    let mut limiter = limiter(&[delays, waiting]);
    assert_eq!(commit(&mut limiter, 1, (0, 0), false, 0).unwrap().terms().delay, Nanos::ZERO);
    let mut second = commit(&mut limiter, 1, (0, 0), false, 0).unwrap();
    assert_eq!(second.terms().delay, Nanos(SECOND));
    assert_eq!(refused(commit(&mut limiter, 1, (0, 0), false, 0)).violations[0].unit, Unit::Queued);
    limiter.started(&mut second);
    assert_eq!(commit(&mut limiter, 1, (0, 0), false, 0).unwrap().terms().delay, Nanos(2 * SECOND));
}

#[test]
fn what_a_limit_can_never_hold_is_refused_for_good_by_the_numbers_of_the_policy() {
    let reject = ExceedDoc { oversize: Oversize::Reject, ..ExceedDoc::default() };
    let strict = LimitDoc { on_exceed: reject, ..of_tokens("t", 100, 60) };
    let mut share = limiter_of(std::slice::from_ref(&strict), 4, 1000);
    // More than this pod's share of 25, and not more than the policy's hundred: admitted when nothing is used.
    assert!(commit(&mut share, 1, (60, 40), false, 0).is_ok());
    let CommitError::Oversized(never) = commit(&mut share, 2, (60, 41), false, 0).unwrap_err() else {
        panic!()
    };
    assert_eq!(
        (never.limit.name.as_str(), never.unit, never.asked, never.most),
        ("t", Unit::Tokens, 101, 100)
    );
    assert_eq!(stats(&share, "t").refused, 1);
    assert!(commit(&mut share, 2, (25, 0), false, 0).is_ok());
    // In shadow it is only counted.
    let mut shadow = limiter(&[LimitDoc { mode: Mode::Shadow, ..strict }]);
    assert_eq!(commit(&mut shadow, 2, (60, 41), false, 0).unwrap().would_refuse().len(), 1);
}

#[test]
fn an_answer_is_charged_as_it_grows_and_settled_to_what_it_was() {
    let mut limiter = limiter(&[of_tokens("t", 100, 100)]);
    let mut ticket = commit(&mut limiter, 1, (10, 20), false, 0).unwrap();
    assert_eq!(remaining(&limiter, Unit::Tokens, 0), 70);
    for (output, left) in [(5, 70), (20, 70), (25, 65), (25, 65), (80, 10)] {
        limiter.progress(&mut ticket, output, Nanos(0));
        assert_eq!(remaining(&limiter, Unit::Tokens, 0), left);
    }
    limiter.finish(ticket, Some(Usage { input: 12, output: 40, slot: Nanos::ZERO }), Nanos(0));
    assert_eq!(remaining(&limiter, Unit::Tokens, 0), 48);
    // Debt: what nobody reserved is paid back by the second.
    let ticket = commit(&mut limiter, 1, (0, 0), false, 0).unwrap();
    limiter.finish(ticket, Some(Usage { input: 60, output: 0, slot: Nanos::ZERO }), Nanos(0));
    let refusal = refused(commit(&mut limiter, 1, (1, 0), false, 0));
    assert_eq!((refusal.violations[0].used, refusal.retry.wait), (112, Nanos(13 * SECOND)));
}

#[test]
fn slot_seconds_are_counted_in_milliseconds_and_told_in_seconds() {
    let slots = LimitDoc { slot_seconds: Some(rate(10, 60, 10)), ..limit("s", &CLIENT) };
    let mut limiter = limiter(&[slots]);
    let ticket = commit(&mut limiter, 1, (0, 0), false, 0).unwrap();
    let usage = Usage { slot: Nanos::from_millis(9_400), ..Usage::default() };
    limiter.finish(ticket, Some(usage), Nanos(0));
    let standing = &limiter.standing(&head(1), Some(&model(0)), Nanos(0))[0];
    assert_eq!(
        (standing.unit, standing.used, standing.remaining, standing.capacity),
        (Unit::SlotSeconds, 10, 0, 10)
    );
    let mut ticket = limiter.enter(&head(1), Nanos(0)).unwrap();
    let estimate = Usage { slot: Nanos::from_millis(601), ..Usage::default() };
    let body = BodyFacts { estimate, ..BodyFacts::default() };
    let came = limiter.commit(&mut ticket, &body, Nanos(0), |_| Ok::<_, ()>(()));
    let Err(CommitError::Refused(refusal)) = came else { panic!() };
    // One of 10,000 milliseconds comes back each 6.
    assert_eq!(refusal.retry.wait, Nanos::from_millis(6));
    assert_eq!(refusal.violations[0].allowed, 10);
}

#[test]
fn a_limit_of_many_units_is_charged_as_one() {
    let many = LimitDoc {
        requests: Some(rate(10, 60, 10)),
        input_tokens: Some(rate(100, 60, 100)),
        output_tokens: Some(rate(50, 60, 50)),
        concurrency: Some(2),
        ..limit("m", &GLOBAL)
    };
    let mut limiter = limiter(&[many]);
    let first = commit(&mut limiter, 1, (90, 10), false, 0).unwrap();
    let refusal = refused(commit(&mut limiter, 1, (11, 1), false, 0));
    assert_eq!(refusal.violations.iter().map(|one| one.unit).collect::<Vec<_>>(), [Unit::InputTokens]);
    assert!(refusal.retry.shared);
    let left = |unit| remaining(&limiter, unit, 0);
    assert_eq!([left(Unit::Requests), left(Unit::OutputTokens), left(Unit::Concurrency)], [9, 40, 1]);
    limiter.abandon(first, Nanos(0));
    assert_eq!(remaining(&limiter, Unit::InputTokens, 0), 100);
}

#[test]
fn an_explanation_says_what_every_limit_would_do_and_consumes_nothing() {
    let delays =
        LimitDoc { on_exceed: exceed(Action::Delay, Some(9000)), ..rated("delay", &CLIENT, rate(1, 1, 1)) };
    let other = LimitDoc { models: vec!["other*".into()], ..rated("other", &CLIENT, rate(1, 1, 1)) };
    let shadow = LimitDoc { mode: Mode::Shadow, ..rated("shadow", &CLIENT, rate(1, 60, 1)) };
    let soft = LimitDoc {
        on_exceed: exceed(Action::Deprioritize, None),
        scope: Scope::Pod,
        ..rated("soft", &CLIENT, rate(1, 60, 1))
    };
    let mut limiter = limiter(&[delays, other, shadow, soft]);
    assert!(ask(&mut limiter, 1, &model(0), 0).is_ok());
    let name = model(0);
    let body = BodyFacts { model: Some(&name), ..BodyFacts::default() };
    for _ in 0..2 {
        let told = limiter.explain(&head(1), &body, Nanos(0));
        let told: Vec<_> = told
            .iter()
            .map(|one| (one.limit.name.as_str(), one.mismatch.map(Mismatch::as_str), one.would, one.wins))
            .collect();
        assert_eq!(
            told,
            [
                ("metadata", Some("endpoint"), None, false),
                ("delay", None, Some(Would::Delay(Nanos(SECOND))), true),
                ("other", Some("model"), None, false),
                ("shadow", None, Some(Would::CountRefusal), false),
                ("soft", None, Some(Would::Deprioritize), false),
            ]
        );
    }
    assert!(limiter.explain(&head(2), &body, Nanos(0)).iter().all(|one| !one.wins));
}

/// One a second and one at once: so many are told to wait, all of them leave in the order in which they came, and others
/// come again.
#[test]
fn starts_of_those_who_leave_go_to_those_who_come() {
    let one =
        LimitDoc { on_exceed: exceed(Action::Delay, Some(60_000)), ..rated("one", &GLOBAL, rate(1, 1, 1)) };
    let mut limiter = limiter(&[one]);
    let first = ask(&mut limiter, 1, &model(0), 0).unwrap();
    let waiting: Vec<_> = (0..20).map(|_| ask(&mut limiter, 1, &model(0), 0).unwrap()).collect();
    assert_eq!(waiting.last().unwrap().terms().delay, Nanos(20 * SECOND));
    let now = SECOND / 2;
    let last = waiting.into_iter().fold(None, |_, ticket| {
        let starts = ticket.terms().delay;
        limiter.abandon(ticket, Nanos(now));
        Some(starts)
    });
    assert_eq!(last, Some(Nanos(20 * SECOND)));
    let again: Vec<_> =
        (0..25).map(|_| ask(&mut limiter, 1, &model(0), now).unwrap().terms().delay.0).collect();
    let starts: Vec<_> = (1..=25).map(|second| second * SECOND - now).collect();
    assert_eq!(again, starts, "one each second, from the next one on");
    limiter.finish(first, None, Nanos(now));
}
