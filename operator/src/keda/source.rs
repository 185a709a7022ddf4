//! What is known of a pool, and where it comes from.

use corral_wire::PoolRef;

/// Tells the numbers of pools, from memory.
pub trait PoolNumbers: Send + Sync + 'static {
    /// Those of one pool, now.
    fn of(&self, pool: &PoolRef) -> Result<Numbers, NoNumbers>;
}

/// The numbers of a pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Numbers {
    /// How many pods it should have.
    pub desired: Desired,
    /// Requests that wait for a slot in its pods.
    pub queued: u32,
    /// Requests that hold a slot.
    pub in_flight: u32,
    /// Requests that are held for it while it has no pod that could answer; 0 where nothing holds any.
    pub held: u32,
    /// How many requests one of its pods answers at one time.
    pub slots_per_pod: u32,
    /// Pods that are ready.
    pub ready: u32,
    /// Those of them that do not say what they do.
    pub silent: u32,
    /// Whether requests came within the last minute, which may all be answered.
    pub recent: bool,
}

/// How many pods a pool should have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Desired {
    /// So many: what the operator makes true in mode `Builtin`, and what it would ask for in mode `External`.
    Pods(u32),
    /// It was not worked out yet, or cannot be.
    #[default]
    Unknown,
    /// Nobody works it out: the pool is in mode `Disabled`.
    Disabled,
}

/// Why there are no numbers of a pool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoNumbers {
    /// Another replica hears of the pods, or soon will.
    #[error("this replica of the operator does not lead; ask again")]
    NotLeading,
    /// Nothing is known of its pods yet.
    #[error("nothing was heard of the pods of OllamaPool {}/{} yet; ask again", .0.namespace, .0.name)]
    NotYet(PoolRef),
    /// There is no such pool, as far as the operator sees.
    #[error(
        "metadata.pool: no OllamaPool {} in namespace {}, or its namespace is none that the operator watches",
        .0.name, .0.namespace
    )]
    Unknown(PoolRef),
    /// It is there, and its spec cannot be read.
    #[error("metadata.pool: OllamaPool {}/{} cannot be read; see its status", .0.namespace, .0.name)]
    Unreadable(PoolRef),
}
