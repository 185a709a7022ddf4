//! The fold from facts to readiness: a table, and nothing that happens over time.

use std::fmt;

use super::breaker::Circuit;
use super::upstream::Upstream;

/// All that bears on readiness.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts are independent of each other: every combination occurs"
)]
pub struct Facts {
    /// What is known about Ollama.
    pub upstream: Upstream,
    /// What is known about the runners behind Ollama.
    pub engine: Engine,
    /// Whether Ollama is sent anything.
    pub circuit: Circuit,
    /// A plan is in force.
    pub plan: bool,
    /// The pod has been counted, and told to serve.
    pub serve: bool,
    /// Ordered to leave the Service, because it is chosen to go.
    pub retiring: bool,
    /// Out of the Service for its load, as it is permitted to be.
    pub relief: Option<Relief>,
    /// A drain has begun, and this is whether the pod was ready then.
    pub ready_at_drain: Option<bool>,
    /// The drain has come to where new requests are refused.
    pub refusing: bool,
}

/// Whether the runners, which do Ollama's work, do it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Engine {
    /// Nothing speaks against it.
    #[default]
    Working,
    /// One has stopped, whatever Ollama itself answers.
    Stalled,
}

/// Why a pod is out of its Service though it serves: others can take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relief {
    /// More waits than can be served in time.
    Overloaded,
    /// All that it was sent waits for a model to load.
    ModelLoading,
}

/// Why a sidecar is not ready, in one word; [`Reason::Ready`] is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It is ready.
    Ready,
    /// Ollama has not answered yet.
    Starting,
    /// No plan was ever accepted.
    NoPlan,
    /// Only the permission to serve is missing.
    WaitingToServe,
    /// Ollama answered before, and does no more.
    OllamaDown,
    /// A runner has stopped working, though Ollama itself answers.
    Stalled,
    /// What Ollama is sent fails, so it is sent nothing for a while.
    BreakerOpen,
    /// It serves, and is chosen to go.
    Retiring,
    /// It serves, and more waits than can be served in time.
    Overloaded,
    /// It serves, and all that it was sent waits for a model to load.
    ModelLoading,
    /// A drain began while it was not ready.
    Draining,
}

impl Reason {
    /// Every reason, for metrics that show them all.
    pub const ALL: [Self; 11] = [
        Self::Ready,
        Self::Starting,
        Self::NoPlan,
        Self::WaitingToServe,
        Self::OllamaDown,
        Self::Stalled,
        Self::BreakerOpen,
        Self::Retiring,
        Self::Overloaded,
        Self::ModelLoading,
        Self::Draining,
    ];

    /// The word in reports and on `/readyz`; empty when ready.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ready => "",
            Self::Starting => "Starting",
            Self::NoPlan => "NoPlan",
            Self::WaitingToServe => "WaitingToServe",
            Self::OllamaDown => "OllamaDown",
            Self::Stalled => "Stalled",
            Self::BreakerOpen => "BreakerOpen",
            Self::Retiring => "Retiring",
            Self::Overloaded => "Overloaded",
            Self::ModelLoading => "ModelLoading",
            Self::Draining => "Draining",
        }
    }
}

impl From<Relief> for Reason {
    fn from(relief: Relief) -> Self {
        match relief {
            Relief::Overloaded => Self::Overloaded,
            Relief::ModelLoading => Self::ModelLoading,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What `/readyz` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readiness {
    /// Why not, or [`Reason::Ready`].
    pub reason: Reason,
}

impl Readiness {
    /// Whether it says yes.
    pub fn ready(self) -> bool {
        self.reason == Reason::Ready
    }
}

/// Why a request for inference is answered 503 at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unavailable {
    /// Ollama has not answered yet, or the pod has not been told to serve.
    Starting,
    /// No plan was ever accepted: without one there is no telling what is allowed.
    NoPlan,
    /// Ollama answered before, and does no more.
    OllamaDown,
    /// A runner has stopped working, though Ollama itself answers.
    Stalled,
    /// What Ollama is sent fails, so it is sent nothing for a while.
    BreakerOpen,
    /// The sidecar is about to end.
    Draining,
}

impl Unavailable {
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Starting => 1,
            Self::NoPlan => 2,
            Self::OllamaDown => 3,
            Self::Draining => 4,
            Self::Stalled => 5,
            Self::BreakerOpen => 6,
        }
    }

