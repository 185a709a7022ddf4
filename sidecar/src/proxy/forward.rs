//! One exchange with Ollama, in a task of its own: it outlives a client that leaves before the first byte.
//!
//! Ollama never lets go of a request whose client leaves before it was scheduled, so the connection is held until the
//! first byte, or until it is certain that the request is on a runner, or for as long as scheduling can take; the slot
//! is held with it. After that a cut stops the model at once. Frames go on as they come: one in, one out.
//!
//! When what works on it stops, whoever waits is told at once: a stream ends in its API's error, and a request without an
//! answer gets 503, though the exchange itself may still be held, as for a client that has left.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use corral_limiter::queue::Strain;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, StatusCode, response};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::Proxy;
use super::admission::{Passed, Permit};
use super::departed::Flight;
use super::ending::{End, Verdict, Watch};
use super::inspect::Held;
use super::residency::{Head, Need};
use super::route::Ending;
use super::tokens::{Account, Edit, How};
use super::trouble;
use super::upstream::{Lease, NoAnswer, Pieces};
use crate::metrics::UpstreamFailure;

/// Frames that wait for a slow client; beyond it Ollama waits.
const FRAMES_AHEAD: usize = 4;

/// What an exchange holds until it is over.
pub(crate) enum Hold {
    /// A slot, for a request that needs a runner.
    Slot { permit: Permit, need: Need, account: Box<Account> },
    /// Nothing but its place among the requests of its client.
    Passed(#[expect(dead_code, reason = "held for what its drop gives back")] Passed),
}

impl Hold {
    /// What is to be changed in the body before it is sent.
    pub(crate) fn edits(&self) -> &[Edit] {
        match self {
            Self::Slot { account, .. } => account.edits(),
            Self::Passed(_) => &[],
        }
    }

    /// The head of an answer with this status has come.
    fn answered(&self, status: StatusCode) {
        if let Self::Slot { permit, .. } = self
            && status.is_success()
        {
            permit.loaded();
        }
    }

    /// An answer begins. Says whether bytes may be taken out of it.
    fn begin(&mut self, stream: bool) -> bool {
        match self {
            Self::Slot { account, .. } => account.begin(stream),
            Self::Passed(_) => false,
        }
    }

    /// Bytes of the answer go by; what is returned goes on.
    fn see(&mut self, data: Bytes) -> Bytes {
        match self {
            Self::Slot { permit, account, .. } => account.see(data, permit),
            Self::Passed(_) => data,
        }
    }

    /// The answer is over. Returns what of it was kept back.
    fn rest(&mut self) -> Bytes {
        match self {
            Self::Slot { account, .. } => account.rest(),
            Self::Passed(_) => Bytes::new(),
        }
    }

    /// Settles what was reserved. Not called, everything is given back.
    fn settle(&mut self, how: How, proxy: &Proxy) {
        if let Self::Slot { permit, account, .. } = self {
            account.settle(how, permit, proxy);
        }
    }
}

/// One exchange to be had.
pub(crate) struct Job {
    pub(crate) request: Request<Pieces>,
    /// The body's room, until Ollama has read it.
    pub(crate) body: Option<Held>,
    pub(crate) hold: Hold,
    pub(crate) ending: Ending,
}

/// The answer as it begins.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// The length of the body, if Ollama said it, and nothing is taken out of it.
    pub(crate) length: Option<u64>,
    /// Bytes may be taken out of it: it has another length than Ollama says.
    pub(crate) shrinks: bool,
    pub(crate) frames: mpsc::Receiver<Result<Bytes, Cut>>,
    /// Set before the last frame if the answer ends before its end.
    pub(crate) fate: Arc<OnceLock<End>>,
}

/// The answer ended in the middle, and its API has no way to say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer of Ollama ended before its end")]
pub(crate) struct Cut;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
    /// The runner has stopped, or Ollama as a whole has, with the request somewhere in it.
    #[error("Ollama has stopped working")]
    Stalled,
}

/// Where the answer goes.
type Reply = oneshot::Sender<Result<Answer, Failed>>;

/// Begins an exchange. Dropping what is returned tells it that the client has left.
pub(crate) fn start(proxy: &Arc<Proxy>, job: Job) -> oneshot::Receiver<Result<Answer, Failed>> {
    let (reply, answer) = oneshot::channel();
    tokio::spawn(run(Arc::clone(proxy), job, reply));
    answer
}

async fn run(proxy: Arc<Proxy>, job: Job, reply: Reply) {
    let Job { request, body, mut hold, ending } = job;
    let dispatched = Instant::now();
    let flight = match &hold {
        Hold::Slot { need, .. } => Some(Flight::begin(&proxy, need.clone())),
        Hold::Passed(_) => None,
    };
    let mut reply = Some(reply);
    let begun = {
        let sending = proxy.upstream.send(request);
        tokio::pin!(sending);
        tokio::select! {
            biased;
            begun = &mut sending => Some(begun),
            () = unwanted(&proxy, flight.as_ref(), dispatched, &mut reply) => None,
        }
    };
    drop(body);
    note(&proxy, flight.as_ref(), begun.as_ref(), dispatched);
    // One that was told of a stall is charged for nothing.
    let Some(reply) = reply else { return };
    match begun {
        Some(Ok((response, lease))) => {
            deliver(&proxy, response, lease, Exchange { flight, hold, ending }, (dispatched, reply)).await;
        }
        Some(Err(error)) => {
            drop((flight, hold));
            let _ = reply.send(Err(error.into()));
        }
        None => hold.settle(How::Left, &proxy),
    }
}

