use proptest::prelude::*;

use super::*;

/// A pod, stepped every half second.
struct Pod {
    leaving: Leaving,
    now: Nanos,
    signs: Signs,
    permitted: bool,
}

const HEAVY: f64 = 1.2;
const STEP: Nanos = Nanos::from_millis(500);

impl Pod {
    /// In for long enough, without load.
    fn settled() -> Self {
        let signs = Signs {
            index: 0.0,
            refused: false,
            filled: 0.0,
            loading: false,
            able: true,
            permitted_at: None,
            dice: 0.0,
        };
        let leaving = Leaving::new(ReliefSettings::default());
        let mut pod = Self { leaving, now: Nanos::from_secs(100), signs, permitted: false };
        pod.pass(60);
        pod
    }

    fn overloaded() -> Self {
        let mut pod = Self::settled();
        pod.load(HEAVY);
        pod
    }

    fn load(&mut self, index: f64) {
        self.signs.index = index;
        self.signs.filled = f64::from(u8::from(index > CALM));
    }

    fn step(&mut self) -> Verdict {
        self.now = self.now.plus(STEP);
        if self.permitted {
            self.signs.permitted_at = Some(self.now);
        }
        self.leaving.step(self.now, self.signs)
    }

    fn pass(&mut self, seconds: u64) -> Verdict {
        for _ in 1..seconds * 2 {
            self.step();
        }
        self.step()
    }

    /// Seconds until it is out, or in.
    fn until(&mut self, out: bool) -> f64 {
        let began = self.now;
        while self.step().out.is_some() != out {
            assert!(self.now.since(began) < Nanos::from_secs(3600), "never");
        }
        Duration::from(self.now.since(began)).as_secs_f64()
    }
}

const IN: Verdict = Verdict { out: None, wants: false };
const WANTS: Verdict = Verdict { out: None, wants: true };
const OUT: Verdict = Verdict { out: Some(Relief::Overloaded), wants: false };

#[test]
fn without_a_permission_nobody_leaves_however_great_the_load() {
    let mut pod = Pod::overloaded();
    assert_eq!(pod.pass(4), IN);
    assert_eq!(pod.pass(3600), WANTS);
}

#[test]
fn it_leaves_after_five_seconds_of_load_and_comes_back_after_ten_of_calm() {
    let mut pod = Pod::overloaded();
    pod.permitted = true;
    let left = pod.until(true);
    assert!((5.0..=5.5).contains(&left), "{left}");
    assert_eq!(pod.pass(60), OUT);
    pod.load(0.7);
    assert_eq!(pod.pass(60), OUT, "neither heavy nor calm");
    pod.load(0.5);
    let back = pod.until(false);
    assert!((10.0..=10.5).contains(&back), "{back}");
    pod.load(HEAVY);
    let again = pod.until(true);
    assert!((29.5..=30.0).contains(&again), "{again}");
}

#[test]
fn a_full_queue_or_a_refusal_makes_a_load_press_and_an_estimate_alone_does_not() {
    let mut pod = Pod::overloaded();
    pod.signs.filled = 0.79;
    assert_eq!(pod.pass(60), IN);
    pod.signs.filled = 0.8;
    assert_eq!(pod.step(), WANTS);
    pod.signs.filled = 0.0;
    assert_eq!(pod.step(), IN);
    pod.signs.refused = true;
    assert_eq!(pod.step(), WANTS);
    pod.signs.refused = false;
    assert_eq!(pod.pass(4), WANTS, "for as long as it takes to be overloaded");
    assert_eq!(pod.pass(1), IN);
}

#[test]
fn a_permission_that_lapses_or_is_withdrawn_brings_it_back_at_once_and_for_thirty_seconds() {
    for withdrawn in [true, false] {
        let mut pod = Pod::overloaded();
        pod.permitted = true;
        pod.until(true);
        pod.permitted = false;
        if withdrawn {
            pod.signs.permitted_at = None;
            assert_eq!(pod.step(), IN, "withdrawn within its least time out");
        } else {
            assert_eq!(pod.pass(9), OUT);
            assert_eq!(pod.pass(1), IN, "lapsed");
        }
        pod.permitted = true;
        assert_eq!(pod.pass(29), IN, "and asks for none");
        assert_eq!(pod.pass(1), OUT);
    }
}

#[test]
fn it_does_not_come_back_before_it_was_out_for_ten_seconds() {
    let mut pod = Pod::settled();
    pod.signs.loading = true;
    pod.permitted = true;
    assert_eq!(pod.step().out, Some(Relief::ModelLoading), "a load needs no five seconds");
    pod.signs.loading = false;
    let back = pod.until(false);
    assert!((9.5..=10.0).contains(&back), "{back}");
}

