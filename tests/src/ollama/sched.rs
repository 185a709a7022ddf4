//! The scheduler: one loader, a bounded queue of those who need it, and an unbounded FIFO per loaded model.
//!
//! A request for a loaded model never meets `max_queue`. A client that leaves before it holds a runner is forgotten
//! by the loader, and its handler would wait for ever: it counts as leaked, as the real one leaks.
//!
//! Whoever wants a loaded model with other options, or one more model than there is room for, waits in the loader until
//! the runner in the way is idle. Meanwhile all who wait for loads wait behind it, and requests that the old runner
//! suits pass by, so that it may never become idle.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};

use super::name;
use super::record::{Outcome, Record, Running};
use super::settings::{ModelSpec, Pace, Settings, Wedge};

/// What a runner was started with: a request that wants another of these makes it load anew.
pub(crate) type RunnerOptions = Vec<(&'static str, String)>;

/// Why a request holds no runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoRunner {
    /// Too many wait for a load.
    Busy,
    /// The load failed, with this text.
    Failed(String),
}

/// A slot of a runner, held until dropped.
pub(crate) struct Slot {
    /// When its request was given to the runner: what it waited for its slot comes after.
    pub(crate) scheduled: Instant,
    _permit: OwnedSemaphorePermit,
    _running: Running,
    _user: User,
}

struct Runner {
    model: ModelSpec,
    options: RunnerOptions,
    slots: Arc<Semaphore>,
    usage: Arc<Usage>,
}

/// Who is on a runner, and until when it stays. That is fixed when it first becomes idle, and moves when it does so again.
#[derive(Default)]
struct Usage {
    users: watch::Sender<usize>,
    idle_since: Mutex<Option<Timestamp>>,
}

impl Usage {
    fn is_idle(&self) -> bool {
        *self.users.borrow() == 0
    }

    /// Waits until nobody is on it.
    async fn idle(&self) {
        // The sender lives in `self`, so this cannot fail.
        let _ = self.users.subscribe().wait_for(|users| *users == 0).await;
    }
}

/// One request on a runner, from when it was given to it until it is over.
struct User {
    slots: Arc<Semaphore>,
    usage: Arc<Usage>,
}

impl User {
    fn of(runner: &Runner) -> Self {
        runner.usage.users.send_modify(|users| *users += 1);
        Self { slots: runner.slots.clone(), usage: runner.usage.clone() }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let usage = &self.usage;
        usage.users.send_modify(|users| {
            *users -= 1;
            if *users == 0 {
                *usage.idle_since.lock() = Some(Timestamp::now());
            }
        });
    }
}

/// A runner as `/api/ps` lists it: one that is still loading, too.
pub(crate) struct Listed {
    /// The model, in normal form.
    pub(crate) model: String,
    /// Since when its keep-alive runs; none if it was never idle.
    pub(crate) idle_since: Option<Timestamp>,
}

struct Pending {
    model: ModelSpec,
    options: RunnerOptions,
    reply: oneshot::Sender<Result<User, NoRunner>>,
}

type Runners = Arc<Mutex<HashMap<String, Runner>>>;

pub(crate) struct Scheduler {
    runners: Runners,
    loading: Arc<Mutex<Option<String>>>,
    pending: mpsc::UnboundedSender<Pending>,
    /// Those that wait for the loader and the one it serves; who left is counted until the loader comes to it.
    queued: Arc<AtomicUsize>,
    max_queue: usize,
    record: Record,
    pace: Arc<Mutex<Pace>>,
    wedge: Wedge,
    parallel: Arc<AtomicUsize>,
}