/// Waits until nobody wants the answer any more and a cut does no harm.
async fn unwanted(
    proxy: &Proxy,
    flight: Option<&Flight<'_>>,
    dispatched: Instant,
    reply: &mut Option<Reply>,
) {
    let Some(waiting) = reply else { return };
    let stalled = tokio::select! {
        () = waiting.closed() => false,
        () = stopped(proxy, flight) => true,
    };
    if stalled && let Some(reply) = reply.take() {
        proxy.core.metrics.upstream_failed(UpstreamFailure::Stalled);
        // A client that has left at this very moment is not told.
        let _ = reply.send(Err(Failed::Stalled));
    }
    if let Some(flight) = flight {
        tokio::select! {
            () = flight.scheduled(proxy) => {}
            () = sleep_until(dispatched + proxy.settings.hold_loading) => {}
        }
    }
}

/// Waits until whatever works on the exchange has stopped.
async fn stopped(proxy: &Proxy, flight: Option<&Flight<'_>>) {
    match flight {
        Some(flight) => flight.pulse.until_ended().await,
        None => proxy.core.health.until_wedged().await,
    }
}

type Begun = Result<(response::Response<Incoming>, Lease), NoAnswer>;

/// Learns from how an exchange began.
fn note(proxy: &Proxy, flight: Option<&Flight<'_>>, begun: Option<&Begun>, dispatched: Instant) {
    let (health, metrics) = (&proxy.core.health, &proxy.core.metrics);
    match begun {
        None => {}
        Some(Ok((response, _))) => {
            health.upstream_answered();
            metrics.upstream_first_byte(Instant::now().saturating_duration_since(dispatched));
            if response.status() == StatusCode::SERVICE_UNAVAILABLE {
                proxy.core.tally().upstream_busy();
                fares_badly(proxy, flight, Strain::Busy);
                metrics.upstream_failed(UpstreamFailure::Busy);
            }
        }
        Some(Err(NoAnswer::Refused(_))) => {
            health.upstream_refused();
            metrics.upstream_failed(UpstreamFailure::Connect);
        }
        Some(Err(NoAnswer::Unreachable(_))) => {
            health.upstream_silent();
            metrics.upstream_failed(UpstreamFailure::Connect);
        }
        Some(Err(NoAnswer::Ended(_) | NoAnswer::NotFinal(_))) => {
            metrics.upstream_failed(UpstreamFailure::NoAnswer);
        }
    }
}

/// Ollama fares badly, and so does the model, if the exchange is about one.
fn fares_badly(proxy: &Proxy, flight: Option<&Flight<'_>>, sign: Strain) {
    proxy.core.trouble();
    if let Some(flight) = flight {
        flight.strained(sign);
    }
}

/// An exchange whose answer has begun.
struct Exchange<'a> {
    // Dropped in this order: first the residency learns that it is over.
    flight: Option<Flight<'a>>,
    hold: Hold,
    ending: Ending,
}

impl Exchange<'_> {
    /// Whether a stream on a runner has begun far later than its prompt explains. Of one that may have waited for a load
    /// nothing is said.
    fn began_late(&self, took: Duration, proxy: &Proxy) -> bool {
        let aboard = self.flight.as_ref().is_some_and(Flight::is_aboard);
        matches!(&self.hold, Hold::Slot { account, .. } if aboard && account.began_late(took, proxy))
    }

    /// Its answer is complete: it may tell for how long it waited inside Ollama.
    fn tell_times(&self) {
        if let (Some(flight), Hold::Slot { account, .. }) = (&self.flight, &self.hold)
            && let Some(times) = account.times()
        {
            flight.took(times);
        }
    }
}

