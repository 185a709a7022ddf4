use super::*;

const PLACES: u32 = 2;

fn runner(name: &str) -> Runner {
    Runner::of(&ModelName::parse(name).unwrap())
}

fn at(seconds: u64) -> Nanos {
    Nanos::from_secs(seconds)
}

/// Each runs one request and is waited for.
fn in_use(_: &Runner) -> Use {
    Use { running: 1, run_for: Some(Band::Standard), waited_for: Some(Band::Standard), weight: 1 }
}

/// `a`, `b` and `c` are loaded, one after the other, as far as is known; there is said to be room for three.
fn three_loaded() -> Models {
    let mut models = Models::default();
    for (after, name) in ["a", "b", "c"].into_iter().enumerate() {
        let now = at(after as u64);
        models.start(&runner(name), 3, in_use, now);
        models.loaded(&runner(name), now);
    }
    models
}

fn admits(models: &Models, name: &str) -> bool {
    models.admits(&runner(name), PLACES, in_use, at(10))
}

fn seen(models: &mut Models, names: &[&str]) {
    let names: Vec<_> = names.iter().map(|name| ModelName::parse(name).unwrap()).collect();
    models.seen(&names, PLACES, |_| 1);
}

#[test]
fn one_that_was_thrown_out_while_requests_for_it_wait_inside_gets_the_place_of_who_was_there_longest() {
    let mut models = three_loaded();
    seen(&mut models, &["b", "c"]);
    assert_eq!(["a", "b", "c"].map(|name| admits(&models, name)), [true, false, true]);
    models.call_off(|_| false);
    assert!(!admits(&models, "b"), "it waits inside, though nobody waits for it here");
    assert!(!models.is_loaded(&runner("a")));
    models.loaded(&runner("a"), at(20));
    assert!(models.is_loaded(&runner("a")) && !models.is_resident(&runner("b")));
    assert_eq!(models.residents().len(), 2);
    assert_eq!(models.load_time(&ModelName::parse("a").unwrap()), Nanos::ZERO, "that was no load of its own");
}

#[test]
fn one_that_was_thrown_out_and_fails_leaves_nobody_shut_out() {
    let mut models = three_loaded();
    seen(&mut models, &["b", "c"]);
    models.at_rest(&runner("a"), at(20));
    models.call_off(|_| false);
    assert_eq!(["b", "c"].map(|name| admits(&models, name)), [true, true]);
}

#[test]
fn as_many_as_fit_stay_though_they_are_listed_by_other_names() {
    let mut models = three_loaded();
    models.seen(&[], 3, |_| 1);
    assert!(["a", "b", "c"].iter().all(|name| models.is_loaded(&runner(name))));
    models.seen(&[], 3, |runner| u32::from(runner.model.as_str() != "a:latest"));
    assert!(!models.is_resident(&runner("a")), "nothing of it is in flight");
}
