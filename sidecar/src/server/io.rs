//! A client's connection, with the strictness and the patience that hyper does not have.
//!
//! All bytes read pass the strict reader of framing first. A head must be complete a while after its first byte, and a
//! client that takes nothing of its answer for a while has gone.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::proxy::{Connection, Framing};

/// How long, and for how many bytes, a client may go on sending what nobody wants.
const LINGER: Duration = Duration::from_secs(1);
const MAX_LINGER: usize = 4 << 20;

/// Wraps a client's connection.
pub(super) struct GuardedIo<T> {
    inner: T,
    connection: Arc<Connection>,
    framing: Framing,
    head_timeout: Duration,
    stall_timeout: Duration,
    /// Runs while a head is incomplete; from the start, for the first.
    head: Timer,
    /// Runs while the client takes nothing.
    stall: Timer,
    /// Our side is closed.
    shut: bool,
    /// Bytes read since, and thrown away.
    lingered: usize,
}

impl<T> GuardedIo<T> {
    pub(super) fn new(
        inner: T,
        connection: Arc<Connection>,
        head_timeout: Duration,
        stall_timeout: Duration,
    ) -> Self {
        let mut head = Timer::default();
        head.start(head_timeout);
        Self {
            inner,
            connection,
            framing: Framing::new(),
            head_timeout,
            stall_timeout,
            head,
            stall: Timer::default(),
            shut: false,
            lingered: 0,
        }
    }

    fn follow(&mut self, bytes: &[u8]) -> io::Result<()> {
        let known = self.framing.fault().is_some();
        self.framing.follow(bytes).map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad))?;
        if !known && let Some(fault) = self.framing.fault() {
            *self.connection.fault.lock() = Some(fault);
        }
        if self.framing.in_head() {
            self.head.start(self.head_timeout);
        } else {
            self.head.stop();
        }
        Ok(())
    }

    /// Ends a write that has stalled for too long.
    fn stalled<R>(&mut self, cx: &mut Context<'_>, wrote: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if wrote.is_ready() {
            self.stall.stop();
            return wrote;
        }
        self.stall.start(self.stall_timeout);
        self.stall.poll(cx)
    }
}

impl<T: AsyncRead + Unpin> GuardedIo<T> {
    /// Reads on for a while after the answer: closing with bytes unread would reset the connection, and a reset can
    /// overtake the answer that says why the body was not wanted.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut scratch = [0; 8 * 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = Pin::new(&mut self.inner).poll_read(cx, &mut buffer);
            match read {
                Poll::Pending => return self.head.poll::<()>(cx).map(|_| Ok(())),
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() && self.lingered < MAX_LINGER => {
                    self.lingered += buffer.filled().len();
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for GuardedIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        match read {
            Poll::Pending => self.head.poll(cx),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => Poll::Ready(self.follow(buf.filled().get(before..).unwrap_or_default())),
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for GuardedIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.stalled(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.stalled(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            let shut = Pin::new(&mut self.inner).poll_shutdown(cx);
            ready!(self.stalled(cx, shut))?;
            self.shut = true;
            self.head.stop();
            self.head.start(LINGER);
        }
        if self.framing.is_mid_message() { self.poll_linger(cx) } else { Poll::Ready(Ok(())) }
    }
}

/// A timer that most connections never start.
#[derive(Default)]
struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// Starts it, if it does not run.
    fn start(&mut self, length: Duration) {
        self.sleep.get_or_insert_with(|| Box::pin(sleep(length)));
    }

    fn stop(&mut self) {
        self.sleep = None;
    }

    /// Fails once the time is over.
    fn poll<R>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<R>> {
        let over = self.sleep.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready());
        if over { Poll::Ready(Err(io::ErrorKind::TimedOut.into())) } else { Poll::Pending }
    }
}
