//! Values that Kubernetes writes as a number or as a string.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A whole number, or a string such as `25%` or `500m`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// A number of things, or of bytes.
    Int(i64),
    /// A percentage or a quantity, by the field it stands in.
    String(String),
}

impl fmt::Display for IntOrString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => number.fmt(f),
            Self::String(text) => text.fmt(f),
        }
    }
}
