//! Bounded connections: when there are too many, the oldest goes.
//!
//! To refuse the newest would let anybody who opens enough of them keep the kubelet's probes out, and have the pod
//! restarted.

use std::collections::VecDeque;
use std::future::Future;

use tokio::task::AbortHandle;

/// The open connections of a listener; all end with it.
#[derive(Debug)]
pub(super) struct Connections {
    open: VecDeque<AbortHandle>,
    most: usize,
}

impl Connections {
    /// At most `most` at one time.
    pub(super) fn new(most: usize) -> Self {
        Self { open: VecDeque::new(), most }
    }

    /// Serves one more, on a task of its own.
    pub(super) fn open(&mut self, serve: impl Future<Output = ()> + Send + 'static) {
        if self.open.len() >= self.most {
            self.open.retain(|connection| !connection.is_finished());
        }
        if self.open.len() >= self.most
            && let Some(oldest) = self.open.pop_front()
        {
            oldest.abort();
        }
        self.open.push_back(tokio::spawn(serve).abort_handle());
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        for connection in &self.open {
            connection.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::task::yield_now;

    use super::*;

    #[tokio::test]
    async fn the_oldest_open_connection_makes_room() {
        let mut connections = Connections::new(2);
        let held = [Arc::new(()), Arc::new(()), Arc::new(())];
        for token in &held {
            let token = Arc::clone(token);
            connections.open(async move {
                std::future::pending::<()>().await;
                drop(token);
            });
            connections.open(async {});
            yield_now().await;
        }
        yield_now().await;
        let open: Vec<bool> = held.iter().map(|token| Arc::strong_count(token) > 1).collect();
        assert_eq!(open.iter().filter(|open| **open).count(), 1, "{open:?}");
        assert!(open[2], "the newest is served");
        drop(connections);
        yield_now().await;
        assert!(held.iter().all(|token| Arc::strong_count(token) == 1));
    }
}
