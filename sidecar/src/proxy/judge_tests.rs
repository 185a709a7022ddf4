use corral_limiter::ModelName;

use super::super::inspect::{Reads, shape_of};
use super::*;

const BOUNDS: Bounds = Bounds {
    suspicion: Duration::from_secs(8),
    patience: Duration::from_secs(10),
    limit: Duration::from_mins(2),
};

fn need(model: &str, options: &str) -> Need {
    let body = format!(r#"{{"options":{{{options}}}}}"#);
    Need { model: ModelName::parse(model).unwrap(), shape: shape_of(&body, Reads::Options) }
}

fn runner(need: &Need, beats: u64) -> Runner {
    Runner { need: need.clone(), beats, streams: true }
}

/// A judge, and the time of its world, in milliseconds.
struct Court {
    judge: Judge,
    begun: Instant,
    at: u64,
}

impl Court {
    fn new() -> Self {
        let begun = Instant::now();
        Self { judge: Judge::new(BOUNDS, begun), begun, at: 0 }
    }

    fn heard(&mut self, need: &Need, heard: Heard) -> bool {
        self.judge.heard(need, Question::Alive, heard)
    }

    /// Looks twice a second at the same signs; each order with when it came, in seconds.
    fn watch(&mut self, runners: &[Runner], seconds: u64) -> Vec<(u64, Order)> {
        let end = self.at + seconds * 1000;
        let mut orders = Vec::new();
        while self.at < end {
            self.at += 500;
            let now = self.begun + Duration::from_millis(self.at);
            orders.extend(self.judge.look(runners, now).into_iter().map(|order| (self.at / 1000, order)));
        }
        orders
    }
}

fn ask(need: &Need) -> Order {
    Order::Ask(need.clone(), Question::Alive)
}

#[test]
fn who_says_nothing_is_asked_about_and_convicted_if_nobody_answers() {
    let (mut court, tiny) = (Court::new(), need("tiny", ""));
    let orders = court.watch(&[runner(&tiny, 3)], 30);
    assert_eq!(orders, [(8, ask(&tiny)), (18, Order::Convict(tiny.clone(), Why::Unanswering))]);
    assert_eq!(court.judge.convicts.len(), 1);
    assert!(court.watch(&[], 600).is_empty(), "one question stays open");
    assert!(court.heard(&tiny, Heard::Works), "and its answer acquits");
    assert!(court.judge.convicts.is_empty());
}

#[test]
fn who_is_answered_for_is_asked_about_again_after_another_while() {
    let (mut court, tiny) = (Court::new(), need("tiny", ""));
    let silent = [runner(&tiny, 3)];
    for round in 0..10 {
        let orders = court.watch(&silent, 9);
        assert_eq!(orders.len(), 1, "round {round}: {orders:?}");
        assert_eq!(orders[0].1, ask(&tiny));
        assert!(!court.heard(&tiny, Heard::Works));
    }
}

#[test]
fn any_sign_of_life_clears_even_while_the_question_is_open() {
    let (mut court, tiny) = (Court::new(), need("tiny", ""));
    assert_eq!(court.watch(&[runner(&tiny, 0)], 17), [(8, ask(&tiny))]);
    for beats in 1..20 {
        assert!(court.watch(&[runner(&tiny, beats)], 7).is_empty());
    }
    let orders = court.watch(&[runner(&tiny, 19)], 30);
    assert_eq!(orders, [(court.at / 1000 - 30 + 11, Order::Convict(tiny, Why::Unanswering))]);
}

#[test]
fn nobody_waits_nobody_is_suspected() {
    let (mut court, tiny) = (Court::new(), need("tiny", ""));
    for _ in 0..10 {
        assert!(court.watch(&[runner(&tiny, 0)], 7).is_empty());
        assert!(court.watch(&[], 1).is_empty(), "each wait is a new one");
    }
}

#[test]
fn a_shape_that_cannot_be_spelt_is_neither_asked_about_nor_convicted_for_not_answering() {
    let long = need("tiny", &format!(r#""num_ctx":"{}""#, "9".repeat(200)));
    let orders = Court::new().watch(&[runner(&long, 0)], 119);
    assert!(orders.is_empty(), "{orders:?}");
}

#[test]
fn streams_that_are_silent_for_far_too_long_convict_whatever_is_answered() {
    let (mut court, tiny) = (Court::new(), need("tiny", ""));
    let silent = [runner(&tiny, 3)];
    let mut convicted = None;
    while convicted.is_none() && court.at < 200_000 {
        for (at, order) in court.watch(&silent, 1) {
            match order {
                Order::Ask(need, Question::Alive) => _ = court.heard(&need, Heard::Works),
                Order::Ask(_, Question::Token) => assert!(convicted.is_some()),
                Order::Convict(_, why) => convicted = Some((at, why)),
            }
        }
    }
    assert_eq!(convicted, Some((120, Why::Silent)));
    assert!(court.watch(&[], 60).is_empty(), "it has been asked for a token");
    assert!(!court.heard(&tiny, Heard::Works), "to answer is not to work");
    assert!(court.judge.heard(&tiny, Question::Token, Heard::Works));
}

#[test]
fn a_long_prompt_alone_is_no_stall_as_long_as_ollama_answers() {
    let (mut court, tiny) = (Court::new(), need("tiny", ""));
    let reading = [Runner { streams: false, ..runner(&tiny, 0) }];
    for _ in 0..600 {
        for (_, order) in court.watch(&reading, 1) {
            assert_eq!(order, ask(&tiny));
            court.heard(&tiny, Heard::Works);
        }
    }
}

#[test]
fn a_question_that_failed_is_put_again_after_a_rest_until_the_convict_works_or_is_gone() {
    for last in [Heard::Works, Heard::Gone] {
        let (mut court, tiny) = (Court::new(), need("tiny", ""));
        court.watch(&[runner(&tiny, 0)], 20);
        for heard in [Heard::Failed, Heard::Nothing, Heard::Failed] {
            assert!(!court.heard(&tiny, heard));
            assert!(court.watch(&[], 4).is_empty());
            assert_eq!(court.watch(&[], 2).len(), 1);
        }
        assert!(court.heard(&tiny, last));
        assert!(court.watch(&[], 60).is_empty());
    }
}

#[test]
fn an_ollama_that_has_gone_meanwhile_convicts_nobody() {
    let (mut court, tiny) = (Court::new(), need("tiny", ""));
    court.watch(&[runner(&tiny, 0)], 10);
    assert!(!court.heard(&tiny, Heard::Gone));
    assert!(court.watch(&[runner(&tiny, 0)], 7).is_empty());
}

#[test]
fn a_question_that_nobody_took_is_put_again_and_the_time_runs_on() {
    let (mut court, tiny) = (Court::new(), need("tiny", ""));
    let silent = [runner(&tiny, 0)];
    assert_eq!(court.watch(&silent, 9), [(8, ask(&tiny))]);
    court.heard(&tiny, Heard::Nothing);
    let orders = court.watch(&silent, 20);
    assert_eq!(orders, [(9, ask(&tiny)), (18, Order::Convict(tiny, Why::Unanswering))]);
}

#[test]
fn two_runners_are_judged_side_by_side_and_both_must_work_again() {
    let mut court = Court::new();
    let (one, other, well) = (need("one", ""), need("other", ""), need("well", ""));
    let mut convicted = Vec::new();
    for second in 0..20 {
        let runners = [runner(&one, 0), runner(&other, 0), runner(&well, second)];
        let orders = court.watch(&runners, 1);
        convicted.extend(orders.into_iter().filter(|(_, order)| matches!(order, Order::Convict(..))));
    }
    let of = |need: &Need| (18, Order::Convict(need.clone(), Why::Unanswering));
    assert_eq!(convicted, [of(&one), of(&other)]);
    assert!(!court.heard(&one, Heard::Works));
    assert!(court.heard(&other, Heard::Works));
}

#[test]
fn time_in_which_the_judge_slept_proves_nothing() {
    let (mut court, tiny) = (Court::new(), need("tiny", ""));
    let silent = [runner(&tiny, 0)];
    assert_eq!(court.watch(&silent, 9).len(), 1);
    for _ in 0..5 {
        court.at += 60_000;
        assert!(court.watch(&silent, 1).is_empty(), "an hour of sleep is a second at most");
    }
}

#[test]
fn switched_off_it_suspects_nobody() {
    let off = Bounds { suspicion: Duration::ZERO, limit: Duration::ZERO, ..BOUNDS };
    let mut court = Court::new();
    court.judge = Judge::new(off, court.begun);
    assert!(court.watch(&[runner(&need("tiny", ""), 0)], 1000).is_empty());
}
