//! Where one set of controllers works: in all namespaces, or in one.

use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource};

/// Where one set of controllers works.
#[derive(Clone)]
pub struct Scope {
    /// The API server.
    pub client: Client,
    /// The namespace; none for all.
    pub namespace: Option<String>,
}

impl Scope {
    /// Objects of a kind there.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }
}
