//! The state of one limit: its buckets, its guards, and what it has done.

mod group;
mod guard;
mod seens;
mod tally;

use corral_wire::Action;
use smallvec::SmallVec;

use self::{group::Group, guard::is_due};
pub(crate) use self::{
    group::{Births, Carrier},
    guard::Guard,
    seens::Seens,
    tally::Tally,
};
use crate::{
    Limit, Nanos, Unit, Usage,
    adaptive::Aimd,
    key::BucketKey,
    meter::{Meter, Share},
    plan::{Factor, Scaled},
    reserve::{Held, Holding},
    store::{Look, Place},
};

/// The state of one limit.
#[derive(Debug, Default)]
pub(crate) struct LimitState {
    /// In the order of the limit's scales.
    groups: SmallVec<[Group; 1]>,
    pub(crate) aimd: Option<Aimd>,
    pub(crate) tally: Tally,
}

/// How a limit sees a request; it holds until the state next changes.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Place of the limit in the plan.
    pub(crate) place: usize,
    /// Place of the request's scale in the limit.
    pub(crate) scale: usize,
    pub(crate) key: BucketKey,
    /// One for each meter that is asked.
    pub(crate) looks: Vec<Looked>,
    pub(crate) verdict: Verdict,
}

/// A meter that is asked, by its place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Looked {
    pub(crate) meter: usize,
    pub(crate) cost: u64,
    pub(crate) look: Look,
}

/// What a limit has to say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It admits, and is charged.
    #[default]
    Admit,
    /// It admits for later, and is charged now.
    Delay(Nanos),
    /// It is asked, and charged, when there is a slot; whether it would have said yes now.
    Later { fits: bool },
    /// It is exceeded, is not charged, and lets the request run when nobody else wants to.
    Deprioritize,
    /// It refuses.
    Refuse,
}

/// When a limit is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Before the body is read.
    Head,
    /// With the body read; whether the request will wait for a slot.
    Body { waits: bool },
    /// A slot is there.
    Slot,
}

/// A number that is exceeded: of a meter or of a guard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exceeded {
    pub(crate) unit: Unit,
    /// In the unit.
    pub(crate) used: u64,
    pub(crate) allowed: u64,
    pub(crate) asked: u64,
    /// None for a guard.
    pub(crate) wait: Option<Nanos>,
    pub(crate) birth: u64,
    pub(crate) bucket: BucketKey,
    pub(crate) overflowed: bool,
}

impl LimitState {
    /// The state of `limit`: `old` carried over, what it lacks begun anew.
    pub(crate) fn carried(mut old: Self, limit: &Limit, carrier: &mut Carrier<'_>) -> Self {
        let aimd = limit.adaptive_min_milli().map(|min| {
            let mut aimd = old.aimd.take().unwrap_or_else(|| Aimd::new(min));
            aimd.set_least(min);
            aimd
        });
        let mut state = Self { tally: old.tally, aimd, groups: SmallVec::new() };
        let milli = state.adaptive_milli();
        for (scaled, group) in limit.scales().iter().zip(old.take_groups(limit.scales())) {
            let share = Share { pods: limit.sharers(carrier.pods), factor: Factor::of(scaled.milli, milli) };
            state.groups.push(group.carried(limit, scaled, share, carrier));
        }
        state
    }

    /// What is left of its numbers, in thousandths.
    pub(crate) fn adaptive_milli(&self) -> u32 {
        self.aimd.as_ref().map_or(1000, Aimd::milli)
    }

    /// This state without its buckets and guards.
    pub(crate) fn emptied(self) -> Self {
        Self { tally: self.tally, aimd: self.aimd, groups: SmallVec::new() }
    }

    /// What clients of each scale had: those of the same one, else those of one of its tiers that nobody else claims.
    fn take_groups(&mut self, scales: &[Scaled]) -> Vec<Group> {
        let same = |was: &Scaled, is: &Scaled| was.milli == is.milli;
        let mut groups: Vec<_> =
            scales.iter().map(|scaled| self.take_group(|was| same(was, scaled))).collect();
        for (group, scaled) in groups.iter_mut().zip(scales) {
            if group.is_none() {
                *group = self.take_group(|was| was.tiers.iter().any(|tier| scaled.tiers.contains(tier)));
            }
        }
        groups.into_iter().map(Option::unwrap_or_default).collect()
    }