/// Hands the answer to the client as it comes. Returning drops the lease unless it was given back: that cuts it.
async fn deliver(
    proxy: &Proxy,
    response: response::Response<Incoming>,
    lease: Lease,
    mut exchange: Exchange<'_>,
    (dispatched, reply): (Instant, Reply),
) {
    let (head, body) = response.into_parts();
    if exchange.began_late(dispatched.elapsed(), proxy) {
        fares_badly(proxy, exchange.flight.as_ref(), Strain::Late);
    }
    if let Some(flight) = &exchange.flight {
        flight.answered(kind_of(&head));
    }
    exchange.hold.answered(head.status);
    let (frames, receiver) = mpsc::channel(FRAMES_AHEAD);
    let stream = is_stream(&head);
    let shrinks = exchange.hold.begin(stream);
    let length = body.size_hint().exact().filter(|_| !shrinks);
    let mut watch = Watch::new(if stream { exchange.ending } else { Ending::Whole });
    let fate = Arc::new(OnceLock::new());
    let told = Arc::clone(&fate);
    let status = head.status;
    let answer = Answer { status, headers: head.headers, length, shrinks, frames: receiver, fate: told };
    let end = match reply.send(Ok(answer)) {
        Ok(()) => pump(proxy, body, &mut watch, &frames, &mut exchange).await,
        Err(_) => None,
    };
    let Some((end, rest)) = end else {
        exchange.hold.settle(How::Left, proxy);
        return;
    };
    if end == End::Closed {
        proxy.upstream.give_back(lease);
    }
    let verdict = watch.verdict(end);
    // Before the client hears of the end: what it does next finds everything settled.
    settle(proxy, exchange, status, verdict == Verdict::Complete);
    if !rest.is_empty() && frames.send(Ok(rest)).await.is_err() {
        return;
    }
    let last = match verdict {
        Verdict::Complete => return,
        Verdict::Say(words) => Ok(words),
        Verdict::Abort => Err(Cut),
    };
    let _ = fate.set(end);
    match end {
        End::Drained => {}
        End::Stalled => {
            proxy.core.metrics.upstream_failed(UpstreamFailure::Stalled);
            proxy.core.trouble();
        }
        End::Closed | End::Broken => proxy.core.metrics.upstream_failed(UpstreamFailure::Cut),
    }
    // A client that has left meanwhile wants no last words.
    let _ = frames.send(last).await;
}

/// The answer is over: settles its account, and gives back what it held.
fn settle(proxy: &Proxy, mut exchange: Exchange<'_>, status: StatusCode, complete: bool) {
    if complete && status.is_success() {
        proxy.core.tally().completed();
    }
    let how = match (status.as_u16(), complete) {
        // Ollama itself has failed: whatever was charged is given back.
        (500.., _) => return,
        (400.., _) => How::Refused,
        (_, true) => {
            exchange.tell_times();
            How::Complete
        }
        (_, false) => How::Broken,
    };
    exchange.hold.settle(how, proxy);
}

fn kind_of(head: &response::Parts) -> Head {
    match head.status.is_success() {
        true if is_stream(head) => Head::Stream,
        true => Head::Whole,
        false => Head::Error,
    }
}

/// Whether an answer is one of the streams whose end is marked.
fn is_stream(head: &response::Parts) -> bool {
    let kind = head.headers.get(CONTENT_TYPE).map_or(&[][..], http::HeaderValue::as_bytes);
    head.status == StatusCode::OK
        && (kind.starts_with(b"text/event-stream") || kind.starts_with(b"application/x-ndjson"))
}

/// Passes frames on until Ollama ends, or this sidecar; none if the client left before. What ends a body is not passed
/// on but returned, where it is known to: there are things to do before its client has it.
async fn pump(
    proxy: &Proxy,
    mut body: Incoming,
    watch: &mut Watch,
    client: &mpsc::Sender<Result<Bytes, Cut>>,
    exchange: &mut Exchange<'_>,
) -> Option<(End, Bytes)> {
    let health = &proxy.core.health;
    let Exchange { flight, hold, .. } = exchange;
    let flight = flight.as_ref();
    let (cut, stopped) = (health.until_cut(), stopped(proxy, flight));
    tokio::pin!(cut, stopped);
    // A body of known length is over with its last byte: the client need not be there any more.
    if body.is_end_stream() {
        return Some((End::Closed, Bytes::new()));
    }
    let end = loop {
        let frame = tokio::select! {
            biased;
            () = client.closed() => return None,
            () = &mut cut => break End::Drained,
            () = &mut stopped => break End::Stalled,
            frame = body.frame() => frame,
        };
        match frame {
            None => break End::Closed,
            Some(Err(_)) => break End::Broken,
            Some(Ok(frame)) => {
                health.upstream_answered();
                let data = frame.into_data().unwrap_or_default();
                if trouble::tells_of_full_memory(&data) {
                    fares_badly(proxy, flight, Strain::OutOfMemory);
                }
                watch.see(&data);
                let data = hold.see(data);
                if body.is_end_stream() {
                    return Some((End::Closed, joined(data, hold.rest())));
                }
                hand_on(client, data, flight).await.ok()?;
            }
        }
    };
    Some((end, hold.rest()))
}

fn joined(data: Bytes, rest: Bytes) -> Bytes {
    if rest.is_empty() { data } else { [data, rest].concat().into() }
}

/// Passes one frame on. While Ollama has to wait for a client, silence says nothing about Ollama.
async fn hand_on(
    client: &mpsc::Sender<Result<Bytes, Cut>>,
    data: Bytes,
    flight: Option<&Flight<'_>>,
) -> Result<(), mpsc::error::SendError<Result<Bytes, Cut>>> {
    if let Some(flight) = flight {
        flight.pulse.beat();
    }
    // All of it may have been taken out.
    if data.is_empty() {
        return Ok(());
    }
    let Some(flight) = flight else {
        return client.send(Ok(data)).await;
    };
    if client.capacity() > 0 {
        return client.send(Ok(data)).await;
    }
    flight.lagging();
    flight.pulse.handing_on(true);
    let handed = client.send(Ok(data)).await;
    flight.pulse.handing_on(false);
    handed
}
