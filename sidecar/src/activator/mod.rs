//! The activator of a pool that scales to zero: it has the Service's traffic while no pod is ready.
//!
//! ```text
//! client ─ server ─ activator::request ─ hold ─ forward ─▶ a pod's client port
//!                                         ▲
//! operator ─ Duty: ready pods ─ duty ─────┘      operator ◀─ Holding: what is held
//! ```
//!
//! It is the sidecar with another middle. What is wrong with a request by itself is refused here, in the words in which a
//! pod would refuse it, so that nobody starts a pod with nonsense. All else is held within bounds, charged for nothing,
//! and handed on in order to pods that are ready, with the address of its client signed: the pod takes it for its own.
//!
//! | request | while no pod is ready |
//! | --- | --- |
//! | inference, and what is asked about models | is held, and so asks for a pod |
//! | `GET /` and `HEAD /` | are answered here: load balancers ask for ever, and must not keep a pod for it |
//! | `GET /corral/v1/limits` | 503 |
//!
//! What a pod does not take goes back to its place in the line: so nothing is lost when pods go away just as a request
//! comes. That is where it cannot be reached, or says that it serves nobody just now and has charged nobody; any other
//! answer is the client's. While a pod can be had requests are only passed on, whoever still waits here: its queue is the
//! fair one.
//!
//! A pod is known by the word of the operator, and from then on by its own answers: see `probe`.

mod duty;
mod forward;
mod hold;
mod line;
mod not_held;
mod pods;
mod probe;
mod reply;
mod request;
pub mod run;

use std::future::Future;
use std::sync::Arc;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;

pub use duty::Activation;
pub use hold::{Hold, HoldGauges};
pub(crate) use not_held::NotHeld;
#[cfg(test)]
pub(crate) use not_held::Why;

use crate::core::Core;
use crate::proxy::inspect::BodyBudget;
use crate::proxy::{Connection, Dice, ProxySettings};
use crate::server::Host;
use reply::Reply;

/// What all requests to an activator share.
pub(crate) struct Activator {
    core: Arc<Core>,
    settings: ProxySettings,
    dice: Dice,
    budget: BodyBudget,
    /// The same of a body that is held.
    held: ProxySettings,
    held_budget: BodyBudget,
    hold: Arc<Hold>,
}

impl Activator {
    pub(crate) fn new(core: Arc<Core>, settings: ProxySettings, hold: Arc<Hold>) -> Self {
        let budget = BodyBudget::new(settings.body_budget_bytes);
        let bounds = hold.bounds();
        let max_body_bytes = usize::try_from(bounds.max_body_bytes).unwrap_or(usize::MAX);
        let of_held = ProxySettings { max_body_bytes, ..settings.clone() };
        // As much may be read as may wait.
        let most = usize::try_from(bounds.max_bytes.saturating_mul(2)).unwrap_or(usize::MAX);
        Self {
            core,
            settings,
            dice: Dice::new(),
            budget,
            held: of_held,
            held_budget: BodyBudget::new(most),
            hold,
        }
    }

    /// How much room a body asks for that would have to be held: what it announces, or the most that it may have.
    fn room_of(&self, body: &impl Body) -> u64 {
        let bounds = self.hold.bounds();
        body.size_hint().exact().unwrap_or(bounds.max_body_bytes.min(bounds.max_bytes))
    }
}

impl Host for Activator {
    type Body = Reply;

    fn core(&self) -> &Arc<Core> {
        &self.core
    }

    fn settings(&self) -> &ProxySettings {
        &self.settings
    }

    fn dice(&self) -> &Dice {
        &self.dice
    }

    fn answer(
        self: Arc<Self>,
        connection: Arc<Connection>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Reply>> + Send {
        request::handle(self, connection, request)
    }

    async fn watch(self: Arc<Self>) {
        tokio::join!(self.hold.watch(|| self.core.health.draining()), probe::watch(&self));
    }
}
