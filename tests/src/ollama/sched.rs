//! The scheduler: one loader, a bounded queue of those who need it, and an unbounded FIFO per loaded model.
//!
//! A request for a loaded model never meets `max_queue`. A client that leaves before it holds a runner is forgotten
//! by the loader, and its handler would wait for ever: it counts as leaked, as the real one leaks.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::sleep;

use super::name;
use super::record::{Outcome, Record, Running};
use super::settings::{ModelSpec, Pace, Wedge};

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
    _permit: OwnedSemaphorePermit,
    _running: Running,
    _user: User,
}

struct Runner {
    options: RunnerOptions,
    slots: Arc<Semaphore>,
    parallel: usize,
    usage: Arc<Usage>,
}

/// Who is on a runner, and until when it stays. That is fixed when it first becomes idle, and moves when it does so again.
#[derive(Default)]
struct Usage {
    users: AtomicUsize,
    idle_since: Mutex<Option<Timestamp>>,
}

/// One request on a runner, from when it was given to it until it is over.
struct User(Arc<Usage>);

impl User {
    fn of(usage: &Arc<Usage>) -> Self {
        usage.users.fetch_add(1, Ordering::SeqCst);
        Self(usage.clone())
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if self.0.users.fetch_sub(1, Ordering::SeqCst) == 1 {
            *self.0.idle_since.lock() = Some(Timestamp::now());
        }
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
    reply: oneshot::Sender<Result<(), NoRunner>>,
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
}

impl Scheduler {
    /// Starts the loader; it ends when the scheduler is dropped.
    pub(crate) fn start(
        parallel: usize,
        max_queue: usize,
        record: Record,
        pace: Arc<Mutex<Pace>>,
        wedge: Wedge,
    ) -> Self {
        let (pending, queue) = mpsc::unbounded_channel();
        let runners = Runners::default();
        let queued = Arc::new(AtomicUsize::new(0));
        let loading = Arc::default();
        let loader = Loader {
            runners: runners.clone(),
            loading: Arc::clone(&loading),
            queued: queued.clone(),
            parallel: parallel.max(1),
            record: record.clone(),
            pace: pace.clone(),
        };
        tokio::spawn(loader.run(queue));
        Self { runners, loading, pending, queued, max_queue, record, pace, wedge }
    }

    /// Finds a runner, loads one if need be, and waits for a slot of it.
    pub(crate) async fn slot(&self, model: &ModelSpec, options: RunnerOptions) -> Result<Slot, NoRunner> {
        self.runner(model, options).await?;
        let mut leaving = Leaving { record: &self.record, outcome: Some(Outcome::LeftWaiting) };
        let slot = self.take_slot(&model.name).await;
        leaving.outcome = None;
        slot
    }

    /// Finds a runner, or loads one, and is on it for a moment: all that a request without input does.
    pub(crate) async fn visit(&self, model: &ModelSpec, options: RunnerOptions) -> Result<(), NoRunner> {
        self.runner(model, options).await?;
        // Who is on it alone leaves it idle anew.
        drop(self.runners.lock().get(&model.name).map(|runner| User::of(&runner.usage)));
        Ok(())
    }

