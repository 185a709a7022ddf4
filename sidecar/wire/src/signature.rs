//! Signatures of the exchange: HMAC-SHA256 with the pool's own key over who is meant, in which order, and the body.
//!
//! A message is only worth believing together with its [`Position`]: a leader that was frozen signs well, but its
//! (term, sequence) is behind. The body travels as the very text that was signed, so that no two JSON writers have to
//! agree. Bodies are signed, not encrypted: they hold no secret.

use std::borrow::Cow;
use std::fmt;

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::Sha256;

use crate::KeyDigester;

/// The fewest bytes of a key.
pub const MIN_KEY_BYTES: usize = 32;

/// Where a message stands in the order of all messages of a pool: terms before sequences.
///
/// A new leader takes a higher term; within its term it counts up. A pod obeys only what is higher than all it obeyed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The leader's term for this pool.
    pub term: u64,
    /// Counts the leader's messages to this pod within its term.
    pub sequence: u64,
}

/// What a signature is for: the same bytes signed for one purpose are worth nothing for another.
pub trait Purpose {
    /// Goes first into the signed bytes.
    const DOMAIN: &'static str;
}

impl Purpose for crate::Directive {
    const DOMAIN: &'static str = "corral.dev/v1/directive";
}

impl Purpose for crate::Report {
    const DOMAIN: &'static str = "corral.dev/v1/report";
}

/// A message with the signature that makes it worth believing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Signed {
    /// UID of the pod that is spoken to, or that speaks: a pod at a reused IP neither obeys nor answers for another.
    pub pod_uid: String,
    /// Of a directive its own place in the order; of a report the highest that the pod has obeyed.
    pub position: Position,
    /// Of a report, the position of the directive it answers, so that an old report cannot be replayed as an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Position>,
    /// The message as JSON text, exactly as it was signed.
    pub body: String,
    /// HMAC-SHA256 in lower-case hex.
    pub mac: String,
}

/// Why a message is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// No key of the pool made this signature.
    #[error("the signature does not match any key of the pool")]
    BadSignature,
    /// It is meant for, or comes from, another pod.
    #[error("the message names pod {found}, not {expected}")]
    OtherPod {
        /// The UID expected.
        expected: String,
        /// The UID found.
        found: String,
    },
    /// It answers something else than what was asked.
    #[error("the report does not answer this directive")]
    OtherQuestion,
    /// The body is not what this version reads.
    #[error("the body cannot be read: {0}")]
    BadBody(String),
}

/// The keys of a pool: the first signs, all verify. Two live while one is being rotated out.
#[derive(Clone)]
pub struct PoolKeys {
    keys: Vec<Vec<u8>>,
}

/// A key is too short to be one, or there is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a pool key has at least {MIN_KEY_BYTES} bytes, and a pool at least one key")]
pub struct BadKey;

impl fmt::Debug for PoolKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PoolKeys({} keys)", self.keys.len())
    }
}

impl PoolKeys {
    /// Takes raw keys, the one that signs first.
    pub fn new(keys: Vec<Vec<u8>>) -> Result<Self, BadKey> {
        if keys.is_empty() || keys.iter().any(|key| key.len() < MIN_KEY_BYTES) {
            return Err(BadKey);
        }
        Ok(Self { keys })
    }

    /// What makes digests of API keys, one for each key of the pool, that of the one that signs first.
    pub fn digesters(&self) -> impl Iterator<Item = KeyDigester> {
        self.keys.iter().map(|key| KeyDigester::derive(key))
    }

    /// Signs a directive, or anything that answers nothing.
    pub fn sign<T: Purpose + Serialize>(
        &self,
        pod_uid: &str,
        position: Position,
        message: &T,
    ) -> Result<Signed, serde_json::Error> {
        Ok(self.seal(T::DOMAIN, pod_uid, position, None, serde_json::to_string(message)?))
    }

    /// Signs the answer to what stood at `answers`.
    pub fn sign_answer<T: Purpose + Serialize>(
        &self,
        pod_uid: &str,
        position: Position,
        answers: Position,
        message: &T,
    ) -> Result<Signed, serde_json::Error> {
        Ok(self.seal(T::DOMAIN, pod_uid, position, Some(answers), serde_json::to_string(message)?))
    }

    fn seal(
        &self,
        domain: &str,
        pod_uid: &str,
        position: Position,
        answers: Option<Position>,
        body: String,
    ) -> Signed {
        let mut signed = Signed { pod_uid: pod_uid.to_owned(), position, answers, body, mac: String::new() };
        if let Some(mac) = self.mac(domain, &parts(&signed)) {
            signed.mac = hex::encode(mac);
        }
        signed
    }

    /// The signature over these parts for one purpose, by the key that signs.
    pub(crate) fn mac<P: AsRef<[u8]>>(&self, domain: &str, parts: &[P]) -> Option<[u8; 32]> {
        let mac = keyed(self.keys.first()?, domain, parts)?;
        Some(mac.finalize().into_bytes().into())
    }

