//! A body in pieces: what the client sent, and between it what was put in. Nothing of it is copied.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use smallvec::SmallVec;

use crate::proxy::tokens::Edit;

/// A body that is all there.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    /// In their order; none is empty.
    pieces: SmallVec<[Bytes; 5]>,
    sent: usize,
}

impl Pieces {
    /// A body with changes, which are in the order of their places and do not overlap.
    pub(crate) fn edited(body: &Bytes, edits: &[Edit]) -> Self {
        let mut this = Self::default();
        let mut from = 0;
        for Edit { at, length, text } in edits {
            this.push(part(body, from, *at));
            this.push(Bytes::copy_from_slice(text.as_bytes()));
            from = at + length;
        }
        this.push(part(body, from, body.len()));
        this
    }

    fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.pieces.push(piece);
        }
    }

    fn left(&self) -> &[Bytes] {
        self.pieces.get(self.sent..).unwrap_or_default()
    }
}

fn part(body: &Bytes, from: usize, to: usize) -> Bytes {
    let to = to.min(body.len());
    body.slice(from.min(to)..to)
}

impl From<Bytes> for Pieces {
    fn from(body: Bytes) -> Self {
        Self::edited(&body, &[])
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let next = this.pieces.get_mut(this.sent).map(std::mem::take);
        this.sent += usize::from(next.is_some());
        Poll::Ready(next.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left().is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left().iter().map(|piece| piece.len() as u64).sum())
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn edit(at: usize, length: usize, text: &str) -> Edit {
        Edit { at, length, text: text.to_owned() }
    }

    async fn sent(body: &'static str, edits: &[Edit]) -> (u64, Bytes) {
        let pieces = Pieces::edited(&Bytes::from_static(body.as_bytes()), edits);
        (pieces.size_hint().exact().unwrap(), pieces.collect().await.unwrap().to_bytes())
    }

    #[tokio::test]
    async fn a_body_goes_out_with_its_changes_and_its_length_is_known() {
        assert_eq!(sent("0123456789", &[]).await, (10, "0123456789".into()));
        assert_eq!(sent("", &[]).await, (0, Bytes::new()));
        let edits = [edit(0, 1, "abc"), edit(5, 0, "x"), edit(5, 0, "y"), edit(9, 1, "")];
        assert_eq!(sent("0123456789", &edits).await, (13, "abc1234xy5678".into()));
    }

    #[tokio::test]
    async fn what_was_sent_is_over() {
        let mut pieces = Pieces::edited(&Bytes::from_static(b"ab"), &[edit(1, 0, "x")]);
        assert!(!pieces.is_end_stream());
        for left in [2, 1, 0] {
            pieces.frame().await.unwrap().unwrap();
            assert_eq!(pieces.size_hint().exact(), Some(left));
        }
        assert!(pieces.is_end_stream() && pieces.frame().await.is_none());
    }
}
