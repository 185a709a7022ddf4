//! Hands a request on to a pod, and says what came of it.
//!
//! The pod gets what the client sent: its path, its body byte for byte, and its headers but for those about the
//! connection. Beside them it gets the id under which the request is logged here, and the signed address of its client.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;

use corral_wire::forwarded::ELSEWHERE_HEADER;
use corral_wire::{Forwarded, RequestLine};

use super::Activator;
use super::hold::Seat;
use crate::clock::unix_millis;
use crate::proxy::VOUCHED;
use crate::proxy::head::REQUEST_ID;
use crate::proxy::respond;
use crate::proxy::upstream::{Lease, NoAnswer, Pieces, Upstream};

/// What is about one connection, and not handed on to another.
const OF_THE_CONNECTION: [HeaderName; 11] = [
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// A request as it is handed on, to as many pods as it takes.
pub(super) struct Order {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
    client: IpAddr,
}

/// What came of handing it on.
pub(super) enum Sent {
    /// It has an answer.
    Answered(Box<(Response<Incoming>, Lease)>),
    /// The pod was not reached, does not believe who asks, or says that it serves nobody just now: it has not begun to
    /// work on it, and has charged nobody for it.
    Elsewhere,
    /// The pod was reached, and gave no answer. It may have worked on it.
    Failed,
    /// There is no key to sign with.
    NoKey,
}

impl Order {
    /// `client` is the TCP peer that the request came from.
    pub(super) fn new(parts: &Parts, body: Bytes, client: IpAddr, id: &str) -> Self {
        let mut headers = parts.headers.clone();
        without_connection(&mut headers);
        respond::insert_id(&mut headers, id);
        Self { method: parts.method.clone(), uri: parts.uri.clone(), headers, body, client }
    }

    /// Hands it on, and waits for the head of the answer.
    pub(super) async fn send(&self, activator: &Activator, seat: &Seat) -> Sent {
        let pod = seat.pod();
        match self.reach(activator, pod, seat.upstream()).await {
            None => Sent::NoKey,
            Some(Ok(answer)) => self.judge(answer, seat),
            Some(Err(NoAnswer::Refused(_) | NoAnswer::Unreachable(_))) => Sent::Elsewhere,
            Some(Err(error)) => {
                tracing::debug!(pod, %error, "no answer from a pod");
                seat.failed();
                Sent::Failed
            }
        }
    }

    fn judge(&self, answer: (Response<Incoming>, Lease), seat: &Seat) -> Sent {
        let (status, headers) = (answer.0.status(), answer.0.headers());
        if status == StatusCode::MISDIRECTED_REQUEST {
            let pod = seat.pod();
            tracing::warn!(
                pod,
                "a pod does not believe for whom it is asked: is it another, is a clock wrong?"
            );
            return Sent::Elsewhere;
        }
        if self.is_answered_in_its_name(&answer.0) {
            seat.answered();
        }
        if status == StatusCode::SERVICE_UNAVAILABLE && headers.contains_key(ELSEWHERE_HEADER) {
            return Sent::Elsewhere;
        }
        Sent::Answered(Box::new(answer))
    }

    /// Sends it, signed for this pod; nothing where there is no key.
    pub(super) async fn reach(
        &self,
        activator: &Activator,
        pod_uid: &str,
        upstream: &Upstream,
    ) -> Option<Result<(Response<Incoming>, Lease), NoAnswer>> {
        let vouched = self.vouch(activator, pod_uid)?;
        Some(upstream.send(self.request(vouched)).await)
    }

    /// Whether whoever answered is the pod that was meant: a sidecar says by what id it knows the request, and one that
    /// is not meant says 421.
    pub(super) fn is_answered_in_its_name<B>(&self, answer: &Response<B>) -> bool {
        let id = answer.headers().get(REQUEST_ID);
        answer.status() != StatusCode::MISDIRECTED_REQUEST
            && id.is_some()
            && id == self.headers.get(REQUEST_ID)
    }

    fn vouch(&self, activator: &Activator, pod_uid: &str) -> Option<HeaderValue> {
        let number = || u128::from(activator.dice.number());
        let said = Forwarded {
            client: self.client.to_canonical(),
            at_unix_ms: unix_millis(),
            nonce: number() << 64 | number(),
        };
        let target = self.uri.path_and_query()?.as_str();
        let line = RequestLine { method: self.method.as_str(), target };
        activator.core.vouchers.vouch(&said, pod_uid, line)
    }

    fn request(&self, vouched: HeaderValue) -> Request<Pieces> {
        let mut request = Request::new(Pieces::from(self.body.clone()));
        request.method_mut().clone_from(&self.method);
        request.uri_mut().clone_from(&self.uri);
        request.headers_mut().clone_from(&self.headers);
        request.headers_mut().insert(VOUCHED, vouched);
        request
    }
}

/// Takes out what is about a connection that another will carry on; of an answer too.
pub(super) fn without_connection(headers: &mut HeaderMap) {
    for name in OF_THE_CONNECTION {
        headers.remove(name);
    }
}
