//! What a request in parts holds, and what of it is charged so far.

use bytes::Bytes;

use crate::proxy::Proxy;
use crate::proxy::forward::Hold;
use crate::proxy::tokens::How;

impl Hold {
    /// So many tokens are done: so much is charged if it ends before its end.
    pub(super) fn part(&mut self, tokens: u64) {
        if let Self::Slot { account, .. } = self {
            account.part(tokens);
        }
    }

    /// How many tokens some of its inputs probably have.
    pub(super) fn estimate(&self, inputs: usize, of: usize) -> u64 {
        match self {
            Self::Slot { account, .. } => account.estimate_of(inputs, of),
            Self::Passed(_) => 0,
        }
    }

    /// What some of its inputs will probably cost the queue.
    pub(super) fn cost_of(&self, inputs: usize, of: usize, proxy: &Proxy) -> u64 {
        match self {
            Self::Slot { account, .. } => account.cost_of(inputs, of, proxy.cost_model()),
            Self::Passed(_) => 0,
        }
    }

    /// Settles what is done, so that it is charged whatever comes next.
    pub(super) fn settle_part(&mut self) {
        if let Self::Slot { permit, account, .. } = self {
            account.settle_part(permit);
        }
    }

    /// All is done, and Ollama has counted it in this.
    pub(super) fn complete(&mut self, counts: &str, proxy: &Proxy) {
        self.begin(false);
        if let Self::Slot { permit, account, .. } = self {
            // Nothing of it goes to the client.
            let _ = account.see(Bytes::copy_from_slice(counts.as_bytes()), permit);
        }
        self.settle(How::Complete, proxy);
    }
}