    fn take_group(&mut self, is_it: impl Fn(&Scaled) -> bool) -> Option<Group> {
        let group = self.groups.iter_mut().find(|group| group.scaled.as_ref().is_some_and(&is_it));
        group.map(std::mem::take)
    }

    /// Whether buckets of a unit would go on under `limit`.
    pub(crate) fn goes_on(&self, limit: &Limit, unit: Unit) -> bool {
        let Some(group) = self.groups.first() else { return false };
        match limit.info().rate(unit) {
            Some(rate) => group.meters.iter().any(|meter| meter.is_for(limit, unit, &rate)),
            None => group.guards.iter().any(|guard| guard.unit == unit),
        }
    }

    /// How many buckets and counts are kept.
    pub(crate) fn keys(&self) -> usize {
        let meters = self.groups.iter().flat_map(|group| &group.meters).map(Meter::keys);
        let guards = self.groups.iter().flat_map(|group| &group.guards).map(|guard| guard.counts.keys());
        meters.chain(guards).fold(0, usize::saturating_add)
    }

    /// The meters for clients of a scale.
    pub(crate) fn meters(&self, scale: usize) -> &[Meter] {
        self.groups.get(scale).map_or(&[], |group| &group.meters)
    }

    /// The guards for clients of a scale.
    pub(crate) fn guards(&self, scale: usize) -> &[Guard] {
        self.groups.get(scale).map_or(&[], |group| &group.guards)
    }

    /// Every meter.
    pub(crate) fn all_meters(&mut self) -> impl Iterator<Item = &mut Meter> {
        self.groups.iter_mut().flat_map(|group| &mut group.meters)
    }

    /// Puts in force what is left of its numbers.
    pub(crate) fn adapt(&mut self, limit: &Limit, pods: std::num::NonZeroU32, now: Nanos) {
        let milli = self.adaptive_milli();
        for (group, scaled) in self.groups.iter_mut().zip(limit.scales()) {
            let share = Share { pods: limit.sharers(pods), factor: Factor::of(scaled.milli, milli) };
            group.share(limit, share, now);
        }
    }

    /// Looks, and changes nothing.
    pub(crate) fn look(
        &self,
        limit: &Limit,
        seen: &mut Seen,
        (usage, held): (&Usage, &[Held]),
        (moment, now): (Moment, Nanos),
    ) {
        seen.looks.clear();
        for (at, meter) in self.meters(seen.scale).iter().enumerate() {
            if !holds(held, meter.birth) {
                let cost = usage.permits(meter.unit);
                seen.looks.push(Looked { meter: at, cost, look: meter.look(seen.key, cost, now) });
            }
        }
        seen.verdict = self.verdict(limit, seen, (usage, held), moment);
    }

    #[inline]
    fn verdict(
        &self,
        limit: &Limit,
        seen: &Seen,
        (usage, held): (&Usage, &[Held]),
        moment: Moment,
    ) -> Verdict {
        let wait = seen.looks.iter().map(|looked| looked.look.wait).max().unwrap_or(Nanos::ZERO);
        // What a limit that queues would say now is what it would say if there were a slot.
        let then = if limit.action() == Action::Queue { Moment::Slot } else { moment };
        let mut missing = self.missing((limit.action(), then), seen, held);
        let crowded = missing.any(|guard| guard.lacks(seen.key, usage));
        let fits = wait == Nanos::ZERO && !crowded;
        let is_patient = || {
            let mut looks = seen.looks.iter();
            looks.all(|looked| looked.look.wait <= self.patience(seen, looked))
        };
        match limit.action() {
            _ if moment == Moment::Slot => {
                if fits {
                    Verdict::Admit
                } else {
                    Verdict::Refuse
                }
            }
            Action::Queue if is_patient() => Verdict::Later { fits },
            _ if fits => Verdict::Admit,
            Action::Delay if is_patient() => Verdict::Delay(wait),
            Action::Deprioritize => Verdict::Deprioritize,
            Action::Reject | Action::Delay | Action::Queue => Verdict::Refuse,
        }
    }

    fn patience(&self, seen: &Seen, looked: &Looked) -> Nanos {
        self.meters(seen.scale).get(looked.meter).map_or(Nanos::ZERO, |meter| meter.patience)
    }

