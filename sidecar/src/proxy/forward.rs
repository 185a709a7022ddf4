//! One exchange with Ollama, in a task of its own: it outlives a client that leaves before the first byte.
//!
//! Ollama never lets go of a request whose client leaves before it was scheduled, so the connection is held until the
//! first byte, or until it is certain that the request is on a runner, or for as long as scheduling can take; the slot
//! is held with it. After that a cut stops the model at once. Frames go on as they come: one in, one out.
//!
//! When what works on it stops, whoever waits is told at once: a stream ends in its API's error, and a request without an
//! answer gets 503, though the exchange itself may still be held, as for a client that has left.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, StatusCode, response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
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
use super::upstream::{Lease, NoAnswer};
use crate::metrics::UpstreamFailure;

/// Frames that wait for a slow client; beyond it Ollama waits.
const FRAMES_AHEAD: usize = 4;

/// What an exchange holds until it is over.
pub(crate) enum Hold {
    /// A slot, for a request that needs a runner.
    Slot(Permit, Need),
    /// Nothing but its place among the requests of its client.
    Passed(#[expect(dead_code, reason = "held for what its drop gives back")] Passed),
}

impl Hold {
    /// Ollama has worked on the request.
    fn serve(&mut self) {
        if let Self::Slot(permit, _) = self {
            permit.serve();
        }
    }
}

/// One exchange to be had.
pub(crate) struct Job {
    pub(crate) request: Request<Full<Bytes>>,
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
    /// The length of the body, if Ollama said it.
    pub(crate) length: Option<u64>,
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
        Hold::Slot(_, need) => Some(Flight::begin(&proxy.residency, need.clone())),
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
    note(&proxy, begun.as_ref(), dispatched);
    // A client that has left is charged for what Ollama did; one that is told of a stall is not.
    if reply.is_some() && !matches!(begun, Some(Err(_))) {
        hold.serve();
    }
    match (begun, reply) {
        (Some(Ok((response, lease))), Some(reply)) => {
            deliver(&proxy, response, lease, ending, flight.as_ref(), reply).await;
        }
        (Some(Err(error)), Some(reply)) => _ = reply.send(Err(error.into())),
        _ => {}
    }
    drop(flight);
    drop(hold);
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
fn note(proxy: &Proxy, begun: Option<&Begun>, dispatched: Instant) {
    let (health, metrics) = (&proxy.core.health, &proxy.core.metrics);
    match begun {
        None => {}
        Some(Ok((response, _))) => {
            health.upstream_answered();
            metrics.upstream_first_byte(Instant::now().saturating_duration_since(dispatched));
            if response.status() == StatusCode::SERVICE_UNAVAILABLE {
                proxy.core.tally().upstream_busy();
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

/// Hands the answer to the client as it comes. Returning drops the lease unless it was given back: that cuts it.
async fn deliver(
    proxy: &Proxy,
    response: response::Response<Incoming>,
    lease: Lease,
    ending: Ending,
    flight: Option<&Flight<'_>>,
    reply: Reply,
) {
    let (head, body) = response.into_parts();
    if let Some(flight) = flight {
        flight.answered(kind_of(&head));
    }
    let (frames, receiver) = mpsc::channel(FRAMES_AHEAD);
    let length = body.size_hint().exact();
    let mut watch = Watch::new(if is_stream(&head) { ending } else { Ending::Whole });
    let fate = Arc::new(OnceLock::new());
    let told = Arc::clone(&fate);
    let answer = Answer { status: head.status, headers: head.headers, length, frames: receiver, fate: told };
    if reply.send(Ok(answer)).is_err() {
        return;
    }
    let Some(end) = pump(proxy, body, &mut watch, &frames, flight).await else {
        return;
    };
    if end == End::Closed {
        proxy.upstream.give_back(lease);
    }
    let last = match watch.verdict(end) {
        Verdict::Complete => {
            if head.status.is_success() {
                proxy.core.tally().completed();
            }
            return;
        }
        Verdict::Say(words) => Ok(words),
        Verdict::Abort => Err(Cut),
    };
    let _ = fate.set(end);
    match end {
        End::Drained => {}
        End::Stalled => proxy.core.metrics.upstream_failed(UpstreamFailure::Stalled),
        End::Closed | End::Broken => proxy.core.metrics.upstream_failed(UpstreamFailure::Cut),
    }
    // A client that has left meanwhile wants no last words.
    let _ = frames.send(last).await;
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

/// Passes frames on until Ollama ends, or this sidecar; none if the client left before.
async fn pump(
    proxy: &Proxy,
    mut body: Incoming,
    watch: &mut Watch,
    client: &mpsc::Sender<Result<Bytes, Cut>>,
    flight: Option<&Flight<'_>>,
) -> Option<End> {
    let health = &proxy.core.health;
    let (cut, stopped) = (health.until_cut(), stopped(proxy, flight));
    tokio::pin!(cut, stopped);
    loop {
        // A body of known length is over with its last byte: the client need not be there any more.
        if body.is_end_stream() {
            return Some(End::Closed);
        }
        let frame = tokio::select! {
            biased;
            () = client.closed() => return None,
            () = &mut cut => return Some(End::Drained),
            () = &mut stopped => return Some(End::Stalled),
            frame = body.frame() => frame,
        };
        match frame {
            None => return Some(End::Closed),
            Some(Err(_)) => return Some(End::Broken),
            Some(Ok(frame)) => {
                health.upstream_answered();
                if let Ok(data) = frame.into_data() {
                    watch.see(&data);
                    hand_on(client, data, flight).await.ok()?;
                }
            }
        }
    }
}

/// Passes one frame on. While Ollama has to wait for a client, silence says nothing about Ollama.
async fn hand_on(
    client: &mpsc::Sender<Result<Bytes, Cut>>,
    data: Bytes,
    flight: Option<&Flight<'_>>,
) -> Result<(), mpsc::error::SendError<Result<Bytes, Cut>>> {
    let Some(flight) = flight else {
        return client.send(Ok(data)).await;
    };
    flight.pulse.beat();
    if client.capacity() > 0 {
        return client.send(Ok(data)).await;
    }
    flight.lagging();
    flight.pulse.handing_on(true);
    let handed = client.send(Ok(data)).await;
    flight.pulse.handing_on(false);
    handed
}