    pub(super) fn from_code(code: u8) -> Option<Self> {
        [Self::Starting, Self::NoPlan, Self::OllamaDown, Self::Draining, Self::Stalled, Self::BreakerOpen]
            .into_iter()
            .find(|u| u.code() == code)
    }
}

/// Facts to readiness. A drain freezes it: termination takes a pod out of its Service, and a probe must not.
pub fn fold(facts: Facts) -> Readiness {
    let reason = match facts {
        Facts { ready_at_drain: Some(false), .. } => Reason::Draining,
        Facts { ready_at_drain: Some(true), .. } => Reason::Ready,
        Facts { upstream: Upstream::Down, .. } => Reason::OllamaDown,
        Facts { upstream: Upstream::Starting, .. } => Reason::Starting,
        Facts { engine: Engine::Stalled, .. } => Reason::Stalled,
        Facts { circuit: Circuit::Open, .. } => Reason::BreakerOpen,
        Facts { plan: false, .. } => Reason::NoPlan,
        Facts { serve: false, .. } => Reason::WaitingToServe,
        Facts { retiring: true, .. } => Reason::Retiring,
        Facts { relief: Some(relief), .. } => relief.into(),
        Facts { relief: None, .. } => Reason::Ready,
    };
    Readiness { reason }
}

