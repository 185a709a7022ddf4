//! Whose API key a request has.
//!
//! A key comes as `Authorization: Bearer <key>`, or as `x-api-key`, as Anthropic's SDKs send it. Of two the first that
//! is somebody's counts, `Authorization` before `x-api-key`: a proxy's own credential in one does not hide the client's
//! in the other, and nobody gains by a second key what its first would not give.
//!
//! A key is turned into its digest and forgotten. Nothing is kept of one that is nobody's, so whoever tries keys makes
//! no state.

use std::sync::Arc;

use corral_limiter::{KnownClient, Plan};
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName};

use crate::api_keys::Digesters;

pub(crate) const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The longest key, in bytes. A longer one is nobody's, and is not looked at.
const MAX_KEY_BYTES: usize = 512;

/// Who has sent a request, by its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A client that the plan knows.
    Known(Arc<KnownClient>),
    /// Nobody that it knows.
    Unknown(NoClient),
}

/// Why a request has no known client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum NoClient {
    /// It has no key.
    Keyless,
    /// Its key is nobody's.
    UnknownKey,
}

/// Looks the keys of a request up. A plan that knows no key costs nothing here.
pub(crate) fn caller(headers: &HeaderMap, plan: &Plan, digesters: &Digesters) -> Caller {
    let given = [bearer(headers), headers.get(API_KEY).map(http::HeaderValue::as_bytes)];
    let mut keys =
        given.into_iter().flatten().map(<[u8]>::trim_ascii).filter(|key| !key.is_empty()).peekable();
    if keys.peek().is_none() {
        return Caller::Unknown(NoClient::Keyless);
    }
    let Some(id) = plan.digest_key() else {
        return Caller::Unknown(NoClient::UnknownKey);
    };
    let client = |key: &[u8]| {
        let digest = digesters.digest(id, Some(key).filter(|key| key.len() <= MAX_KEY_BYTES)?)?;
        plan.client_of(&digest).cloned()
    };
    keys.find_map(client).map_or(Caller::Unknown(NoClient::UnknownKey), Caller::Known)
}

/// The key of an `Authorization` header, if it has one.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let (scheme, key) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then_some(key)
}

#[cfg(test)]
#[path = "api_key_tests.rs"]
mod tests;
