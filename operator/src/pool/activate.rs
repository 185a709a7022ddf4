//! The activators of a pool that goes to zero: made, brought into its Service while they may be needed, and spoken to.

use std::sync::Arc;

use corral_crds::pool::{OllamaPoolSpec, ScalingMode};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use super::apply::own;
use super::build::activator::{self, Ready};
use super::lack::lack;
use super::observe;
use super::validate::ValidPool;
use crate::activation::stand::{Need, Part};
use crate::context::Context;
use crate::error::Error;
use crate::exchange::peer::{PodSight, Role};
use crate::names;
use crate::scaling::settings;

/// What a pool needs activators for. Of one that somebody else sizes, `spec.replicas` says whether a pod is asked for.
pub fn need(spec: &OllamaPoolSpec) -> Need {
    if settings::to_zero(spec).is_some() {
        Need::Zero
    } else if settings::mode(spec) == ScalingMode::Builtin || settings::replicas(spec) > 0 {
        Need::LetGo
    } else {
        Need::Nothing
    }
}

/// Makes the activators of a pool as they should be. They stay with a pool that goes to zero no more until a pod serves and
/// nothing is held, unless it is stopped, and are spoken to until the last of them has ended. `pods` are theirs.
pub async fn activate(pool: &ValidPool, pods: &[Arc<Pod>], ctx: &Context) -> Result<(), Error> {
    let reference = pool.reference();
    let zero = settings::to_zero(&pool.spec);
    if zero.is_none() && is_without(pool, ctx).await? {
        return Ok(());
    }
    let part = ctx.activations.part(&reference).unwrap_or_default();
    let mut applied = None;
    if zero.is_some() || part == Part::Ended {
        let deployment = serde_json::to_value(activator::deployment(pool, zero, &ctx.defaults))?;
        applied = Some(ctx.writer.apply::<Deployment>(&pool.uid, deployment).await?);
        let budget = serde_json::to_value(activator::budget(pool))?;
        ctx.writer.apply::<PodDisruptionBudget>(&pool.uid, budget).await?;
    }
    let found = observe::sights(pods, Role::Activator);
    ctx.activations.take(&reference, &found, lack(applied.as_ref(), pods));
    let standing: Vec<Ready> = found.iter().filter(|_| part == Part::Stands).filter_map(ready_one).collect();
    write_slice(pool, &standing, ctx).await?;
    let uids = standing.into_iter().map(|ready| ready.uid).collect();
    ctx.activations.wrote(&reference, part, uids);
    if part == Part::Ended && found.is_empty() {
        ctx.activations.without(&reference);
    }
    Ok(())
}

/// Whether a pool that does not go to zero has no activators.
async fn is_without(pool: &ValidPool, ctx: &Context) -> Result<bool, Error> {
    let reference = pool.reference();
    if ctx.activations.is_without(&reference) {
        return Ok(true);
    }
    let found: Option<Deployment> = own(&ctx.writer, pool, &names::activator(&pool.name)).await?;
    if found.is_none() {
        ctx.activations.without(&reference);
    }
    Ok(found.is_none())
}

async fn write_slice(pool: &ValidPool, ready: &[Ready], ctx: &Context) -> Result<(), Error> {
    let slice = serde_json::to_value(activator::slice(pool, ready))?;
    ctx.writer.apply::<EndpointSlice>(&pool.uid, slice).await?;
    Ok(())
}

fn ready_one(sight: &PodSight) -> Option<Ready> {
    sight.takes_traffic().then_some(())?;
    Some(Ready { name: sight.name.clone(), uid: sight.uid.clone(), ip: sight.ip? })
}
