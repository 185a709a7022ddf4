//! The body of a request that was refused before it was read: off the connection, so that the next request finds its
//! beginning.
//!
//! A connection whose body lies unread cannot serve on, and a client that sends head and body apart learns of that only
//! by an end of file on its next request. So a small body is read and thrown away before the answer is sent; with any
//! other the answer says that the connection closes.

use bytes::Bytes;
use http::HeaderMap;
use http::header::EXPECT;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use super::{ProxySettings, inspect};

/// The longest body that is read for nothing, in bytes.
const MAX_DISCARDED: u64 = 256 * 1024;

/// Reads a body to its end within the time that one has; whether the connection is in step after it.
///
/// Not read at all: one longer than [`MAX_DISCARDED`] or of unknown length, and one whose client still waits to be
/// asked for it.
pub(crate) async fn discard<B>(mut body: B, headers: &HeaderMap, settings: &ProxySettings) -> bool
where
    B: Body<Data = Bytes> + Unpin,
{
    if body.is_end_stream() {
        return true;
    }
    let small = body.size_hint().exact().is_some_and(|length| length <= MAX_DISCARDED);
    if !small || headers.contains_key(EXPECT) {
        return false;
    }
    let (start, mut received) = (Instant::now(), 0);
    loop {
        match timeout_at(inspect::deadline(start, received, settings), body.frame()).await {
            Ok(None) => return true,
            Ok(Some(Ok(frame))) => received += frame.data_ref().map_or(0, Bytes::len),
            Ok(Some(Err(_))) | Err(_) => return false,
        }
    }
}
