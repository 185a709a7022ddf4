//! What each pool's plan came from: which policies, in which generation, and what became of each.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use corral_crds::merge::PolicyOutcome;
use corral_crds::valid::Problem;
use corral_limiter::Plan;
use corral_wire::{PlanState, PoolRef};
use futures::channel::mpsc::UnboundedReceiver;
use parking_lot::Mutex;

use crate::listeners::Listeners;

/// What came of one policy in a pool's plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The UID of the policy that was merged: another may bear its name by now.
    pub uid: Option<String>,
    /// The generation of the policy that was merged.
    pub generation: i64,
    /// What came of it.
    pub outcome: PolicyOutcome,
    /// The priorities that are in the plan because of it, in short.
    pub priorities: Option<String>,
}

/// What a pool's plan came from.
#[derive(Debug, Clone)]
pub struct Record {
    /// The plan that was written.
    pub state: PlanState,
    /// The same, compiled.
    pub plan: Arc<Plan>,
    /// The policies, by name.
    pub policies: BTreeMap<String, Share>,
    /// What is wrong with the pool's part of it, or with the whole; the last plan stays then.
    pub problems: Vec<Problem>,
    /// What of the pool's API keys does not count, and why.
    pub unresolved: Vec<Problem>,
}

impl Record {
    fn says_the_same(&self, other: &Self) -> bool {
        let told = |record: &Self| (record.state.clone(), record.problems.clone(), record.unresolved.clone());
        told(self) == told(other) && self.policies == other.policies
    }
}

/// The records of all pools.
#[derive(Debug, Default)]
pub struct Records {
    all: Mutex<HashMap<PoolRef, Arc<Record>>>,
    terms: Mutex<HashMap<PoolRef, u64>>,
    listeners: Listeners,
}

impl Records {
    /// The record of a pool, once there is one.
    pub fn get(&self, pool: &PoolRef) -> Option<Arc<Record>> {
        self.all.lock().get(pool).cloned()
    }

    /// Notes what a pool's plan came from, and tells whoever listens if that is news.
    pub fn put(&self, pool: &PoolRef, record: Record) {
        let record = Arc::new(record);
        let old = self.all.lock().insert(pool.clone(), Arc::clone(&record));
        if !old.is_some_and(|old| old.says_the_same(&record)) {
            self.listeners.tell(pool);
        }
    }

    /// The term that this leader took for a pool; none before it did.
    pub fn term(&self, pool: &PoolRef) -> Option<u64> {
        self.terms.lock().get(pool).copied()
    }

    /// Notes the term that this leader took for a pool.
    pub fn take_term(&self, pool: &PoolRef, term: u64) {
        self.terms.lock().insert(pool.clone(), term);
    }

    /// Drops the records of pools that are gone.
    pub fn retain(&self, keep: impl Fn(&PoolRef) -> bool) {
        self.all.lock().retain(|pool, _| keep(pool));
        self.terms.lock().retain(|pool, _| keep(pool));
    }

    /// Names every pool whose record changes from now on.
    pub fn changes(&self) -> UnboundedReceiver<PoolRef> {
        self.listeners.listen()
    }
}
