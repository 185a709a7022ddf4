//! How many pods each pool has: decided from what its pods say of their load, then told to whom it concerns.
//!
//! ```text
//! reports (exchange) ─┐                       ┌─▶ pods that shall go retire, at once      (exchange)
//! pods, Deployment ───┼─▶ Observation ─▶ core ┼─▶ deletion costs, where they differ       (act)
//! spec, schedules ────┘    (pure)       (pure)└─▶ replicas and status, where they differ  (the pool's reconciler)
//! ```
//! Each 2 s, and at once when a pod says what cannot wait, [`run`] looks at every pool; a reconciler looks once more with the
//! Deployment that it has just read, and writes a smaller number only on that very version of it. In modes External and
//! Disabled `spec.replicas` is the size, and the core only finds who goes; in External it also works out what whoever writes
//! that number may go by (`advice`). Nothing is kept anywhere but here: after a
//! restart the core begins with what the Deployment asks for, and the list of past changes with what the status holds.

pub mod act;
mod advice;
pub mod backends;
pub mod conflict;
mod fixed;
pub mod journal;
pub mod moment;
pub mod observe;
pub mod run;
pub mod settings;
pub mod tell;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use corral_crds::pool::{Autoscaling, OllamaPoolSpec, ScalingMode};
use corral_crds::status::{OllamaPoolStatus, ScalingDecision};
use corral_crds::valid::Problem;
use corral_scaler::{Decision, Heard, Limited, Numbers, Observation, Reason, Scaler};
use corral_wire::PoolRef;
use futures::channel::mpsc::UnboundedReceiver;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use parking_lot::Mutex;

use crate::activation;
use crate::listeners::Listeners;
use crate::pool::validate::ValidPool;
use act::Due;
use advice::Advice;
use conflict::SecondWriters;
use fixed::Waiting;
use journal::{Journal, Words};
use moment::Present;
use observe::DeploymentSeen;

/// How many pods a pool has and should have, and what is said of that.
#[derive(Debug, Clone, PartialEq)]
pub struct Size {
    /// Who decides.
    pub mode: ScalingMode,
    /// How many pods the Deployment is asked for: above `desired` while pods that shall go still work.
    pub replicas: u32,
    /// How many pods there should be.
    pub desired: u32,
    /// What is said of it.
    pub words: Words,
    /// When `desired` last changed.
    pub changed: Option<Time>,
    /// Its last changes, the newest first.
    pub decisions: Vec<ScalingDecision>,
    /// What is wrong with its schedules: these never hold.
    pub unknown_zones: Vec<Problem>,
}

/// What a size is worked out from.
pub struct Facts<'a> {
    /// The pool.
    pub pool: &'a ValidPool,
    /// Its status, as it was last seen.
    pub status: Option<&'a OllamaPoolStatus>,
    /// Its pods.
    pub pods: &'a [Arc<Pod>],
    /// What they said of their load.
    pub heard: Vec<(String, Heard)>,
    /// What is known of its activators.
    pub activators: activation::Seen,
    /// Now.
    pub present: Present,
}

/// What comes of a look at a pool.
#[derive(Debug)]
pub struct Look {
    /// Its size.
    pub size: Size,
    /// Whether that is not what it was at the last look.
    pub news: bool,
    /// The decision that it comes from.
    pub decision: Decision,
    /// Pods whose deletion cost has to change.
    pub due: Vec<Due>,
}

/// The sizes of a scope's pools.
#[derive(Default)]
pub struct Scalings {
    pools: Mutex<HashMap<PoolRef, Scaling>>,
    rivals: Mutex<SecondWriters>,
    listeners: Listeners,
    /// Held for a whole look: what an earlier one decides must not be told to pods after what a later one does.
    turn: Mutex<()>,
}

impl Scalings {
    /// Names every pool of which a reconciler has seen what [`run`] has to act on.
    pub fn stirs(&self) -> UnboundedReceiver<PoolRef> {
        self.listeners.listen()
    }

    /// Asks [`run`] to look at a pool.
    pub fn stir(&self, pool: &PoolRef) {
        self.listeners.tell(pool);
    }

    /// Takes the Deployment of a pool as it is now; none where there is none.
    pub fn saw(&self, pool: &PoolRef, deployment: Option<DeploymentSeen>) {
        let deployed = deployment.map_or(Deployed::Absent, Deployed::Seen);
        self.pools.lock().entry(pool.clone()).or_default().deployed = deployed;
    }

