//! The body of an answer: whole, or as it comes from Ollama. It carries the request's record to the end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use super::listener::Cut;
use super::record::Record;

/// The body of an answer.
pub(crate) struct ReplyBody {
    source: Source,
    record: Record,
}

enum Source {
    Whole(Bytes),
    Stream {
        frames: mpsc::Receiver<Result<Bytes, Cut>>,
        /// What is still to come, if Ollama said how much it is.
        left: Option<u64>,
    },
}

impl ReplyBody {
    /// One that is all there.
    pub(crate) fn whole(bytes: Bytes, mut record: Record) -> Self {
        record.sent(bytes.len());
        record.complete();
        Self { source: Source::Whole(bytes), record }
    }

    /// One that is still coming.
    pub(crate) fn stream(
        frames: mpsc::Receiver<Result<Bytes, Cut>>,
        length: Option<u64>,
        mut record: Record,
    ) -> Self {
        if length == Some(0) {
            record.complete();
        }
        Self { source: Source::Stream { frames, left: length }, record }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let Self { source, record } = self.get_mut();
        match source {
            Source::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Source::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Source::Stream { frames, left } => Poll::Ready(match ready!(frames.poll_recv(cx)) {
                None => {
                    record.complete();
                    None
                }
                Some(Ok(data)) => {
                    record.sent(data.len());
                    *left = left.map(|left| left.saturating_sub(data.len() as u64));
                    if *left == Some(0) {
                        record.complete();
                    }
                    Some(Ok(Frame::data(data)))
                }
                Some(Err(cut)) => {
                    record.cut();
                    Some(Err(cut))
                }
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Whole(bytes) => bytes.is_empty(),
            Source::Stream { left, .. } => *left == Some(0),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Stream { left: Some(left), .. } => SizeHint::with_exact(*left),
            Source::Stream { left: None, .. } => SizeHint::default(),
        }
    }
}
