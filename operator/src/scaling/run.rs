//! The loop of a scope: looks at its pools, orders pods to retire, has deletion costs written, and wakes reconcilers for the
//! rest. One task for all pools: what may take long, the writing, is polled beside the looking.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use corral_crds::OllamaPool;
use corral_crds::pool::ScalingMode;
use corral_wire::PoolRef;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{self, FuturesUnordered, select};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::act::{self, Due};
use super::backends;
use super::conflict::{self, SecondWriters};
use super::moment::Present;
use super::settings;
use super::{Facts, Look};
use crate::apply::Writer;
use crate::context::{Context, GuardedPool};
use crate::pool::observe;
use crate::pool::validate::ValidPool;
use crate::scope::Scope;

/// From one look at every pool to the next.
pub const EVERY: Duration = Duration::from_secs(2);
/// How soon a deletion cost is written again that could not be written, or of which the watch does not tell: it may be late,
/// or have lost the event, or somebody else was quick.
const AGAIN: Duration = Duration::from_secs(10);
/// How soon, if it was seen as it must be, and then was not: somebody else writes it too.
const RIVAL: Duration = Duration::from_secs(2);
/// The most deletion costs of one pool that are written at one time.
const PARALLEL: usize = 8;
/// What comes within this time of each other is one occasion to look.
const TOGETHER: Duration = Duration::from_millis(100);

/// Looks at one pool: pods that shall go hear so at once, and what is to be written is returned.
pub fn look(ctx: &Context, pool: &ValidPool, seen: &OllamaPool, pods: &[Arc<Pod>]) -> Look {
    let _turn = ctx.scalings.turn.lock();
    let (reference, started) = (pool.reference(), ctx.clock.now());
    let activators = ctx.activations.look(&reference, &pool.uid, backends::outlook(pods));
    let facts = Facts {
        activators: activators.clone().unwrap_or_default(),
        pool,
        status: seen.status.as_ref(),
        pods,
        heard: ctx.exchange.heard(&reference),
        present: Present { now: started, wall: ctx.clock.wall() },
    };
    let mut look = ctx.scalings.look(&facts);
    ctx.exchange.retire(&reference, look.decision.retire.clone());
    if activators.is_some() {
        let (backends, left) = backends::of(pods, &facts.heard, Some(&look.decision), facts.present);
        ctx.activations.tell(&reference, backends, left);
        look.news |= ctx.activations.leave(&reference, look.decision.desired == 0);
    }
    ctx.metrics.sized(&reference, &look.decision, ctx.clock.now().saturating_sub(started));
    if look.decision.wrong_victim > 0 {
        let pods = look.decision.wrong_victim;
        tracing::warn!(pool = %reference.name, pods, "pods went that were not chosen to go");
    }
    look
}

/// Looks at the pools of a scope for as long as it is polled; `wake` has a pool reconciled.
pub async fn run(scope: Scope, ctx: Arc<Context>, wake: impl Fn(ObjectRef<GuardedPool>)) {
    let mut stirs = select(select(ctx.exchange.stirs(), ctx.activations.stirs()), ctx.scalings.stirs());
    ctx.stores.ready().await;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (work, writing, written) = (FuturesUnordered::new(), HashSet::new(), HashMap::new());
    let mut eyes = Eyes { scope, ctx, wake, work, writing, written, next: None };
    let mut stirred = HashSet::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => eyes.look_at_all(),
            Some(pool) = stirs.next() => {
                if stirred.is_empty() {
                    eyes.work.push(Box::pin(async { sleep(TOGETHER).await; Done::Gathered }));
                }
                stirred.insert(pool);
            }
            Some(done) = eyes.work.next() => match done {
                Done::Gathered => std::mem::take(&mut stirred).iter().for_each(|pool| eyes.look_at(pool)),
                Done::Written(pool) => drop(eyes.writing.remove(&pool)),
                Done::Rivals(found) => eyes.take_rivals(found),
            },
        }
    }
}

/// What the loop has waited for.
enum Done {
    /// Others had time to stir as well.
    Gathered,
    /// Deletion costs of a pool were written, as far as they could be.
    Written(PoolRef),
    /// Who else scales pools; none where it could not be seen.
    Rivals(Option<SecondWriters>),
}

/// A deletion cost that was written, or tried to be.
struct Written {
    pool: PoolRef,
    due: Due,
    at: Duration,
    /// After so long the same may be written again.
    again: Duration,
}

struct Eyes<W> {
    scope: Scope,
    ctx: Arc<Context>,
    wake: W,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Pools whose deletion costs are being written.
    writing: HashSet<PoolRef>,
    /// What was last written of each pod, by its UID.
    written: HashMap<String, Written>,
    /// When to look for second writers next; none before the first time.
    next: Option<Duration>,
}

