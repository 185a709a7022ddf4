//! Writing objects: the only place that applies any. It writes what differs, never what is another's, and only while
//! this process leads.

use std::fmt::Debug;
use std::sync::Arc;

use corral_crds::OllamaPool;
use k8s_openapi::NamespaceResourceScope;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions,
};
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::answer::said;
use crate::drift;
use crate::lease::Lease;
use crate::listmap;
use crate::names::{APPLIED, MANAGER};

/// Why an object was not written.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// It exists, and is another's.
    #[error("{kind} {name} exists and belongs to {owner}: it is left alone; {remedy}")]
    Foreign {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
        /// Whose it is.
        owner: String,
        /// What to do.
        remedy: &'static str,
    },
    /// What it would belong to is gone.
    #[error("{0} is gone, or being deleted: nothing is made for it")]
    OwnerGone(String),
    /// Another process leads, or may.
    #[error("this process does not lead")]
    NotLeading,
    /// It was decided otherwise while this was on its way.
    #[error("it was decided otherwise meanwhile: nothing is written")]
    Overtaken,
    /// The API server refused, or was not there.
    #[error("the API server: {}", said(.0))]
    Kube(#[source] Box<kube::Error>),
    /// It could not be written as JSON.
    #[error("an object could not be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl From<kube::Error> for ApplyError {
    fn from(error: kube::Error) -> Self {
        Self::Kube(Box::new(error))
    }
}

/// What an object is written on, and on nothing else.
#[derive(Clone, Copy)]
pub struct Only<'a> {
    /// The resource version that was looked at.
    pub version: &'a str,
    /// Whether it is still wanted; asked at the last moment, after all else that takes time.
    pub still: &'a (dyn Fn() -> bool + Sync),
}

/// A kind that is applied: it lies in a namespace and is known at compile time.
pub trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned
{
}

impl<K> Kind for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
{
}

/// Writes.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    lease: Arc<Lease>,
}

impl Writer {
    /// Writes through `client` while `lease` is held.
    pub fn new(client: Client, lease: Arc<Lease>) -> Self {
        Self { client, lease }
    }

    /// A client, to read with.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Refuses while another may lead.
    pub fn must_lead(&self) -> Result<(), ApplyError> {
        if self.lease.is_held() { Ok(()) } else { Err(ApplyError::NotLeading) }
    }

    /// The Lease itself, for what must be sure of it.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Makes the object `wanted`, which the object with the UID `owner` controls; what the server holds afterwards.
    /// Nothing is sent when it holds all of it already, and nothing else where nothing else may be.
    pub async fn apply<K: Kind>(&self, owner: &str, wanted: Value) -> Result<K, ApplyError> {
        self.apply_on(owner, wanted, None).await
    }

    /// The same, and only while the object is of this resource version, if one is given: what was decided by the sight of
    /// it must not be done to what it has become. A conflict is for the caller to look again.
    pub async fn apply_on<K: Kind>(
        &self,
        owner: &str,
        wanted: Value,
        only: Option<Only<'_>>,
    ) -> Result<K, ApplyError> {
        let (namespace, name) = (text(&wanted, "/metadata/namespace"), text(&wanted, "/metadata/name"));
        let api: Api<K> = Api::namespaced(self.client(), &namespace);
        let live = api.get_opt(&name).await?;
        if let Some(live) = &live {
            check_owner(live, owner)?;
        }
        let mut wanted = marked::<K>(wanted)?;
        if let Some(live) = &live
            && listmap::holds(&serde_json::to_value(live)?, &wanted)
        {
            return self.heal(&api, live.clone(), &wanted).await;
        }
        if live.is_none() {
            self.must_be_wanted(&namespace, &wanted).await?;
        }
        self.must_lead()?;
        // The UID keeps an object that somebody made in between from being taken for the one that was looked at.
        if let Some(uid) = live.as_ref().and_then(|live| live.meta().uid.clone()) {
            set(&mut wanted, "uid", json!(uid));
        }
        if let Some(Only { version, still }) = only {
            if !still() {
                return Err(ApplyError::Overtaken);
            }
            set(&mut wanted, "resourceVersion", json!(version));
        }
        let params = PatchParams { force: live.is_some(), ..PatchParams::apply(MANAGER) };
        let applied = api.patch(&name, &params, &Patch::Apply(&wanted)).await?;
        self.heal(&api, applied, &wanted).await
    }

    /// Takes away what others added where nobody may.
    async fn heal<K: Kind>(&self, api: &Api<K>, live: K, wanted: &Value) -> Result<K, ApplyError> {
        let kind = K::kind(&());
        let Some(patch) = drift::healing(&kind, live.meta(), &live, wanted)? else {
            return Ok(live);
        };
        let name = live.meta().name.as_deref().unwrap_or_default();
        tracing::warn!(%kind, name, "somebody added to what is Corral's alone: it is taken away");
        self.must_lead()?;
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        Ok(api.patch(name, &params, &Patch::Merge(&patch)).await?)
    }

