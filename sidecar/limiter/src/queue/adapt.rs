//! How many of a model's slots are used while Ollama shows that it has too much: down from the known number, and back.
//!
//! How many slots a model has is known, so nothing is ever probed above it, and no latency is looked at: only signs
//! that say what they mean count. AIMD (Chiu and Jain, 1989) with a hold: a sign takes half of the slots, or one slot
//! where it says that just too many were sent, at most once an epoch, so that ten refusals of one moment cut once.
//! After 30 s without a sign each 5 s give back a tenth, as long as requests succeed and would use more. From the half
//! that is 70 s, so one sign alone costs less than 15 % of five minutes' work.
//!
//! The number is kept in thousandths of a slot, in integers; only whole slots count.

use crate::Nanos;

/// One slot.
const SLOT: u64 = 1000;
/// The shortest time from one cut to the next.
const EPOCH: Nanos = Nanos::from_secs(1);
/// How long after a sign nothing grows.
const HOLD: Nanos = Nanos::from_secs(30);
/// From one step up to the next.
const STEP: Nanos = Nanos::from_secs(5);
/// How old the latest success may be for a step up. Longer than a step, so that a model whose requests take longer than
/// that comes back as fast as others.
const FRESH: Nanos = Nanos::from_secs(30);

/// A sign that Ollama has too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Strain {
    /// It refused a request because too many wait in it.
    Busy,
    /// The memory of a GPU is full.
    OutOfMemory,
    /// Requests wait inside it although they have slots: it has fewer than are used. Costs one slot, the others half.
    HiddenWait,
}

/// The slots of one model that are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Adapt {
    cap: u32,
    /// In thousandths of a slot: [`SLOT`] to `cap` slots.
    milli: u64,
    /// The latest cut.
    cut: Option<Nanos>,
    /// When the next step up may be taken.
    due: Nanos,
    /// The latest success.
    succeeded: Option<Nanos>,
}

impl Adapt {
    /// All slots of a model that has so many. 0 counts as 1.
    pub(super) fn new(cap: u32) -> Self {
        let cap = cap.max(1);
        Self { cap, milli: whole(cap), cut: None, due: Nanos::ZERO, succeeded: None }
    }

    /// The model has another number of slots. All are used if all were; else no more than before.
    pub(super) fn set_cap(&mut self, cap: u32) {
        let was_whole = self.is_whole();
        self.cap = cap.max(1);
        let most = whole(self.cap);
        self.milli = if was_whole { most } else { self.milli.min(most) };
    }

    /// A sign of too much: fewer slots, unless the latest cut is less than an epoch ago, which is as long as a request
    /// of the model takes, and 1 s at least. In any case nothing grows for a while.
    pub(super) fn strain(&mut self, strain: Strain, service: Nanos, now: Nanos) {
        self.due = self.due.max(now.plus(HOLD));
        if self.cut.is_some_and(|cut| now.since(cut) < service.max(EPOCH)) {
            return;
        }
        self.cut = Some(now);
        let less = match strain {
            Strain::HiddenWait => self.milli.saturating_sub(SLOT),
            Strain::Busy | Strain::OutOfMemory => self.milli / 2,
        };
        self.milli = less.max(SLOT);
    }

    /// A request of the model has succeeded. `demand`: at least four fifths of the slots in use are taken, or somebody
    /// waits for one. Where fewer are wanted than there are, more would be tried by nobody.
    pub(super) fn served(&mut self, now: Nanos, demand: bool) {
        self.succeeded = Some(now);
        self.look(now, demand);
    }

    /// Takes a step up if it is time for one and there is `demand`, as [`Self::served`] has it. To be called when
    /// [`Self::next_step`] has come; more often is harmless. Time that was missed is not made up for.
    pub(super) fn look(&mut self, now: Nanos, demand: bool) {
        if self.is_whole() || !demand || now < self.due || !self.has_succeeded_by(now) {
            return;
        }
        self.due = now.plus(STEP);
        self.milli = self.milli.saturating_mul(11).div_ceil(10).min(whole(self.cap));
    }

    /// How many slots are used: at least 1, at most as many as there are.
    pub(super) fn slots(&self) -> u32 {
        u32::try_from(self.milli / SLOT).unwrap_or(self.cap).clamp(1, self.cap)
    }

    /// When [`Self::look`] may give back more. None while all slots are used, or nothing has succeeded for a while:
    /// then only a success can.
    pub(super) fn next_step(&self, now: Nanos) -> Option<Nanos> {
        let next = self.due.max(now);
        (!self.is_whole() && self.has_succeeded_by(next)).then_some(next)
    }

    /// All slots are used.
    pub(super) fn is_whole(&self) -> bool {
        self.milli == whole(self.cap)
    }

    fn has_succeeded_by(&self, now: Nanos) -> bool {
        self.succeeded.is_some_and(|at| now.since(at) <= FRESH)
    }
}

