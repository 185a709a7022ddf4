//! Faults by script: what the next requests meet instead of a plain answer.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;

use super::route::Endpoint;

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The runner dies after so many tokens: each family hides it in its own way. With 0, before the first: 500.
    Crash {
        /// Tokens before it.
        after: usize,
    },
    /// The connection breaks after so many tokens, in the middle of the chunked body.
    Cut {
        /// Tokens before it.
        after: usize,
    },
    /// The body ends cleanly after so many tokens, but nothing says that it is done.
    NoEnd {
        /// Tokens before it.
        after: usize,
    },
    /// Silence after so many tokens; with 0, before the first byte.
    Stall {
        /// Tokens before it.
        after: usize,
        /// How long.
        lasts: Duration,
    },
    /// One token of this many bytes comes first.
    BigToken {
        /// Its length, in bytes.
        bytes: usize,
    },
    /// The answer is complete, but does not say how long its prompt was, as older versions did where they had it cached.
    NoPromptCount,
    /// 200, and a body that is not the JSON it says it is.
    WrongJson,
    /// 503, as when too many wait for a load.
    Busy,
    /// The connection closes without an answer.
    Close,
}

/// The faults still to come; each is met once.
#[derive(Debug, Default)]
pub(crate) struct Script {
    queue: Mutex<VecDeque<(Option<Endpoint>, Fault)>>,
}

impl Script {
    pub(crate) fn add(&self, endpoint: Option<Endpoint>, fault: Fault) {
        self.queue.lock().push_back((endpoint, fault));
    }

    /// Takes the first fault meant for this endpoint. One that is meant for none in particular is not for what is asked
    /// about models, which somebody who stands before it may ask at any time.
    pub(crate) fn next(&self, endpoint: Endpoint) -> Option<Fault> {
        let mut queue = self.queue.lock();
        let asks = matches!(endpoint, Endpoint::Show | Endpoint::Ps);
        let meant_for = |(meant, _): &(Option<Endpoint>, Fault)| match meant {
            None => !asks,
            Some(one) => *one == endpoint,
        };
        let place = queue.iter().position(meant_for)?;
        queue.remove(place).map(|(_, fault)| fault)
    }
}
