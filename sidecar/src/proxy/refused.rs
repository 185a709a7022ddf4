//! Every reason for which a request is not answered by Ollama.

use corral_limiter::{Nanos, Oversized, Refusal, Retry};
use http::StatusCode;

use super::admission::{Denied, Shedding};
use super::api_key::NoClient;
use super::cross_site::CrossSite;
use super::head::HeadFault;
use super::inspect::{BadBody, BodyFault, ModelFault};
use super::route::RouteFault;
use crate::activator::NotHeld;
use crate::health::Unavailable;
use crate::metrics::{Outcome, RefusedBy};

/// Why a request is refused. [`super::respond`] turns each into an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error(transparent)]
    Head(#[from] HeadFault),
    #[error(transparent)]
    CrossSite(#[from] CrossSite),
    #[error(transparent)]
    Route(#[from] RouteFault),
    #[error("{}", super::wording::unauthenticated(*.0))]
    Unauthenticated(NoClient),
    #[error("an encoded body cannot be inspected: send it without Content-Encoding")]
    Encoded,
    #[error("this endpoint takes no body")]
    UnwantedBody,
    #[error(transparent)]
    Body(#[from] BodyFault),
    #[error(transparent)]
    Content(#[from] BadBody),
    #[error("{}", super::wording::limits(.0))]
    Limit(Refusal),
    #[error("{}", super::wording::oversized(.0))]
    Oversized(Oversized),
    #[error("{}", super::wording::shed(.0))]
    Shed(Shedding),
    #[error("{}", super::wording::unavailable(*.0))]
    Unavailable(Unavailable),
    /// The breaker is open, for so long still; 0: it may be tried just now, by somebody else.
    #[error("{}", super::wording::unavailable(Unavailable::BreakerOpen))]
    Shut { wait: Nanos },
    #[error("Ollama did not answer.")]
    NoAnswer,
    /// By an activator, while no pod is ready.
    #[error("{0}")]
    NotHeld(NotHeld),
}

impl From<Denied> for Refused {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Limit(refusal) => Self::Limit(refusal),
            Denied::Oversized(oversized) => Self::Oversized(oversized),
            Denied::Shed(shedding) => Self::Shed(shedding),
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::Limit(refusal)
    }
}

impl From<ModelFault> for Refused {
    fn from(fault: ModelFault) -> Self {
        Self::Content(fault.into())
    }
}

/// What kind of error a client is told; each API family has its own words for these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Invalid,
    TooLarge,
    Unauthenticated,
    Forbidden,
    NotFound,
    /// By a limit of tokens, or by any other.
    RateLimited {
        tokens: bool,
    },
    Overloaded,
    Unavailable,
}

/// A guess for whoever comes too early for Ollama; many are told the same.
pub(crate) fn about(wait: Nanos) -> Retry {
    Retry { wait, estimate: true, shared: true, split: false }
}

impl Refused {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Head(HeadFault::Version) => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Head(HeadFault::TooLarge) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Head(HeadFault::Expectation) => StatusCode::EXPECTATION_FAILED,
            Self::Head(HeadFault::Vouched) => StatusCode::MISDIRECTED_REQUEST,
            Self::Route(RouteFault::Unknown) => StatusCode::NOT_FOUND,
            Self::Route(RouteFault::Method { .. }) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::CrossSite(_)
            | Self::Route(RouteFault::Closed)
            | Self::Content(BadBody::Model(ModelFault::Cloud)) => StatusCode::FORBIDDEN,
            Self::Head(_)
            | Self::Route(_)
            | Self::UnwantedBody
            | Self::Oversized(_)
            | Self::Content(_)
            | Self::Body(BodyFault::Broken) => StatusCode::BAD_REQUEST,
            Self::Encoded => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Body(BodyFault::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Body(BodyFault::TooSlow) => StatusCode::REQUEST_TIMEOUT,
            Self::Body(BodyFault::NoRoom) | Self::Limit(_) | Self::Shed(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable(_) | Self::Shut { .. } | Self::NoAnswer | Self::NotHeld(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Limit(refusal) => Kind::RateLimited { tokens: super::wording::is_of_tokens(refusal) },
            Self::Shed(_) | Self::Body(BodyFault::NoRoom) => Kind::Overloaded,
            Self::Unavailable(_) | Self::Shut { .. } | Self::NoAnswer | Self::NotHeld(_) => Kind::Unavailable,
            Self::Unauthenticated(_) => Kind::Unauthenticated,
            Self::Body(BodyFault::TooLarge { .. }) => Kind::TooLarge,
            _ => match self.status() {
                StatusCode::FORBIDDEN => Kind::Forbidden,
                StatusCode::NOT_FOUND => Kind::NotFound,
                _ => Kind::Invalid,
            },
        }
    }

    /// When to come back; none where the same request will never do.
    pub(crate) fn retry(&self) -> Option<Retry> {
        let about = |wait| Some(about(wait));
        match self {
            Self::Limit(refusal) => Some(refusal.retry),
            Self::Shed(shedding) => about(shedding.shed.estimated_wait),
            Self::Body(BodyFault::NoRoom) | Self::Unavailable(Unavailable::Draining) => {
                about(Nanos::from_secs(1))
            }
            Self::Unavailable(_) => about(Nanos::from_secs(5)),
            Self::NoAnswer => about(Nanos::from_secs(2)),
            Self::NotHeld(not_held) => not_held.wait.and_then(about),
            Self::Shut { wait } => about((*wait).max(Nanos::from_secs(1))),
            _ => None,
        }
    }

    /// Whether the connection is worth nothing any more, or another pod is the better place to try.
    pub(crate) fn closes(&self) -> bool {
        match self {
            Self::Head(_) | Self::Body(_) | Self::UnwantedBody | Self::Unavailable(Unavailable::Draining) => {
                true
            }
            _ => self.retry().is_some_and(|retry| retry.split),
        }
    }

    /// Whether the same request would be refused again, whenever it comes.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Oversized(_))
    }

    /// Whether the request itself is at fault, and is charged for the work it made.
    pub(crate) fn is_bad_request(&self) -> bool {
        matches!(self, Self::Encoded | Self::UnwantedBody | Self::Content(_))
            || matches!(self, Self::Body(fault) if *fault != BodyFault::NoRoom)
    }

    /// What became of the request, as the metrics name it.
    pub(crate) fn outcome(&self) -> Outcome {
        match self.reason() {
            None => Outcome::Limited,
            Some(RefusedBy::Shed(reason)) => Outcome::Shed(reason),
            Some(RefusedBy::NoRoom) => Outcome::NoRoom,
            Some(RefusedBy::Unavailable) => Outcome::Unavailable,
            Some(RefusedBy::Unauthenticated) => Outcome::Unauthenticated,
            Some(RefusedBy::BadRequest) => Outcome::Invalid,
        }
    }

    /// As the metrics name it; none for a limit, which counts for itself.
    pub(crate) fn reason(&self) -> Option<RefusedBy> {
        match self {
            Self::Limit(_) | Self::Oversized(_) => None,
            Self::Shed(shedding) => Some(RefusedBy::Shed(shedding.reason())),
            Self::Body(BodyFault::NoRoom) => Some(RefusedBy::NoRoom),
            Self::Unavailable(_) | Self::Shut { .. } | Self::NoAnswer | Self::NotHeld(_) => {
                Some(RefusedBy::Unavailable)
            }
            Self::Unauthenticated(_) => Some(RefusedBy::Unauthenticated),
            _ => Some(RefusedBy::BadRequest),
        }
    }
}