    /// The guards that a request must take at a moment and does not hold.
    fn missing<'a>(
        &'a self,
        (action, moment): (Action, Moment),
        seen: &Seen,
        held: &'a [Held],
    ) -> impl Iterator<Item = &'a Guard> + use<'a> {
        let guards = self.guards(seen.scale).iter();
        guards.filter(move |guard| is_due(action, guard.unit, moment) && !holds(held, guard.birth))
    }

    /// What is exceeded.
    pub(crate) fn exceeded(
        &self,
        limit: &Limit,
        seen: &Seen,
        (usage, held): (&Usage, &[Held]),
        (moment, now): (Moment, Nanos),
    ) -> SmallVec<[Exceeded; 2]> {
        let mut all = SmallVec::new();
        for looked in &seen.looks {
            let Some(meter) = self.meters(seen.scale).get(looked.meter) else { continue };
            let patience = if moment == Moment::Slot { Nanos::ZERO } else { meter.patience };
            let Look { place, wait } = looked.look;
            if wait > patience {
                let (unit, reading) = (meter.unit, meter.reading(seen.key, now));
                all.push(Exceeded {
                    unit,
                    used: unit.of_permits(reading.used),
                    allowed: unit.of_permits(reading.capacity),
                    asked: unit.of_permits(looked.cost),
                    wait: Some(wait.since(patience)),
                    birth: meter.birth,
                    bucket: Meter::bucket(seen.key, place),
                    overflowed: place == Place::Overflow,
                });
            }
        }
        let lacking =
            self.missing((limit.action(), moment), seen, held).filter(|guard| guard.lacks(seen.key, usage));
        all.extend(lacking.map(|guard| guard.exceeded(seen.key, usage)));
        all
    }

    /// Takes the guards that a request needs at a moment.
    pub(crate) fn take_guards(
        &mut self,
        limit: &Limit,
        seen: &Seen,
        usage: &Usage,
        (ticket, moment): (&mut Holding, Moment),
    ) {
        let Some(group) = self.groups.get_mut(seen.scale) else { return };
        for guard in &mut group.guards {
            if is_due(limit.action(), guard.unit, moment) && !holds(&ticket.held, guard.birth) {
                let held = guard.held(seen, usage);
                guard.counts.take(seen.key, held.amount);
                ticket.held.push(held);
            }
        }
    }

    /// Charges the request to its buckets; one that is delayed is noted as starting so much later.
    pub(crate) fn charge(&mut self, seen: &Seen, ticket: &mut Holding, delay: Nanos, now: Nanos) {
        let Some(group) = self.groups.get_mut(seen.scale) else { return };
        for looked in &seen.looks {
            let Some(meter) = group.meters.get_mut(looked.meter) else { continue };
            if looked.look.place == Place::Overflow {
                self.tally.overflowed = self.tally.overflowed.saturating_add(1);
            }
            let Some(charge) = meter.take(seen.key, looked.look, looked.cost, now) else { continue };
            if delay > Nanos::ZERO {
                meter.book(seen.key, &charge, now.plus(delay), now);
            }
            ticket.held.push(Held {
                place: seen.place,
                birth: meter.birth,
                key: seen.key,
                unit: meter.unit,
                amount: looked.cost,
                charge: Some(charge),
            });
        }
    }

    /// Whether what is held was taken here.
    pub(crate) fn bore(&self, birth: u64) -> bool {
        self.groups.iter().any(|group| {
            group.meters.iter().any(|meter| meter.birth == birth)
                || group.guards.iter().any(|guard| guard.birth == birth)
        })
    }

    pub(crate) fn meter_of(&mut self, birth: u64) -> Option<&mut Meter> {
        self.all_meters().find(|meter| meter.birth == birth)
    }

    /// Takes a guard back.
    pub(crate) fn release(&mut self, held: &Held) {
        let mut guards = self.groups.iter_mut().flat_map(|group| &mut group.guards);
        if let Some(guard) = guards.find(|guard| guard.birth == held.birth) {
            guard.counts.release(held.key, held.amount);
        }
    }
}

/// Whether something of this birth is held already.
#[inline]
fn holds(held: &[Held], birth: u64) -> bool {
    held.iter().any(|held| held.birth == birth)
}
