//! A request on its way through the limits: what is known of it, and what it holds.

use std::{net::IpAddr, sync::Arc};

use crate::{
    LimitInfo, ModelName, Nanos, Oversized, Refusal, Unit, judge::KnownKeys, key::BucketKey, meter::Charged,
};
use corral_wire::EndpointClass;

/// What the head of a request says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadFacts {
    /// Whom the request comes from: the TCP peer, or what trusted proxies say. An IPv4-mapped address counts as the
    /// IPv4 address it is, an IPv6 address by its /64.
    pub client_ip: IpAddr,
    /// Whose API key it has, of those that the plan knows.
    pub client: Option<Arc<KnownClient>>,
    /// What it asks for.
    pub endpoint: EndpointClass,
    /// The path as the API has it.
    pub path: &'static str,
    /// Values of the headers that the plan asks for, [`crate::Plan::headers`], by their names in lower case.
    pub headers: Vec<(Box<str>, Box<str>)>,
}

impl HeadFacts {
    /// Without a key, and without headers that limits ask for.
    pub const fn new(client_ip: IpAddr, endpoint: EndpointClass, path: &'static str) -> Self {
        Self { client_ip, client: None, endpoint, path, headers: Vec::new() }
    }
}

/// A client with an API key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KnownClient {
    /// As the person who runs the pool calls it.
    pub name: String,
    /// Its tier, if it has one of its own.
    pub tier: Option<String>,
}

/// What the body of a request says.
#[derive(Debug, Clone, Copy, Default)]
pub struct BodyFacts<'a> {
    /// The model; none when the request names none. A limit that lists models then never matches; a limit kept per
    /// model counts it under `-`.
    pub model: Option<&'a ModelName>,
    /// What it will probably cost.
    pub estimate: Usage,
    /// Whether it would have to wait for a slot if its limits let it in: the queue knows. Only then are `queued` and
    /// `queuedTokens` asked; they are held until [`crate::Limiter::started`].
    pub waits: bool,
}

/// What a request costs beside itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub input: u64,
    /// Tokens of the answer.
    pub output: u64,
    /// For how long it holds a slot.
    pub slot: Nanos,
}

impl Usage {
    /// What a request of this usage costs in permits of a unit: requests cost 1.
    pub(crate) fn permits(&self, unit: Unit) -> u64 {
        match unit {
            Unit::Requests | Unit::Concurrency | Unit::Queued => 1,
            Unit::Tokens => self.input.saturating_add(self.output),
            Unit::InputTokens | Unit::QueuedTokens => self.input,
            Unit::OutputTokens => self.output,
            Unit::SlotSeconds => self.slot.millis_ceil(),
        }
    }
}

/// On what terms a request is let in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    /// How long from now it must wait before it may join the queue.
    pub delay: Nanos,
    /// It may only have a slot that nobody else wants.
    pub is_deprioritized: bool,
    /// Limits are still to be asked when a slot is there for it, by [`crate::Limiter::dispatch`]; for so long from now at
    /// most. None: all have been asked.
    pub asks_again_for: Option<Nanos>,
}

impl Terms {
    /// Whether a limit makes it wait, or may.
    pub fn hold_up(&self) -> bool {
        self.delay > Nanos::ZERO || self.asks_again_for.is_some()
    }
}

/// What one request holds. Hand it back by [`crate::Limiter::finish`], `abandon` or `bad_request`, exactly one of
/// them: a ticket that is dropped keeps its place in every concurrency limit for ever.
#[derive(Debug)]
#[must_use = "a ticket that is dropped keeps its guards for ever"]
pub struct Ticket(pub(crate) Box<Holding>);

/// What a ticket stands for: in one place for life, for a request passes through many hands.
#[derive(Debug)]
pub(crate) struct Holding {
    pub(crate) head: HeadFacts,
    pub(crate) phase: Phase,
    pub(crate) held: Vec<Held>,
    /// The keys that it was decided by so far, and under which plan.
    pub(crate) keys: KnownKeys,
    pub(crate) keys_of: u64,
    pub(crate) would_refuse: Vec<Arc<LimitInfo>>,
    /// What the body said, where it is asked for after the commit.
    pub(crate) model: Option<ModelName>,
    pub(crate) estimate: Usage,
    /// Since when it is committed.
    pub(crate) since: Nanos,
    pub(crate) terms: Terms,
    pub(crate) is_pending: bool,
}

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Entered,
    Committed,
    Refused,
}

