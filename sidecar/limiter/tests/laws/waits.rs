//! Law 4: who waits as long as a time-based refusal says is admitted, and with one pod not a nanosecond earlier.
//!
//! A request is decided twice, and a refusal speaks for what could be decided:
//!
//! - **By the body** every limit that covers the request was asked, those that list models or are kept per model too.
//!   The law holds in full: with one pod the same request is admitted at now + w and refused a nanosecond before, with
//!   several every pod without debt admits it at now + w.
//! - **By the head** the model is unknown, for the body of a request that is refused is not read. At now + w the head
//!   passes, with one pod not a nanosecond before. Then a limit that lists models, or with one pod is kept per model, may
//!   refuse once more; that refusal is by the body, and its wait the last. So with one pod no request is refused more than
//!   twice, the waits add up to the earliest instant at which it can be admitted, and who is told by the head alone to
//!   wait is never told too much. With several pods the wait of the head covers limits kept per model as well, for
//!   there it is the longest that a share could need, whichever model it is of.
//!
//! The head cannot promise more. The longest wait of any model's bucket would be safe, but it would make a client wait an
//! hour for a limit of a model that it does not ask for, and then the nanosecond before would no longer be refused.

use corral_limiter::{Limiter, Nanos, Refusal, Unit};
use corral_wire::{KeyPart, LimitDoc, RateDoc, Scope};
use proptest::prelude::*;

use crate::support::{
    Trace, ask, ask_through, head, limit, limiter_of, limits, mixed, model, passes, pods, rate, rated, steps,
};

/// Rates only: when a place in a concurrency limit comes free, no time says.
fn rates() -> impl Strategy<Value = Vec<LimitDoc>> {
    let rated = |limit: LimitDoc| {
        let rate = RateDoc { count_milli: 900, window_seconds: 1, burst: 2 };
        LimitDoc { requests: limit.requests.or(Some(rate)), concurrency: None, ..limit }
    };
    limits().prop_map(move |limits| limits.into_iter().map(rated).collect())
}

/// Rates that the head alone decides, and rates of all kinds.
fn plans() -> impl Strategy<Value = Vec<LimitDoc>> {
    let for_head = |limit: LimitDoc| {
        let per = limit.per.into_iter().filter(|part| *part != KeyPart::Model);
        let per: Vec<_> = per.collect();
        let per = if per.is_empty() { vec![KeyPart::Client] } else { per };
        LimitDoc { models: vec![], per, ..limit }
    };
    let of_head = rates().prop_map(move |limits| limits.into_iter().map(for_head).collect::<Vec<_>>());
    prop_oneof![1 => of_head, 2 => rates()]
}

/// Who asks, for which model.
type Asker = (u32, u8);

fn askers() -> impl Strategy<Value = Asker> {
    (0..4u32, 0..2u8)
}

/// What refuses a request, if anything does: asked without charging anything.
fn refused(limiter: &mut Limiter, (client, number): Asker, now: u64) -> Option<Refusal> {
    ask_through(limiter, client, &model(number), now, false).unwrap_err()
}

fn head_is_refused(limiter: &mut Limiter, (client, _): Asker, now: u64) -> bool {
    limiter.enter(&head(client), Nanos(now)).map(|ticket| limiter.finish(ticket, None, Nanos(now))).is_err()
}

fn lists_models(limit: &LimitDoc) -> bool {
    !limit.models.is_empty()
}

fn is_per_model(limit: &LimitDoc) -> bool {
    limit.per.contains(&KeyPart::Model)
}

/// Whether all limits that a refusal names are of a kind.
fn names_only(refusal: &Refusal, limits: &[LimitDoc], is_so: impl Fn(&LimitDoc) -> bool) -> bool {
    let named = |name: &str| limits.iter().find(|limit| limit.name == name).unwrap();
    refusal.violations.iter().all(|violation| is_so(named(&violation.limit.name)))
}

