//! Health: what is known about Ollama, and whether this sidecar may be sent requests.
//!
//! Everything that bears on it is one small set of [`Facts`]; [`fold`] turns them into readiness, and it alone. The
//! data path asks two questions, each one atomic load: [`Health::unavailable`] and [`Health::draining`]. Busy is never
//! mistaken for dead: only an answer that fails to come, or a connection refused, counts against Ollama, and whatever
//! comes of a real request counts for it.
//!
//! Three things can stop, and each is found in its own way:
//!
//! | what | found by | within |
//! | --- | --- | --- |
//! | Ollama's process | a refused connection | at once |
//! | Ollama's server, which accepts connections and answers none | [`probe`]: down after three probes (12 s), wedged after 15 s more of nothing; one that starts has 90 s | 21 s |
//! | a runner behind a server that answers | a request of its own about a runner from which nothing comes | 20 s |
//!
//! And where Ollama answers its probes while what it is sent fails, the breaker leaves it alone for a while.
//!
//! What has stopped has its requests ended. The latter two are healed by a restart of Ollama's container, unless they heal
//! before Kubernetes has asked often enough: see [`Health::needs_restart`]. What is not found: a runner that stops during
//! the very first request to a model, before any answer of it, which nobody can tell from a long load.

mod breaker;
mod circuit;
pub mod desk;
pub mod load;
pub mod overload;
pub mod probe;
mod readiness;
pub mod relief;
mod retiring;
pub mod strain;
mod upstream;

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use corral_limiter::Nanos;
use corral_wire::OffGpu;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

pub use breaker::Circuit;
pub(crate) use circuit::Pass;
pub use readiness::{Engine, Facts, Readiness, Reason, Relief, Unavailable, fold};
pub use upstream::{Sign, Upstream};

use breaker::Breaker;
use upstream::UpstreamFold;

/// How far a drain has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drain {
    /// None has begun.
    Serving,
    /// New requests are still served, with `Connection: close`.
    Closing,
    /// New requests are refused; running and waiting ones go on.
    Refusing,
    /// Nothing runs any more, or its time is over.
    Over,
}

/// What is known about Ollama and this sidecar; shared by the data path, the prober, the plan store and the admin port.
#[derive(Debug)]
pub struct Health {
    known: Mutex<Known>,
    /// [`Unavailable`] as a number, 0 for none: read for each request.
    unavailable: AtomicU8,
    draining: AtomicBool,
    /// Answers carry `Connection: close`.
    closing: AtomicBool,
    /// Ollama is up and nothing speaks against it, so another success is no news.
    steady: AtomicBool,
    /// Ollama has answered something since the last probe.
    heard: AtomicBool,
    /// A model is being loaded, and nothing else goes on.
    loading: AtomicBool,
    /// How long probes take.
    pub(crate) probes: strain::Probes,
    off_gpu: Mutex<Vec<OffGpu>>,
    /// Taken before `known` by whoever needs both.
    breaker: Mutex<Breaker>,
    /// The state of the breaker, and until when it is open.
    circuit: watch::Sender<(Circuit, Option<Nanos>)>,
    wedged: watch::Sender<bool>,
    stopped: watch::Sender<bool>,
    /// When the order to retire that stands was heard.
    retire: watch::Sender<Option<Nanos>>,
    readiness: watch::Sender<Readiness>,
    drain: watch::Sender<Drain>,
    cut: watch::Sender<bool>,
}

#[derive(Debug)]
struct Known {
    upstream: UpstreamFold,
    facts: Facts,
    /// How often readiness has changed to each of [`Reason::ALL`].
    entered: [u64; Reason::ALL.len()],
    /// When the drain ends at the latest.
    drained_by: Option<Instant>,
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// Nothing known yet: no plan, not told to serve, Ollama not yet seen.
    pub fn new() -> Self {
        let facts = Facts::default();
        let known = Known {
            upstream: UpstreamFold::default(),
            facts,
            entered: [0; Reason::ALL.len()],
            drained_by: None,
        };
        let this = Self {
            known: Mutex::new(known),
            unavailable: AtomicU8::new(0),
            draining: AtomicBool::new(false),
            closing: AtomicBool::new(true),
            steady: AtomicBool::new(false),
            heard: AtomicBool::new(false),
            loading: AtomicBool::new(false),
            probes: strain::Probes::default(),
            off_gpu: Mutex::new(Vec::new()),
            breaker: Mutex::default(),
            circuit: watch::Sender::new((Circuit::Closed, None)),
            wedged: watch::Sender::new(false),
            stopped: watch::Sender::new(false),
            retire: watch::Sender::new(None),
            readiness: watch::Sender::new(fold(facts)),
            drain: watch::Sender::new(Drain::Serving),
            cut: watch::Sender::new(false),
        };
        this.change(|_| ());
        this
    }

