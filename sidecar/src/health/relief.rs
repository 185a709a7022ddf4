//! When a pod leaves its Service for its load, and when it comes back. Pure: time, load and permission are handed in.
//!
//! ```text
//! In ── overloaded for 5 s, or a model loads; permitted; back for 30 s; up to 1 s of jitter ──▶ Out
//!    ◀── calm for 10 s and out for 10 s; or at once: no fresh permission, not able to serve, a drain ──
//! ```
//!
//! It is out only by a permission, and that holds for a lease from when the pod heard of it. Who flaps stays longer:
//! each change beyond three within ten minutes doubles both dwell times, up to five minutes.

use std::collections::VecDeque;
use std::time::Duration;

use corral_limiter::Nanos;
use corral_wire::exchange::RELIEF_LEASE;

use super::Relief;

/// From this load index on a pod is overloaded.
const OVERLOADED: f64 = 1.0;
/// Up to this load index it is calm.
const CALM: f64 = 0.5;
/// A queue that is so full presses as much as refusals do.
const PRESSING: f64 = 0.8;
/// How many changes within [`ReliefSettings::window`] are no flapping.
const FREE_CHANGES: u32 = 3;
/// More changes than these lengthen nothing any more.
const MOST_CHANGES: usize = 16;

/// The times by which a pod leaves and comes back.
#[derive(Debug, Clone, Copy)]
pub struct ReliefSettings {
    /// For how long it must be overloaded before it leaves; 5 s.
    pub overloaded_for: Duration,
    /// For how long it must be calm before it comes back; 10 s.
    pub calm_for: Duration,
    /// The least time out; 10 s. Neither a lapse nor a withdrawal of the permission waits for it.
    pub least_out: Duration,
    /// The least time in, after it came back; 30 s.
    pub least_in: Duration,
    /// Changes within so long are counted; 10 min.
    pub window: Duration,
    /// However often it changed, it dwells no longer; 5 min.
    pub longest_dwell: Duration,
    /// Pods that may leave at the same moment do so within this time; 1 s. 0: at once.
    pub jitter: Duration,
    /// How long a permission holds from when it was heard; 10 s.
    pub lease: Duration,
}

impl Default for ReliefSettings {
    fn default() -> Self {
        Self {
            overloaded_for: Duration::from_secs(5),
            calm_for: Duration::from_secs(10),
            least_out: Duration::from_secs(10),
            least_in: Duration::from_secs(30),
            window: Duration::from_mins(10),
            longest_dwell: Duration::from_mins(5),
            jitter: Duration::from_secs(1),
            lease: RELIEF_LEASE,
        }
    }
}

/// What is known at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Signs {
    /// The load index.
    pub index: f64,
    /// The queue has refused since the moment before.
    pub refused: bool,
    /// How full the queue is; 1 is full.
    pub filled: f64,
    /// All that the pod was sent waits for a model to load.
    pub loading: bool,
    /// It would be ready but for its load, and no drain has begun.
    pub able: bool,
    /// When the permission that stands was heard.
    pub permitted_at: Option<Nanos>,
    /// Where in the jitter this pod leaves, from 0 to 1.
    pub dice: f64,
}

/// What follows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Why the pod is out, if it is.
    pub out: Option<Relief>,
    /// It is in, and would leave at once if it were permitted.
    pub wants: bool,
}

impl From<Verdict> for corral_wire::Relief {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict { out: Some(_), .. } => Self::Taken,
            Verdict { out: None, wants: true } => Self::Wanted,
            Verdict { out: None, wants: false } => Self::Unneeded,
        }
    }
}

/// Where a pod stands.
#[derive(Debug)]
pub struct Leaving {
    settings: ReliefSettings,
    out: Option<Relief>,
    /// When it left or came back the last time.
    since: Option<Nanos>,
    overloaded_since: Option<Nanos>,
    calm_since: Option<Nanos>,
    refused_at: Option<Nanos>,
    /// When it leaves, as it may.
    leaves_at: Option<Nanos>,
    /// When it changed, oldest first.
    changes: VecDeque<Nanos>,
}