impl Facts {
    /// Why a request for inference is refused. A pod that was not counted into D serves nobody, however it was
    /// reached: what it let through would come on top of the pool's bound.
    pub(super) fn unavailable(self) -> Option<Unavailable> {
        match self {
            Self { refusing: true, .. } => Some(Unavailable::Draining),
            Self { plan: false, .. } => Some(Unavailable::NoPlan),
            Self { upstream: Upstream::Down, .. } => Some(Unavailable::OllamaDown),
            Self { upstream: Upstream::Starting, .. } | Self { serve: false, .. } => {
                Some(Unavailable::Starting)
            }
            Self { engine: Engine::Stalled, .. } => Some(Unavailable::Stalled),
            Self { circuit: Circuit::Open, .. } => Some(Unavailable::BreakerOpen),
            Self {
                upstream: Upstream::Up,
                plan: true,
                serve: true,
                refusing: false,
                engine: Engine::Working,
                circuit: Circuit::Closed | Circuit::HalfOpen,
                ..
            } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_of_facts_has_the_readiness_of_the_table() {
        use Upstream::{Down, Starting, Up};
        for (upstream, plan, serve, ready_at_drain, reason) in [
            (Starting, false, false, None, "Starting"),
            (Starting, true, true, None, "Starting"),
            (Up, false, false, None, "NoPlan"),
            (Up, false, true, None, "NoPlan"),
            (Up, true, false, None, "WaitingToServe"),
            (Up, true, true, None, ""),
            (Down, true, true, None, "OllamaDown"),
            (Down, false, false, None, "OllamaDown"),
            (Up, true, true, Some(true), ""),
            (Down, true, true, Some(true), ""),
            (Up, true, true, Some(false), "Draining"),
            (Starting, false, false, Some(false), "Draining"),
        ] {
            let facts = Facts { upstream, plan, serve, ready_at_drain, ..Facts::default() };
            assert_eq!(fold(facts).reason.word(), reason, "{facts:?}");
        }
    }

    #[test]
    fn nothing_is_served_without_all_three() {
        let all = Facts { upstream: Upstream::Up, plan: true, serve: true, ..Facts::default() };
        assert_eq!(all.unavailable(), None);
        assert_eq!(Facts { plan: false, ..all }.unavailable(), Some(Unavailable::NoPlan));
        assert_eq!(Facts { serve: false, ..all }.unavailable(), Some(Unavailable::Starting));
        assert_eq!(Facts { upstream: Upstream::Starting, ..all }.unavailable(), Some(Unavailable::Starting));
        assert_eq!(Facts { upstream: Upstream::Down, ..all }.unavailable(), Some(Unavailable::OllamaDown));
        assert_eq!(Facts { engine: Engine::Stalled, ..all }.unavailable(), Some(Unavailable::Stalled));
        assert_eq!(Facts { refusing: true, ..all }.unavailable(), Some(Unavailable::Draining));
        assert_eq!(Facts { ready_at_drain: Some(true), ..all }.unavailable(), None);
    }

    #[test]
    fn a_pod_out_for_its_load_serves_whoever_still_comes() {
        let serving = Facts { upstream: Upstream::Up, plan: true, serve: true, ..Facts::default() };
        for (relief, word) in [(Relief::Overloaded, "Overloaded"), (Relief::ModelLoading, "ModelLoading")] {
            let out = Facts { relief: Some(relief), ..serving };
            assert_eq!((fold(out).reason.word(), out.unavailable()), (word, None));
            assert_eq!(fold(Facts { upstream: Upstream::Down, ..out }).reason, Reason::OllamaDown);
            assert_eq!(
                fold(Facts { engine: Engine::Stalled, ..out }).reason,
                Reason::Stalled,
                "the graver is told"
            );
        }
    }

    #[test]
    fn a_retiring_pod_is_out_serves_whoever_still_comes_and_says_what_is_graver() {
        let serving = Facts { upstream: Upstream::Up, plan: true, serve: true, ..Facts::default() };
        let retiring = Facts { retiring: true, ..serving };
        assert_eq!((fold(retiring).reason.word(), retiring.unavailable()), ("Retiring", None));
        let overloaded = Facts { relief: Some(Relief::Overloaded), ..retiring };
        assert_eq!(
            fold(overloaded).reason,
            Reason::Retiring,
            "it does not come back when it has calmed down"
        );
        for (graver, reason) in [
            (Facts { upstream: Upstream::Down, ..retiring }, Reason::OllamaDown),
            (Facts { engine: Engine::Stalled, ..retiring }, Reason::Stalled),
            (Facts { circuit: Circuit::Open, ..retiring }, Reason::BreakerOpen),
            (Facts { serve: false, ..retiring }, Reason::WaitingToServe),
        ] {
            assert_eq!(fold(graver).reason, reason);
            assert!(graver.unavailable().is_some());
        }
        assert!(fold(Facts { ready_at_drain: Some(true), ..retiring }).ready(), "a drain has frozen it");
    }

    #[test]
    fn an_open_breaker_takes_the_pod_out_and_a_half_open_one_brings_it_back_for_a_trial() {
        let serving = Facts { upstream: Upstream::Up, plan: true, serve: true, ..Facts::default() };
        let open = Facts { circuit: Circuit::Open, ..serving };
        assert_eq!(
            (fold(open).reason.word(), open.unavailable()),
            ("BreakerOpen", Some(Unavailable::BreakerOpen))
        );
        let half_open = Facts { circuit: Circuit::HalfOpen, ..serving };
        assert_eq!((fold(half_open).ready(), half_open.unavailable()), (true, None));
        assert_eq!(fold(Facts { upstream: Upstream::Down, ..open }).reason, Reason::OllamaDown);
        assert_eq!(fold(Facts { engine: Engine::Stalled, ..open }).reason, Reason::Stalled);
        assert_eq!(fold(Facts { relief: Some(Relief::Overloaded), ..open }).reason, Reason::BreakerOpen);
    }

    #[test]
    fn codes_of_unavailability_go_both_ways() {
        for code in 1..=6 {
            assert_eq!(Unavailable::from_code(code).map(Unavailable::code), Some(code));
        }
        assert_eq!(Unavailable::from_code(0), None);
    }
}