fn whole(cap: u32) -> u64 {
    u64::from(cap).saturating_mul(SLOT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HALVING: [Strain; 2] = [Strain::Busy, Strain::OutOfMemory];

    fn at(seconds: u64) -> Nanos {
        Nanos::from_secs(seconds)
    }

    /// After a sign at 100 s, with nothing known of how long requests take.
    fn strained(cap: u32, strain: Strain) -> Adapt {
        let mut adapt = Adapt::new(cap);
        adapt.strain(strain, Nanos::ZERO, at(100));
        adapt
    }

    /// The slots from second to second, while requests succeed all the time and more wait.
    fn slots_over(adapt: &mut Adapt, seconds: std::ops::Range<u64>) -> Vec<u32> {
        let look = |second| {
            adapt.served(at(second), true);
            adapt.slots()
        };
        seconds.map(look).collect()
    }

    #[test]
    fn hidden_wait_takes_one_slot_and_every_other_sign_half_of_them() {
        for strain in HALVING {
            assert_eq!(strained(8, strain).slots(), 4, "{strain:?}");
        }
        assert_eq!(strained(8, Strain::HiddenWait).slots(), 7);
        assert_eq!(strained(1, Strain::Busy).slots(), 1, "one slot stays");
        assert_eq!(strained(1, Strain::HiddenWait).slots(), 1);
    }

    #[test]
    fn ten_signs_of_one_epoch_cut_once() {
        let mut adapt = Adapt::new(16);
        for after in 0..10 {
            adapt.strain(Strain::Busy, at(20), at(100 + after));
        }
        assert_eq!(adapt.slots(), 8);
        adapt.strain(Strain::Busy, at(20), at(120));
        assert_eq!(adapt.slots(), 4, "as long as a request takes");
        adapt.strain(Strain::Busy, Nanos::ZERO, Nanos(at(121).0 - 1));
        assert_eq!(adapt.slots(), 4, "a second at least");
        adapt.strain(Strain::Busy, Nanos::ZERO, at(121));
        assert_eq!(adapt.slots(), 2);
    }

    #[test]
    fn it_comes_back_from_the_half_in_eight_steps_after_thirty_seconds() {
        let mut adapt = strained(100, Strain::Busy);
        let slots = slots_over(&mut adapt, 100..180);
        assert!(slots[..30].iter().all(|slots| *slots == 50), "{slots:?}");
        let mut steps = slots[30..].to_vec();
        steps.dedup();
        assert_eq!(steps, [55, 60, 66, 73, 80, 88, 97, 100]);
        assert_eq!((slots[64], slots[65]), (97, 100));
    }

    #[test]
    fn a_sign_that_does_not_cut_still_puts_off_the_way_back() {
        let mut adapt = strained(8, Strain::Busy);
        adapt.strain(Strain::Busy, at(60), at(120));
        let slots = slots_over(&mut adapt, 120..156);
        assert!(slots[..35].iter().all(|slots| *slots == 4), "{slots:?}");
        assert_eq!(slots_over(&mut adapt, 156..200).last(), Some(&8));
    }

    #[test]
    fn nothing_grows_that_nobody_wants_or_that_nobody_has_tried() {
        let mut adapt = strained(8, Strain::Busy);
        for second in 100..1000 {
            adapt.look(at(second), true);
            assert_eq!(adapt.next_step(at(second)), None);
        }
        assert_eq!(adapt.slots(), 4, "nothing has succeeded");
        for second in 1000..2000 {
            adapt.served(at(second), false);
        }
        assert_eq!(adapt.slots(), 4, "nobody wants more");
        assert_eq!(slots_over(&mut adapt, 2000..2040).last(), Some(&8), "in steps, from when somebody does");
    }

    #[test]
    fn one_success_bears_thirty_seconds_of_steps_by_the_clock_alone() {
        let mut adapt = strained(100, Strain::Busy);
        adapt.served(at(110), true);
        assert_eq!(adapt.next_step(at(110)), Some(at(130)));
        let mut steps = Vec::new();
        while let Some(next) = adapt.next_step(at(110)) {
            adapt.look(next, true);
            steps.push((next, adapt.slots()));
        }
        assert_eq!(steps, [(at(130), 55), (at(135), 60), (at(140), 66)]);
        adapt.served(at(150), true);
        assert_eq!(adapt.slots(), 73, "one step however long it has been");
    }

    #[test]
    fn another_number_of_slots_counts_at_once_downwards_and_in_steps_upwards() {
        let mut adapt = Adapt::new(4);
        adapt.set_cap(8);
        assert_eq!(adapt.slots(), 8, "all were used");
        adapt.strain(Strain::Busy, Nanos::ZERO, at(100));
        adapt.set_cap(16);
        assert_eq!(adapt.slots(), 4, "half of them were");
        adapt.set_cap(0);
        assert_eq!(adapt.slots(), 1);
        adapt.set_cap(3);
        assert_eq!(adapt.slots(), 3, "one slot was all there was");
    }

    #[test]
    fn one_sign_alone_costs_at_most_fifteen_percent_of_five_minutes_work() {
        for cap in 1..=64 {
            for strain in [Strain::Busy, Strain::HiddenWait] {
                let work: u32 = slots_over(&mut strained(cap, strain), 100..400).into_iter().sum();
                assert!(work * 100 >= 300 * cap * 85, "{cap} slots, {strain:?}: {work}");
            }
        }
    }

    /// An Ollama with fewer slots than it should have, in front of which as many requests wait as can: after so many
    /// seconds, how many slots are used in each that follows. Requests take a second, so those that wait inside wait
    /// longer than anybody overlooks.
    fn settled(cap: u32, real: u32, strain: Strain, after: u64) -> Vec<u32> {
        let mut adapt = Adapt::new(cap);
        let mut slots = Vec::new();
        for second in 0..after + 600 {
            if adapt.slots() > real {
                adapt.strain(strain, at(1), at(second));
            }
            adapt.served(at(second), true);
            slots.push(adapt.slots());
        }
        slots.split_off(usize::try_from(after).unwrap())
    }

    #[test]
    fn an_upstream_that_has_lost_half_of_its_slots_is_used_to_within_one_of_them_after_a_minute() {
        for cap in [2, 4, 8, 16, 32] {
            let slots = settled(cap, cap / 2, Strain::HiddenWait, 60);
            // A step is a tenth, which is more than a slot of more than ten.
            let range = cap / 2 - 1..=cap / 2 + (cap / 2).div_ceil(10);
            assert!(slots.iter().all(|slots| range.contains(slots)), "{cap}: {slots:?}");
        }
    }

    #[test]
    fn refusals_alone_keep_it_between_a_half_and_one_above_what_there_is() {
        for cap in [2, 4, 8, 16] {
            let slots = settled(cap, cap / 2, Strain::Busy, 60);
            let range = (cap / 4).max(1)..=cap / 2 + 1;
            assert!(slots.iter().all(|slots| range.contains(slots)), "{cap}: {slots:?}");
        }
    }

    #[derive(Debug, Clone, Copy)]
    enum Act {
        Strain(usize, u64),
        Serve(bool),
        Look(bool),
        Cap(u32),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            (0..3usize, 0..90u64).prop_map(|(strain, service)| Act::Strain(strain, service)),
            any::<bool>().prop_map(Act::Serve),
            any::<bool>().prop_map(Act::Look),
            prop_oneof![0..70u32, any::<u32>()].prop_map(Act::Cap),
        ]
    }

    proptest! {
        #[test]
        fn it_stays_between_one_and_all_and_every_change_has_its_cause(
            cap in prop_oneof![0..70u32, any::<u32>()],
            acts in prop::collection::vec((0..40_000u64, act()), 1..200),
        ) {
            let mut adapt = Adapt::new(cap);
            let (mut now, mut last_cut, mut last_sign, mut last_step) = (0, None, None, None);
            for (after, act) in acts {
                now += after;
                let before = adapt.clone();
                let time = Nanos::from_millis(now);
                match act {
                    Act::Strain(strain, service) => {
                        let strain = [HALVING.as_slice(), &[Strain::HiddenWait]].concat()[strain];
                        adapt.strain(strain, at(service), time);
                        let may = last_cut.is_none_or(|cut| now - cut >= service.max(1) * 1000);
                        prop_assert!(may || adapt.milli == before.milli, "one cut an epoch");
                        prop_assert!(adapt.milli >= (before.milli / 2).max(1000).min(before.milli));
                        if may { last_cut = Some(now); }
                        last_sign = Some(now);
                    }
                    Act::Serve(demand) => adapt.served(time, demand),
                    Act::Look(demand) => adapt.look(time, demand),
                    Act::Cap(cap) => adapt.set_cap(cap),
                }
                prop_assert!((1..=adapt.cap).contains(&adapt.slots()));
                prop_assert!((1000..=u64::from(adapt.cap) * 1000).contains(&adapt.milli));
                if adapt.milli > before.milli && !matches!(act, Act::Cap(_)) {
                    prop_assert!(!matches!(act, Act::Strain(..) | Act::Serve(false) | Act::Look(false)));
                    prop_assert!(last_sign.is_some_and(|sign| now - sign >= 30_000), "no sign for 30 s");
                    prop_assert!(last_step.is_none_or(|step| now - step >= 5_000), "5 s a step");
                    prop_assert!(adapt.milli <= before.milli + before.milli / 10 + 1, "a tenth");
                    last_step = Some(now);
                }
            }
        }

        #[test]
        fn without_further_signs_all_slots_come_back(cap in 1..200u32, signs in prop::collection::vec(0..3usize, 1..30)) {
            let mut adapt = Adapt::new(cap);
            let mut now = 0;
            for strain in signs {
                now += 2;
                adapt.strain([HALVING.as_slice(), &[Strain::HiddenWait]].concat()[strain], Nanos::ZERO, at(now));
            }
            // From one slot to 200 it takes 56 steps.
            slots_over(&mut adapt, now..now + 30 + 56 * 5 + 1);
            prop_assert_eq!(adapt.slots(), cap);
            prop_assert_eq!(adapt.next_step(at(now + 1000)), None);
        }
    }
}
