//! The hold: who waits, which pods there are, and the moment in which the one is given to the other.
//!
//! A pod is handed over, not signalled: whoever gives one back picks the next under the same lock, so none is free while
//! somebody waits for it, and none is given to a client that has gone. Each step gives back what it holds when it is
//! dropped:
//!
//! Who comes while a pod can be had passes through, whoever waits here: the pod's queue is the fair one, and it knows
//! limits. What was held before goes after them at the rate of slots, so the line only ever ends.
//!
//! A body that would have to be held has its room before it is read: [`Reading`].
//!
//! ```text
//! arrive ─┬─ Seat (one more request in a pod) ── dropped: the next in line gets the pod
//!         └─ Ticket (a place in the line) ── seat().await ─▶ Seat
//! ```

use std::sync::Arc;
use std::time::Duration;

use corral_limiter::Nanos;
use corral_wire::Duty;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout_at};

use super::line::{Ask, Line, NoRoom, Place, Room};
use super::not_held::{NotHeld, Why};
use super::pods::{From, Pods};
use crate::clock::Clock;
use crate::config::HoldSettings;
use crate::metrics::Metrics;
use crate::proxy::upstream::Upstream;

/// How often is looked whether a pod that was set aside can be had again.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// An activator that has shut down for so long, and heard of nobody meanwhile, is one that nobody asks for pods for: who leads
/// after a leader that was lost is heard sooner, and a call that is lost on its way is made anew sooner.
const ABANDONED: Nanos = Nanos::from_secs(60);
/// When to come back where the operator has not said how long a start takes.
const UNKNOWN_START: Nanos = Nanos::from_secs(30);
/// The same where a pod is there, or was to be there by now.
const SOON: Nanos = Nanos::from_secs(5);

/// What an activator holds, and for whom. Shared as `Arc<Hold>`.
pub struct Hold {
    settings: HoldSettings,
    clock: Clock,
    state: Mutex<State>,
    /// How many wait: whoever asks for pods listens.
    held: watch::Sender<u32>,
}

struct State {
    /// Those whose bodies are still coming. Dropped, the sender says that the room is another's.
    reading: Line<oneshot::Sender<()>>,
    line: Line<oneshot::Sender<Way>>,
    pods: Pods<Arc<Upstream>>,
    /// When a pod will probably be ready.
    start_by: Option<Nanos>,
    /// No pod is asked for.
    stopped: bool,
    /// When the operator last said anything; none before it has.
    told: Option<Nanos>,
    /// Since when this shuts down.
    drains: Option<Nanos>,
}

/// The way to a pod, by its UID.
type Way = (String, Arc<Upstream>);

/// How things stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldGauges {
    /// Requests held.
    pub requests: u32,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// How long the oldest of them has been held; 0 when none is.
    pub oldest_wait: Nanos,
    /// Requests handed on to pods whose answers are not over.
    pub forwarding: u32,
    /// Pods that can be had.
    pub ready_pods: u32,
}

/// What stays of a request over all its tries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Visit {
    ask: Ask,
    place: Place,
    since: Nanos,
}

/// What comes of asking for a pod.
pub(super) enum Turn {
    /// One is there.
    Now(Seat),
    /// It has to wait.
    Wait(Ticket),
}

impl Hold {
    pub(super) fn new(settings: HoldSettings, clock: Clock) -> Arc<Self> {
        let (reading, line, pods) = (Line::new(), Line::new(), Pods::new());
        let state = State { reading, line, pods, start_by: None, stopped: false, told: None, drains: None };
        Arc::new(Self { settings, clock, state: Mutex::new(state), held: watch::Sender::new(0) })
    }

    /// What may be held.
    pub(super) fn bounds(&self) -> &HoldSettings {
        &self.settings
    }

    /// Room for a body that is still to come, of `ask.bytes` at most; none where a pod can be had, for then nothing here
    /// bounds it. Asked before a byte is read: whoever sends slowly has no more of it than whoever waits.
    pub(super) fn read(self: &Arc<Self>, ask: Ask) -> Result<Option<Reading>, NotHeld> {
        let now = self.clock.now();
        let mut state = self.state.lock();
        if state.pods.ready(now) > 0 {
            return Ok(None);
        }
        let open = state.open(now).and_then(|()| self.fits(&ask));
        let room = open.and_then(|()| state.reading.make_room(&ask, self.room()).map_err(Why::from));
        room.map_err(|why| state.not_held(why, &self.settings, now))?;
        let (tell, told) = oneshot::channel();
        let place = state.reading.place(ask.priority);
        state.reading.put(place, ask, now, tell);
        Ok(Some(Reading { hold: Arc::clone(self), place, told }))
    }

    /// A request comes. Where a pod can be had it is only passed on, bound by nothing here.
    pub(super) fn arrive(self: &Arc<Self>, ask: Ask) -> Result<(Visit, Turn), NotHeld> {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let place = state.line.place(ask.priority);
        let visit = Visit { ask, place, since: now };
        if let Some(way) = state.pods.seat(now, From::Door) {
            return Ok((visit, Turn::Now(self.seat(way, From::Door))));
        }
        let open = state.open(now).and_then(|()| self.fits(&ask));
        let room = open.and_then(|()| state.line.make_room(&ask, self.room()).map_err(Why::from));
        room.map_err(|why| state.not_held(why, &self.settings, now))?;
        Ok((visit, Turn::Wait(self.wait(&mut state, visit, now))))
    }