    /// Whether its Deployment was looked for yet: before that there is nothing to decide by.
    pub fn has_seen(&self, pool: &PoolRef) -> bool {
        self.pools.lock().get(pool).is_some_and(|scaling| !matches!(scaling.deployed, Deployed::Unknown))
    }

    /// Takes who else scales pools; those for which that has changed.
    pub fn take_rivals(&self, found: SecondWriters) -> Vec<PoolRef> {
        let mut rivals = self.rivals.lock();
        let names: HashSet<&PoolRef> = rivals.keys().chain(found.keys()).collect();
        let changed = names.into_iter().filter(|pool| rivals.get(*pool) != found.get(*pool));
        let changed = changed.cloned().collect();
        *rivals = found;
        changed
    }

    /// Forgets pools that are gone.
    pub fn retain(&self, keep: impl Fn(&PoolRef) -> bool) {
        self.pools.lock().retain(|pool, _| keep(pool));
    }

    /// How many pods a pool should have, as the operator reckons; none before it was looked at, and in mode Disabled.
    pub fn desired(&self, pool: &PoolRef) -> Option<u32> {
        self.pools.lock().get(pool)?.desired()
    }

    /// How many pods the Deployment of a pool should be asked for by the latest decision; none before the first.
    pub fn replicas(&self, pool: &PoolRef) -> Option<u32> {
        self.pools.lock().get(pool)?.last.as_ref().map(|last| last.replicas)
    }

    /// The changes of a pool's size that were told neither in `known` nor by this process, which now tells them: what a
    /// status is compared with may be older than what was written of it last.
    pub fn untold(
        &self,
        pool: &PoolRef,
        known: &[ScalingDecision],
        all: &[ScalingDecision],
    ) -> Vec<ScalingDecision> {
        let mut pools = self.pools.lock();
        let told = &mut pools.entry(pool.clone()).or_default().told;
        let new = all.iter().filter(|decision| !known.contains(decision) && !told.contains(decision));
        let new = new.cloned().collect();
        *told = all.to_vec();
        new
    }

    /// Takes what a pool's spec says of its size; whether somebody has just changed `spec.replicas` for nothing, for the pool
    /// scales itself.
    pub fn is_overruled(&self, pool: &PoolRef, spec: &OllamaPoolSpec) -> bool {
        let asked = (settings::mode(spec), spec.replicas);
        let before = self.pools.lock().entry(pool.clone()).or_default().asked.replace(asked);
        before.is_some_and(|before| before != asked && before.0 == asked.0) && asked.0 == ScalingMode::Builtin
    }

    /// Looks at a pool, and decides.
    pub fn look(&self, facts: &Facts<'_>) -> Look {
        let pool = facts.pool.reference();
        let rival = self.rivals.lock().get(&pool).cloned();
        self.pools.lock().entry(pool).or_default().look(facts, rival)
    }
}

/// The Deployment of a pool, as it was last read.
#[derive(Default)]
enum Deployed {
    /// It was not looked for yet.
    #[default]
    Unknown,
    /// There is none.
    Absent,
    /// There is one.
    Seen(DeploymentSeen),
}

impl Deployed {
    fn seen(&self) -> Option<&DeploymentSeen> {
        match self {
            Self::Seen(deployment) => Some(deployment),
            Self::Unknown | Self::Absent => None,
        }
    }
}

/// What is remembered of one pool.
#[derive(Default)]
struct Scaling {
    deployed: Deployed,
    /// Who decides, and the core that does.
    core: Option<(ScalingMode, Scaler)>,
    waiting: Waiting,
    advice: Advice,
    journal: Option<Journal>,
    last: Option<Size>,
    /// The UID of the pool that all this is of.
    uid: String,
    /// Changes of the size that events have told.
    told: Vec<ScalingDecision>,
    /// Who decides by the spec, and its `replicas`.
    asked: Option<(ScalingMode, i32)>,
    /// L as it was last known, in seconds: cores come and go with who decides.
    startup: Option<f64>,
}

