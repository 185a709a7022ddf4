//! One exchange with Ollama, in a task of its own: it outlives a client that leaves before the first byte.
//!
//! Ollama never lets go of a request whose client leaves before it was scheduled, so the connection is held until the
//! first byte, or until it is certain that the request is on a runner, or for as long as scheduling can take; the slot
//! is held with it. After that a cut stops the model at once. Frames go on as they come: one in, one out.
//!
//! When what works on it stops, whoever waits is told at once: a stream ends in its API's error, and a request without an
//! answer gets 503, though the exchange itself may still be held, as for a client that has left.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use corral_limiter::queue::Strain;
use http::header::CONTENT_TYPE;
use http::{StatusCode, response};
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::sync::{mpsc, oneshot};

use super::Proxy;
use super::admission::{Denied, Passed, Permit};
use super::departed::Flight;
use super::dispatch::{self, Begun, Incoming, Sent, fares_badly, stopped};
use super::ending::{End, Verdict, Watch};
use super::listener::{Answer, Cut, Listener};
use super::residency::{Head, Need};
use super::retry::{self, Tries};
use super::route::Ending;
use super::tokens::{Account, Edit, How};
use super::trouble;
use super::upstream::{NoAnswer, Order};
use crate::metrics::UpstreamFailure;

/// What an exchange holds until it is over.
pub(crate) enum Hold {
    /// A slot, for a request that needs a runner.
    Slot { permit: Permit, need: Need, account: Box<Account> },
    /// Nothing but its place among the requests of its client.
    Passed(Passed),
}

impl Hold {
    /// What is to be changed in the body before it is sent.
    pub(crate) fn edits(&self) -> &[Edit] {
        match self {
            Self::Slot { account, .. } => account.edits(),
            Self::Passed(_) => &[],
        }
    }

    /// The runner that is needed.
    pub(super) fn need(&self) -> Option<&Need> {
        match self {
            Self::Slot { need, .. } => Some(need),
            Self::Passed(_) => None,
        }
    }

    /// What the exchange will probably cost the queue.
    pub(super) fn cost(&self, proxy: &Proxy) -> u64 {
        match self {
            Self::Slot { account, .. } => account.queue_cost(proxy.cost_model()),
            Self::Passed(_) => 0,
        }
    }

    /// Gives the slot back after so many tokens of the prompt, and waits for another one that will cost so much.
    pub(super) async fn again(self, spent: u64, next: u64) -> Result<Self, Denied> {
        match self {
            Self::Slot { permit, need, account } => {
                let permit = permit.again((spent, 0), next).await?;
                Ok(Self::Slot { permit, need, account })
            }
            Self::Passed(passed) => Ok(Self::Passed(passed)),
        }
    }

    /// The head of an answer with this status has come.
    pub(super) fn answered(&self, status: StatusCode) {
        if let Self::Slot { permit, .. } = self
            && status.is_success()
        {
            permit.loaded();
        }
    }

