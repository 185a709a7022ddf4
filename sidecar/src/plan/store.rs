//! The plan store: which plan is in force, among how many pods it is shared, and whether this pod may serve.
//!
//! Everything that changes these goes through here, and is on disk before it is acknowledged. It does I/O and compiles
//! under its lock: callers on an async thread hand it to a blocking one.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use corral_limiter::queue::Slots;
use corral_limiter::{Nanos, Plan, SwapSummary};
use corral_wire::{PlanDoc, PoolRef, Position, ServePermission};
use parking_lot::Mutex;
use tracing::{debug, info, warn};

use super::disk::{Kept, StateDir};
use super::read::{PlanError, compiled};
use crate::core::Core;
use crate::metrics::PlanSource;

/// The most bytes of an error that a report carries.
const MAX_ERROR_BYTES: usize = 512;

/// Which plan is in force, D, and the permission to serve.
pub struct PlanStore {
    core: Arc<Core>,
    pool: PoolRef,
    disk: Option<StateDir>,
    held: Mutex<Held>,
}

struct Held {
    doc: Option<PlanDoc>,
    serve: bool,
    obeyed: Position,
    /// When the last directive was obeyed, or the store opened.
    directed_at: Nanos,
    error: Option<String>,
    /// Something is not on disk that should be: the last write failed.
    unsaved: bool,
}

/// What a directive orders, with the plan still as it came.
#[derive(Debug)]
pub struct Orders {
    /// A newer plan, or what was meant to be one.
    pub plan: Option<Result<PlanDoc, PlanError>>,
    /// D.
    pub divisor: NonZeroU32,
    /// The permission to serve.
    pub serve: ServePermission,
    /// Whether the pod may be out of its Service for its load, for a lease from now. It is not kept: whoever starts
    /// anew is in.
    pub relief: bool,
    /// Whether the pod is to leave its Service because it is chosen to go, for a lease from now. It is not kept either.
    pub retire: bool,
}

/// What comes into force along with a plan.
#[derive(Debug, Clone, Copy)]
struct Terms {
    /// D.
    divisor: NonZeroU32,
    /// The slots of Ollama; none: as they are.
    slots: Option<Slots>,
}

/// A directive is not above what this pod has obeyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the position is not above what was obeyed")]
pub struct Behind;

/// What became of an offered plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offered {
    /// It is in force now.
    Taken,
    /// It was in force already, or a later one is.
    NotNewer,
    /// It cannot be enforced; the last good one stays.
    Refused(PlanError),
}

/// What a report says of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreView {
    /// The highest position obeyed.
    pub obeyed: Position,
    /// Whether the pod has been told to serve.
    pub serve: bool,
    /// Why the newest plan offered was not taken.
    pub plan_error: Option<String>,
}

impl Terms {
    fn of(divisor: NonZeroU32) -> Self {
        Self { divisor, slots: None }
    }
}

impl PlanStore {
    /// Opens the store of `pool`. With a folder, what an earlier life kept there is in force at once.
    pub fn open(core: Arc<Core>, pool: PoolRef, disk: Option<StateDir>) -> Self {
        let held = Held {
            doc: None,
            serve: false,
            obeyed: Position::default(),
            directed_at: core.clock().now(),
            error: None,
            unsaved: false,
        };
        let store = Self { core, pool, disk, held: Mutex::new(held) };
        match store.disk.as_ref().map(StateDir::load) {
            Some(Ok(Some(kept))) => store.restore(kept),
            Some(Err(error)) => {
                store.core.metrics.plan_refused(PlanSource::Disk);
                warn!(%error, "kept state is ignored");
            }
            Some(Ok(None)) | None => {}
        }
        store
    }

    fn restore(&self, kept: Kept) {
        let mut held = self.held.lock();
        held.obeyed = kept.obeyed;
        self.core.set_divisor(kept.divisor);
        if let Some(doc) = kept.plan {
            match compiled(&doc, &self.pool) {
                Ok(plan) => self.enforce(&mut held, doc, plan, Terms::of(kept.divisor)),
                Err(error) => {
                    self.core.metrics.plan_refused(PlanSource::Disk);
                    warn!(%error, "the kept plan is ignored");
                }
            }
        }
        if kept.serve {
            self.serve(&mut held);
        }
    }