#[test]
fn the_cause_is_told_as_it_is_now() {
    let mut pod = Pod::overloaded();
    pod.permitted = true;
    pod.until(true);
    pod.load(0.0);
    pod.signs.loading = true;
    assert_eq!(pod.pass(30).out, Some(Relief::ModelLoading));
    pod.load(HEAVY);
    assert_eq!(pod.pass(6).out, Some(Relief::Overloaded));
    pod.load(0.0);
    pod.signs.loading = false;
    assert_eq!(pod.pass(11), IN);
}

#[test]
fn a_pod_that_is_not_able_is_out_for_that_and_not_for_its_load() {
    let mut pod = Pod::overloaded();
    pod.permitted = true;
    pod.until(true);
    pod.signs.able = false;
    assert_eq!(pod.step(), IN);
    assert_eq!(pod.pass(10), IN);
    pod.signs.able = true;
    assert_eq!(pod.pass(19), IN, "it has not been back for thirty seconds");
    assert_eq!(pod.pass(2), OUT);
}

#[test]
fn a_newcomer_that_is_flooded_at_once_need_not_stay_for_thirty_seconds() {
    let mut pod = Pod::overloaded();
    pod.leaving = Leaving::new(ReliefSettings::default());
    pod.permitted = true;
    let left = pod.until(true);
    assert!((5.0..=6.0).contains(&left), "{left}");
}

#[test]
fn pods_that_may_leave_at_one_moment_do_so_within_a_second() {
    for (dice, least, most) in [(0.0, 5.0, 5.5), (0.5, 5.5, 6.0), (1.0, 6.0, 6.5)] {
        let mut pod = Pod::overloaded();
        pod.permitted = true;
        pod.signs.dice = dice;
        let left = pod.until(true);
        assert!((least..=most).contains(&left), "{dice}: {left}");
    }
}

#[test]
fn a_load_that_ends_during_the_jitter_keeps_it_in() {
    let mut pod = Pod::overloaded();
    pod.signs.dice = 1.0;
    pod.pass(10);
    pod.permitted = true;
    assert_eq!(pod.step(), WANTS);
    pod.load(0.0);
    assert_eq!(pod.pass(60), IN);
}

/// A load that goes whenever the pod does, and comes when it comes: the worst there is.
#[test]
fn who_flaps_dwells_longer_and_longer_and_at_most_five_minutes() {
    let mut pod = Pod::settled();
    pod.permitted = true;
    let mut stays = Vec::new();
    for _ in 0..6 {
        pod.load(HEAVY);
        let inside = pod.until(true);
        pod.load(0.0);
        stays.push((inside, pod.until(false)));
    }
    let (inside, outside): (Vec<f64>, Vec<f64>) = stays.iter().copied().unzip();
    let near = |stays: &[f64], wanted: &[f64]| stays.iter().zip(wanted).all(|(a, b)| (a - b).abs() <= 1.0);
    assert!(near(&inside, &[5.0, 30.0, 60.0, 240.0]), "{stays:?}");
    assert!(near(&outside, &[10.0, 10.0, 40.0]), "{stays:?}");
    assert!(inside.iter().chain(&outside).all(|stay| *stay <= 300.5), "{stays:?}");
    pod.pass(700);
    pod.load(HEAVY);
    assert!(pod.until(true) <= 5.5, "after ten quiet minutes all is forgotten");
}

proptest! {
    #[test]
    fn dwell_times_and_leases_hold_under_any_course(
        course in prop::collection::vec((0_u8..4, any::<bool>(), prop::sample::select(vec![true, true, true, false])), 50..400),
    ) {
        let mut pod = Pod::settled();
        let (mut was_out, mut changed_at, mut heard) = (false, Nanos::ZERO, None);
        for (load, permitted, able) in course {
            pod.load(f64::from(load) * 0.5);
            pod.signs.able = able;
            for _ in 0..8 {
                if permitted {
                    heard = Some(pod.now);
                }
                pod.signs.permitted_at = heard;
                let verdict = pod.step();
                let out = verdict.out.is_some();
                let fresh = heard.is_some_and(|at| pod.now.since(at) < RELIEF_LEASE.into());
                prop_assert!(!out || (fresh && able), "out needs a fresh permission, and to be able");
                if out && !was_out {
                    prop_assert!(pod.now.since(changed_at) >= Nanos::from_secs(30));
                }
                if !out && was_out && fresh && able {
                    prop_assert!(pod.now.since(changed_at) >= Nanos::from_secs(10));
                }
                if out != was_out {
                    (was_out, changed_at) = (out, pod.now);
                }
            }
        }
    }
}
