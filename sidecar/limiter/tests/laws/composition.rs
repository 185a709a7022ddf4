//! Laws 6 and 7: one more limit never admits more, the order of limits means nothing, and nobody sees a shadow.

use corral_limiter::{Limiter, Nanos, SwapSummary};
use corral_wire::{EndpointClass, KeyPart, LimitDoc, Mode};
use proptest::prelude::*;

use crate::support::{
    Came, Trace, ask, head, limit, limiter, mixed, model, passes, plan, pods, rate, rated, steps,
};

fn shadowed(limits: Vec<LimitDoc>) -> Vec<LimitDoc> {
    let shadows = limits.into_iter().map(|limit| LimitDoc { mode: Mode::Shadow, ..limit });
    shadows.map(|limit| LimitDoc { policy: "llm/shadow".into(), ..limit }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn one_more_limit_never_turns_a_refusal_into_an_admission(
        few in mixed(), more in mixed(), steps in steps(50), last in 0..4u32,
    ) {
        let (mut plain, mut stricter) = (limiter(&few), limiter(&few));
        let (mut trace, mut same) = (Trace::default(), Trace::default());
        for step in &steps {
            trace.step(&mut plain, step);
            same.step(&mut stricter, step);
        }
        let extra = more.into_iter().map(|limit| LimitDoc { policy: "llm/extra".into(), ..limit });
        let all: Vec<_> = few.into_iter().chain(extra).collect();
        stricter.swap(plan(&all), pods(1), Nanos(trace.now));
        for client in [last, 9] {
            let admits = |limiter: &mut Limiter| ask(limiter, client, &model(0), trace.now).map(drop_nothing).is_ok();
            let (before, after) = (admits(&mut plain), admits(&mut stricter));
            prop_assert!(before || !after);
        }
    }

    #[test]
    fn the_order_of_limits_means_nothing(limits in mixed(), steps in steps(50), seed in any::<prop::sample::Index>()) {
        let mut turned = limits.clone();
        turned.rotate_left(seed.index(limits.len()));
        let (mut one, mut other) = (limiter(&limits), limiter(&turned));
        let (mut first, mut second) = (Trace::default(), Trace::default());
        for step in &steps {
            prop_assert_eq!(first.step(&mut one, step), second.step(&mut other, step));
        }
    }

    #[test]
    fn nobody_sees_a_shadow_limit(limits in mixed(), shadows in mixed(), steps in steps(60)) {
        let all: Vec<_> = limits.iter().cloned().chain(shadowed(shadows)).collect();
        let (mut without, mut with) = (limiter(&limits), limiter(&all));
        let (mut first, mut second) = (Trace::default(), Trace::default());
        for step in &steps {
            prop_assert_eq!(first.step(&mut without, step), second.step(&mut with, step));
            let standing = |limiter: &Limiter, now| limiter.standing(&head(step.client), Some(&model(0)), Nanos(now));
            prop_assert_eq!(standing(&without, first.now), standing(&with, second.now));
        }
    }
}

fn drop_nothing(ticket: corral_limiter::Ticket) {
    std::mem::forget(ticket);
}

#[test]
fn a_shadow_limit_counts_what_it_would_refuse_and_is_not_charged_for_it() {
    let shadow = LimitDoc { mode: Mode::Shadow, ..rated("s", &[KeyPart::Client], rate(1, 10, 1)) };
    let mut limiter = limiter(std::slice::from_ref(&shadow));
    for second in 0..10 {
        let ticket = ask(&mut limiter, 1, &model(0), second * 1_000_000_000).unwrap();
        assert_eq!(ticket.would_refuse().len(), usize::from(second > 0));
        limiter.finish(ticket, None, Nanos(second * 1_000_000_000));
    }
    let ticket = ask(&mut limiter, 1, &model(0), 10_000_000_000).unwrap();
    assert!(ticket.would_refuse().is_empty());
    limiter.finish(ticket, None, Nanos(10_000_000_000));
    let stats = limiter.stats();
    let stats = stats.iter().find(|stats| stats.limit.name == "s").unwrap();
    assert_eq!((stats.admitted, stats.refused, stats.would_refuse), (2, 0, 9));
}

#[test]
fn a_shadow_limit_that_is_enforced_keeps_its_bucket_and_its_guards() {
    let shadow = LimitDoc {
        mode: Mode::Shadow,
        concurrency: Some(1),
        ..rated("s", &[KeyPart::Client], rate(1, 10, 1))
    };
    let mut limiter = limiter(std::slice::from_ref(&shadow));
    let ticket = ask(&mut limiter, 1, &model(0), 0).unwrap();
    let enforced = LimitDoc { mode: Mode::Enforce, ..shadow };
    assert_eq!(limiter.swap(plan(&[enforced]), pods(1), Nanos(0)), SwapSummary::default());
    let refusal = ask(&mut limiter, 1, &model(0), 0).unwrap_err();
    assert_eq!(refusal.violations.len(), 2);
    limiter.finish(ticket, None, Nanos(0));
    assert_eq!(ask(&mut limiter, 1, &model(0), 0).unwrap_err().violations.len(), 1);
}

#[test]
fn limits_without_endpoints_leave_metadata_alone_which_has_a_cap_of_its_own() {
    let mut limiter = limiter(&[rated("l", &[KeyPart::Client], rate(1, 60, 1))]);
    let metadata = corral_limiter::HeadFacts { endpoint: EndpointClass::Metadata, ..head(1) };
    let mut admitted = 0;
    let refusal = loop {
        match limiter.enter(&metadata, Nanos(0)) {
            Err(refusal) => break refusal,
            Ok(mut ticket) => {
                let body = corral_limiter::BodyFacts::default();
                assert_eq!(limiter.commit(&mut ticket, &body, Nanos(0), || Ok::<_, ()>(())), Ok(()));
                limiter.finish(ticket, None, Nanos(0));
                admitted += 1;
            }
        }
    };
    assert_eq!(admitted, 20);
    assert_eq!(refusal.violations[0].limit.to_string(), "corral.dev/built-in/metadata");
    assert!(passes(&mut limiter, 1, 0));
}

#[test]
fn a_limit_on_models_never_covers_a_request_without_one_and_the_model_key_counts_it_apart() {
    let per_model = rated("m", &[KeyPart::Model], rate(1, 60, 1));
    let listed = LimitDoc { models: vec!["tiny".into()], ..rated("t", &[KeyPart::Global], rate(1, 60, 1)) };
    let mut limiter = limiter(&[per_model, listed]);
    let ask_without = |limiter: &mut Limiter| {
        let mut ticket = limiter.enter(&head(1), Nanos(0)).unwrap();
        let body = corral_limiter::BodyFacts { model: None, ..Default::default() };
        let came = limiter.commit(&mut ticket, &body, Nanos(0), || Ok::<_, ()>(()));
        limiter.finish(ticket, None, Nanos(0));
        came
    };
    assert_eq!(ask_without(&mut limiter), Ok(()));
    let Err(corral_limiter::CommitError::Refused(refusal)) = ask_without(&mut limiter) else { panic!() };
    assert_eq!(refusal.violations.len(), 1);
    assert_eq!(refusal.violations[0].limit.name, "m");
    let ticket = ask(&mut limiter, 1, &corral_limiter::ModelName::parse("TINY:latest").unwrap(), 0).unwrap();
    limiter.finish(ticket, None, Nanos(0));
    assert_eq!(
        ask(&mut limiter, 1, &corral_limiter::ModelName::parse("tiny").unwrap(), 0)
            .unwrap_err()
            .violations
            .len(),
        2
    );
    assert!(matches!(Trace::default().step(&mut limiter, &step()), Came::Admitted(_)));
}

fn step() -> crate::support::Step {
    crate::support::Step { after: 0, client: 1, model: 7, act: crate::support::Act::Ask }
}

#[test]
fn all_addresses_of_one_ipv6_network_share_a_bucket_and_mapped_ipv4_is_ipv4() {
    let mut limiter = limiter(&[LimitDoc { concurrency: Some(1), ..limit("c", &[KeyPart::ClientIP]) }]);
    let mut enter = |ip: &str| {
        let head = corral_limiter::HeadFacts::new(ip.parse().unwrap(), EndpointClass::Chat, "/api/chat");
        limiter.enter(&head, Nanos(0)).map(drop_nothing).is_ok()
    };
    assert!(enter("2001:db8:0:1::1"));
    assert!(!enter("2001:db8:0:1:ffff::2"));
    assert!(enter("2001:db8:0:2::1"));
    assert!(enter("10.0.0.1"));
    assert!(!enter("::ffff:10.0.0.1"));
}
