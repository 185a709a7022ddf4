//! API keys as digests: a plan says whose a key is without holding it.
//!
//! The digest is HMAC-SHA256 under a key derived from one that only the operator and the pods of the pool have, so that a
//! plan that is read by somebody else does not even let weak keys be guessed.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

const DOMAIN: &[u8] = b"corral.dev/v1/api-key";
/// Bytes of a digest's hash that name a digester.
const ID_BYTES: usize = 8;

/// Makes digests of API keys.
#[derive(Clone)]
pub struct KeyDigester {
    start: Hmac<Sha256>,
    id: String,
}

impl KeyDigester {
    /// From a key of the pool, or from any random bytes that nobody else has.
    pub fn derive(secret: &[u8]) -> Self {
        let derived = keyed(secret).chain_update(DOMAIN).finalize().into_bytes();
        let name = Sha256::digest(derived);
        let id = hex::encode(name.get(..ID_BYTES).unwrap_or_default());
        Self { start: keyed(&derived), id }
    }

    /// Which key it was derived from, without saying anything of it: 16 hex digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The digest of an API key.
    pub fn digest(&self, api_key: &[u8]) -> [u8; 32] {
        self.start.clone().chain_update(api_key).finalize().into_bytes().into()
    }
}

impl fmt::Debug for KeyDigester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyDigester({})", self.id)
    }
}

/// HMAC takes a key of any length.
fn keyed(key: &[u8]) -> Hmac<Sha256> {
    <Hmac<Sha256> as Mac>::new_from_slice(key)
        .unwrap_or_else(|_| <Hmac<Sha256> as Mac>::new(&hmac::digest::Key::<Hmac<Sha256>>::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_hang_on_the_secret_and_on_the_key() {
        let (one, other) = (KeyDigester::derive(&[1; 32]), KeyDigester::derive(&[2; 32]));
        assert_eq!(one.digest(b"k"), KeyDigester::derive(&[1; 32]).digest(b"k"));
        assert_ne!(one.digest(b"k"), one.digest(b"l"));
        assert_ne!(one.digest(b"k"), other.digest(b"k"));
        assert_ne!(one.id(), other.id());
        assert_eq!(one.id().len(), 16);
    }

    #[test]
    fn nothing_of_the_secret_is_shown() {
        assert_eq!(format!("{:?}", KeyDigester::derive(b"secret")).matches("secret").count(), 0);
    }
}