    /// Why a request for inference is answered 503, if it is.
    pub fn unavailable(&self) -> Option<Unavailable> {
        Unavailable::from_code(self.unavailable.load(Ordering::Acquire))
    }

    /// The same for who need not be turned away yet, though new requests are: as long as the drain is not over.
    pub fn unavailable_but_for_drain(&self) -> Option<Unavailable> {
        if self.drain() == Drain::Over {
            return Some(Unavailable::Draining);
        }
        let facts = self.known.lock().facts;
        Facts { refusing: false, ..facts }.unavailable()
    }

    /// Whether a drain has begun.
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Whether answers carry `Connection: close`: while the pod is not ready, or drains, whoever keeps a connection
    /// would go on coming here, whatever the Service says.
    pub fn closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// How far the drain has come.
    pub fn drain(&self) -> Drain {
        *self.drain.borrow()
    }

    /// What is known about Ollama.
    pub fn upstream(&self) -> Upstream {
        self.known.lock().facts.upstream
    }

    /// Something came of a real request, a head or a frame: worth as much as a probe.
    pub fn upstream_answered(&self) {
        if !self.heard.load(Ordering::Relaxed) {
            self.heard.store(true, Ordering::Relaxed);
        }
        if !self.steady.load(Ordering::Acquire) {
            self.saw(Sign::Answer);
        }
    }

    /// Ollama refused a connection: nobody listens, which needs no second opinion.
    pub fn upstream_refused(&self) {
        self.saw(Sign::Refused);
    }

    /// Ollama did not take a connection in time: worth as much as a failed probe.
    pub fn upstream_silent(&self) {
        self.saw(Sign::NoAnswer);
    }

    /// Takes in one sign of life or death of Ollama.
    pub fn saw(&self, sign: Sign) {
        let mut back = false;
        self.change(|known| {
            let before = std::mem::replace(&mut known.facts.upstream, known.upstream.step(sign));
            back = (before, known.facts.upstream) == (Upstream::Down, Upstream::Up);
        });
        if back {
            self.came_back();
        }
    }

    /// Whether something came of a real request since this was asked last.
    pub fn take_heard(&self) -> bool {
        self.heard.swap(false, Ordering::Relaxed)
    }

    /// Whether Ollama has accepted connections without answering for longer than it ever does while it lives.
    pub fn wedged(&self) -> bool {
        *self.wedged.borrow()
    }

    /// Says so; the prober knows.
    pub fn set_wedged(&self, wedged: bool) {
        self.wedged.send_if_modified(|known| std::mem::replace(known, wedged) != wedged);
        self.tell_stopped();
    }

    /// Resolves when Ollama is found to be wedged.
    pub async fn until_wedged(&self) {
        // The sender lives in `self`, so this cannot fail.
        let _ = self.wedged.subscribe().wait_for(|wedged| *wedged).await;
    }