fn after(trace: &mut Trace, limiter: &mut Limiter, steps: &[crate::support::Step]) -> u64 {
    for step in steps {
        trace.step(limiter, step);
    }
    trace.now
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn one_pod_admits_at_the_stated_instant_and_refuses_a_nanosecond_before(
        limits in plans(), steps in steps(50), asker in askers(),
    ) {
        let mut limiter = limiter_of(&limits, 1, 1000);
        let now = after(&mut Trace::default(), &mut limiter, &steps);
        let Some(first) = refused(&mut limiter, asker, now) else { return Ok(()) };
        prop_assert!(!first.retry.estimate && first.retry.wait > Nanos::ZERO && !first.retry.split);
        let by_head = head_is_refused(&mut limiter, asker, now);
        let then = now + first.retry.wait.0;
        prop_assert!(refused(&mut limiter, asker, then - 1).is_some());
        prop_assert_eq!(head_is_refused(&mut limiter, asker, then - 1), by_head);
        prop_assert!(!head_is_refused(&mut limiter, asker, then));
        if let Some(second) = refused(&mut limiter, asker, then) {
            prop_assert!(by_head && names_only(&second, &limits, |limit| lists_models(limit) || is_per_model(limit)));
            let last = then + second.retry.wait.0;
            prop_assert!(refused(&mut limiter, asker, last - 1).is_some());
            prop_assert_eq!(refused(&mut limiter, asker, last), None);
        }
    }

    #[test]
    fn every_pod_without_debt_admits_at_the_stated_instant(
        limits in plans(), traces in prop::collection::vec(steps(40), 3), asker in askers(), here in 0..3usize,
    ) {
        let mut pool: Vec<Limiter> = (0..3).map(|_| limiter_of(&limits, 3, 1000)).collect();
        let ends = pool.iter_mut().zip(&traces).map(|(pod, steps)| after(&mut Trace::default(), pod, steps));
        let now = ends.max().unwrap();
        let Some(first) = refused(&mut pool[here], asker, now) else { return Ok(()) };
        prop_assert!(!first.retry.estimate && first.retry.split);
        let by_head = head_is_refused(&mut pool[here], asker, now);
        let then = now + first.retry.wait.0;
        for place in 0..pool.len() {
            if let Some(second) = refused(&mut pool[place], asker, then) {
                prop_assert!(by_head && names_only(&second, &limits, lists_models));
                let last = then + second.retry.wait.0;
                prop_assert!(pool.iter_mut().all(|pod| refused(pod, asker, last).is_none()));
            }
        }
    }

    #[test]
    fn headers_and_refusals_tell_the_same_times(limits in plans(), steps in steps(40), asker in askers()) {
        let mut limiter = limiter_of(&limits, 1, 1000);
        let now = after(&mut Trace::default(), &mut limiter, &steps);
        let by_head = head_is_refused(&mut limiter, asker, now);
        let name = model(asker.1);
        // What is refused before the body shows the limits that the head decides.
        let standings = limiter.standing(&head(asker.0), (!by_head).then_some(&name), Nanos(now));
        let next = standings.iter().map(|standing| standing.next).max().unwrap_or(Nanos::ZERO);
        match refused(&mut limiter, asker, now) {
            None => prop_assert_eq!(next, Nanos::ZERO),
            Some(refusal) => {
                prop_assert_eq!(next, refusal.retry.wait);
                let latest = standings.iter().filter_map(|s| s.reset(Some(&refusal.retry))).map(Nanos::secs_ceil).max();
                prop_assert_eq!(latest, Some(refusal.retry.wait.secs_ceil()));
            }
        }
        for standing in &standings {
            prop_assert!(standing.remaining <= standing.capacity);
            prop_assert_eq!(standing.remaining == 0, standing.next > Nanos::ZERO);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_unit_and_action_states_its_wait_to_the_nanosecond(
        limits in mixed(), steps in steps(50), asker in askers(),
    ) {
        let unheld = |limit: LimitDoc| {
            let limit = LimitDoc { concurrency: None, queued: None, queued_tokens: None, ..limit };
            let rate = RateDoc { count_milli: 900, window_seconds: 60, burst: 2 };
            let has_rate = limit.tokens.or(limit.input_tokens).or(limit.output_tokens).or(limit.slot_seconds);
            LimitDoc { requests: limit.requests.or(has_rate.is_none().then_some(rate)), ..limit }
        };
        let limits: Vec<_> = limits.into_iter().map(unheld).collect();
        let mut limiter = limiter_of(&limits, 1, 1000);
        let now = after(&mut Trace { most_output: 4, ..Trace::default() }, &mut limiter, &steps);
        let (mut then, mut refusals) = (now, 0);
        while let Some(refusal) = refused(&mut limiter, asker, then) {
            prop_assert!(!refusal.retry.estimate && refusal.retry.wait > Nanos::ZERO);
            prop_assert!(refusal.violations.iter().all(|violation| violation.wait <= refusal.retry.wait));
            let next = then + refusal.retry.wait.0;
            prop_assert!(refused(&mut limiter, asker, next - 1).is_some());
            (then, refusals) = (next, refusals + 1);
            // Once by the head, once by the body.
            prop_assert!(refusals <= 2);
        }
    }
}

#[test]
fn a_head_that_waited_may_be_told_once_more_to_wait_for_its_model() {
    let of_model =
        LimitDoc { models: vec!["model0".into()], ..rated("m", &[KeyPart::Client], rate(1, 60, 1)) };
    let mut limiter = limiter_of(&[rated("c", &[KeyPart::Client], rate(1, 1, 1)), of_model], 1, 1000);
    assert!(passes(&mut limiter, 1, 0));
    let second = 1_000_000_000;
    let by_head = refused(&mut limiter, (1, 0), 0).unwrap();
    assert_eq!((by_head.violations.len(), by_head.retry.wait), (1, Nanos(second)));
    // Who asks for another model has waited exactly as long as it had to.
    assert_eq!(refused(&mut limiter, (1, 1), second), None);
    let by_body = refused(&mut limiter, (1, 0), second).unwrap();
    assert_eq!(by_body.retry.wait, Nanos(59 * second));
    assert_eq!(refused(&mut limiter, (1, 0), 60 * second), None);
}

#[test]
fn with_several_pods_the_wait_covers_a_share_that_is_used_up_elsewhere() {
    let per = [KeyPart::Client];
    let limits = [rated("a", &per, rate(60, 60, 10)), rated("b", &per, rate(6, 60, 10))];
    let mut limiter = limiter_of(&limits, 2, 1000);
    let refused = (0..9).find_map(|_| ask(&mut limiter, 1, &model(0), 0).err()).unwrap();
    // Both shares of 5 are used up: b needs 10 s for one permit of the pool, 20 s for one of this pod.
    assert_eq!(refused.violations.len(), 2);
    assert_eq!(refused.retry.wait, Nanos::from_secs(20));
}

#[test]
fn a_limit_that_is_not_violated_lengthens_the_wait_only_with_several_pods() {
    let per = [KeyPart::Client];
    let limits = [rated("fast", &per, rate(60, 60, 1)), rated("slow", &per, rate(1, 60, 9))];
    let wait = |divisor| {
        let mut limiter = limiter_of(&limits, divisor, 1000);
        assert!(passes(&mut limiter, 1, 0));
        ask(&mut limiter, 1, &model(0), 0).unwrap_err().retry.wait
    };
    assert_eq!(wait(1), Nanos::from_secs(1));
    assert_eq!(wait(2), Nanos::from_secs(120));
}

#[test]
fn a_time_before_the_latest_is_taken_as_the_latest() {
    let mut limiter = limiter_of(&[rated("l", &[KeyPart::Client], rate(1, 10, 1))], 1, 1000);
    assert!(passes(&mut limiter, 1, 10_000_000_000));
    let refusal = ask(&mut limiter, 1, &model(0), 5_000_000_000).unwrap_err();
    assert_eq!(refusal.retry.wait, Nanos::from_secs(10));
}

#[test]
fn concurrency_says_that_its_wait_is_an_estimate() {
    let limits = [LimitDoc { concurrency: Some(1), scope: Scope::Pod, ..limit("c", &[KeyPart::Global]) }];
    let mut limiter = limiter_of(&limits, 2, 1000);
    let ticket = ask(&mut limiter, 1, &model(0), 0).unwrap();
    let refusal = ask(&mut limiter, 2, &model(0), 0).unwrap_err();
    assert_eq!(refusal.violations[0].unit, Unit::Concurrency);
    assert_eq!((refusal.violations[0].used, refusal.violations[0].allowed), (1, 1));
    let retry = refusal.retry;
    assert!(retry.estimate && retry.shared && !retry.split && retry.wait >= Nanos::from_secs(1));
    limiter.finish(ticket, None, Nanos(5));
    assert!(passes(&mut limiter, 2, 5));
}

#[test]
fn a_change_of_pods_between_refusal_and_retry_never_lengthens_the_wait_beyond_the_new_share() {
    let limits = [rated("l", &[KeyPart::Client], rate(1, 1, 4))];
    let mut limiter = limiter_of(&limits, 1, 1000);
    while passes(&mut limiter, 1, 0) {}
    limiter.set_divisor(pods(2), Nanos(0));
    let refusal = ask(&mut limiter, 1, &model(0), 0).unwrap_err();
    assert_eq!(refusal.retry.wait, Nanos::from_secs(2));
}
