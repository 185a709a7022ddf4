//! Everything that is wrong with a plan, each with its path.

use std::fmt;

/// One thing that is wrong with a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct CompileError {
    /// Where, as in `limits[3].requests.burst`.
    pub path: String,
    /// What, in words for the author of the policy.
    pub message: String,
}

/// Everything that is wrong with a plan, in the order of the document; at least one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct CompileErrors(pub Vec<CompileError>);

impl fmt::Display for CompileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if place == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

/// Errors as they are found.
#[derive(Default)]
pub(super) struct Errors(pub(super) Vec<CompileError>);

impl Errors {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn add(&mut self, path: impl Into<String>, message: String) {
        self.0.push(CompileError { path: path.into(), message });
    }

    pub(super) fn check(&mut self, holds: bool, path: impl Into<String>, message: impl FnOnce() -> String) {
        if !holds {
            self.add(path, message());
        }
    }
}