    /// Offers a plan that did not come by a directive. `divisor` counts only as long as no directive was ever obeyed.
    pub fn offer(&self, doc: Result<PlanDoc, PlanError>, divisor: NonZeroU32, source: PlanSource) -> Offered {
        self.offer_on(Terms::of(divisor), doc, source)
    }

    /// Offers the plan of policy files, and the slots to have once it is in force.
    pub fn offer_with_slots(&self, doc: PlanDoc, slots: Slots) -> Offered {
        let terms = Terms { slots: Some(slots), ..Terms::of(NonZeroU32::MIN) };
        self.offer_on(terms, Ok(doc), PlanSource::File)
    }

    fn offer_on(&self, terms: Terms, doc: Result<PlanDoc, PlanError>, source: PlanSource) -> Offered {
        let mut held = self.held.lock();
        let divisor = if held.obeyed == Position::default() { terms.divisor } else { self.core.divisor() };
        let moved = divisor != self.core.divisor();
        if moved {
            self.core.set_divisor(divisor);
        }
        let same = doc.as_ref().ok() == held.doc.as_ref();
        let offered = self.consider(&mut held, doc, Terms { divisor, ..terms });
        match &offered {
            Offered::Taken => held.error = None,
            Offered::Refused(error) => self.complain(&mut held, error, source),
            Offered::NotNewer if same => held.error = None,
            Offered::NotNewer => {}
        }
        if moved || offered == Offered::Taken {
            self.keep(&mut held);
        }
        offered
    }

    /// Obeys a directive that is known to be genuine and for this pod.
    pub fn obey(&self, at: Position, orders: Orders) -> Result<(), Behind> {
        let mut held = self.held.lock();
        if at <= held.obeyed {
            return Err(Behind);
        }
        let before = (held.obeyed.term, held.serve, self.core.divisor());
        held.obeyed = at;
        held.directed_at = self.core.clock().now();
        self.core.desk.permit(orders.relief, held.directed_at);
        self.core.health.order_to_retire(orders.retire, held.directed_at);
        if orders.plan.is_none() {
            // The leader has seen that its newest plan is the one in force.
            held.error = None;
        }
        let taken = orders.plan.is_some_and(|plan| self.ordered(&mut held, plan, orders.divisor));
        if !taken {
            self.core.set_divisor(orders.divisor);
        }
        if orders.serve == ServePermission::Granted {
            self.serve(&mut held);
        }
        if taken || held.unsaved || before != (at.term, held.serve, orders.divisor) {
            self.keep(&mut held);
        } else {
            self.keep_position(&held);
        }
        Ok(())
    }

    /// Takes a plan that a directive carries. Unlike a mounted one, which lags by nature, it is expected to be newer:
    /// if it is not, the leader must hear of it.
    fn ordered(&self, held: &mut Held, plan: Result<PlanDoc, PlanError>, divisor: NonZeroU32) -> bool {
        let sequence = plan.as_ref().map_or(0, |doc| doc.sequence);
        let same = plan.as_ref().ok() == held.doc.as_ref();
        let error = match self.consider(held, plan, Terms::of(divisor)) {
            Offered::Taken => {
                held.error = None;
                return true;
            }
            Offered::NotNewer if same => {
                held.error = None;
                return false;
            }
            Offered::NotNewer => match held.doc.as_ref().map_or(0, |doc| doc.sequence) {
                in_force if in_force == sequence => PlanError::Conflict(sequence),
                in_force => PlanError::Behind { offered: sequence, held: in_force },
            },
            Offered::Refused(error) => error,
        };
        self.complain(held, &error, PlanSource::Exchange);
        false
    }

