//! Holes that other limiters have, or had, each as a test of this one.

use std::thread;

use corral_limiter::{
    BodyFacts, CommitError, HeadFacts, LimitStats, Limiter, ModelName, Nanos, Refusal, Standing, Ticket,
    Usage, compile,
};
use corral_wire::{Algorithm, HeaderDoc, KeyPart, LimitDoc};
use parking_lot::Mutex;

use crate::support::{
    SECOND, algorithms_that_refuse, doc, head, limit, limiter, limiter_by, limiter_of, model, plan, pods,
    rate, rated,
};

const CLIENT: [KeyPart; 1] = [KeyPart::Client];

/// A request with its estimate, through head and body; what it was refused with.
fn reserve(
    limiter: &mut Limiter,
    head: &HeadFacts,
    (input, output): (u64, u64),
    now: u64,
) -> Result<Ticket, Refusal> {
    let name = model(0);
    send(limiter, head, &name, Usage { input, output, slot: Nanos::ZERO }, now)
}

fn send(
    limiter: &mut Limiter,
    head: &HeadFacts,
    name: &ModelName,
    estimate: Usage,
    now: u64,
) -> Result<Ticket, Refusal> {
    let mut ticket = limiter.enter(head, Nanos(now))?;
    let body = BodyFacts { model: Some(name), estimate, waits: false };
    match limiter.commit(&mut ticket, &body, Nanos(now), |_| Ok::<_, ()>(())) {
        Ok(()) => Ok(ticket),
        Err(CommitError::Refused(refusal)) => {
            limiter.finish(ticket, None, Nanos(now));
            Err(refusal)
        }
        Err(other) => panic!("{other:?}"),
    }
}

fn passes(limiter: &mut Limiter, head: &HeadFacts, now: u64) -> bool {
    reserve(limiter, head, (0, 0), now).map(|ticket| limiter.finish(ticket, None, Nanos(now))).is_ok()
}

fn passed(limiter: &mut Limiter, head: &HeadFacts, asked: usize, now: u64) -> usize {
    (0..asked).filter(|_| passes(limiter, head, now)).count()
}

fn stats(limiter: &Limiter) -> LimitStats {
    limiter.stats().into_iter().find(|stats| stats.limit.name == "l").unwrap()
}

fn standing(limiter: &Limiter, client: u32, now: u64) -> Standing {
    limiter.standing(&head(client), Some(&model(0)), Nanos(now)).remove(0)
}

/// Traefik kept a bucket for less time than it takes to fill, and whoever waited found a new one.
#[test]
fn who_used_up_a_thousand_and_waited_for_26_has_26_whatever_came_in_between() {
    let mut limiter = limiter_of(&[rated("l", &CLIENT, rate(10, 1, 1000))], 1, 1000);
    assert_eq!(passed(&mut limiter, &head(0), 1500, 0), 1000);
    // More strangers than there is room for, so that whatever may be dropped is.
    for stranger in 1..5000 {
        passes(&mut limiter, &head(stranger), u64::from(stranger) * 500_000);
    }
    assert_eq!(passed(&mut limiter, &head(0), 100, 2_600_000_000 - 1), 25);
    assert_eq!(passed(&mut limiter, &head(0), 100, 2_600_000_000), 1);
    assert_eq!(passed(&mut limiter, &head(0), 2000, 102_600_000_000), 1000);
}