    /// The pod that it had could not be had after all: it has the place that it had before. No room is asked for: it had
    /// some, or its body is here already, which the budget of bodies bounds as connections bound how many there are.
    pub(super) fn again(self: &Arc<Self>, visit: Visit) -> Turn {
        let now = self.clock.now();
        let mut state = self.state.lock();
        match state.pods.seat(now, From::Door) {
            Some(way) => Turn::Now(self.seat(way, From::Door)),
            None => Turn::Wait(self.wait(&mut state, visit, now)),
        }
    }

    /// A pod, if one can be had just now.
    pub(super) fn pass(self: &Arc<Self>) -> Option<Seat> {
        let way = self.state.lock().pods.seat(self.clock.now(), From::Door)?;
        Some(self.seat(way, From::Door))
    }

    fn room(&self) -> Room {
        Room { requests: self.settings.max_requests, bytes: self.settings.max_bytes }
    }

    fn fits(&self, ask: &Ask) -> Result<(), Why> {
        if ask.bytes > self.settings.max_body_bytes { Err(Why::TooLarge) } else { Ok(()) }
    }

    fn wait(self: &Arc<Self>, state: &mut State, visit: Visit, now: Nanos) -> Ticket {
        let (tell, told) = oneshot::channel();
        state.line.put(visit.place, visit.ask, visit.since, tell);
        state.dispatch(now);
        self.tell(state);
        Ticket { hold: Arc::clone(self), visit, told }
    }

    fn seat(self: &Arc<Self>, (uid, upstream): Way, from: From) -> Seat {
        Seat { hold: Arc::clone(self), uid, upstream, from }
    }

    /// Whoever asks for pods hears of every change.
    fn tell(&self, state: &State) {
        let requests = state.line.requests();
        self.held.send_if_modified(|known| std::mem::replace(known, requests) != requests);
    }

    /// Takes what the operator says of pods.
    pub(super) fn obey(&self, duty: &Duty, ways: &Ways) {
        let now = self.clock.now();
        let mut state = self.state.lock();
        state.start_by = (duty.start_left_ms > 0).then(|| now.plus(Nanos::from_millis(duty.start_left_ms)));
        state.stopped = duty.stopped;
        state.told = Some(now);
        state.pods.take(&duty.backends, now, |backend, known| match known {
            Some(way) if way.address() == backend.address => Arc::clone(way),
            _ => ways.to(backend.address),
        });
        state.dispatch(now);
        self.tell(&state);
    }

    /// Resolves when more than so many are held.
    pub(super) async fn above(&self, requests: u32) {
        // The sender lives in `self`, so this cannot fail.
        let _ = self.held.subscribe().wait_for(|held| *held > requests).await;
    }

    /// How things stand now.
    pub fn gauges(&self) -> HoldGauges {
        let now = self.clock.now();
        let state = self.state.lock();
        HoldGauges {
            requests: state.line.requests(),
            bytes: state.line.bytes(),
            oldest_wait: state.line.oldest().map_or(Nanos::ZERO, |since| now.since(since)),
            forwarding: state.pods.running(),
            ready_pods: state.pods.ready(now),
        }
    }

    /// Why nothing is held any more, and when to come back.
    pub(super) fn refusal(&self, why: Why) -> NotHeld {
        self.state.lock().not_held(why, &self.settings, self.clock.now())
    }

    /// The pods of which nothing was heard for long, and the ways to them.
    pub(super) fn quiet(&self) -> Vec<(String, Arc<Upstream>)> {
        self.state.lock().pods.quiet(self.clock.now())
    }

    /// A pod has answered in its own name.
    pub(super) fn answered(&self, uid: &str) {
        let now = self.clock.now();
        let mut state = self.state.lock();
        state.pods.answered(uid, now);
        state.dispatch(now);
        self.tell(&state);
    }

    /// Looks for pods that can be had again, and whether somebody still asks for some while this shuts down, until it is
    /// dropped.
    pub(super) async fn watch(&self, drains: impl Fn() -> bool) {
        loop {
            sleep(LOOK_INTERVAL).await;
            let now = self.clock.now();
            let mut state = self.state.lock();
            state.drains = drains().then(|| state.drains.unwrap_or(now));
            state.dispatch(now);
            self.tell(&state);
        }
    }
}

impl State {
    /// Hands pods to those who wait, for as long as there are both. Where no pod comes nobody waits for one.
    fn dispatch(&mut self, now: Nanos) {
        while !self.line.is_empty()
            && let Some(way) = self.pods.seat(now, From::Line)
        {
            let uid = way.0.clone();
            // Whoever leaves takes itself out of the line first, so there is somebody to tell.
            if self.line.next().is_none_or(|tell| tell.send(way).is_err()) {
                self.pods.left(&uid, From::Line);
            }
        }
        if self.open(now).is_err() {
            self.line.clear();
            self.reading.clear();
        }
    }