impl Leaving {
    /// In, and without load.
    pub fn new(settings: ReliefSettings) -> Self {
        Self {
            settings,
            out: None,
            since: None,
            overloaded_since: None,
            calm_since: None,
            refused_at: None,
            leaves_at: None,
            changes: VecDeque::new(),
        }
    }

    /// Takes one step.
    pub fn step(&mut self, now: Nanos, signs: Signs) -> Verdict {
        self.note(now, &signs);
        let permitted = signs.permitted_at.is_some_and(|at| now.since(at) < self.settings.lease.into());
        let wants = match self.out {
            None => self.cause(now, &signs).filter(|_| self.may_leave(now)),
            Some(was) => self.stays_for(now, &signs, was),
        };
        let was_in = self.out.is_none();
        match (self.out, wants.filter(|_| permitted)) {
            (Some(_), None) => self.change(now, None),
            (None, Some(why)) => self.leave_soon(now, why, signs.dice),
            (Some(_), why) => self.out = why,
            (None, None) => self.leaves_at = None,
        }
        Verdict { out: self.out, wants: was_in && self.out.is_none() && wants.is_some() }
    }

    /// Remembers since when what holds has held.
    fn note(&mut self, now: Nanos, signs: &Signs) {
        let held = |since: &mut Option<Nanos>, holds: bool| {
            *since = holds.then(|| since.unwrap_or(now));
        };
        held(&mut self.overloaded_since, signs.index >= OVERLOADED);
        held(&mut self.calm_since, signs.index <= CALM);
        if signs.refused {
            self.refused_at = Some(now);
        }
    }

    /// Why it should leave, if it should.
    fn cause(&self, now: Nanos, signs: &Signs) -> Option<Relief> {
        let recently = |at: Nanos| now.since(at) < self.settings.overloaded_for.into();
        let presses = signs.filled >= PRESSING || self.refused_at.is_some_and(recently);
        let overloaded = lasts(self.overloaded_since, self.settings.overloaded_for, now) && presses;
        let cause =
            if overloaded { Some(Relief::Overloaded) } else { signs.loading.then_some(Relief::ModelLoading) };
        cause.filter(|_| signs.able)
    }

    /// Who has just come back stays for a while. A newcomer, which never left, need not.
    fn may_leave(&self, now: Nanos) -> bool {
        self.since.is_none() || lasts(self.since, self.dwell(now, self.settings.least_in), now)
    }

    /// Why it should stay out, if it should.
    fn stays_for(&self, now: Nanos, signs: &Signs, was: Relief) -> Option<Relief> {
        if !signs.able {
            return None;
        }
        let must = !lasts(self.since, self.dwell(now, self.settings.least_out), now);
        let calm = lasts(self.calm_since, self.settings.calm_for, now);
        let stays = match was {
            Relief::Overloaded => must || !calm,
            Relief::ModelLoading => must || signs.loading,
        };
        self.cause(now, signs).or(stays.then_some(was))
    }

    fn leave_soon(&mut self, now: Nanos, why: Relief, dice: f64) {
        let later = || now.plus(self.settings.jitter.mul_f64(dice.clamp(0.0, 1.0)).into());
        let leaves_at = *self.leaves_at.get_or_insert_with(later);
        if now >= leaves_at {
            self.change(now, Some(why));
        }
    }

    fn change(&mut self, now: Nanos, to: Option<Relief>) {
        self.out = to;
        self.since = Some(now);
        self.leaves_at = None;
        if self.changes.len() >= MOST_CHANGES {
            self.changes.pop_front();
        }
        self.changes.push_back(now);
    }

    /// A dwell time, longer for who flaps.
    fn dwell(&self, now: Nanos, least: Duration) -> Duration {
        let recent = self.changes.iter().filter(|at| now.since(**at) < self.settings.window.into()).count();
        let beyond = u32::try_from(recent).unwrap_or(u32::MAX).saturating_sub(FREE_CHANGES);
        let longer = least.saturating_mul(1_u32.checked_shl(beyond).unwrap_or(u32::MAX));
        longer.min(self.settings.longest_dwell.max(least))
    }
}

fn lasts(since: Option<Nanos>, least: Duration, now: Nanos) -> bool {
    since.is_some_and(|since| now.since(since) >= least.into())
}

#[cfg(test)]
#[path = "relief_tests.rs"]
mod tests;