impl Scaling {
    fn desired(&self) -> Option<u32> {
        let last = self.last.as_ref()?;
        match last.mode {
            ScalingMode::Builtin => Some(last.desired),
            ScalingMode::External => self.advice.desired(),
            ScalingMode::Disabled => None,
        }
    }

    fn look(&mut self, facts: &Facts<'_>, rival: Option<String>) -> Look {
        if self.uid != facts.pool.uid {
            // One of the same name that was made anew has nothing of the one before.
            let deployed = std::mem::take(&mut self.deployed);
            *self = Self { deployed, uid: facts.pool.uid.clone(), ..Self::default() };
        }
        let spec = &facts.pool.spec;
        let mode = settings::mode(spec);
        let (words, decision) = match &spec.autoscaling {
            Some(autoscaling) if mode == ScalingMode::Builtin => self.builtin(facts, autoscaling, rival),
            _ => self.fixed(facts, mode),
        };
        if self.core.is_some() {
            self.startup = Some(decision.numbers.startup_seconds);
        }
        self.advise(facts, mode);
        let size = self.size(facts, mode, (words, decision.replicas));
        let news = self.last.as_ref() != Some(&size);
        self.last = Some(size.clone());
        let due = act::due(facts.pods, &decision.costs);
        Look { size, news, decision, due }
    }

    /// The pool scales itself.
    fn builtin(
        &mut self,
        facts: &Facts<'_>,
        autoscaling: &Autoscaling,
        rival: Option<String>,
    ) -> (Words, Decision) {
        let (present, spec) = (facts.present, &facts.pool.spec);
        let bounds = settings::bounds(autoscaling, present.wall);
        let start = settings::replicas(spec).clamp(bounds.0.min(bounds.1), bounds.1);
        let seen = self.observation(facts, start);
        if let Some(rival) = rival {
            self.core = None;
            return left_alone(&seen, rival);
        }
        let config = settings::of_builtin(spec, autoscaling, bounds, facts.activators.holder);
        let decision = self.core(ScalingMode::Builtin, facts).decide(&config, &seen, present.moment());
        let decision = self.unless_unseen(within_room(decision, &seen, present));
        let decision = if facts.activators.stands { decision } else { with_the_last(decision, &seen) };
        let words = Words {
            desired: decision.desired,
            reason: decision.reason.as_str(),
            message: tell::sentence(decision.reason, &decision.numbers),
            numbers: Some(tell::numbers(&decision.numbers)),
            limited: decision.limited,
            lack: lack(&decision, facts),
            deaf: !decision.metrics_available,
            rival: None,
        };
        (words, decision)
    }

    /// `spec.replicas` is the size; who goes is found all the same, so that what it does is finished first.
    fn fixed(&mut self, facts: &Facts<'_>, mode: ScalingMode) -> (Words, Decision) {
        let (spec, present) = (&facts.pool.spec, facts.present);
        let asked = settings::replicas(spec);
        let seen = self.observation(facts, asked);
        let config = settings::of_fixed(spec, asked);
        // Its numbers are told in any case.
        let decision = self.core(mode, facts).decide(&config, &seen, present.moment());
        let decision = if fixed::needs_victims(asked, &seen) {
            let decision = self.unless_unseen(decision);
            self.waiting.bounded(asked, decision, &config, present.now)
        } else {
            self.waiting = Waiting::default();
            fixed::at_once(asked, &decision)
        };
        let words = Words {
            desired: asked,
            reason: mode.as_str(),
            message: "spec.replicas says so".to_owned(),
            numbers: None,
            limited: None,
            lack: None,
            deaf: false,
            rival: None,
        };
        (words, decision)
    }

    /// What whoever writes `spec.replicas` may go by.
    fn advise(&mut self, facts: &Facts<'_>, mode: ScalingMode) {
        let asks = facts.pool.spec.autoscaling.as_ref().filter(|_| mode == ScalingMode::External);
        let Some(autoscaling) = asks else {
            self.advice = Advice::default();
            return;
        };
        let seen = self.observation(facts, settings::replicas(&facts.pool.spec));
        self.advice.take(&facts.pool.spec, autoscaling, &seen, facts.present);
    }

    /// A Deployment that its controller has not looked at yet may have begun a rollout: nothing is taken from it now, and
    /// nobody who was to go is let go for that.
    fn unless_unseen(&self, decision: Decision) -> Decision {
        let unseen = self.deployed.seen().filter(|deployment| deployment.unseen);
        let least = unseen.map_or(0, |deployment| deployment.replicas);
        Decision { replicas: decision.replicas.max(least), ..decision }
    }

