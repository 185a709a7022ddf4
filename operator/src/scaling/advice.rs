//! What the operator would ask for in a pool that somebody else scales. Nobody here acts by it: it is told to those who scale
//! the pool and ask, such as KEDA.

use corral_crds::bounds::MAX_REPLICAS;
use corral_crds::pool::{Autoscaling, OllamaPoolSpec};
use corral_scaler::{Holder, Observation, Scaler};

use super::moment::Present;
use super::settings;

/// The core that reckons, and what it said last.
#[derive(Default)]
pub(super) struct Advice {
    core: Option<Scaler>,
    desired: Option<u32>,
}

impl Advice {
    /// How many pods it would ask for; none before it was asked.
    pub(super) fn desired(&self) -> Option<u32> {
        self.desired
    }

    /// Reckons by what is seen.
    pub(super) fn take(
        &mut self,
        spec: &OllamaPoolSpec,
        autoscaling: &Autoscaling,
        seen: &Observation,
        present: Present,
    ) {
        let core = self.core.get_or_insert_with(|| Scaler::new(present.moment()));
        let bounds = settings::bounds(&bounded(autoscaling), present.wall);
        let config = settings::of_builtin(spec, autoscaling, bounds, Holder::Nobody);
        self.desired = Some(core.decide(&config, seen, present.moment()).desired);
    }
}

/// The same, with an upper bound: whoever scales the pool has one of its own.
fn bounded(autoscaling: &Autoscaling) -> Autoscaling {
    let most = autoscaling.max_replicas.or_else(|| u32::try_from(MAX_REPLICAS).ok());
    Autoscaling { max_replicas: most, ..autoscaling.clone() }
}
