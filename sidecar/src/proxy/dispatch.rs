//! Sends Ollama one request and waits for the head of its answer, whoever asked for it and however often.
//!
//! Nothing is sent to who has left, and nothing while the breaker is open. A connection is not cut in its first moments
//! (see [`super::departed`]).

use std::time::Duration;

use bytes::Bytes;
use corral_limiter::queue::Strain;
use http::{Request, StatusCode, response};
use http_body::Body;
use http_body_util::{BodyExt, Either, Full};
use memchr::memmem;
use tokio::time::{Instant, sleep, sleep_until};

use super::Proxy;
use super::departed::Flight;
use super::listener::Listener;
use super::residency::Need;
use super::upstream::{Lease, NoAnswer, Pieces};
use crate::health::Pass;
use crate::metrics::UpstreamFailure;

/// The longest 503 that is looked into; Ollama's has 82 bytes.
const MAX_BUSY: u64 = 4096;
/// What its text says.
const BUSY: &[u8] = b"maximum pending requests exceeded";
/// Its few bytes come with its head.
const BUSY_WITHIN: Duration = Duration::from_secs(1);

/// A body that comes, or is all there.
pub(super) type Incoming = Either<hyper::body::Incoming, Full<Bytes>>;

/// What came of a request.
pub(super) enum Sent<'a> {
    /// Its answer begins.
    Begun(Box<Begun<'a>>),
    /// There is none.
    Failed(NoAnswer),
    /// Whoever asked has left, and a cut does no harm.
    Unwanted,
    /// Whoever asked had left before it was sent.
    Unsent,
    /// What worked on it has stopped, and whoever asked was told.
    Stalled,
}

/// An answer as it begins.
pub(super) struct Begun<'a> {
    // Dropped in this order: first the residency learns that it is over.
    pub(super) flight: Option<Flight<'a>>,
    pub(super) head: response::Parts,
    pub(super) body: Incoming,
    /// None if it has been read to its end already.
    pub(super) lease: Option<Lease>,
    /// How long it took to begin.
    pub(super) took: Duration,
    /// Ollama had no room for the request: it has not begun to work on it.
    pub(super) busy: bool,
}

/// Sends a request, for which a runner is needed or not.
pub(super) async fn send<'a>(
    proxy: &'a Proxy,
    request: Request<Pieces>,
    need: Option<&Need>,
    listener: &mut Listener,
) -> Sent<'a> {
    let pass = tokio::select! {
        biased;
        () = listener.gone() => return Sent::Unsent,
        pass = proxy.core.health.let_pass(proxy.core.clock()) => pass,
    };
    let Some(pass) = pass else {
        return Sent::Failed(NoAnswer::Shut);
    };
    let flight = need.map(|need| Flight::begin(proxy, need.clone()));
    let dispatched = Instant::now();
    let sending = proxy.upstream.send(request);
    tokio::pin!(sending);
    let answer = tokio::select! {
        biased;
        answer = &mut sending => answer,
        sent = unwanted(proxy, flight.as_ref(), dispatched, listener) => return sent,
    };
    let took = dispatched.elapsed();
    note(proxy, (pass, flight.as_ref()), &answer, took);
    let (response, lease) = match answer {
        Ok(answer) => answer,
        Err(error) => return Sent::Failed(error),
    };
    let (head, body) = response.into_parts();
    let begun = Begun { flight, head, body: Either::Left(body), lease: Some(lease), took, busy: false };
    look_into(proxy, begun, listener).await
}

/// Waits until nobody wants the answer any more and a cut does no harm.
async fn unwanted<'a>(
    proxy: &Proxy,
    flight: Option<&Flight<'_>>,
    dispatched: Instant,
    listener: &mut Listener,
) -> Sent<'a> {
    let stalled = tokio::select! {
        () = listener.gone() => false,
        () = stopped(proxy, flight) => true,
    };
    if stalled {
        listener.stalled(proxy).await;
    }
    if let Some(flight) = flight {
        tokio::select! {
            () = flight.scheduled(proxy) => {}
            () = sleep_until(dispatched + proxy.settings.hold_loading) => {}
        }
    }
    if stalled { Sent::Stalled } else { Sent::Unwanted }
}

/// Waits until whatever works on the exchange has stopped.
pub(super) async fn stopped(proxy: &Proxy, flight: Option<&Flight<'_>>) {
    match flight {
        Some(flight) => flight.pulse.until_ended().await,
        None => proxy.core.health.until_wedged().await,
    }
}

/// Ollama fares badly, and so does the model, if the exchange is about one.
pub(super) fn fares_badly(proxy: &Proxy, flight: Option<&Flight<'_>>, sign: Strain) {
    proxy.core.trouble();
    if let Some(flight) = flight {
        flight.strained(sign);
    }
}

/// Learns from how an exchange began.
fn note<T>(
    proxy: &Proxy,
    (pass, flight): (Pass<'_>, Option<&Flight<'_>>),
    begun: &Result<(response::Response<T>, Lease), NoAnswer>,
    took: Duration,
) {
    let (health, metrics) = (&proxy.core.health, &proxy.core.metrics);
    match begun {
        Ok((response, _)) => {
            health.upstream_answered();
            metrics.upstream_first_byte(took);
            if response.status() == StatusCode::SERVICE_UNAVAILABLE {
                proxy.core.tally().upstream_busy();
                fares_badly(proxy, flight, Strain::Busy);
                metrics.upstream_failed(UpstreamFailure::Busy);
            }
            return pass.answered();
        }
        Err(NoAnswer::Refused(_)) => {
            health.upstream_refused();
            metrics.upstream_failed(UpstreamFailure::Connect);
        }
        Err(NoAnswer::Unreachable(_)) => {
            health.upstream_silent();
            metrics.upstream_failed(UpstreamFailure::Connect);
        }
        Err(NoAnswer::Ended(_) | NoAnswer::NotFinal(_)) => {
            metrics.upstream_failed(UpstreamFailure::NoAnswer);
        }
        Err(NoAnswer::Shut) => return,
    }
    pass.failed(|length| proxy.dice.about(length));
}

/// Reads a 503 whole, to see whether it is the one that says that there is no room.
async fn look_into<'a>(proxy: &'a Proxy, begun: Begun<'a>, listener: &mut Listener) -> Sent<'a> {
    let short = begun.body.size_hint().exact().is_some_and(|length| length <= MAX_BUSY);
    if begun.head.status != StatusCode::SERVICE_UNAVAILABLE || !short {
        return Sent::Begun(Box::new(begun));
    }
    let Begun { flight, head, body: Either::Left(body), lease, took, .. } = begun else {
        return Sent::Begun(Box::new(begun));
    };
    let read = tokio::select! {
        biased;
        read = body.collect() => read.map_err(NoAnswer::Ended),
        () = listener.gone() => return Sent::Unwanted,
        () = sleep(BUSY_WITHIN) => Err(NoAnswer::NotFinal(head.status)),
    };
    let text = match read {
        Ok(read) => read.to_bytes(),
        Err(error) => return Sent::Failed(error),
    };
    if let Some(lease) = lease {
        proxy.upstream.give_back(lease);
    }
    let busy = memmem::find(&text, BUSY).is_some();
    let body = Either::Right(Full::new(text));
    Sent::Begun(Box::new(Begun { flight, head, body, lease: None, took, busy }))
}
