//! Writing what was built, in the order in which it must be there: what pods mount, then where they are reached, then
//! the pods, and last how many of them may be taken.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::build::{Prepared, secrets};
use super::revision::update::Update;
use super::revision::{self, Current};
use super::validate::ValidPool;
use crate::apply::{ApplyError, Kind, Only, Writer, check_owner};
use crate::error::Error;
use crate::names::{self, MANAGER, TERM};

/// The objects of a pool as the API server holds them. Only [`apply`] makes one, so that a status can only be worked
/// out from what is really there.
#[derive(Debug, Clone)]
pub struct Applied {
    deployment: Deployment,
    update: Update,
}

impl Applied {
    /// Its pods, as they were asked for and as they are.
    pub fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    /// What an update of the pods would bring.
    pub fn update(&self) -> &Update {
        &self.update
    }
}

/// Applies the objects of a pool; then its pods are of the revision `current`. The Deployment is written only
/// on what `only` says, if it says anything.
pub async fn apply(
    writer: &Writer,
    pool: &ValidPool,
    prepared: Prepared,
    current: Current,
    only: Option<Only<'_>>,
) -> Result<Applied, ApplyError> {
    let Prepared { service, deployment, budget } = prepared;
    writer.apply::<Service>(&pool.uid, service).await?;
    let deployment = writer.apply_on(&pool.uid, deployment, only).await?;
    revision::prune(writer, &current).await?;
    writer.apply::<PodDisruptionBudget>(&pool.uid, budget).await?;
    Ok(Applied { deployment, update: current.update })
}

/// The Deployment, if there is one and it is the pool's.
pub async fn deployment(writer: &Writer, pool: &ValidPool) -> Result<Option<Deployment>, Error> {
    own(writer, pool, &pool.name).await
}

/// How many pods a Deployment asks for.
pub fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// The plan Secret, if there is one and it is the pool's.
pub async fn plan_secret(writer: &Writer, pool: &ValidPool) -> Result<Option<Secret>, Error> {
    own(writer, pool, &names::plan_secret(&pool.name)).await
}

/// An object by its name, if there is one and it is the pool's.
pub(super) async fn own<K: Kind>(writer: &Writer, pool: &ValidPool, name: &str) -> Result<Option<K>, Error> {
    let api: Api<K> = Api::namespaced(writer.client(), &pool.namespace);
    let found = api.get_opt(name).await?;
    if let Some(found) = &found {
        check_owner(found, &pool.uid)?;
    }
    Ok(found)
}

/// The key Secret, made if there is none.
pub async fn key_secret(writer: &Writer, pool: &ValidPool) -> Result<Secret, Error> {
    match own(writer, pool, &names::key_secret(&pool.name)).await? {
        Some(secret) => Ok(secret),
        None => create_keys(writer, pool).await,
    }
}

async fn create_keys(writer: &Writer, pool: &ValidPool) -> Result<Secret, Error> {
    let mut key = [0_u8; 32];
    getrandom::fill(&mut key)?;
    Ok(writer.create(&secrets::key_secret(pool, key)).await?)
}

/// Takes a term above every one that was taken. It is written against the very version that was read, so that no two
/// leaders take the same; and above a pod's own word only with a Lease that was renewed just now, so that a leader that
/// was frozen cannot follow the one that replaced it.
pub async fn raise_term(writer: &Writer, secret: &Secret, above: u64) -> Result<u64, Error> {
    if above > 0 && !writer.lease().renew().await {
        return Err(ApplyError::NotLeading.into());
    }
    writer.must_lead()?;
    let term = secrets::term(secret).max(above).saturating_add(1);
    let metadata = &secret.metadata;
    let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
    let api: Api<Secret> = Api::namespaced(writer.client(), namespace.unwrap_or_default());
    let patch = json!({"metadata": {
        "resourceVersion": metadata.resource_version, "annotations": {TERM: term.to_string()},
    }});
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    api.patch(name.unwrap_or_default(), &params, &Patch::Merge(&patch)).await?;
    Ok(term)
}
