//! Who waits for an answer, and how it is told of what becomes of it.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::sync::{mpsc, oneshot};

use super::Proxy;
use super::ending::End;
use super::forward::Failed;
use crate::metrics::UpstreamFailure;

/// Frames that wait for a slow client; beyond it Ollama waits.
const FRAMES_AHEAD: usize = 4;

/// The answer as it begins.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// The length of the body, if it is known.
    pub(crate) length: Option<u64>,
    /// It may have another length than Ollama says.
    pub(crate) shrinks: bool,
    pub(crate) frames: mpsc::Receiver<Result<Bytes, Cut>>,
    /// Set before the last frame if the answer ends before its end.
    pub(crate) fate: Arc<OnceLock<End>>,
}

/// The answer ended in the middle, and its API has no way to say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer of Ollama ended before its end")]
pub(crate) struct Cut;

/// Where an answer goes.
pub(super) type Reply = oneshot::Sender<Result<Answer, Failed>>;

/// Whoever asked.
#[derive(Debug)]
pub(super) enum Listener {
    /// It has heard nothing yet.
    Waits(Reply),
    /// It has the head of its answer.
    Hears(Body),
    /// It has been told all that there is to tell.
    Told,
}

/// The way of an answer's body.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) frames: mpsc::Sender<Result<Bytes, Cut>>,
    fate: Arc<OnceLock<End>>,
}

impl Body {
    /// The answer ends before its end: with some last words, or by breaking off. A client that has left meanwhile wants
    /// neither.
    pub(super) async fn end(&self, how: End, last: Result<Bytes, Cut>) {
        let _ = self.fate.set(how);
        let _ = self.frames.send(last).await;
    }
}

impl Listener {
    /// Waits until it has left; at once if it has been told everything.
    pub(super) async fn gone(&mut self) {
        match self {
            Self::Waits(reply) => reply.closed().await,
            Self::Hears(body) => body.frames.closed().await,
            Self::Told => {}
        }
    }

    /// Whether it has left.
    pub(super) fn has_left(&self) -> bool {
        match self {
            Self::Waits(reply) => reply.is_closed(),
            Self::Hears(body) => body.frames.is_closed(),
            Self::Told => true,
        }
    }

    /// Sends it the head of an answer. What is returned takes the body; none if it has left.
    pub(super) fn open(
        &mut self,
        status: StatusCode,
        headers: HeaderMap,
        length: Option<u64>,
        shrinks: bool,
    ) -> Option<&Body> {
        if let Self::Waits(_) = self
            && let Self::Waits(reply) = std::mem::replace(self, Self::Told)
        {
            let (sender, frames) = mpsc::channel(FRAMES_AHEAD);
            let fate = Arc::new(OnceLock::new());
            let answer = Answer { status, headers, length, shrinks, frames, fate: Arc::clone(&fate) };
            reply.send(Ok(answer)).ok()?;
            *self = Self::Hears(Body { frames: sender, fate });
        }
        match self {
            Self::Hears(body) => Some(body),
            Self::Waits(_) | Self::Told => None,
        }
    }

    /// There is no answer, or no more of it. A client that has left at this very moment is not told.
    pub(super) async fn fail(&mut self, why: Failed) {
        match std::mem::replace(self, Self::Told) {
            Self::Waits(reply) => _ = reply.send(Err(why)),
            Self::Hears(body) => {
                let end = match why {
                    Failed::Stalled => End::Stalled,
                    Failed::Drained => End::Drained,
                    _ => End::Broken,
                };
                body.end(end, Err(Cut)).await;
            }
            Self::Told => {}
        }
    }

    /// What works on the answer has stopped.
    pub(super) async fn stalled(&mut self, proxy: &Proxy) {
        proxy.core.metrics.upstream_failed(UpstreamFailure::Stalled);
        self.fail(Failed::Stalled).await;
    }
}
