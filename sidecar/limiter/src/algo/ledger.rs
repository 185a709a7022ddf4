//! What is used of a window, and what is owed beyond it: the give-back rule of the token bucket, in units and windows
//! instead of time.
//!
//! Every unit that was ever charged lies on one line, in order of arrival. The window in force begins at a position,
//! its `floor`, and each new window moves that on by one limit: so what a window holds beyond its limit lies in the
//! next ones, as debt, and what lies below the floor counts no more. That is GCRA with a clock that goes by windows: a
//! give-back takes away what of a charge lies above the floor, and nothing else.
//!
//! While the window lasts that was charged, that is all of it. Later it goes by where the charge lies: it began at s,
//! and all that was given back since is taken to have lain before it, as in [`super::gcra`]. So what has already passed
//! is never given back, and of charges that outlast their window some get back less if a later one was given back first.
//! Positions are `i128`, and saturate; [`super::packed`] keeps them in less.

use super::packed::{Numbers, Packed};

/// What one request took: with it, and only once, it is settled.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a charge that is dropped stands in full"]
pub struct Charge {
    /// Where it begins, in coordinates that later give-backs do not move.
    place: i128,
    /// Where the window began that was charged.
    floor: i128,
    cost: u64,
    is_carried: bool,
}

/// The line of one bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ledger {
    /// At the end goes the next unit, unless the floor is above it; given are all units that it has ever given back.
    packed: Packed,
}

impl Ledger {
    pub(super) const EMPTY: Self = Self { packed: Packed::NONE };

    /// One on which so much is used.
    pub(super) fn holding(used: u64, floor: i128) -> Self {
        Self { packed: Packed::new(Numbers { end: floor.saturating_add(i128::from(used)), ..Numbers::NONE }) }
    }

    /// What lies above the floor.
    pub(super) fn used(&self, floor: i128) -> u128 {
        u128::try_from(self.packed.end().saturating_sub(floor)).unwrap_or(0)
    }

    /// Charges `cost`.
    pub(super) fn take(&mut self, cost: u64, floor: i128) -> Charge {
        let mut numbers = self.packed.numbers();
        if numbers.end.saturating_add(numbers.cut) <= floor {
            // Every charge that a swap cut lies below the floor by now.
            numbers.cut = 0;
        }
        let start = numbers.end.max(floor);
        numbers.end = start.saturating_add(i128::from(cost));
        self.packed = Packed::new(numbers);
        Charge { place: start.saturating_add(numbers.given), floor, cost, is_carried: false }
    }

    /// Charges more on top of a charge, in the window in force; the charge then covers both. It gives back as though
    /// both lay together where it began: that is at most what lies here.
    pub(super) fn extend(&mut self, charge: &mut Charge, more: u64, floor: i128) {
        self.owe(more, floor);
        charge.cost = charge.cost.saturating_add(more);
    }

    /// Replaces what a charge reserved by what it really cost.
    pub(super) fn settle(&mut self, charge: &Charge, real: u64, floor: i128) {
        self.owe(real.saturating_sub(charge.cost), floor);
        let back = self.back(charge, real, floor);
        let Numbers { end, given, cut } = self.packed.numbers();
        let from_cut = if charge.is_carried { back.min(cut) } else { 0 };
        self.packed = Packed::new(Numbers {
            end: end.saturating_sub(back.saturating_sub(from_cut)),
            given: given.saturating_add(back),
            cut: cut.saturating_sub(from_cut),
        });
    }

    /// What of a charge lies above a floor and beyond its real cost; not negative.
    pub(super) fn back(&self, charge: &Charge, real: u64, floor: i128) -> i128 {
        let unspent = i128::from(charge.cost.saturating_sub(real));
        if charge.floor >= floor {
            return unspent;
        }
        let start = charge.place.saturating_sub(self.packed.numbers().given);
        start.saturating_add(i128::from(charge.cost)).saturating_sub(floor).clamp(0, unspent)
    }

    /// Goes on above another floor with `kept` used. Of what charges from before give back, the first `cut` are taken
    /// from nobody: they would else give back what they have been let off.
    pub(super) fn carry(&mut self, kept: u128, cut: u128, floor: i128) {
        let before = self.packed.numbers();
        let (end, cut) = (floor.saturating_add(signed(kept)), before.cut.saturating_add(signed(cut)));
        self.packed = Packed::new(Numbers { end, cut, ..before });
    }

    fn owe(&mut self, more: u64, floor: i128) {
        if more > 0 {
            let numbers = self.packed.numbers();
            let end = numbers.end.max(floor).saturating_add(i128::from(more));
            self.packed = Packed::new(Numbers { end, ..numbers });
        }
    }
}

impl Charge {
    /// As the bucket is carried from one floor to another.
    pub(super) fn carried(self, from: i128, to: i128) -> Self {
        let moved = |position: i128| position.saturating_sub(from).saturating_add(to);
        Self { place: moved(self.place), floor: moved(self.floor), is_carried: true, ..self }
    }

    /// Whether a swap has happened since.
    pub(super) fn is_carried(&self) -> bool {
        self.is_carried
    }
}

fn signed(units: u128) -> i128 {
    i128::try_from(units).unwrap_or(i128::MAX)
}
