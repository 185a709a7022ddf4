//! How this sidecar recognises API keys: the digesters that it has, by the names that plans give them.
//!
//! A plan says whose an API key is by a digest, and [`corral_limiter::Plan::digest_key`] names the key of the pool that
//! the digest was made with. In a pod the digesters come from the mounted keys of the pool and follow them; on a laptop
//! there is one, from random bytes that live as long as the process.

use std::sync::Arc;

use arc_swap::ArcSwap;
use corral_wire::KeyDigester;

/// The digesters of this sidecar: two while a key of the pool is rotated out. None: no API key is known.
#[derive(Debug, Default)]
pub struct Digesters {
    all: ArcSwap<Vec<KeyDigester>>,
}

impl Digesters {
    /// The digest of an API key under the digester `id`; none when this sidecar has not got it (yet).
    pub fn digest(&self, id: &str, api_key: &[u8]) -> Option<[u8; 32]> {
        let all = self.all.load();
        let digester = all.iter().find(|digester| digester.id() == id)?;
        Some(digester.digest(api_key))
    }

    /// From now on these, and no others.
    pub fn replace(&self, digesters: impl IntoIterator<Item = KeyDigester>) {
        let new: Vec<KeyDigester> = digesters.into_iter().collect();
        let ids = |all: &[KeyDigester]| all.iter().map(|one| one.id().to_owned()).collect::<Vec<_>>();
        if ids(&self.all.load()) != ids(&new) {
            self.all.store(Arc::new(new));
        }
    }
}

/// A digester that nobody else has, gone with the process.
pub fn random() -> Result<KeyDigester, getrandom::Error> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    Ok(KeyDigester::derive(&secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_by_the_digester_that_the_plan_names_and_by_no_other() {
        let (one, other) = (random().unwrap(), random().unwrap());
        let digesters = Digesters::default();
        assert_eq!(digesters.digest(one.id(), b"k"), None, "there is none at first");
        digesters.replace([one.clone(), other.clone()]);
        assert_eq!(digesters.digest(one.id(), b"k"), Some(one.digest(b"k")));
        assert_eq!(digesters.digest(other.id(), b"k"), Some(other.digest(b"k")));
        digesters.replace([other.clone()]);
        assert_eq!(digesters.digest(one.id(), b"k"), None, "it is rotated out");
    }
}