impl<W: Fn(ObjectRef<GuardedPool>)> Eyes<W> {
    fn look_at_all(&mut self) {
        let mut builtin = false;
        let mut pods = observe::pods_by_pool(&self.ctx.stores.pods);
        for pool in self.ctx.stores.pools.state() {
            builtin |= pool.0.as_ref().is_ok_and(|pool| settings::mode(&pool.spec) == ScalingMode::Builtin);
            let its = pods.remove(&of(&pool)).unwrap_or_default();
            self.look_at_seen(&pool, &its);
        }
        if builtin {
            self.look_for_rivals();
        }
    }

    fn look_at(&mut self, pool: &PoolRef) {
        let seen = self.ctx.stores.pools.get(&ObjectRef::new(&pool.name).within(&pool.namespace));
        if let Some(seen) = seen {
            let pods = observe::pods_of(&self.ctx.stores.pods, &pool.namespace, &pool.name);
            self.look_at_seen(&seen, &pods);
        }
    }

    fn look_at_seen(&mut self, guarded: &GuardedPool, pods: &[Arc<Pod>]) {
        if guarded.meta().deletion_timestamp.is_some() {
            let pool = of(guarded);
            let (backends, _) = backends::of(pods, &self.ctx.exchange.heard(&pool), None, self.present());
            return self.ctx.activations.dismiss(&pool, backends);
        }
        let Ok(seen) = &guarded.0 else { return };
        let Ok(pool) = ValidPool::of(seen) else { return self.let_be(guarded, pods) };
        let reference = pool.reference();
        if !self.ctx.scalings.has_seen(&reference) {
            return;
        }
        let look = look(&self.ctx, &pool, seen, pods);
        if look.news {
            (self.wake)(ObjectRef::from_obj(guarded));
        }
        self.write(reference, look.due);
    }

    /// What is asked of a pool that cannot be read is not known: nobody of it goes for that, and its activators are told
    /// which pods there are.
    fn let_be(&self, guarded: &GuardedPool, pods: &[Arc<Pod>]) {
        let (pool, ctx) = (of(guarded), &self.ctx);
        ctx.exchange.retire(&pool, BTreeSet::new());
        let uid = guarded.meta().uid.as_deref().unwrap_or_default();
        if ctx.activations.look(&pool, uid, backends::outlook(pods)).is_none() {
            return;
        }
        let (backends, left) = backends::of(pods, &ctx.exchange.heard(&pool), None, self.present());
        ctx.activations.tell(&pool, backends, left);
        if ctx.activations.leave(&pool, false) {
            (self.wake)(ObjectRef::from_obj(guarded));
        }
    }

    fn present(&self) -> Present {
        Present { now: self.ctx.clock.now(), wall: self.ctx.clock.wall() }
    }

    /// Has deletion costs written, one pool's after another. What fails is due again a little later.
    fn write(&mut self, pool: PoolRef, mut due: Vec<Due>) {
        let now = self.ctx.clock.now();
        self.take_seen(&pool, &due, now);
        due.retain(|due| self.written.get(&due.uid).is_none_or(|written| written.due != *due));
        if due.is_empty() || !self.writing.insert(pool.clone()) {
            return;
        }
        self.written.extend(due.iter().map(|due| {
            let written = Written { pool: pool.clone(), due: due.clone(), at: now, again: AGAIN };
            (due.uid.clone(), written)
        }));
        let writer = self.ctx.writer.clone();
        self.work.push(Box::pin(async move {
            stream::iter(due).for_each_concurrent(PARALLEL, |due| write_one(&writer, due)).await;
            Done::Written(pool)
        }));
    }

    /// A pod whose cost is due no more has been seen with it. What was written long ago may be written again.
    fn take_seen(&mut self, pool: &PoolRef, due: &[Due], now: Duration) {
        let due: HashSet<&str> = due.iter().map(|due| due.uid.as_str()).collect();
        self.written.retain(|uid, written| {
            if written.pool == *pool && !due.contains(uid.as_str()) {
                written.again = written.again.min(RIVAL);
            }
            now.saturating_sub(written.at) < written.again
        });
    }

    fn look_for_rivals(&mut self) {
        let now = self.ctx.clock.now();
        if self.next.is_some_and(|next| now < next) {
            return;
        }
        self.next = Some(now.saturating_add(conflict::EVERY));
        let Scope { client, namespace } = self.scope.clone();
        self.work.push(Box::pin(async move {
            let found = conflict::look(&client, namespace.as_deref()).await;
            let found = found.inspect_err(|error| {
                tracing::warn!(%error, "who else scales pools could not be seen");
            });
            Done::Rivals(found.ok())
        }));
    }

    fn take_rivals(&mut self, found: Option<SecondWriters>) {
        let Some(found) = found else { return };
        for pool in self.ctx.scalings.take_rivals(found) {
            self.look_at(&pool);
        }
    }
}

async fn write_one(writer: &Writer, due: Due) {
    if let Err(error) = act::write(writer, &due).await {
        tracing::info!(pod = due.name, %error, "a deletion cost was not written");
    }
}

fn of(pool: &GuardedPool) -> PoolRef {
    PoolRef { namespace: pool.namespace().unwrap_or_default(), name: pool.name_any() }
}