impl Scheduler {
    /// Starts the loader; it ends when the scheduler is dropped.
    pub(crate) fn start(settings: &Settings, record: Record, pace: Arc<Mutex<Pace>>, wedge: Wedge) -> Self {
        let (pending, queue) = mpsc::unbounded_channel();
        let runners = Runners::default();
        let queued = Arc::new(AtomicUsize::new(0));
        let loading = Arc::default();
        let parallel = Arc::new(AtomicUsize::new(settings.num_parallel));
        let loader = Loader {
            runners: runners.clone(),
            loading: Arc::clone(&loading),
            queued: queued.clone(),
            parallel: parallel.clone(),
            max_loaded: settings.max_loaded,
            record: record.clone(),
            pace: pace.clone(),
        };
        tokio::spawn(loader.run(queue));
        Self {
            runners,
            loading,
            pending,
            queued,
            max_queue: settings.max_queue,
            record,
            pace,
            wedge,
            parallel,
        }
    }

    /// Finds a runner, loads one if need be, and waits for a slot of it.
    pub(crate) async fn slot(&self, model: &ModelSpec, options: RunnerOptions) -> Result<Slot, NoRunner> {
        let user = self.runner(model, options).await?;
        let mut leaving = Leaving { record: &self.record, outcome: Some(Outcome::LeftWaiting) };
        let slot = self.take_slot(&model.name, user).await;
        leaving.outcome = None;
        slot
    }

    /// Finds a runner, or loads one, and is on it for a moment: all that a request without input does.
    pub(crate) async fn visit(&self, model: &ModelSpec, options: RunnerOptions) -> Result<(), NoRunner> {
        // Who is on it alone leaves it idle anew.
        self.runner(model, options).await.map(drop)
    }

    /// Finds a runner, or loads one. One that is loaded must say that it is well.
    async fn runner(&self, model: &ModelSpec, options: RunnerOptions) -> Result<User, NoRunner> {
        let mut leaving = Leaving { record: &self.record, outcome: Some(Outcome::Leaked) };
        let pace = *self.pace.lock();
        sleep(pace.schedule).await;
        if self.suits(&model.name, &options) {
            self.wedge.passed().await;
        }
        // What was loaded may have gone while it said so.
        let found = match self.join(&model.name, &options) {
            Some(user) => Ok(user),
            None => self.load(model, options).await,
        };
        leaving.outcome = None;
        found
    }

    /// Every runner, and the one that is being loaded.
    pub(crate) fn listed(&self) -> Vec<Listed> {
        let loading = self.loading.lock().clone();
        let runners = self.runners.lock();
        let listed = runners.iter().filter(|(model, _)| loading.as_ref() != Some(model));
        let listed = listed.map(|(model, runner)| Listed {
            model: model.clone(),
            idle_since: *runner.usage.idle_since.lock(),
        });
        listed.chain(loading.clone().map(|model| Listed { model, idle_since: None })).collect()
    }

    pub(crate) fn unload(&self, model: &str) {
        self.runners.lock().remove(model);
    }

    /// Gives every runner another number of slots; those that go are waited for, in their turn.
    pub(crate) fn set_parallel(&self, parallel: usize) {
        let before = self.parallel.swap(parallel, Ordering::SeqCst);
        for runner in self.runners.lock().values() {
            let (had, has) = (runner.model.slots(before), runner.model.slots(parallel));
            runner.slots.add_permits(has.saturating_sub(had));
            let (slots, fewer) = (runner.slots.clone(), had.saturating_sub(has));
            tokio::spawn(async move {
                for _ in 0..fewer {
                    // A closed one has no slots any more.
                    if let Ok(slot) = slots.acquire().await {
                        slot.forget();
                    }
                }
            });
        }
    }

    fn suits(&self, model: &str, options: &RunnerOptions) -> bool {
        self.runners.lock().get(model).is_some_and(|runner| runner.options == *options)
    }

    fn join(&self, model: &str, options: &RunnerOptions) -> Option<User> {
        self.runners.lock().get(model).filter(|runner| runner.options == *options).map(User::of)
    }