    /// Finds a runner, or loads one. One that is loaded must say that it is well.
    async fn runner(&self, model: &ModelSpec, options: RunnerOptions) -> Result<(), NoRunner> {
        let mut leaving = Leaving { record: &self.record, outcome: Some(Outcome::Leaked) };
        let pace = *self.pace.lock();
        sleep(pace.schedule).await;
        let found = if self.fits(&model.name, &options) {
            self.wedge.passed().await;
            Ok(())
        } else {
            self.load(model, options).await
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

    fn fits(&self, model: &str, options: &RunnerOptions) -> bool {
        self.runners.lock().get(model).is_some_and(|runner| runner.options == *options)
    }

    async fn load(&self, model: &ModelSpec, options: RunnerOptions) -> Result<(), NoRunner> {
        let (reply, answer) = oneshot::channel();
        let pending = Pending { model: model.clone(), options, reply };
        if self.queued.load(Ordering::SeqCst) > self.max_queue {
            return Err(NoRunner::Busy);
        }
        self.queued.fetch_add(1, Ordering::SeqCst);
        self.pending.send(pending).map_err(|_| NoRunner::Busy)?;
        answer.await.unwrap_or(Err(NoRunner::Busy))
    }

    async fn take_slot(&self, model: &str) -> Result<Slot, NoRunner> {
        let gone = || NoRunner::Failed("model was unloaded".to_owned());
        let on = |runner: &Runner| (runner.slots.clone(), User::of(&runner.usage));
        let (slots, user) = self.runners.lock().get(model).map(on).ok_or_else(gone)?;
        let short = name::short(model);
        let permit = if let Ok(permit) = slots.clone().try_acquire_owned() {
            permit
        } else {
            let _waiting = self.record.waits(&short);
            slots.acquire_owned().await.map_err(|_| gone())?
        };
        Ok(Slot { _permit: permit, _running: self.record.runs(&short), _user: user })
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
    parallel: usize,
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

    async fn ensure(&self, model: &ModelSpec, options: RunnerOptions) -> Result<(), NoRunner> {
        let old = self.runners.lock().get(&model.name).map(|old| {
            let fits = old.options == options;
            (fits, old.slots.clone(), old.parallel)
        });
        if let Some((fits, slots, parallel)) = old {
            if fits {
                return Ok(());
            }
            let all = u32::try_from(parallel).unwrap_or(u32::MAX);
            // It waits for what runs; a closed semaphore means that it is unloaded already.
            let _ = slots.acquire_many(all).await;
        }
        let load = self.pace.lock().load;
        *self.loading.lock() = Some(model.name.clone());
        sleep(load).await;
        *self.loading.lock() = None;
        if let Some(error) = &model.load_error {
            return Err(NoRunner::Failed(error.clone()));
        }
        let parallel = if model.embeds { 1 } else { self.parallel };
        let runner =
            Runner { options, slots: Arc::new(Semaphore::new(parallel)), parallel, usage: Arc::default() };
        self.runners.lock().insert(model.name.clone(), runner);
        self.record.loaded();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn scheduler(parallel: usize, max_queue: usize, load_ms: u64) -> (Arc<Scheduler>, Record) {
        let pace = Pace { load: Duration::from_millis(load_ms), ..Pace::default() };
        let record = Record::default();
        let pace = Arc::new(Mutex::new(pace));
        (Arc::new(Scheduler::start(parallel, max_queue, record.clone(), pace, Wedge::default())), record)
    }

    async fn all_at_once(scheduler: &Arc<Scheduler>, count: usize) -> Vec<Result<(), NoRunner>> {
        let model = ModelSpec::endless("slow");
        let one = || {
            let (scheduler, model) = (scheduler.clone(), model.clone());
            tokio::spawn(async move {
                let slot = scheduler.slot(&model, vec![]).await;
                sleep(Duration::from_secs(3)).await;
                slot.map(|_| ())
            })
        };
        let running: Vec<_> = (0..count).map(|_| one()).collect();
        let mut results = Vec::new();
        for task in running {
            results.push(task.await.unwrap());
        }
        results
    }

    #[tokio::test(start_paused = true)]
    async fn an_unloaded_model_with_a_queue_of_two_serves_three_of_eight() {
        let (scheduler, _) = scheduler(1, 2, 100);
        let served = all_at_once(&scheduler, 8).await.iter().filter(|one| one.is_ok()).count();
        assert_eq!(served, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loaded_model_queues_without_bound() {
        let (scheduler, record) = scheduler(1, 2, 0);
        drop(scheduler.slot(&ModelSpec::endless("slow"), vec![]).await);
        let served = all_at_once(&scheduler, 8).await.iter().filter(|one| one.is_ok()).count();
        assert_eq!(served, 8);
        let load = record.model("slow:latest");
        assert_eq!((load.max_running, load.max_waiting), (1, 7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_leaks_before_it_has_a_runner_and_never_after() {
        let (scheduler, record) = scheduler(1, 2, 1000);
        let model = ModelSpec::endless("slow");
        let brief = Duration::from_millis(100);
        assert!(tokio::time::timeout(brief, scheduler.slot(&model, vec![])).await.is_err());
        assert_eq!(record.leaked(), 1);
        let slot = scheduler.slot(&model, vec![]).await.ok().unwrap();
        assert!(tokio::time::timeout(brief, scheduler.slot(&model, vec![])).await.is_err());
        assert_eq!((record.leaked(), record.count(Outcome::LeftWaiting)), (1, 1));
        drop(slot);
        assert_eq!(record.load().running, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_listed_has_a_fixed_expiry_once_it_was_idle() {
        let (scheduler, _) = scheduler(2, 2, 1000);
        let model = ModelSpec::endless("slow");
        let expiries = || scheduler.listed().iter().map(|one| one.idle_since).collect::<Vec<_>>();
        let taking = scheduler.slot(&model, vec![]);
        tokio::pin!(taking);
        assert!(tokio::time::timeout(Duration::from_millis(100), &mut taking).await.is_err());
        assert_eq!(expiries(), [None], "listed while it loads");
        let slot = taking.await.ok().unwrap();
        assert_eq!(expiries(), [None], "not idle yet");
        drop(slot);
        let idle = expiries();
        assert!(idle[0].is_some());
        let again = scheduler.slot(&model, vec![]).await.ok().unwrap();
        assert_eq!(expiries(), idle, "requests do not move it");
        drop(again);
        assert!(expiries() > idle, "the next idleness does");
    }

    #[tokio::test(start_paused = true)]
    async fn other_options_load_the_model_anew() {
        let (scheduler, record) = scheduler(1, 2, 10);
        let model = ModelSpec::endless("slow");
        drop(scheduler.slot(&model, vec![]).await);
        drop(scheduler.slot(&model, vec![("num_ctx", "1024".to_owned())]).await);
        drop(scheduler.slot(&model, vec![("num_ctx", "1024".to_owned())]).await);
        assert_eq!(record.loads(), 2);
    }
}