/// `LiteLLM` counted tokens when an answer was over, so all that came at once passed.
#[test]
fn two_hundred_at_once_share_a_hundred_tokens() {
    let tokens = LimitDoc { tokens: Some(rate(100, 3600, 100)), ..limit("l", &[KeyPart::Global]) };
    let shared = Mutex::new(limiter(&[tokens]));
    let ask = |client: u32| reserve(&mut shared.lock(), &head(client), (4, 6), 0).ok();
    let under_way: Vec<Ticket> = thread::scope(|scope| {
        let workers: Vec<_> = (0..4_u32)
            .map(|worker| {
                scope.spawn(move || (0..50).filter_map(|n| ask(worker * 50 + n)).collect::<Vec<_>>())
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let mut limiter = shared.into_inner();
    assert_eq!(under_way.len(), 10);
    assert_eq!(standing(&limiter, 0, 0).used, 100);
    // Each had half of what it reserved; so much is free again, and no more.
    for ticket in under_way {
        limiter.finish(ticket, Some(Usage { input: 4, output: 1, slot: Nanos::ZERO }), Nanos(0));
    }
    assert_eq!((0..200).filter(|client| reserve(&mut limiter, &head(*client), (4, 6), 0).is_ok()).count(), 5);
}

/// Kong counted refused requests too, so that a client that tried again and again never recovered.
#[test]
fn who_tries_again_every_ten_milliseconds_gets_as_much_as_who_waits() {
    for algorithm in algorithms_that_refuse() {
        let limits = [LimitDoc { algorithm, ..rated("l", &CLIENT, rate(3, 60, 1)) }];
        let (mut eager, mut patient) = (limiter(&limits), limiter(&limits));
        let name = model(0);
        let ask = |limiter: &mut Limiter, now| send(limiter, &head(1), &name, Usage::default(), now);
        let (mut admitted, mut next) = (Vec::new(), 0);
        let mut waited = Vec::new();
        for now in (0..18_100).map(|step| step * 10_000_000) {
            if ask(&mut eager, now).is_ok() {
                admitted.push(now);
            }
            if next <= now {
                match ask(&mut patient, now) {
                    Ok(_) => waited.push(now),
                    Err(refusal) => next = now + refusal.retry.wait.0,
                }
            }
        }
        assert_eq!(admitted, waited, "{algorithm:?}");
        assert!(admitted.len() >= 8, "{algorithm:?}: {admitted:?}");
    }
}

/// Limitador and nginx drop the counts that were not used for longest when there is no room.
#[test]
fn a_million_addresses_neither_reset_nor_refuse_whoever_is_tracked() {
    let mut limiter = limiter_of(&[rated("l", &CLIENT, rate(6, 3600, 6))], 1, 1000);
    let [spent, half] = [0, 1].map(head);
    assert_eq!(passed(&mut limiter, &spent, 9, 0), 6);
    assert_eq!(passed(&mut limiter, &half, 3, 0), 3);
    let name = model(0);
    for stranger in 2..1_000_002_u32 {
        let _ = send(&mut limiter, &head(stranger), &name, Usage::default(), u64::from(stranger));
    }
    let stats = stats(&limiter);
    assert_eq!((stats.keys, stats.overflowed), (1000, 6 * 1024));
    assert_eq!(passed(&mut limiter, &spent, 9, SECOND), 0);
    assert_eq!(passed(&mut limiter, &half, 9, SECOND), 3);
    assert_eq!(passed(&mut limiter, &spent, 9, 600 * SECOND), 1);
}

/// Envoy's rate limit service took another number only with the next window.
#[test]
fn raising_any_limit_acts_at_once() {
    for algorithm in algorithms_that_refuse() {
        let of = |count| [LimitDoc { algorithm, ..rated("l", &CLIENT, rate(count, 3600, count)) }];
        let mut limiter = limiter(&of(2));
        assert_eq!(passed(&mut limiter, &head(1), 9, 0), 2, "{algorithm:?}");
        limiter.swap(plan(&of(7)), pods(1), Nanos(0));
        assert_eq!(passed(&mut limiter, &head(1), 9, 0), 5, "{algorithm:?}");
    }
}

/// Kthena charged nothing for an answer that was larger than what was left.
#[test]
fn what_is_charged_is_what_was_generated_however_little_was_left() {
    let real = [700, 3, 1200, 0, 98, 5000];
    for algorithm in algorithms_that_refuse().filter(|algorithm| *algorithm != Algorithm::SlidingLog) {
        let tokens = LimitDoc { tokens: Some(rate(1000, 3600, 1000)), algorithm, ..limit("l", &CLIENT) };
        let mut limiter = limiter(&[tokens]);
        let asked = || reserve(&mut limiter, &head(1), (10, 90), 0).unwrap();
        let under_way: Vec<_> = std::iter::repeat_with(asked).take(real.len()).collect();
        let mut generated = 0;
        for (ticket, output) in under_way.into_iter().zip(real) {
            generated += 10 + output;
            limiter.finish(ticket, Some(Usage { input: 10, output, slot: Nanos::ZERO }), Nanos(0));
        }
        assert_eq!(standing(&limiter, 1, 0).used, generated, "{algorithm:?}");
        let refusal = reserve(&mut limiter, &head(1), (1, 0), 0).unwrap_err();
        assert!(refusal.retry.wait >= Nanos::from_secs(3600), "{algorithm:?}: {refusal:?}");
    }
}

/// Kthena never admitted a prompt that was larger than its bucket.
#[test]
fn a_prompt_above_the_limit_is_admitted_once_nothing_is_used_and_paid_for_in_full() {
    for algorithm in algorithms_that_refuse().filter(|algorithm| *algorithm != Algorithm::SlidingLog) {
        let tokens = LimitDoc { input_tokens: Some(rate(60, 60, 60)), algorithm, ..limit("l", &CLIENT) };
        let mut limiter = limiter(&[tokens]);
        assert!(reserve(&mut limiter, &head(1), (1, 0), 0).is_ok());
        let wait = reserve(&mut limiter, &head(1), (600, 0), 0).unwrap_err().retry.wait;
        assert!(reserve(&mut limiter, &head(1), (600, 0), wait.0).is_ok(), "{algorithm:?}");
        assert!(standing(&limiter, 1, wait.0).used >= 600, "{algorithm:?}");
    }
}

/// `AIBrix` applied no limit to requests without the header that named their user.
#[test]
fn no_part_of_a_key_can_be_left_out_to_escape() {
    let parts = [
        KeyPart::Client,
        KeyPart::ApiKey,
        KeyPart::ClientIP,
        KeyPart::Tier,
        KeyPart::Model,
        KeyPart::Endpoint,
        KeyPart::Header("x-user".into()),
        KeyPart::Global,
    ];
    for part in parts {
        let mut doc = doc(vec![rated("l", std::slice::from_ref(&part), rate(2, 3600, 2))]);
        doc.identity.trusted_headers = vec!["x-user".into()];
        let mut limiter = limiter_by(&doc);
        // Neither key, nor tier, nor header, nor model.
        let mut bare = |now| {
            let Ok(mut ticket) = limiter.enter(&head(1), Nanos(now)) else { return false };
            limiter.commit(&mut ticket, &BodyFacts::default(), Nanos(now), |_| Ok::<_, ()>(())).is_ok()
        };
        assert_eq!((0..9).filter(|_| bare(0)).count(), 2, "{part:?}");
    }
}

/// llm-d gave a share to each value of a header that clients choose.
#[test]
fn a_header_that_the_pool_does_not_trust_tells_nobody_apart() {
    let by_header = rated("l", &[KeyPart::Header("x-fairness-id".into())], rate(2, 3600, 2));
    let with_header = LimitDoc {
        headers: vec![HeaderDoc { name: "x-fairness-id".into(), value: "a".into() }],
        ..rated("l", &CLIENT, rate(2, 3600, 2))
    };
    for (limit, path) in [(by_header, "limits[0].per[0]"), (with_header, "limits[0].headers[0].name")] {
        let errors = compile(&doc(vec![limit])).unwrap_err().to_string();
        assert!(errors.contains(path) && errors.contains("does not trust header x-fairness-id"), "{errors}");
    }
    let mut limiter = limiter(&[rated("l", &CLIENT, rate(2, 3600, 2))]);
    let rotating =
        |n: u32| HeadFacts { headers: vec![("x-fairness-id".into(), n.to_string().into())], ..head(1) };
    assert_eq!((0..50).filter(|n| passes(&mut limiter, &rotating(*n), 0)).count(), 2);
}

/// A fixed window admits twice its limit around an edge, as `AIBrix` does: here it is printed, and no other kind does it.
#[test]
fn only_a_fixed_window_admits_twice_its_limit_around_an_edge() {
    let at_the_edge = |algorithm| {
        let mut limiter = limiter(&[LimitDoc { algorithm, ..rated("l", &CLIENT, rate(60, 60, 10)) }]);
        let before = passed(&mut limiter, &head(1), 100, 60 * SECOND - 1);
        before + passed(&mut limiter, &head(1), 100, 60 * SECOND)
    };
    let admitted: Vec<_> =
        algorithms_that_refuse().map(|algorithm| (algorithm, at_the_edge(algorithm))).collect();
    for (algorithm, count) in admitted {
        let most = match algorithm {
            Algorithm::FixedWindow => 120,
            Algorithm::TokenBucket => 10,
            _ => 60,
        };
        assert_eq!(count, most, "{algorithm:?}");
    }
}