    async fn load(&self, model: &ModelSpec, options: RunnerOptions) -> Result<User, NoRunner> {
        let (reply, answer) = oneshot::channel();
        let pending = Pending { model: model.clone(), options, reply };
        if self.queued.load(Ordering::SeqCst) > self.max_queue {
            return Err(NoRunner::Busy);
        }
        self.queued.fetch_add(1, Ordering::SeqCst);
        self.pending.send(pending).map_err(|_| NoRunner::Busy)?;
        answer.await.unwrap_or(Err(NoRunner::Busy))
    }

    async fn take_slot(&self, model: &str, user: User) -> Result<Slot, NoRunner> {
        let scheduled = Instant::now();
        let gone = |_| NoRunner::Failed("model was unloaded".to_owned());
        let short = name::short(model);
        let permit = if let Ok(permit) = user.slots.clone().try_acquire_owned() {
            permit
        } else {
            let _waiting = self.record.waits(&short);
            user.slots.clone().acquire_owned().await.map_err(gone)?
        };
        Ok(Slot { scheduled, _permit: permit, _running: self.record.runs(&short), _user: user })
    }
}

/// Says how a request ended whose client left; dropped with no outcome, it says nothing.
struct Leaving<'a> {
    record: &'a Record,
    outcome: Option<Outcome>,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if let Some(outcome) = self.outcome {
            self.record.ended(outcome);
        }
    }
}

struct Loader {
    runners: Runners,
    loading: Arc<Mutex<Option<String>>>,
    queued: Arc<AtomicUsize>,
    parallel: Arc<AtomicUsize>,
    max_loaded: usize,
    record: Record,
    pace: Arc<Mutex<Pace>>,
}

impl Loader {
    /// One load at a time, whoever waits behind it; those who have left are dropped without a word.
    async fn run(self, mut queue: mpsc::UnboundedReceiver<Pending>) {
        while let Some(pending) = queue.recv().await {
            if !pending.reply.is_closed() {
                let loaded = self.ensure(&pending.model, pending.options).await;
                // A client that has left meanwhile does not hear it.
                let _ = pending.reply.send(loaded);
            }
            self.queued.fetch_sub(1, Ordering::SeqCst);
        }
    }

    async fn ensure(&self, model: &ModelSpec, options: RunnerOptions) -> Result<User, NoRunner> {
        while let Some((name, usage)) = self.in_the_way(&model.name, &options) {
            usage.idle().await;
            let mut runners = self.runners.lock();
            // Whoever the old runner suits may have come to it meanwhile.
            if usage.is_idle() {
                runners.remove(&name);
            }
        }
        if let Some(runner) = self.runners.lock().get(&model.name) {
            return Ok(User::of(runner));
        }
        let load = self.pace.lock().load;
        *self.loading.lock() = Some(model.name.clone());
        sleep(load).await;
        *self.loading.lock() = None;
        if let Some(error) = &model.load_error {
            return Err(NoRunner::Failed(error.clone()));
        }
        let slots = Arc::new(Semaphore::new(model.slots(self.parallel.load(Ordering::SeqCst))));
        let runner = Runner { options, slots, model: model.clone(), usage: Arc::default() };
        let user = User::of(&runner);
        self.runners.lock().insert(model.name.clone(), runner);
        self.record.loaded();
        Ok(user)
    }

    /// The runner that must go before a model can be had with these options: its own, if that has others, or where there
    /// is no room for it an idle one, or else any.
    fn in_the_way(&self, model: &str, options: &RunnerOptions) -> Option<(String, Arc<Usage>)> {
        let runners = self.runners.lock();
        if let Some(own) = runners.get(model) {
            return (own.options != *options).then(|| (model.to_owned(), own.usage.clone()));
        }
        if self.max_loaded == 0 || runners.len() < self.max_loaded {
            return None;
        }
        let first = runners.iter().min_by_key(|(name, runner)| (!runner.usage.is_idle(), (*name).clone()));
        first.map(|(name, runner)| (name.clone(), runner.usage.clone()))
    }
}

#[cfg(test)]
#[path = "sched_tests.rs"]
mod tests;
