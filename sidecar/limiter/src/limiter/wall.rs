//! What time brings: windows of the clock begin, and adaptive limits grow again.

use super::Limiter;
use crate::{Nanos, adaptive::Aimd, meter::Wall};

/// For so long after a cut no other one follows, so that what many requests meet at one time cuts once.
const EPOCH: Nanos = Nanos::from_secs(1);
/// How often adaptive limits are looked after.
const TICK: Nanos = Nanos::from_secs(1);

impl Limiter {
    /// Tells what the wall clock says: `unix_nanos` since 1970 at `now`. Windows by the clock begin and end by it; one
    /// that has begun never begins again when the clock jumps back. Call it before the first plan, and then now and
    /// again, for clocks drift; until it is called, the origin of [`Nanos`] is taken as 1970.
    pub fn tell_wall(&mut self, now: Nanos, unix_nanos: i128) {
        let now = self.latest.max(now);
        self.latest = now;
        self.wall = Wall { at: now, unix: unix_nanos };
        self.do_chores(now);
    }

    /// Ollama fares badly: a request was turned away or took too long. One call for each such event; adaptive limits
    /// halve their numbers, at most once a second.
    pub fn trouble(&mut self, now: Nanos) {
        let now = self.advance(now);
        self.adapt(now, |aimd| aimd.trouble(now, EPOCH));
    }

    #[cold]
    pub(super) fn do_chores(&mut self, now: Nanos) {
        let wall = self.wall;
        let states = self.states.iter_mut();
        let ends =
            states.filter_map(|state| state.all_meters().filter_map(|meter| meter.roll(wall, now)).min());
        self.chores = ends.min().unwrap_or(Nanos(u64::MAX)).max(now.plus(Nanos(1)));
        if self.states.iter().any(|state| state.aimd.is_some()) {
            self.chores = self.chores.min(now.plus(TICK));
            self.adapt(now, |aimd| aimd.tick(now));
        }
    }

    fn adapt(&mut self, now: Nanos, change: impl Fn(&mut Aimd) -> bool) {
        let Self { plan, states, divisor, .. } = self;
        let limits = plan.iter().flat_map(|plan| plan.limits());
        for (limit, state) in limits.zip(states) {
            if state.aimd.as_mut().is_some_and(&change) {
                state.adapt(limit, *divisor, now);
            }
        }
    }
}
