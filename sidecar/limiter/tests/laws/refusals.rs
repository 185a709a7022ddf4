//! Law 3: a request refused by a limit or by the queue leaves everything as it was.

use corral_limiter::{Limiter, Nanos, Standing};
use proptest::prelude::*;

use crate::support::{Act, Came, Trace, ask, head, limiter_of, limits, mixed, model, passes, steps};

fn standings(limiter: &Limiter, now: u64) -> Vec<Vec<Standing>> {
    let all = (0..8).flat_map(|client| (0..2).map(move |number| (client, number)));
    all.map(|(client, number)| limiter.standing(&head(client), Some(&model(number)), Nanos(now))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Two keys a limit, so that overflow and eviction take part.
    #[test]
    fn without_the_refused_requests_everything_goes_as_with_them(limits in mixed(), steps in steps(60)) {
        let (mut with, mut without) = (limiter_of(&limits, 1, 2), limiter_of(&limits, 1, 2));
        let (mut trace, mut quiet) = (Trace::default(), Trace::default());
        for step in &steps {
            let came = trace.step(&mut with, step);
            if matches!(came, Came::Refused(_) | Came::NoPlace) {
                quiet.now = trace.now;
            } else {
                let step = crate::support::Step { after: trace.now - quiet.now, ..*step };
                prop_assert_eq!(quiet.step(&mut without, &step), came);
            }
            prop_assert_eq!(standings(&with, trace.now), standings(&without, trace.now));
        }
        let keys = |limiter: &Limiter| limiter.stats().iter().map(|stats| stats.keys).collect::<Vec<_>>();
        prop_assert_eq!(keys(&with), keys(&without));
    }

    #[test]
    fn a_refusal_names_every_limit_that_would_refuse_alone(limits in limits(), steps in steps(40)) {
        let mut all = limiter_of(&limits, 1, 1000);
        let mut trace = Trace::default();
        for step in &steps {
            let asked = matches!(step.act, Act::Ask);
            let before = standings_of(&all, step.client, step.model, trace.now + step.after);
            if let Came::Refused(refusal) = trace.step(&mut all, step)
                && asked
            {
                let named: Vec<_> = refusal.violations.iter().map(|v| (v.limit.name.clone(), v.unit)).collect();
                let empty: Vec<_> = before.iter().filter(|s| s.remaining == 0).collect();
                prop_assert!(!named.is_empty());
                prop_assert!(named.iter().all(|n| empty.iter().any(|s| (s.limit.name.clone(), s.unit) == *n)));
                let by_head = |s: &&&Standing| !limits.iter().any(|l| {
                    l.name == s.limit.name && (!l.models.is_empty() || l.per.contains(&corral_wire::KeyPart::Model))
                });
                // What the head decides is refused before the model is known.
                let expected = match empty.iter().filter(by_head).count() {
                    0 => empty.len(),
                    of_head => of_head,
                };
                prop_assert_eq!(named.len(), expected);
            }
        }
    }
}

fn standings_of(limiter: &Limiter, client: u32, number: u8, now: u64) -> Vec<Standing> {
    limiter.standing(&head(client), Some(&model(number)), Nanos(now))
}

#[test]
fn a_client_that_is_always_refused_is_admitted_as_soon_as_one_that_waited() {
    let rate = crate::support::rate(1, 10, 1);
    let limit = crate::support::rated("l", &[corral_wire::KeyPart::Client], rate);
    let mut limiter = crate::support::limiter(&[limit]);
    assert!(passes(&mut limiter, 1, 0));
    for tenth in 1..100 {
        assert!(ask(&mut limiter, 1, &model(0), tenth * 100_000_000).is_err());
    }
    assert!(passes(&mut limiter, 1, 10 * crate::support::SECOND));
}
