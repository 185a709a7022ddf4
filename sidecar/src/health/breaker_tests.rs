use std::convert::identity;

use proptest::prelude::*;

use super::*;

const fn at(millis: u64) -> Nanos {
    Nanos::from_millis(1_000_000 + millis)
}

fn one(breaker: &mut Breaker, fate: Fate, now: Nanos) -> bool {
    let ticket = breaker.ask(now);
    if let Some(ticket) = ticket {
        breaker.ended(ticket, fate, now, identity);
    }
    ticket.is_some()
}

fn opened() -> Breaker {
    let mut breaker = Breaker::default();
    (0..5).for_each(|_| assert!(one(&mut breaker, Fate::Failed, at(0))));
    assert_eq!(breaker.circuit(), Circuit::Open);
    breaker
}

#[test]
fn five_failures_in_a_row_open_it_and_an_answer_between_them_starts_anew() {
    let mut breaker = Breaker::default();
    for fate in [Fate::Failed; 4].into_iter().chain([Fate::Answered]).chain([Fate::Failed; 4]) {
        assert!(one(&mut breaker, fate, at(0)));
    }
    assert_eq!(breaker.circuit(), Circuit::Closed);
    one(&mut breaker, Fate::Failed, at(0));
    assert_eq!(breaker.circuit(), Circuit::Open);
}

#[test]
fn half_of_ten_within_ten_seconds_open_it() {
    let mut breaker = Breaker::default();
    for second in 0..9 {
        one(&mut breaker, if second % 2 == 0 { Fate::Failed } else { Fate::Answered }, at(second * 1000));
    }
    assert_eq!(breaker.circuit(), Circuit::Closed, "nine are too few");
    one(&mut breaker, Fate::Failed, at(9000));
    assert_eq!(breaker.circuit(), Circuit::Open);
}

#[test]
fn fewer_than_half_and_what_is_longer_ago_do_not() {
    let mut breaker = Breaker::default();
    for number in 0..300 {
        one(&mut breaker, if number % 3 == 0 { Fate::Failed } else { Fate::Answered }, at(number * 10));
    }
    assert_eq!(breaker.circuit(), Circuit::Closed, "a third");
    for number in 0..100 {
        one(
            &mut breaker,
            if number % 2 == 0 { Fate::Failed } else { Fate::Answered },
            at(100_000 + number * 1500),
        );
    }
    assert_eq!(breaker.circuit(), Circuit::Closed, "at most seven in ten seconds");
}

#[test]
fn while_open_nothing_passes_and_then_one_alone() {
    let mut breaker = opened();
    assert_eq!(breaker.open_until(), Some(at(5000)));
    assert_eq!(breaker.ask(at(4999)), None);
    let trial = breaker.ask(at(5000)).unwrap();
    assert_eq!((breaker.circuit(), breaker.ask(at(5001))), (Circuit::HalfOpen, None));
    breaker.ended(trial, Fate::Answered, at(5002), identity);
    assert_eq!(breaker.circuit(), Circuit::Closed);
    assert!(breaker.ask(at(5003)).is_some());
}

#[test]
fn each_trial_that_fails_doubles_the_time_up_to_a_minute_and_one_that_passes_forgets_it() {
    let mut breaker = opened();
    for seconds in [5, 10, 20, 40, 60, 60, 60] {
        let until = breaker.open_until().unwrap();
        assert_eq!(breaker.ask(Nanos(until.0 - 1)), None);
        let trial = breaker.ask(until).unwrap();
        breaker.ended(trial, Fate::Failed, until, identity);
        let next = if seconds == 60 { 60 } else { (seconds * 2).min(60) };
        assert_eq!(breaker.open_until().unwrap().since(until), Nanos::from_secs(next));
    }
    let until = breaker.open_until().unwrap();
    one(&mut breaker, Fate::Answered, until);
    (0..5).for_each(|_| assert!(one(&mut breaker, Fate::Failed, until)));
    assert_eq!(breaker.open_until().unwrap().since(until), Nanos::from_secs(5));
}

#[test]
fn a_trial_whose_client_leaves_makes_room_for_another() {
    let mut breaker = opened();
    assert!(one(&mut breaker, Fate::Unknown, at(5000)));
    assert_eq!(breaker.circuit(), Circuit::HalfOpen);
    assert!(one(&mut breaker, Fate::Answered, at(5001)));
    assert_eq!(breaker.circuit(), Circuit::Closed);
}

#[test]
fn a_trial_that_ollama_keeps_has_passed() {
    let mut breaker = opened();
    let trial = breaker.ask(at(5000)).unwrap();
    assert_eq!(breaker.ask(at(9999)), None);
    assert!(breaker.ask(at(10_000)).is_some());
    assert_eq!(breaker.circuit(), Circuit::Closed);
    breaker.ended(trial, Fate::Failed, at(10_001), identity);
    assert_eq!(breaker.circuit(), Circuit::Closed, "it was of another time");
}

#[test]
fn what_began_before_it_opened_neither_closes_it_nor_opens_it_again() {
    let mut breaker = Breaker::default();
    let before = breaker.ask(at(0)).unwrap();
    (0..5).for_each(|_| _ = one(&mut breaker, Fate::Failed, at(0)));
    let until = breaker.open_until();
    for fate in [Fate::Answered, Fate::Failed, Fate::Unknown] {
        breaker.ended(before, fate, at(1), identity);
        assert_eq!(breaker.open_until(), until);
    }
    breaker.look(at(5000));
    breaker.ended(before, Fate::Failed, at(5000), identity);
    assert_eq!(breaker.circuit(), Circuit::HalfOpen);
}

#[test]
fn an_ollama_that_is_back_is_tried_at_once() {
    let mut breaker = opened();
    breaker.came_back();
    assert_eq!(breaker.circuit(), Circuit::HalfOpen);
    assert!(one(&mut breaker, Fate::Answered, at(1)));
    breaker.came_back();
    assert_eq!(breaker.circuit(), Circuit::Closed);
}

proptest! {
    #[test]
    fn it_never_stays_open_and_never_lets_two_trials_run(
        steps in prop::collection::vec((0_u64..4000, 0_u8..4, 0_u64..400), 1..300),
    ) {
        let mut breaker = Breaker::default();
        let (mut now, mut running) = (at(0), Vec::new());
        for (later, what, chance) in steps {
            now = now.plus(Nanos::from_millis(later));
            let vary = |length: Duration| length / 1000 * u32::try_from(800 + chance).unwrap();
            if let (1.., Some(ticket)) = (what, running.pop()) {
                let fate = [Fate::Answered, Fate::Failed, Fate::Unknown][usize::from(what) - 1];
                breaker.ended(ticket, fate, now, vary);
            } else if let Some(ticket) = breaker.ask(now) {
                let half_open = breaker.circuit() == Circuit::HalfOpen;
                prop_assert!(!half_open || breaker.ask(now).is_none());
                running.push(ticket);
            }
            let open = breaker.open_until().map_or(Nanos::ZERO, |until| until.since(now));
            prop_assert!(open <= Nanos::from_secs(72), "{open:?}");
        }
        now = now.plus(Nanos::from_secs(72));
        breaker.look(now);
        prop_assert!(breaker.circuit() != Circuit::Open);
    }
}