    /// Why Ollama's container should be started anew, if it should: nothing else heals it.
    pub fn needs_restart(&self) -> Option<&'static str> {
        if self.wedged() {
            return Some("Ollama takes connections and answers none");
        }
        let stalled = self.known.lock().facts.engine == Engine::Stalled;
        stalled.then_some("a runner of Ollama has stopped working")
    }

    /// Whether all that is in flight has waited for seconds, and none of it is known to be on a loaded runner.
    pub fn loading(&self) -> bool {
        self.loading.load(Ordering::Relaxed)
    }

    /// Says so; the data path knows.
    pub fn set_loading(&self, loading: bool) {
        self.loading.store(loading, Ordering::Relaxed);
    }

    /// The models that are loaded and not wholly on a GPU, when last looked; always empty where none belongs there.
    pub fn off_gpu(&self) -> Vec<OffGpu> {
        self.off_gpu.lock().clone()
    }

    /// Says so. It changes no readiness: a slow answer is one.
    pub fn set_off_gpu(&self, models: Vec<OffGpu>) {
        *self.off_gpu.lock() = models;
    }

    /// A runner has stopped working, or works again.
    pub fn set_engine(&self, engine: Engine) {
        self.change(|known| known.facts.engine = engine);
        self.tell_stopped();
    }

    fn tell_stopped(&self) {
        // Judged inside, so that the later of two changes is never overwritten by the earlier.
        self.stopped.send_if_modified(|known| {
            let stopped = self.needs_restart().is_some();
            std::mem::replace(known, stopped) != stopped
        });
    }

    /// Resolves when Ollama is found to be wedged, or a runner of its to have stopped.
    pub async fn until_stopped(&self) {
        // The sender lives in `self`, so this cannot fail.
        let _ = self.stopped.subscribe().wait_for(|stopped| *stopped).await;
    }

    /// The pod leaves its Service for its load, or comes back.
    pub fn set_relief(&self, relief: Option<Relief>) {
        self.change(|known| known.facts.relief = relief);
    }

    /// A plan is in force, from now on for good.
    pub fn plan_accepted(&self) {
        self.change(|known| known.facts.plan = true);
    }

    /// The sidecar has been told to serve, from now on for good.
    pub fn told_to_serve(&self) {
        self.change(|known| known.facts.serve = true);
    }

    /// A drain begins. Readiness stays as it is: a pod that terminates is out of its Service already, and the last of
    /// a pool must go on answering. One that retires has left, so it stays out.
    pub fn begin_drain(&self) {
        self.change(|known| {
            // Who was out for its load serves, and is waited for like any other.
            known.facts.relief = None;
            if known.facts.ready_at_drain.is_none() {
                known.facts.ready_at_drain = Some(fold(known.facts).ready());
            }
        });
        self.draining.store(true, Ordering::Release);
        self.drain.send_if_modified(|drain| advance(drain, Drain::Closing));
    }

    /// The drain that has begun ends at this time at the latest.
    pub fn drains_until(&self, deadline: Instant) {
        self.known.lock().drained_by = Some(deadline);
    }

    /// How long a drain that has begun still takes at the most.
    pub fn drain_left(&self, now: Instant) -> Option<Duration> {
        self.known.lock().drained_by.map(|deadline| deadline.saturating_duration_since(now))
    }

    /// From now on new requests are refused, because of the drain.
    pub fn refuse_new(&self) {
        self.begin_drain();
        self.change(|known| known.facts.refusing = true);
        self.drain.send_if_modified(|drain| advance(drain, Drain::Refusing));
    }

    /// Nothing runs any more, or its time is over.
    pub fn drain_over(&self) {
        self.refuse_new();
        self.drain.send_if_modified(|drain| advance(drain, Drain::Over));
    }

    /// The time of the drain is over: whatever still waits or runs ends now, and its client is told.
    pub fn cut_running(&self) {
        self.refuse_new();
        self.cut.send_replace(true);
    }

    /// Whether [`Self::cut_running`] was called.
    pub fn is_cut(&self) -> bool {
        *self.cut.borrow()
    }

    /// Resolves when [`Self::cut_running`] is called.
    pub async fn until_cut(&self) {
        // The sender lives in `self`, so this cannot fail.
        let _ = self.cut.subscribe().wait_for(|cut| *cut).await;
    }

    /// Follows the drain.
    pub fn watch_drain(&self) -> watch::Receiver<Drain> {
        self.drain.subscribe()
    }

    /// Whether `/readyz` says yes, and why not.
    pub fn readiness(&self) -> Readiness {
        *self.readiness.borrow()
    }

    /// Follows readiness.
    pub fn watch_readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.subscribe()
    }

    /// How often readiness has changed to each reason since the process began, by the word of the reason that holds
    /// from then on.
    pub fn transitions(&self) -> impl Iterator<Item = (Reason, u64)> + use<> {
        Reason::ALL.into_iter().zip(self.known.lock().entered)
    }

    /// The pod would be in its Service if its load were no reason to leave it, and no drain has begun.
    pub fn ready_but_for_load(&self) -> bool {
        let facts = Facts { relief: None, ..self.known.lock().facts };
        facts.ready_at_drain.is_none() && fold(facts).ready()
    }

    /// Everything but the permission to serve is there.
    pub fn able_to_serve(&self) -> bool {
        let facts = self.known.lock().facts;
        facts.plan && facts.upstream == Upstream::Up && facts.engine == Engine::Working
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        let mut known = self.known.lock();
        let before = fold(known.facts);
        change(&mut known);
        let code = known.facts.unavailable().map_or(0, Unavailable::code);
        self.unavailable.store(code, Ordering::Release);
        self.steady.store(known.upstream.steady(), Ordering::Release);
        let now = fold(known.facts);
        if now != before {
            known.count(now.reason);
        }
        let closing = !now.ready() || known.facts.ready_at_drain.is_some();
        self.closing.store(closing, Ordering::Release);
        // Published under the lock, so that two changes cannot be seen in the wrong order.
        self.readiness.send_if_modified(|last| std::mem::replace(last, now) != now);
    }
}

