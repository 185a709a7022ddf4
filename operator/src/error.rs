//! What stops a reconcile, and what follows from it.

use corral_crds::condition::Reason;

use crate::answer::{is_conflict, is_refusal, names_unknown_field, said};
use crate::apply::ApplyError;
use crate::policy::plan::NoPlan;
use crate::pool::build::BuildError;
use crate::pool::revision::stored::Unreadable;
use crate::pool::validate::InvalidPool;

/// What stops a reconcile.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pool breaks a rule.
    #[error(transparent)]
    Pool(#[from] InvalidPool),
    /// Its objects cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The revision that its pods are of cannot be read.
    #[error(transparent)]
    Revision(#[from] Unreadable),
    /// An object could not be written.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The API server refused, or was not there.
    #[error("the API server: {}", said(.0))]
    Kube(#[source] Box<kube::Error>),
    /// The pool's keys are no keys.
    #[error("Secret {0}: {1}")]
    Keys(String, #[source] corral_wire::BadKey),
    /// No randomness for a key.
    #[error("no randomness: {0}")]
    Random(#[from] getrandom::Error),
    /// There is no plan, old or new.
    #[error(transparent)]
    Plan(#[from] NoPlan),
    /// An object could not be written as JSON.
    #[error("an object could not be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// It took too long as a whole.
    #[error("the reconcile did not end in time")]
    Timeout,
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        Self::Kube(Box::new(error))
    }
}

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Only a change of the object helps.
    Invalid,
    /// Somebody was faster: look again at once.
    Conflict,
    /// It may go better next time.
    Transient,
}

impl Error {
    /// What to do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::Pool(_) | Self::Build(_) | Self::Revision(_) | Self::Plan(NoPlan::Never(_)) => {
                Class::Invalid
            }
            Self::Apply(ApplyError::Overtaken) => Class::Conflict,
            Self::Apply(ApplyError::Kube(error)) | Self::Kube(error) if is_conflict(error) => Class::Conflict,
            // A name that is taken may become free without a word.
            _ => Class::Transient,
        }
    }

    /// The reason a pool's condition gives; none for what passes by itself and is no news to a user.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Pool(_) | Self::Plan(NoPlan::Never(_)) => Some(Reason::InvalidSpec),
            Self::Build(BuildError::Template(_)) => Some(Reason::TemplateInvalid),
            Self::Revision(_) => Some(Reason::RevisionUnreadable),
            Self::Apply(ApplyError::Foreign { .. }) => Some(Reason::NameConflict),
            Self::Apply(ApplyError::Kube(error)) if names_unknown_field(error) => {
                Some(Reason::TemplateInvalid)
            }
            Self::Apply(ApplyError::Kube(error)) | Self::Kube(error) => {
                is_refusal(error).then_some(Reason::Failed)
            }
            Self::Build(BuildError::Json(_))
            | Self::Keys(..)
            | Self::Random(_)
            | Self::Plan(NoPlan::Json(_))
            | Self::Json(_) => Some(Reason::Failed),
            Self::Apply(
                ApplyError::OwnerGone(_)
                | ApplyError::NotLeading
                | ApplyError::Overtaken
                | ApplyError::Json(_),
            )
            | Self::Timeout => None,
        }
    }

    /// The label of a metric: one word of a few.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Pool(_) | Self::Plan(_) => "invalid_spec",
            Self::Build(_) => "invalid_template",
            Self::Revision(_) => "revision",
            Self::Apply(ApplyError::Foreign { .. }) => "name_conflict",
            Self::Apply(ApplyError::Overtaken) => "overtaken",
            Self::Apply(_) | Self::Kube(_) => "api",
            Self::Keys(..) => "keys",
            Self::Random(_) | Self::Json(_) => "internal",
            Self::Timeout => "timeout",
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn answered(code: u16, message: &str) -> Error {
        let status = Status { code, message: message.to_owned(), ..Status::default() };
        Error::Apply(ApplyError::from(kube::Error::Api(Box::new(status))))
    }

    #[test]
    fn a_field_that_the_server_does_not_know_is_the_templates_fault_and_told_in_its_words() {
        let words = "failed to create typed patch object: .spec.template.spec.nodeselector: field not declared in schema";
        let error = answered(500, words);
        assert_eq!(error.reason(), Some(Reason::TemplateInvalid));
        assert_eq!(error.to_string(), format!("the API server: {words}"));
        assert_eq!(answered(500, "etcdserver: request timed out").reason(), None);
        assert_eq!(answered(422, "name: Required value").reason(), Some(Reason::Failed));
    }
}