    /// Whether a pod is there, or may come.
    fn open(&self, now: Nanos) -> Result<(), Why> {
        match () {
            () if self.pods.ready(now) > 0 => Ok(()),
            () if self.stopped => Err(Why::Stopped),
            () if self.is_abandoned(now) => Err(Why::Draining),
            () => Ok(()),
        }
    }

    fn is_abandoned(&self, now: Nanos) -> bool {
        let last = self.drains.map(|drains| self.told.map_or(drains, |told| told.max(drains)));
        last.is_some_and(|last| now.since(last) >= ABANDONED)
    }

    fn not_held(&self, why: Why, settings: &HoldSettings, now: Nanos) -> NotHeld {
        let why = self.open(now).err().unwrap_or(why);
        let wait = (why != Why::Stopped).then(|| self.wait(now));
        NotHeld { why, wait, max_hold: settings.max_hold.into(), max_body_bytes: settings.max_body_bytes }
    }

    fn wait(&self, now: Nanos) -> Nanos {
        match self.start_by {
            _ if self.pods.ready(now) > 0 => SOON,
            Some(by) => by.since(now).max(SOON),
            None => UNKNOWN_START,
        }
    }
}

impl std::convert::From<NoRoom> for Why {
    fn from(room: NoRoom) -> Self {
        match room {
            NoRoom::Client => Self::ClientFull,
            NoRoom::All => Self::Full,
        }
    }
}

/// Room for a body that is being read. Dropped: it was read, or is given up.
pub(super) struct Reading {
    hold: Arc<Hold>,
    place: Place,
    told: oneshot::Receiver<()>,
}

impl Reading {
    /// Resolves when its room is another's.
    pub(super) async fn taken(&mut self) -> NotHeld {
        let _ = (&mut self.told).await;
        self.hold.refusal(Why::Full)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.hold.state.lock().reading.leave(self.place);
    }
}

/// A pod whose node is lost says nothing for ever: after so long without a sign its connections are given up.
const LOST_AFTER: Duration = Duration::from_secs(20);

/// Makes ways to pods.
pub(super) struct Ways {
    pub(super) connect_timeout: Duration,
    pub(super) metrics: Arc<Metrics>,
}

impl Ways {
    fn to(&self, address: std::net::SocketAddr) -> Arc<Upstream> {
        let upstream = Upstream::new(address, self.connect_timeout, Arc::clone(&self.metrics));
        Arc::new(upstream.lost_after(LOST_AFTER))
    }
}

/// A place in the line. Dropped: its client has gone.
pub(super) struct Ticket {
    hold: Arc<Hold>,
    visit: Visit,
    told: oneshot::Receiver<Way>,
}

impl Ticket {
    /// Waits for a pod.
    pub(super) async fn seat(mut self) -> Result<Seat, NotHeld> {
        let hold = Arc::clone(&self.hold);
        let deadline = hold.clock.instant(self.visit.since.plus(hold.settings.max_hold.into()));
        // Told at the last moment, it is told: dropping the ticket would give the pod back.
        match timeout_at(deadline, &mut self.told).await {
            Ok(Ok(way)) => Ok(hold.seat(way, From::Line)),
            Ok(Err(_)) => Err(hold.refusal(Why::Full)),
            // Where a pod serves, its queue is to say how long is too long.
            Err(_) => hold.pass().ok_or_else(|| hold.refusal(Why::TooLate)),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let now = self.hold.clock.now();
        let mut state = self.hold.state.lock();
        if state.line.leave(self.visit.place).is_none()
            && let Ok((uid, _)) = self.told.try_recv()
        {
            state.pods.left(&uid, From::Line);
            state.dispatch(now);
        }
        self.hold.tell(&state);
    }
}

/// One request in a pod. Dropped: it is over, and who is next gets the pod.
pub(super) struct Seat {
    hold: Arc<Hold>,
    uid: String,
    upstream: Arc<Upstream>,
    from: From,
}

impl Seat {
    /// The pod, by its UID.
    pub(super) fn pod(&self) -> &str {
        &self.uid
    }

    /// The way to it.
    pub(super) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// The pod could not be had: it is left alone for a while.
    pub(super) fn set_aside(&self) {
        let now = self.hold.clock.now();
        self.hold.state.lock().pods.set_aside(&self.uid, now);
    }

    /// The pod has answered in its own name.
    pub(super) fn answered(&self) {
        let now = self.hold.clock.now();
        self.hold.state.lock().pods.answered(&self.uid, now);
    }

    /// The pod was reached, and gave no answer.
    pub(super) fn failed(&self) {
        let now = self.hold.clock.now();
        self.hold.state.lock().pods.failed(&self.uid, now);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let now = self.hold.clock.now();
        let mut state = self.hold.state.lock();
        state.pods.left(&self.uid, self.from);
        state.dispatch(now);
        self.hold.tell(&state);
    }
}

#[cfg(test)]
#[path = "hold_tests.rs"]
mod tests;
