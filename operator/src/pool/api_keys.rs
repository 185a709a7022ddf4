//! The API keys of a pool: read from the Secrets that it names, one by one, and kept as digests alone.

use std::collections::BTreeMap;

use corral_crds::api_keys::{self, Entries, KeyRing};
use corral_wire::PoolKeys;
use futures::future::try_join_all;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;

use super::validate::ValidPool;
use crate::apply::Writer;
use crate::error::Error;

/// Reads the Secrets of a pool. One that is not there has no keys; whatever else keeps one from being read is an error, for
/// it does not mean that its keys are revoked.
///
/// Digests are made with the oldest key of the pool: while it is rotated, a pod may not have the newest yet, and by the time
/// that the oldest goes, every pod has what is left.
pub async fn read(writer: &Writer, pool: &ValidPool, keys: &PoolKeys) -> Result<KeyRing, Error> {
    let named = &pool.spec.identity.api_keys;
    let Some(digester) = keys.digesters().last().filter(|_| !named.is_empty()) else {
        return Ok(KeyRing::default());
    };
    let api: Api<Secret> = Api::namespaced(writer.client(), &pool.namespace);
    let one = |name: String| {
        let api = api.clone();
        async move {
            let found = api.get_opt(&name).await?;
            Ok::<_, Error>(found.map(|secret| (name, entries(secret))))
        }
    };
    let read = try_join_all(named.iter().map(|secret| one(secret.secret_name.clone()))).await?;
    let content: BTreeMap<String, Entries> = read.into_iter().flatten().collect();
    Ok(api_keys::read(named, |name| content.get(name), &digester))
}

/// A Secret on its way out has no keys any more.
fn entries(secret: Secret) -> Entries {
    if secret.metadata.deletion_timestamp.is_some() {
        return Entries::new();
    }
    secret.data.into_iter().flatten().map(|(name, ByteString(value))| (name, value)).collect()
}
