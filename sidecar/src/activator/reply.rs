//! The body of an answer: our own, or that of a pod as it comes. With the latter it holds the place in the pod.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::hold::Seat;
use crate::proxy::record::Record;
use crate::proxy::upstream::Lease;

/// The body of an answer.
pub(crate) struct Reply {
    source: Source,
    record: Record,
}

enum Source {
    Own(Bytes),
    Pod {
        body: Incoming,
        /// Given up when the answer is over.
        held: Option<(Lease, Seat)>,
    },
}

impl Reply {
    /// One that is all there.
    pub(super) fn own(bytes: Bytes, mut record: Record) -> Self {
        record.sent(bytes.len());
        record.complete();
        Self { source: Source::Own(bytes), record }
    }

    /// One that is still coming. Dropped before its end, its connection is cut, which is how a pod learns to stop.
    pub(super) fn of_pod(body: Incoming, lease: Lease, seat: Seat, record: Record) -> Self {
        Self { source: Source::Pod { body, held: Some((lease, seat)) }, record }
    }

    /// The answer is over: what carried it can carry the next.
    fn over(&mut self) {
        if let Source::Pod { held, .. } = &mut self.source
            && let Some((lease, seat)) = held.take()
        {
            self.record.complete();
            seat.upstream().give_back(lease);
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let body = match &mut this.source {
            Source::Own(bytes) if bytes.is_empty() => return Poll::Ready(None),
            Source::Own(bytes) => return Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Source::Pod { body, .. } => body,
        };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        match &frame {
            None => this.over(),
            Some(Ok(frame)) => {
                this.record.sent(frame.data_ref().map_or(0, Bytes::len));
                if body.is_end_stream() {
                    this.over();
                }
            }
            Some(Err(_)) => this.record.cut(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(bytes) => bytes.is_empty(),
            Source::Pod { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Pod { body, .. } => body.size_hint(),
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        // Of an answer without a body nothing is ever asked for.
        if self.is_end_stream() {
            self.over();
        }
    }
}