    /// Whether a key of the pool made this signature over these parts for this purpose.
    pub(crate) fn genuine<P: AsRef<[u8]>>(&self, domain: &str, parts: &[P], mac: &[u8]) -> bool {
        let by = |key: &Vec<u8>| keyed(key, domain, parts).is_some_and(|own| own.verify_slice(mac).is_ok());
        self.keys.iter().any(by)
    }

    /// Opens a message: the pod must be `pod_uid`, and a report must answer `answers`. Whether its position is high
    /// enough is for the caller to say: only the caller knows what it has obeyed.
    pub fn open<T: Purpose + DeserializeOwned>(
        &self,
        pod_uid: &str,
        answers: Option<Position>,
        signed: &Signed,
    ) -> Result<T, VerifyError> {
        let mac = hex::decode(&signed.mac).map_err(|_| VerifyError::BadSignature)?;
        if !self.genuine(T::DOMAIN, &parts(signed), &mac) {
            return Err(VerifyError::BadSignature);
        }
        if signed.pod_uid != pod_uid {
            return Err(VerifyError::OtherPod {
                expected: pod_uid.to_owned(),
                found: signed.pod_uid.clone(),
            });
        }
        if signed.answers != answers {
            return Err(VerifyError::OtherQuestion);
        }
        serde_json::from_str(&signed.body).map_err(|error| VerifyError::BadBody(error.to_string()))
    }
}

/// All of a message that is signed.
fn parts(signed: &Signed) -> [Cow<'_, [u8]>; 4] {
    let (position, answers) = (place(Some(signed.position)), place(signed.answers));
    [signed.pod_uid.as_bytes().into(), position.into(), answers.into(), signed.body.as_bytes().into()]
}

/// Every part goes in behind its length, so that no two different messages have the same bytes.
fn keyed<P: AsRef<[u8]>>(key: &[u8], domain: &str, parts: &[P]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    let mut part = |bytes: &[u8]| {
        mac.update(&(bytes.len() as u64).to_be_bytes());
        mac.update(bytes);
    };
    part(domain.as_bytes());
    for bytes in parts {
        part(bytes.as_ref());
    }
    Some(mac)
}

fn place(position: Option<Position>) -> Vec<u8> {
    position.map_or_else(Vec::new, |p| [p.term.to_be_bytes(), p.sequence.to_be_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Directive, PoolRef, ServePermission};

    fn keys(seed: u8) -> PoolKeys {
        PoolKeys::new(vec![vec![seed; MIN_KEY_BYTES]]).unwrap()
    }

    fn directive() -> Directive {
        let pool = PoolRef { namespace: "llm".into(), name: "chat".into() };
        Directive {
            pool,
            plan: None,
            divisor: 2,
            serve: ServePermission::Granted,
            relief: false,
            retire: false,
        }
    }

    #[test]
    fn what_was_signed_opens_and_nothing_else_does() {
        let at = Position { term: 3, sequence: 9 };
        let signed = keys(1).sign("uid-a", at, &directive()).unwrap();
        assert_eq!(keys(1).open::<Directive>("uid-a", None, &signed), Ok(directive()));
        assert_eq!(keys(2).open::<Directive>("uid-a", None, &signed), Err(VerifyError::BadSignature));
        assert!(matches!(
            keys(1).open::<Directive>("uid-b", None, &signed),
            Err(VerifyError::OtherPod { .. })
        ));
        assert_eq!(keys(1).open::<crate::Report>("uid-a", None, &signed), Err(VerifyError::BadSignature));
    }

    #[test]
    fn a_second_key_verifies_while_it_rotates() {
        let old = keys(1).sign("uid", Position::default(), &directive()).unwrap();
        let both = PoolKeys::new(vec![vec![2; MIN_KEY_BYTES], vec![1; MIN_KEY_BYTES]]).unwrap();
        assert!(both.open::<Directive>("uid", None, &old).is_ok());
    }

    #[test]
    fn short_keys_and_no_keys_are_refused() {
        assert_eq!(PoolKeys::new(vec![]).unwrap_err(), BadKey);
        assert_eq!(PoolKeys::new(vec![vec![0; MIN_KEY_BYTES - 1]]).unwrap_err(), BadKey);
    }

    #[test]
    fn an_answer_to_another_question_is_refused() {
        let asked = Position { term: 1, sequence: 2 };
        let signed = keys(1).sign_answer("uid", asked, asked, &directive()).unwrap();
        let other = Some(Position { term: 1, sequence: 3 });
        assert_eq!(keys(1).open::<Directive>("uid", other, &signed), Err(VerifyError::OtherQuestion));
    }

    proptest! {
        #[test]
        fn any_change_breaks_the_signature(term in 0u64..3, at in 0usize..400, flip in 1u8..128) {
            let signed = keys(1).sign("uid", Position { term, sequence: 1 }, &directive()).unwrap();
            let mut text = serde_json::to_vec(&signed).unwrap();
            let place = at % text.len();
            text[place] ^= flip;
            if let Ok(changed) = serde_json::from_slice::<Signed>(&text)
                && (Signed { mac: changed.mac.to_ascii_lowercase(), ..changed.clone() }) != signed
            {
                prop_assert!(keys(1).open::<Directive>("uid", None, &changed).is_err());
            }
        }
    }
}
