//! From what is needed to what a pool should have: bounds, dead band, and all that holds a descent up.

use std::time::Duration;

use crate::descent::{Descent, Need};
use crate::extremes::Lowest;
use crate::idle::Idle;
use crate::rate::STABLE;
use crate::{Config, Reason};

/// For so long more must have been needed, where what is needed is not clear of chance.
const LASTING: Duration = Duration::from_mins(3);

/// One more of so many is a fifth at most, and a quarter of their time is free at the usual utilization.
const MANY: u32 = 5;

/// What a pool needs now.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one answer to one question")]
pub(crate) struct Needs {
    /// By the formula.
    pub(crate) now: u32,
    /// At least, but for chance.
    pub(crate) clear: u32,
    /// Without what waits and what is sudden, which are over once they are served.
    pub(crate) usual: u32,
    /// For how long what was needed beyond the usual counts when it is not any more.
    pub(crate) beyond: Duration,
    /// Why that many.
    pub(crate) reason: Reason,
    /// There was a sudden rise less than a minute ago.
    pub(crate) is_sudden: bool,
    /// Pods whose work is not known: each counts as busy.
    pub(crate) unknown: u32,
    /// Pods that what runs takes, with theirs.
    pub(crate) floor: u32,
    /// Too little is known to go down.
    pub(crate) is_blind: bool,
    /// Pods have had no place for so long that no more are asked for.
    pub(crate) has_no_place: bool,
    /// Nobody goes now, so that no descent is saved up for after it.
    pub(crate) rollout: bool,
}

/// How large a pool should be.
#[derive(Debug, Clone)]
pub(crate) struct Size {
    desired: u32,
    since: Duration,
    lasting: Lowest,
    descent: Descent,
    pub(crate) idle: Idle,
}

impl Size {
    /// Begins with what there is.
    pub(crate) fn new(replicas: u32, now: Duration) -> Self {
        let idle = Idle::new(now, replicas == 0);
        let mut size = Self {
            desired: replicas,
            since: now,
            lasting: Lowest::default(),
            descent: Descent::default(),
            idle,
        };
        size.resume(replicas, now);
        size
    }

    /// Goes on after a time in which nobody looked: it is not known what was needed in it, but for what there is.
    pub(crate) fn resume(&mut self, replicas: u32, now: Duration) {
        self.desired = self.desired.max(replicas);
        self.since = now;
        self.idle.resume(now);
        self.lasting.forget();
        self.descent.begin(now, self.desired);
    }

    pub(crate) fn desired(&self) -> u32 {
        self.desired
    }

    /// Decides how many pods there should be, and why.
    pub(crate) fn decide(&mut self, config: &Config, needs: &Needs, now: Duration) -> (u32, Reason) {
        let least = self.least(config, needs, now);
        let current = self.desired;
        self.lasting.note(now, needs.now.min(config.max));
        let need = Need { all: needs.now.min(config.max), usual: needs.usual.min(config.max) };
        self.descent.note(&config.down, need, current, now);
        let (size, reason) = match self.raise(needs, now) {
            Some(raise) => raise,
            None => self.lower(config, needs, least, now),
        };
        self.desired = size.max(least).min(config.max);
        (self.desired, self.reason(current, (size, reason)))
    }

    fn least(&mut self, config: &Config, needs: &Needs, now: Duration) -> u32 {
        let may_sleep = self.desired <= 1 && !needs.is_blind && !needs.rollout && needs.unknown == 0;
        if self.idle.rest(config, may_sleep, now) { 0 } else { config.min.max(1) }.min(config.max)
    }

    /// More, if that many are needed for sure or have been for long. A pool that sleeps is woken by what comes, not by
    /// what is left of the rate before.
    fn raise(&mut self, needs: &Needs, now: Duration) -> Option<(u32, Reason)> {
        if self.idle.sleeps() {
            return None;
        }
        let lasting = self.lasting.over(LASTING, now);
        let clear = if may_be_chance(self.desired, needs) { 0 } else { needs.clear };
        let reason = if clear >= lasting { needs.reason } else { Reason::Work };
        let more = clear.max(lasting);
        if more <= self.desired || is_little(self.desired, more) {
            return None;
        }
        Some(if needs.has_no_place { (self.desired, Reason::NoPlace) } else { (more, reason) })
    }

    fn lower(&mut self, config: &Config, needs: &Needs, least: u32, now: Duration) -> (u32, Reason) {
        let lately =
            if self.idle.sleeps() { 0 } else { self.descent.target(&config.down, needs.beyond, now) };
        let target = lately.saturating_add(needs.unknown).max(needs.floor).max(least);
        let current = self.desired;
        if target >= current || (is_little(current, target) && target > least) {
            return (current, Reason::Steady);
        }
        if let Some(reason) = self.held_by(needs, now) {
            return (current, reason);
        }
        let step = self.descent.step(&config.down, current, target, now);
        let reason = match step {
            _ if step == current => Reason::Steady,
            0 => Reason::IdleToZero,
            _ => Reason::ScaleDown,
        };
        (step, reason)
    }

    fn held_by(&self, needs: &Needs, now: Duration) -> Option<Reason> {
        if needs.is_blind {
            return Some(Reason::Frozen);
        }
        if now.saturating_sub(self.since) < STABLE {
            return Some(Reason::Restart);
        }
        if needs.rollout {
            return Some(Reason::RolloutInProgress);
        }
        needs.is_sudden.then_some(Reason::Panic)
    }

    /// The reason of a change is what led to it, or the bounds where they alone have it so.
    fn reason(&self, current: u32, (size, reason): (u32, Reason)) -> Reason {
        if current == 0 && self.desired > 0 {
            return if self.idle.is_lost() { Reason::NoActivator } else { Reason::FromZero };
        }
        if self.desired == size && size != current {
            return reason;
        }
        if self.desired != current {
            let is_on_the_way = (size > current) == (self.desired > current) && size != current;
            return if is_on_the_way { reason } else { Reason::Range };
        }
        if size == current { reason } else { Reason::Steady }
    }
}

/// One pod more, of many: within hours the rate of a minute comes that far above by chance, and what it would be for has
/// room in the others meanwhile. Where it has none it makes a backlog, and that is no chance.
fn may_be_chance(from: u32, needs: &Needs) -> bool {
    needs.reason == Reason::Work && from >= MANY && needs.clear <= from.saturating_add(1)
}

/// Less than a tenth, and less than two: not worth a change.
fn is_little(from: u32, to: u32) -> bool {
    let change = from.abs_diff(to);
    change < 2 && u64::from(change) * 10 < u64::from(from)
}

#[cfg(test)]
#[path = "size_tests.rs"]
mod tests;