impl Known {
    /// Counted here, and not by who watches: a change that is undone at once is one all the same.
    fn count(&mut self, entered: Reason) {
        let counts = Reason::ALL.iter().zip(&mut self.entered);
        counts.filter(|(reason, _)| **reason == entered).for_each(|(_, count)| *count += 1);
    }
}

fn advance(drain: &mut Drain, to: Drain) -> bool {
    let further = *drain < to;
    if further {
        *drain = to;
    }
    further
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serving() -> Health {
        let health = Health::new();
        health.plan_accepted();
        health.told_to_serve();
        health.upstream_answered();
        health
    }

    #[test]
    fn a_newcomer_is_ready_once_it_has_all_three() {
        let health = Health::new();
        assert_eq!(health.readiness().reason, Reason::Starting);
        health.upstream_answered();
        assert_eq!(health.readiness().reason, Reason::NoPlan);
        health.plan_accepted();
        assert_eq!(health.readiness().reason, Reason::WaitingToServe);
        assert!(health.able_to_serve());
        health.told_to_serve();
        assert!(health.readiness().ready());
        assert_eq!(health.unavailable(), None);
    }

    #[test]
    fn a_refused_connection_closes_at_once_and_two_answers_open_again() {
        let health = serving();
        health.upstream_refused();
        assert_eq!(health.unavailable(), Some(Unavailable::OllamaDown));
        health.upstream_answered();
        assert_eq!(health.unavailable(), Some(Unavailable::OllamaDown));
        health.upstream_answered();
        assert_eq!(health.unavailable(), None);
        assert!(health.readiness().ready());
    }

    #[test]
    fn a_drain_leaves_readiness_as_it_was() {
        let health = serving();
        health.begin_drain();
        assert!(health.draining() && health.readiness().ready());
        assert_eq!(health.unavailable(), None, "still served while endpoint lists catch up");
        health.refuse_new();
        assert_eq!(health.unavailable(), Some(Unavailable::Draining));
        health.upstream_refused();
        assert!(health.readiness().ready(), "Ollama stops before its sidecar does");
        let starting = Health::new();
        starting.begin_drain();
        assert_eq!(starting.readiness().reason, Reason::Draining);
        starting.upstream_answered();
        starting.plan_accepted();
        starting.told_to_serve();
        assert!(!starting.readiness().ready(), "a drain makes nobody ready");
    }

    #[test]
    fn every_change_of_readiness_is_counted_by_what_it_leads_to() {
        let health = serving();
        let count = |wanted: Reason| {
            health.transitions().find(|(reason, _)| *reason == wanted).map_or(0, |(_, count)| count)
        };
        assert_eq!((count(Reason::NoPlan), count(Reason::Starting), count(Reason::Ready)), (0, 0, 1));
        for _ in 0..3 {
            health.set_relief(Some(Relief::Overloaded));
            health.set_relief(Some(Relief::Overloaded));
            health.set_relief(None);
        }
        assert_eq!((count(Reason::Overloaded), count(Reason::Ready)), (3, 4));
    }

    #[test]
    fn a_drain_ends_relief_and_no_relief_comes_after_it() {
        let health = serving();
        health.set_relief(Some(Relief::Overloaded));
        assert!(health.ready_but_for_load() && !health.readiness().ready());
        assert_eq!(health.unavailable(), None);
        assert!(health.closing(), "kept connections would keep the load here");
        health.begin_drain();
        assert!(health.readiness().ready() && !health.ready_but_for_load());
        health.set_relief(Some(Relief::Overloaded));
        assert!(health.readiness().ready());
    }

    #[test]
    fn how_long_a_drain_takes_is_known_from_its_beginning() {
        let (health, now) = (serving(), Instant::now());
        assert_eq!(health.drain_left(now), None);
        health.drains_until(now + Duration::from_secs(9));
        assert_eq!(health.drain_left(now + Duration::from_secs(2)), Some(Duration::from_secs(7)));
        assert_eq!(health.drain_left(now + Duration::from_secs(20)), Some(Duration::ZERO));
    }

    #[tokio::test]
    async fn whoever_watches_sees_the_drain_begin() {
        let health = serving();
        let mut drain = health.watch_drain();
        health.refuse_new();
        assert_eq!(*drain.wait_for(|d| *d == Drain::Refusing).await.unwrap(), Drain::Refusing);
        health.begin_drain();
        assert_eq!(*drain.borrow(), Drain::Refusing, "a drain does not go back");
    }
}