    fn consider(&self, held: &mut Held, doc: Result<PlanDoc, PlanError>, terms: Terms) -> Offered {
        let doc = match doc {
            Ok(doc) => doc,
            Err(error) => return Offered::Refused(error),
        };
        if held.doc.as_ref().is_some_and(|in_force| doc.sequence <= in_force.sequence) {
            return Offered::NotNewer;
        }
        match compiled(&doc, &self.pool) {
            Ok(plan) => {
                self.enforce(held, doc, plan, terms);
                Offered::Taken
            }
            Err(error) => Offered::Refused(error),
        }
    }

    fn enforce(&self, held: &mut Held, doc: PlanDoc, plan: Arc<Plan>, Terms { divisor, slots }: Terms) {
        let SwapSummary { fresh, gone } = self.core.take_plan_and_slots(plan, divisor, slots);
        let slots = self.core.gauges().slots;
        info!(
            sequence = doc.sequence,
            divisor,
            slots,
            fresh = fresh.len(),
            gone = gone.len(),
            "plan in force"
        );
        for (limit, unit) in fresh {
            debug!(%limit, %unit, "starts fresh");
        }
        held.doc = Some(doc);
        self.core.health.plan_accepted();
    }

    fn serve(&self, held: &mut Held) {
        if !held.serve {
            info!("told to serve");
        }
        held.serve = true;
        self.core.health.told_to_serve();
    }

    /// Tells an error once, however often the same plan is offered.
    fn complain(&self, held: &mut Held, error: &PlanError, source: PlanSource) {
        let text = shortened(&error.to_string());
        if held.error.as_ref() != Some(&text) {
            self.core.metrics.plan_refused(source);
            warn!(error = text, ?source, "a plan was refused; the last good one stays");
        }
        held.error = Some(text);
    }

    /// Notes why no plan could even be offered: its file is missing or unreadable.
    pub fn note_error(&self, error: &PlanError, source: PlanSource) {
        self.complain(&mut self.held.lock(), error, source);
    }

    /// Serves without having been told to: standalone at once, in a pod when nobody directs.
    pub fn serve_untold(&self) {
        let mut held = self.held.lock();
        if !held.serve {
            self.serve(&mut held);
            self.keep(&mut held);
        }
    }

    /// Serves if nobody has directed this pod for `patience`; else says when to ask again, or that it serves already. A
    /// pod that nobody counts replaces one that was: without an operator nothing else would ever make it ready.
    pub fn serve_if_undirected(&self, patience: Duration) -> Option<Nanos> {
        let due = {
            let held = self.held.lock();
            let patience = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
            (!held.serve).then(|| Nanos(held.directed_at.0.saturating_add(patience)))?
        };
        if self.core.clock().now() < due {
            return Some(due);
        }
        warn!("no directive has come; serving on the mounted plan and divisor");
        self.serve_untold();
        None
    }

    /// What a report says.
    pub fn view(&self) -> StoreView {
        let held = self.held.lock();
        StoreView { obeyed: held.obeyed, serve: held.serve, plan_error: held.error.clone() }
    }

    /// The pool that plans must be for.
    pub fn pool(&self) -> &PoolRef {
        &self.pool
    }

    /// The core that enforces.
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    fn keep(&self, held: &mut Held) {
        let Some(disk) = &self.disk else { return };
        let kept = disk.keep(held.doc.as_ref(), self.core.divisor(), held.serve, held.obeyed);
        held.unsaved = kept.is_err();
        self.saved(kept);
    }

    fn keep_position(&self, held: &Held) {
        let Some(disk) = &self.disk else { return };
        self.saved(disk.keep_position(held.obeyed));
    }

    /// A full disk stops no enforcement: the next directive tries again.
    fn saved(&self, written: std::io::Result<()>) {
        if let Err(error) = written {
            self.core.metrics.state_not_written();
            warn!(%error, "the accepted state could not be written; a restart would forget it");
        }
    }
}

/// Fits a report, however its JSON is escaped.
fn shortened(text: &str) -> String {
    let mut text = text.replace(char::is_control, " ");
    text.truncate(text.floor_char_boundary(MAX_ERROR_BYTES));
    text
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
