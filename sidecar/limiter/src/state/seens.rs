//! How the limits see one request, in memory that serves one request after the other.

use std::ops::Deref;

use super::Seen;

/// What was seen, in the order of the plan. What is forgotten keeps its memory for what is seen next.
#[derive(Debug, Default)]
pub(crate) struct Seens {
    all: Vec<Seen>,
    len: usize,
}

impl Seens {
    /// One more, to be filled in.
    #[inline]
    pub(crate) fn add(&mut self) -> Option<&mut Seen> {
        if self.len == self.all.len() {
            self.all.push(Seen::default());
        }
        let next = self.all.get_mut(self.len)?;
        self.len = self.len.saturating_add(1);
        Some(next)
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&Seen) -> bool) {
        self.all.truncate(self.len);
        self.all.retain(keep);
        self.len = self.all.len();
    }
}

impl Deref for Seens {
    type Target = [Seen];

    #[inline]
    fn deref(&self) -> &[Seen] {
        self.all.get(..self.len).unwrap_or(&[])
    }
}