/// Something that a limit gave to a request.
#[derive(Debug)]
pub(crate) struct Held {
    /// Where the limit stood in the plan then; a hint, for plans change.
    pub(crate) place: usize,
    /// Which meter or guards gave it.
    pub(crate) birth: u64,
    pub(crate) key: BucketKey,
    pub(crate) unit: Unit,
    /// How much, in permits.
    pub(crate) amount: u64,
    /// None for a guard.
    pub(crate) charge: Option<Charged>,
}

impl Holding {
    pub(crate) fn new(head: HeadFacts) -> Self {
        Self {
            head,
            phase: Phase::Entered,
            held: Vec::new(),
            keys: KnownKeys::new(),
            keys_of: 0,
            would_refuse: Vec::new(),
            model: None,
            estimate: Usage::default(),
            since: Nanos::ZERO,
            terms: Terms::default(),
            is_pending: false,
        }
    }
}

impl Ticket {
    /// Held things and keys for which a ticket has room that is kept: more are rare, and not worth the memory.
    const MOST_ROOM: usize = 64;

    /// Makes it the ticket of another request, in the memory of the one before.
    #[inline]
    pub(crate) fn renewed(mut self, head: &HeadFacts) -> Self {
        let holding = &mut *self.0;
        holding.phase = Phase::Entered;
        holding.head.client_ip = head.client_ip;
        holding.head.client.clone_from(&head.client);
        holding.head.endpoint = head.endpoint;
        holding.head.path = head.path;
        holding.head.headers.clone_from(&head.headers);
        self
    }

    /// One that was handed back and holds nothing any more, emptied so that it keeps nobody's data; none when it is too
    /// large to keep.
    pub(crate) fn emptied(mut self) -> Option<Self> {
        let holding = &mut *self.0;
        if holding.held.capacity().max(holding.keys.capacity()) > Self::MOST_ROOM {
            return None;
        }
        holding.head.client = None;
        holding.head.headers.clear();
        holding.held.clear();
        holding.keys.clear();
        holding.keys_of = 0;
        holding.would_refuse.clear();
        holding.model = None;
        holding.estimate = Usage::default();
        holding.since = Nanos::ZERO;
        holding.terms = Terms::default();
        holding.is_pending = false;
        Some(self)
    }

    /// After a commit that went through: the terms on which it did.
    pub fn terms(&self) -> &Terms {
        &self.0.terms
    }

    /// After a commit that went through: whether limits are still to be asked when a slot is there for it, by
    /// [`crate::Limiter::dispatch`].
    pub fn is_pending(&self) -> bool {
        self.0.is_pending
    }

    /// While it [`Self::is_pending`]: until when its limits let it wait at most; then ask [`crate::Limiter::overdue`].
    pub fn deadline(&self) -> Option<Nanos> {
        self.0.terms.asks_again_for.filter(|_| self.0.is_pending).map(|patience| self.0.since.plus(patience))
    }

    /// What the head said.
    pub fn head(&self) -> &HeadFacts {
        &self.0.head
    }

    /// After a commit that went through: the shadow limits that would have refused.
    pub fn would_refuse(&self) -> &[Arc<LimitInfo>] {
        &self.0.would_refuse
    }
}

/// Why a request that [`Ticket::is_pending`] may not start now. Nothing was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// The limit with the longest wait.
    pub limit: Arc<LimitInfo>,
    /// Of what it has too much.
    pub unit: Unit,
    /// How long it must wait at least; none: until another request ends, whenever that is.
    pub wait: Option<Nanos>,
    /// The bucket that lacks permits: if nothing else is in its way, requests behind it should take nothing from it,
    /// [`crate::Limiter::draws_on`]. None for what counts at one time, where a blocked request blocks nobody.
    pub bucket: Option<BucketId>,
}

/// Tells one bucket from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BucketId {
    pub(crate) birth: u64,
    pub(crate) key: BucketKey,
}

/// Why a commit did not go through. Nothing was charged, and every guard is given back.
#[derive(Debug, PartialEq, Eq)]
pub enum CommitError<E> {
    /// A limit is exceeded.
    Refused(Refusal),
    /// A limit will never admit it.
    Oversized(Oversized),
    /// All limits would admit; the arrival check said no.
    Arrival(E),
}