    /// An answer begins. Says whether bytes may be taken out of it.
    pub(super) fn begin(&mut self, stream: bool) -> bool {
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
    pub(super) fn settle(&mut self, how: How, proxy: &Proxy) {
        if let Self::Slot { permit, account, .. } = self {
            account.settle(how, permit, proxy);
        }
    }
}

/// One exchange to be had.
pub(crate) struct Job {
    pub(crate) order: Order,
    pub(crate) hold: Hold,
    pub(crate) ending: Ending,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
    /// The runner has stopped, or Ollama as a whole has, with the request somewhere in it.
    #[error("Ollama has stopped working")]
    Stalled,
    /// The time of the drain was over.
    #[error("this pod is shutting down")]
    Drained,
    /// Parts of it had an answer that makes no sense, or broke off.
    #[error("Ollama's answer to a part of the request is broken")]
    Broken,
    /// It was to be sent once more, or in parts, and got no other slot.
    #[error("no slot came for the rest of it")]
    Denied(Denied),
}

/// Begins an exchange. Dropping what is returned tells it that the client has left.
pub(crate) fn start(proxy: &Arc<Proxy>, job: Job) -> oneshot::Receiver<Result<Answer, Failed>> {
    let (reply, answer) = oneshot::channel();
    let proxy = Arc::clone(proxy);
    tokio::spawn(async move { run(&proxy, job, Listener::Waits(reply)).await });
    answer
}

async fn run(proxy: &Proxy, job: Job, mut listener: Listener) {
    let Job { order, mut hold, ending } = job;
    let mut tries = Tries::begin(proxy);
    loop {
        let sent = dispatch::send(proxy, order.request(hold.edits()), hold.need(), &mut listener).await;
        if !tries.once_more(proxy, &sent, &listener) {
            // Ollama has read the body.
            drop(order);
            return conclude(proxy, sent, hold, ending, listener).await;
        }
        drop(sent);
        let Some(anew) = retry::anew(proxy, hold, &mut listener).await else { return };
        hold = anew;
    }
}

/// Hands on what came of it.
async fn conclude(proxy: &Proxy, sent: Sent<'_>, mut hold: Hold, ending: Ending, mut listener: Listener) {
    match sent {
        Sent::Begun(begun) => deliver(proxy, *begun, hold, ending, listener).await,
        Sent::Failed(error) => {
            drop(hold);
            listener.fail(error.into()).await;
        }
        Sent::Unwanted => hold.settle(How::Left, proxy),
        // Who had left before it was sent, and who was told of a stall, is charged for nothing.
        Sent::Unsent | Sent::Stalled => {}
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
pub(super) async fn deliver(
    proxy: &Proxy,
    begun: Begun<'_>,
    hold: Hold,
    ending: Ending,
    mut listener: Listener,
) {
    let Begun { flight, head, body, lease, took, .. } = begun;
    if matches!(listener, Listener::Told) {
        return;
    }
    let stream = is_stream(&head);
    let mut exchange = Exchange { flight, hold, ending: if stream { ending } else { Ending::Whole } };
    if exchange.began_late(took, proxy) {
        proxy.core.trouble();
    }
    if let Some(flight) = &exchange.flight {
        flight.answered(kind_of(&head));
    }
    exchange.hold.answered(head.status);
    let shrinks = exchange.hold.begin(stream);
    let length = body.size_hint().exact().filter(|_| !shrinks);
    let mut watch = Watch::new(exchange.ending);
    let status = head.status;
    let Some(client) = listener.open(status, head.headers, length, shrinks) else {
        return exchange.hold.settle(How::Left, proxy);
    };
    let Some((end, rest)) = pump(proxy, body, &mut watch, &client.frames, &mut exchange).await else {
        return exchange.hold.settle(How::Left, proxy);
    };
    if let (End::Closed, Some(lease)) = (end, lease) {
        proxy.upstream.give_back(lease);
    }
    let verdict = watch.verdict(end);
    // Before the client hears of the end: what it does next finds everything settled.
    settle(proxy, exchange, status, verdict == Verdict::Complete);
    if !rest.is_empty() && client.frames.send(Ok(rest)).await.is_err() {
        return;
    }
    let last = match verdict {
        Verdict::Complete => return,
        Verdict::Say(words) => Ok(words),
        Verdict::Abort => Err(Cut),
    };
    note_end(proxy, end);
    client.end(end, last).await;
}

/// Learns from an answer that ended before its end.
pub(super) fn note_end(proxy: &Proxy, end: End) {
    match end {
        End::Drained => {}
        End::Stalled => {
            proxy.core.metrics.upstream_failed(UpstreamFailure::Stalled);
            proxy.core.trouble();
        }
        End::Closed | End::Broken => proxy.core.metrics.upstream_failed(UpstreamFailure::Cut),
    }
}

/// The answer is over: settles its account, and gives back what it held.
fn settle(proxy: &Proxy, mut exchange: Exchange<'_>, status: StatusCode, complete: bool) {
    if complete && status.is_success() && matches!(exchange.hold, Hold::Slot { .. }) {
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

pub(super) fn kind_of(head: &response::Parts) -> Head {
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
