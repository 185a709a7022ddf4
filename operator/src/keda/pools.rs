//! The numbers of the pools that this operator leads, from the exchange and from what was decided of their sizes.

use std::sync::Arc;

use corral_crds::OllamaPool;
use corral_crds::pool::ScalingMode;
use corral_wire::PoolRef;
use kube::runtime::reflector::ObjectRef;

use super::source::{Desired, NoNumbers, Numbers, PoolNumbers};
use crate::context::Context;
use crate::lease::Lease;
use crate::scaling::settings;

/// The pools of all scopes.
pub struct Pools {
    scopes: Vec<Arc<Context>>,
    lease: Arc<Lease>,
}

impl Pools {
    /// Those of these scopes, for as long as the lead is held.
    pub fn new(scopes: Vec<Arc<Context>>, lease: Arc<Lease>) -> Self {
        Self { scopes, lease }
    }
}

impl PoolNumbers for Pools {
    fn of(&self, pool: &PoolRef) -> Result<Numbers, NoNumbers> {
        if !self.lease.is_held() {
            return Err(NoNumbers::NotLeading);
        }
        let place = ObjectRef::new(&pool.name).within(&pool.namespace);
        let found = self.scopes.iter().find_map(|ctx| Some((ctx, ctx.stores.pools.get(&place)?)));
        let (ctx, guarded) = found.ok_or_else(|| NoNumbers::Unknown(pool.clone()))?;
        let seen = guarded.0.as_ref().map_err(|_| NoNumbers::Unreadable(pool.clone()))?;
        numbers(ctx, pool, seen).ok_or_else(|| NoNumbers::NotYet(pool.clone()))
    }
}

fn numbers(ctx: &Context, pool: &PoolRef, seen: &OllamaPool) -> Option<Numbers> {
    let load = ctx.exchange.load(pool)?;
    let desired = match (settings::mode(&seen.spec), ctx.scalings.desired(pool)) {
        (ScalingMode::Disabled, _) => Desired::Disabled,
        (_, Some(pods)) => Desired::Pods(pods),
        (_, None) => Desired::Unknown,
    };
    Some(Numbers {
        desired,
        queued: load.queued,
        in_flight: load.in_flight,
        held: 0,
        slots_per_pod: seen.spec.ollama.num_parallel,
        ready: load.ready,
        silent: load.silent,
        recent: load.recent,
    })
}
