//! A Secret as a file has it: what `kubectl apply` takes, and not a word of its content in an error.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::Metadata;
use crate::{api_keys::Entries, valid::Problem};

/// A `v1` Secret.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SecretDocument {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    pub(super) metadata: Metadata,
    /// Opaque or not, it is read the same.
    #[serde(default, rename = "type")]
    _kind_of_data: Option<String>,
    #[serde(default, rename = "immutable")]
    _immutable: Option<bool>,
    #[serde(default)]
    data: BTreeMap<String, Text>,
    #[serde(default)]
    string_data: BTreeMap<String, Text>,
}

/// A value of a Secret. An error that tells what else was found might tell a key.
enum Text {
    Written(String),
    Other,
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Written(String),
            Other(IgnoredAny),
        }
        Ok(match Either::deserialize(source)? {
            Either::Written(text) => Self::Written(text),
            Either::Other(IgnoredAny) => Self::Other,
        })
    }
}

impl SecretDocument {
    /// Its entries as a cluster would keep them: `stringData` goes before `data`.
    pub(super) fn entries(&self) -> Result<Entries, Vec<Problem>> {
        let (mut entries, mut problems) = (Entries::new(), Vec::new());
        for (name, value) in &self.data {
            let bytes = match value {
                Text::Written(text) => decoded(text),
                Text::Other => None,
            };
            match bytes {
                Some(bytes) => drop(entries.insert(name.clone(), bytes)),
                None => problems.push(bad("data", name, "is not base64: write it under stringData instead")),
            }
        }
        for (name, value) in &self.string_data {
            match value {
                Text::Written(text) => drop(entries.insert(name.clone(), text.clone().into_bytes())),
                Text::Other => problems.push(bad("stringData", name, "is no text: put it in quotes")),
            }
        }
        if problems.is_empty() { Ok(entries) } else { Err(problems) }
    }
}

/// Base64, which YAML may have folded.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let plain: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    STANDARD.decode(plain).ok()
}

fn bad(field: &str, name: &str, why: &str) -> Problem {
    Problem { path: format!("{field}.{name}"), message: why.to_owned() }
}
