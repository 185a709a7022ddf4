//! The state of a limit for clients of one scale, and how it is carried into another plan.

use smallvec::SmallVec;

use super::Guard;
use crate::{
    Limit, Nanos,
    algo::concurrency::Guards,
    meter::{Meter, Share, Wall},
    plan::Scaled,
};

/// Numbers meters and guards: a new one is never taken for an old one of the same limit.
#[derive(Debug, Default)]
pub(crate) struct Births(u64);

impl Births {
    fn next(&mut self) -> u64 {
        self.0 = self.0.saturating_add(1);
        self.0
    }
}

/// The state for clients of one scale.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) scaled: Option<Scaled>,
    pub(super) meters: SmallVec<[Meter; 1]>,
    pub(super) guards: SmallVec<[Guard; 1]>,
}

/// What a state is carried by.
pub(crate) struct Carrier<'a> {
    pub(crate) births: &'a mut Births,
    pub(crate) pods: std::num::NonZeroU32,
    pub(crate) keys: usize,
    pub(crate) wall: Wall,
    pub(crate) now: Nanos,
}

impl Group {
    pub(super) fn carried(
        self,
        limit: &Limit,
        scaled: &Scaled,
        share: Share,
        carrier: &mut Carrier<'_>,
    ) -> Self {
        let Self { mut meters, mut guards, .. } = self;
        let mut group = Self { scaled: Some(scaled.clone()), ..Self::default() };
        for (unit, rate) in limit.info().rates() {
            let old = meters.iter().position(|meter| meter.is_for(limit, *unit, rate));
            group.meters.push(if let Some(place) = old {
                meters.remove(place)
            } else {
                let made = (carrier.births.next(), carrier.keys);
                Meter::new(limit, (*unit, rate), share, made, (carrier.wall, carrier.now))
            });
        }
        for (unit, _) in limit.info().bounds_at_once() {
            let old = guards.iter().position(|guard| guard.unit == *unit);
            group.guards.push(if let Some(place) = old {
                guards.remove(place)
            } else {
                let (birth, counts) = (carrier.births.next(), Guards::default());
                Guard { unit: *unit, birth, counts, allowed: 1 }
            });
        }
        group.share(limit, share, carrier.now);
        group
    }

    /// Puts this pod's share of the limit's numbers in force.
    pub(super) fn share(&mut self, limit: &Limit, share: Share, now: Nanos) {
        for meter in &mut self.meters {
            if let Some(rate) = limit.info().rate(meter.unit) {
                meter.swap(limit, &rate, share, now);
            }
        }
        for guard in &mut self.guards {
            let most = limit.info().most(guard.unit);
            guard.allowed = most.map_or(1, |most| share.of(u64::from(most.get())));
        }
    }
}
