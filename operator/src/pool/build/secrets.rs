//! The Secrets of a pool: its keys, which are made once, and its plan, which follows the policies.

use std::collections::BTreeMap;

use corral_wire::{BadKey, PlanDoc, PoolKeys};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use crate::names::{self, DIVISOR_KEY, FIRST_KEY, TERM};
use crate::pool::validate::ValidPool;

/// The most bytes of a plan: with its envelope it must fit a Secret.
pub const MAX_PLAN_BYTES: usize = 900 * 1024;

/// The key Secret, with a first key. It is created, never applied: nothing the operator knows may overwrite a key.
pub fn key_secret(pool: &ValidPool, key: [u8; 32]) -> Secret {
    let mut metadata = pool.object_meta(&names::key_secret(&pool.name));
    metadata.annotations = Some([(TERM.to_owned(), "0".to_owned())].into());
    // Hex, so that it survives whatever edits a Secret as text; the key is the text itself.
    let data = BTreeMap::from([(FIRST_KEY.to_owned(), ByteString(hex::encode(key).into_bytes()))]);
    Secret { metadata, data: Some(data), type_: Some("Opaque".to_owned()), ..Secret::default() }
}

/// The keys of a pool, the one that signs first: the greatest name.
pub fn keys(secret: &Secret) -> Result<PoolKeys, BadKey> {
    let data = secret.data.iter().flatten().rev();
    PoolKeys::new(data.map(|(_, ByteString(key))| key.clone()).collect())
}

/// The highest term that a leader took.
pub fn term(secret: &Secret) -> u64 {
    let annotations = secret.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(TERM)).and_then(|term| term.parse().ok()).unwrap_or(0)
}

/// The plan Secret.
pub fn plan_secret(pool: &ValidPool, plan: &[u8], divisor: u32) -> Secret {
    let data = BTreeMap::from([
        (names::plan_key(), ByteString(plan.to_vec())),
        (DIVISOR_KEY.to_owned(), ByteString(divisor.to_string().into_bytes())),
    ]);
    Secret {
        metadata: pool.object_meta(&names::plan_secret(&pool.name)),
        data: Some(data),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}

/// The plan that a plan Secret holds; none when it holds none that can be read.
pub fn plan(secret: &Secret) -> Option<PlanDoc> {
    let ByteString(text) = secret.data.as_ref()?.get(&names::plan_key())?;
    serde_json::from_slice(text).ok()
}

/// D in a plan Secret; 0 when it holds none.
pub fn divisor(secret: &Secret) -> u32 {
    let text = secret.data.as_ref().and_then(|data| data.get(DIVISOR_KEY));
    text.and_then(|ByteString(text)| std::str::from_utf8(text).ok()?.trim().parse().ok()).unwrap_or(0)
}
