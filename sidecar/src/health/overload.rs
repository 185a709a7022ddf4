//! The sampler: looks at the load every half second, and decides by it whether the pod is in its Service.
//!
//! It costs one short lock each time. A permission that is withdrawn is looked at when it comes.

use std::sync::Arc;
use std::time::Duration;

use corral_limiter::Nanos;
use tokio::time::sleep;

use super::Relief;
use super::desk::LoadView;
use super::load::{LoadIndex, LoadSample, LoadSettings};
use super::relief::{Leaving, ReliefSettings, Signs};
use super::strain::Answers;
use crate::core::Core;

/// However short an interval is asked for.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// How load becomes readiness.
#[derive(Debug, Clone, Copy)]
pub struct OverloadSettings {
    /// From one look at the load to the next; 500 ms.
    pub every: Duration,
    /// How the load index is made.
    pub load: LoadSettings,
    /// When the pod leaves its Service, and when it comes back.
    pub relief: ReliefSettings,
}

impl Default for OverloadSettings {
    fn default() -> Self {
        Self {
            every: Duration::from_millis(500),
            load: LoadSettings::default(),
            relief: ReliefSettings::default(),
        }
    }
}

/// Watches the load until it is dropped.
pub async fn watch(core: Arc<Core>, settings: OverloadSettings) {
    let mut sampler = Sampler::new(settings);
    loop {
        sampler.look(&core);
        tokio::select! {
            () = sleep(settings.every.max(SHORTEST_INTERVAL)) => {}
            () = core.desk.news() => {}
        }
    }
}

struct Sampler {
    index: LoadIndex,
    answers: Answers,
    leaving: Leaving,
    refusals: u64,
    out: Option<Relief>,
}

impl Sampler {
    fn new(settings: OverloadSettings) -> Self {
        Self {
            index: LoadIndex::new(settings.load),
            answers: Answers::default(),
            leaving: Leaving::new(settings.relief),
            refusals: 0,
            out: None,
        }
    }

    fn look(&mut self, core: &Core) {
        let now = core.clock().now();
        let queue = core.load();
        let refusals = core.capacity_rejects();
        let refused = refusals > std::mem::replace(&mut self.refusals, refusals);
        let sample = LoadSample {
            queue: share(queue.load_permille),
            refused,
            upstream_busy: self.answers.are_busy(now, core.upstream_busy(), core.counters().completions),
            probes_slow: core.health.probes.are_slow(),
        };
        let index = self.index.step(now, sample);
        let signs = Signs {
            index,
            refused,
            filled: share(queue.filled_permille),
            loading: core.health.loading(),
            able: core.health.ready_but_for_load(),
            permitted_at: core.desk.permitted_at(),
            dice: dice(),
        };
        self.act(core, now, index, signs);
    }

    fn act(&mut self, core: &Core, now: Nanos, index: f64, signs: Signs) {
        let verdict = self.leaving.step(now, signs);
        core.desk.show(LoadView { permille: permille(index), relief: verdict.into() });
        if std::mem::replace(&mut self.out, verdict.out) != verdict.out {
            core.health.set_relief(verdict.out);
        }
    }
}

/// From 0 to 1. Without randomness all leave at once, which the permission still bounds.
fn dice() -> f64 {
    getrandom::u32().map_or(0.0, |number| f64::from(number) / f64::from(u32::MAX))
}

fn share(permille: u32) -> f64 {
    f64::from(permille) / 1000.0
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts of floats saturate")]
fn permille(index: f64) -> u32 {
    (index * 1000.0).round() as u32
}

#[cfg(test)]
#[path = "overload_tests.rs"]
mod tests;