    /// The core of this mode: whoever decided before went by something else.
    fn core(&mut self, mode: ScalingMode, facts: &Facts<'_>) -> &mut Scaler {
        let kept = self.core.take().filter(|(of, _)| *of == mode);
        let moment = facts.present.moment();
        let told = facts.status.and_then(|status| status.autoscaling.as_ref()?.numbers.as_ref());
        let startup = self.startup.or(told.map(|numbers| f64::from(numbers.startup_seconds)));
        let new = || startup.map_or_else(|| Scaler::new(moment), |known| Scaler::after(moment, known));
        &mut self.core.insert(kept.unwrap_or_else(|| (mode, new()))).1
    }

    /// What is seen of the pool, which begins with `start` pods.
    fn observation(&self, facts: &Facts<'_>, start: u32) -> Observation {
        let fresh = || DeploymentSeen { replicas: start, ..DeploymentSeen::default() };
        let deployment = self.deployed.seen().cloned().unwrap_or_else(fresh);
        let resource = facts.pool.spec.gpu.extended_resource().map(|(name, _)| name);
        Observation {
            held: facts.activators.held,
            ..observe::observation(&deployment, facts.pods, facts.heard.clone(), resource, facts.present)
        }
    }

    fn size(&mut self, facts: &Facts<'_>, mode: ScalingMode, (words, replicas): (Words, u32)) -> Size {
        let journal = self.journal.get_or_insert_with(|| Journal::after(facts.status));
        let words = journal.take(words, facts.present.now, facts.present.wall).clone();
        Size {
            mode,
            replicas,
            desired: words.desired,
            words,
            changed: journal.changed().cloned(),
            decisions: journal.decisions().to_vec(),
            unknown_zones: settings::unknown_zones(&facts.pool.spec),
        }
    }
}

fn lack(decision: &Decision, facts: &Facts<'_>) -> Option<String> {
    let is_it = decision.limited == Some(Limited::NoActivator);
    is_it.then(|| tell::no_activator(&facts.pool.name, facts.activators.lack.as_deref()))
}

/// For so long a shortage may be a new node's, on its way for pods that were asked for.
const BRIEF: Duration = Duration::from_mins(1);

/// While pods have no place for long, no more are asked for: those that there are wait for the same.
fn within_room(decision: Decision, seen: &Observation, present: Present) -> Decision {
    let lasts = |since| present.moment().saturating_sub(since) >= BRIEF;
    if decision.replicas <= seen.replicas || !seen.shortage.is_some_and(|shortage| lasts(shortage.since)) {
        return decision;
    }
    Decision { desired: seen.replicas, replicas: seen.replicas, reason: Reason::NoPlace, ..decision }
}

/// The last pod that serves stays until whoever holds what comes stands in its place.
fn with_the_last(mut decision: Decision, seen: &Observation) -> Decision {
    if decision.desired > 0 || seen.replicas == 0 {
        return decision;
    }
    let serves = |uid: &String| seen.pods.iter().any(|pod| pod.uid == *uid && pod.ready && !pod.terminating);
    decision.retire.retain(|uid| !serves(uid));
    decision.costs.retain(|uid, _| !serves(uid));
    Decision { replicas: decision.replicas.max(1), ..decision }
}

/// A pool that somebody else scales as well stays as it is, and nobody of it retires. One at zero is woken: it would be
/// nobody's to wake.
fn left_alone(seen: &Observation, rival: String) -> (Words, Decision) {
    let replicas = seen.replicas.max(1);
    let ready = seen.pods.iter().filter(|pod| pod.ready && !pod.terminating).count();
    let numbers = Numbers { ready: u32::try_from(ready).unwrap_or(u32::MAX), ..Numbers::default() };
    let words = Words {
        desired: replicas,
        reason: "AutoscalingConflict",
        message: format!("{rival} scales this pool too"),
        numbers: None,
        limited: None,
        lack: None,
        deaf: false,
        rival: Some(rival),
    };
    let fixed = Decision { desired: replicas, replicas, metrics_available: true, ..Decision::default() };
    (words, Decision { numbers, ..fixed })
}
