//! From a pool as it was read to one that builders can trust.

use corral_crds::policy::Labels;
use corral_crds::pool::OllamaPoolSpec;
use corral_crds::valid::{Problem, check_pool};
use corral_crds::{API_VERSION, OllamaPool};
use corral_wire::PoolRef;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::names::UPDATE;

/// A pool whose spec keeps every rule.
#[derive(Debug, Clone)]
pub struct ValidPool {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its UID.
    pub uid: String,
    /// Its labels.
    pub labels: Labels,
    /// What it asks for.
    pub spec: OllamaPoolSpec,
    /// The last update of its pods that was asked for, by the annotation.
    pub update: Option<String>,
}

/// Why a pool cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPool {
    /// The API server did not say what it is called.
    #[error("the pool has no name, namespace or uid")]
    Nameless,
    /// The spec breaks rules. An API server with the schema lets none through.
    #[error("{}", listed(.0))]
    Spec(Vec<Problem>),
}

fn listed(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(|problem| format!("{}: {}", problem.path, problem.message))
        .collect::<Vec<_>>()
        .join("; ")
}

impl ValidPool {
    /// Checks a pool.
    pub fn of(pool: &OllamaPool) -> Result<Self, InvalidPool> {
        let meta = pool.metadata.clone();
        let (Some(name), Some(namespace), Some(uid)) = (meta.name, meta.namespace, meta.uid) else {
            return Err(InvalidPool::Nameless);
        };
        let problems = check_pool(&name, &pool.spec);
        if !problems.is_empty() {
            return Err(InvalidPool::Spec(problems));
        }
        let update = meta.annotations.unwrap_or_default().remove(UPDATE);
        let labels = meta.labels.unwrap_or_default();
        Ok(Self { name, namespace, uid, labels, spec: pool.spec.clone(), update })
    }

    /// The pool as the wire names it.
    pub fn reference(&self) -> PoolRef {
        PoolRef { namespace: self.namespace.clone(), name: self.name.clone() }
    }

    /// Makes an object go when the pool goes. It does not hold the pool's deletion up, for that would need rights on the
    /// pool's finalizers.
    pub fn owner(&self) -> OwnerReference {
        OwnerReference {
            api_version: API_VERSION.to_owned(),
            kind: "OllamaPool".to_owned(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            controller: Some(true),
            block_owner_deletion: None,
        }
    }

    /// The metadata of an object of the pool.
    pub fn object_meta(&self, name: &str) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
        k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(self.namespace.clone()),
            labels: Some(crate::names::labels(&self.name)),
            owner_references: Some(vec![self.owner()]),
            ..Default::default()
        }
    }
}
