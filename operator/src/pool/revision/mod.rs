//! Revisions: the pod template of a pool is kept under the inputs it was rendered from, so that only a change of these
//! changes pods.
//!
//! ```text
//! inputs of the pool ─▶ revision that serves them? ─ yes ─▶ its template, exactly
//!                                │ no
//!                                ▼
//!            Deployment labelled as serving them? ─ yes ─▶ kept anew from what runs
//!                                │ no
//!                                ▼
//!                     rendered by this operator, kept
//! ```
//!
//! An operator that would render it differently says so (`UpdateAvailable`) and waits for the inputs to change. The
//! annotation `corral.dev/update` on the pool is one of them: with a value that it never had, the pods are rendered anew;
//! where nothing would change, nothing restarts. Inputs that come back find the revision that they had: a pool that is
//! set back runs again what it ran before, and in the middle of a rollout the pods that still do are left alone. Taking
//! the annotation away takes nothing back.
//!
//! A Deployment made before there were revisions has no label, and gets one together with what is rendered now.

pub mod inputs;
pub mod stored;
pub mod update;

use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::api::{Api, ListParams};
use serde_json::Value;

use super::build::BuildError;
use super::validate::ValidPool;
use crate::apply::{ApplyError, Writer, check_owner};
use crate::error::Error;
use crate::listmap;
use crate::names::{POOL_LABEL, REVISION_LABEL};
use inputs::RevisionId;
use stored::Kept;
use update::Update;

/// Old revisions that are kept beside the current one.
pub const HISTORY: u8 = 5;

/// The revision that a pool's pods are to be of.
#[derive(Debug, Clone, PartialEq)]
pub struct Current {
    /// Which one it is.
    pub id: RevisionId,
    /// Its pod template.
    pub template: Value,
    /// What an update would bring.
    pub update: Update,
    /// The pool's other revisions, the newest last.
    old: Vec<ControllerRevision>,
}

/// The current revision of a pool, kept by now. `rendered` is the pod template as this operator would have it.
pub async fn current(
    writer: &Writer,
    pool: &ValidPool,
    rendered: Result<Value, BuildError>,
) -> Result<Current, Error> {
    let wanted = RevisionId::of(pool)?;
    let mut all = list(writer, pool).await?;
    let (id, kept, update) = match newest_serving(&wanted, pool, &all) {
        Some(found) => taken(id_of(pool, found).unwrap_or(wanted), found, rendered)?,
        None => unlisted(writer, pool, wanted, (&all, rendered)).await?,
    };
    all.retain(|revision| id_of(pool, revision).is_some_and(|other| other != id));
    Ok(Current { id, template: kept.template, update, old: all })
}

/// What is found or made of a revision.
type Taken = (RevisionId, Kept, Update);

fn taken(
    id: RevisionId,
    found: &ControllerRevision,
    rendered: Result<Value, BuildError>,
) -> Result<Taken, Error> {
    let kept = stored::read(found)?;
    let update = Update::of(&kept, rendered)?;
    Ok((id, kept, update))
}

/// The revision that serves what is wanted where none is listed.
async fn unlisted(
    writer: &Writer,
    pool: &ValidPool,
    wanted: RevisionId,
    (all, rendered): (&[ControllerRevision], Result<Value, BuildError>),
) -> Result<Taken, Error> {
    let live: Option<Deployment> = api(writer, pool).get_opt(&pool.name).await?;
    let running = live.and_then(|live| serving(pool, &wanted, live));
    let (id, running) = running.map_or((wanted, None), |(id, template)| (id, Some(template)));
    // It may be another's, or have lost its label.
    if let Some(found) = by_name(writer, pool, &id).await? {
        return taken(id, &found, rendered);
    }
    let (kept, update) = fresh(running, rendered)?;
    let number = all.last().map_or(0, |last| last.revision).saturating_add(1);
    writer.create(&stored::object(pool, &id, number, &kept)?).await?;
    Ok((id, kept, update))
}

/// The revisions of a pool, the newest last. Another's are left out.
async fn list(writer: &Writer, pool: &ValidPool) -> Result<Vec<ControllerRevision>, Error> {
    let labelled = ListParams::default().labels(&format!("{POOL_LABEL}={}", pool.name));
    let mut all = api::<ControllerRevision>(writer, pool).list(&labelled).await?.items;
    all.retain(|revision| check_owner(revision, &pool.uid).is_ok());
    all.sort_by(|a, b| (a.revision, &a.metadata.name).cmp(&(b.revision, &b.metadata.name)));
    Ok(all)
}

fn api<K>(writer: &Writer, pool: &ValidPool) -> Api<K>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    Api::namespaced(writer.client(), &pool.namespace)
}

fn id_of(pool: &ValidPool, revision: &ControllerRevision) -> Option<RevisionId> {
    RevisionId::of_name(&pool.name, revision.metadata.name.as_deref()?)
}

fn newest_serving<'a>(
    wanted: &RevisionId,
    pool: &ValidPool,
    kept: &'a [ControllerRevision],
) -> Option<&'a ControllerRevision> {
    kept.iter().rfind(|revision| id_of(pool, revision).is_some_and(|id| wanted.is_served_by(&id)))
}

async fn by_name(
    writer: &Writer,
    pool: &ValidPool,
    wanted: &RevisionId,
) -> Result<Option<ControllerRevision>, Error> {
    let found = api::<ControllerRevision>(writer, pool).get_opt(&wanted.name(&pool.name)).await?;
    if let Some(found) = &found {
        check_owner(found, &pool.uid)?;
    }
    Ok(found)
}

/// What is to be kept where nothing is: what runs, if anything does.
fn fresh(
    running: Option<PodTemplateSpec>,
    rendered: Result<Value, BuildError>,
) -> Result<(Kept, Update), Error> {
    let Some(running) = running else { return Ok((Kept::rendered(rendered?), Update::Nothing)) };
    let running = serde_json::to_value(running)?;
    if let Ok(rendered) = &rendered
        && listmap::holds(&running, rendered)
    {
        return Ok((Kept::rendered(rendered.clone()), Update::Nothing));
    }
    let kept = Kept::adopted(running);
    let update = Update::of(&kept, rendered)?;
    Ok((kept, update))
}

/// The template of a Deployment whose label says that it serves what is wanted.
fn serving(pool: &ValidPool, wanted: &RevisionId, live: Deployment) -> Option<(RevisionId, PodTemplateSpec)> {
    check_owner(&live, &pool.uid).ok()?;
    let id = RevisionId::parse(live.metadata.labels.as_ref()?.get(REVISION_LABEL)?)?;
    wanted.is_served_by(&id).then_some((id, live.spec?.template))
}

/// Deletes old revisions, all but the newest [`HISTORY`]. To be called once the Deployment is of the current one.
pub async fn prune(writer: &Writer, current: &Current) -> Result<(), ApplyError> {
    let many = current.old.len().saturating_sub(usize::from(HISTORY));
    for revision in current.old.iter().take(many) {
        writer.delete(revision).await?;
    }
    Ok(())
}