    /// Sets annotations of the very object with this UID, which others own; null takes one away. One that is gone needs none.
    pub async fn annotate<K: Kind>(
        &self,
        (namespace, name): (&str, &str),
        uid: &str,
        annotations: &Value,
    ) -> Result<(), ApplyError> {
        self.must_lead()?;
        let api: Api<K> = Api::namespaced(self.client(), namespace);
        let patch = json!({"metadata": {"uid": uid, "annotations": annotations}});
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        match api.patch_metadata(name, &params, &Patch::Merge(&patch)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            patched => Ok(patched.map(drop)?),
        }
    }

    /// Makes an object that is not there yet.
    pub async fn create<K: Kind>(&self, wanted: &K) -> Result<K, ApplyError> {
        let namespace = wanted.meta().namespace.as_deref().unwrap_or_default();
        self.must_be_wanted(namespace, &serde_json::to_value(wanted)?).await?;
        self.must_lead()?;
        let api: Api<K> = Api::namespaced(self.client(), namespace);
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        Ok(api.create(&params, wanted).await?)
    }

    /// Deletes the very object that was looked at, as it was; one that is gone is as good as deleted.
    pub async fn delete<K: Kind>(&self, seen: &K) -> Result<(), ApplyError> {
        self.must_lead()?;
        let meta = seen.meta();
        let (namespace, name) = (meta.namespace.as_deref(), meta.name.as_deref());
        let api: Api<K> = Api::namespaced(self.client(), namespace.unwrap_or_default());
        let very = Preconditions { uid: meta.uid.clone(), resource_version: meta.resource_version.clone() };
        match api.delete(name.unwrap_or_default(), &DeleteParams::default().preconditions(very)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            deleted => Ok(deleted.map(drop)?),
        }
    }

    /// Refuses to make what belongs to a pool that is gone by now: the pool that is reconciled is as it was last seen, and
    /// while a watch is broken that may be long ago.
    async fn must_be_wanted(&self, namespace: &str, wanted: &Value) -> Result<(), ApplyError> {
        let (name, uid) = (
            text(wanted, "/metadata/ownerReferences/0/name"),
            text(wanted, "/metadata/ownerReferences/0/uid"),
        );
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client(), namespace, &ApiResource::erase::<OllamaPool>(&()));
        let owner = api.get_opt(&name).await?.map(|owner| owner.metadata);
        let lives =
            owner.is_some_and(|owner| owner.uid.as_ref() == Some(&uid) && owner.deletion_timestamp.is_none());
        if lives { Ok(()) } else { Err(ApplyError::OwnerGone(name)) }
    }

    /// Writes a status, which is ours alone.
    pub async fn apply_status<K: Kind>(
        &self,
        namespace: &str,
        name: &str,
        status: &impl Serialize,
    ) -> Result<(), ApplyError> {
        self.must_lead()?;
        let resource = ApiResource::erase::<K>(&());
        let object = json!({
            "apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}, "status": status,
        });
        // The answer is not read as the kind it is: an object that is broken must be told so as well.
        let api: Api<DynamicObject> = Api::namespaced_with(self.client(), namespace, &resource);
        api.patch_status(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object)).await?;
        Ok(())
    }
}

/// Refuses what the object with the UID `owner` does not control.
pub fn check_owner<K: Kind>(live: &K, owner: &str) -> Result<(), ApplyError> {
    let owners = live.meta().owner_references.iter().flatten();
    let controller = owners.clone().find(|reference| reference.controller == Some(true));
    if controller.is_some_and(|reference| reference.uid == owner) {
        return Ok(());
    }
    let (owner, remedy) = match controller {
        Some(other) => (format!("{} {}", other.kind, other.name), "give the pool another name"),
        // Made by hand, or what an orphaning deletion left.
        None => ("nobody".to_owned(), "delete it if nothing needs it, or give the pool another name"),
    };
    Err(ApplyError::Foreign {
        kind: K::kind(&()).into_owned(),
        name: live.meta().name.clone().unwrap_or_default(),
        owner,
        remedy,
    })
}

/// The object with its type, and a digest of itself, by which it is noticed that something is no longer wanted.
fn marked<K: Kind>(mut wanted: Value) -> Result<Value, ApplyError> {
    if let Some(map) = wanted.as_object_mut() {
        map.insert("apiVersion".to_owned(), json!(K::api_version(&())));
        map.insert("kind".to_owned(), json!(K::kind(&())));
        map.remove("status");
    }
    let digest = hex::encode(Sha256::digest(serde_json::to_vec(&wanted)?));
    let short: String = digest.chars().take(16).collect();
    let mut annotations = wanted.pointer("/metadata/annotations").cloned().unwrap_or_else(|| json!({}));
    if let Some(map) = annotations.as_object_mut() {
        map.insert(APPLIED.to_owned(), json!(short));
    }
    set(&mut wanted, "annotations", annotations);
    Ok(wanted)
}

fn set(object: &mut Value, field: &str, value: Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert(field.to_owned(), value);
    }
}

fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}
