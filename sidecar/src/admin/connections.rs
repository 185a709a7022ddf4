//! Bounded connections: when there are too many, the oldest of the source that has most goes.
//!
//! To refuse the newest would let anybody who opens enough of them keep the kubelet's probes out, and have the pod
//! restarted. To end the oldest of all would let the same caller end the kubelet's `/drain/wait`, and with it Ollama. The
//! kubelet has a handful, so whoever crowds the port pays for it.

use std::collections::{HashMap, VecDeque};
use std::future::Future;

use tokio::task::AbortHandle;

use super::source::Source;

/// The open connections of a listener, oldest first; all end with it.
#[derive(Debug)]
pub(super) struct Connections {
    open: VecDeque<(Source, AbortHandle)>,
    most: usize,
}

impl Connections {
    /// At most `most` at one time.
    pub(super) fn new(most: usize) -> Self {
        Self { open: VecDeque::new(), most }
    }

    /// Serves one more, on a task of its own.
    pub(super) fn open(&mut self, source: Source, serve: impl Future<Output = ()> + Send + 'static) {
        if self.open.len() >= self.most {
            self.open.retain(|(_, connection)| !connection.is_finished());
        }
        if self.open.len() >= self.most
            && let Some(victim) = self.victim(source)
            && let Some((_, connection)) = self.open.remove(victim)
        {
            connection.abort();
        }
        self.open.push_back((source, tokio::spawn(serve).abort_handle()));
    }

    /// The oldest of the source that has most, with the newcomer counted; where several have as many, the newcomer's own,
    /// else the one that came first.
    fn victim(&self, newcomer: Source) -> Option<usize> {
        let mut counts = HashMap::from([(newcomer, 1_usize)]);
        for (source, _) in &self.open {
            *counts.entry(*source).or_default() += 1;
        }
        let most = counts.values().copied().max();
        let crowds = |source: &Source| counts.get(source).copied() == most;
        let own = self.open.iter().position(|(source, _)| *source == newcomer && crowds(source));
        own.or_else(|| self.open.iter().position(|(source, _)| crowds(source)))
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        for (_, connection) in &self.open {
            connection.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;

    fn source(last: u8) -> Source {
        IpAddr::from(Ipv4Addr::new(10, 0, 0, last)).into()
    }

    /// A connection that stays open, and what tells whether it still is.
    fn hold(connections: &mut Connections, source: Source) -> Arc<()> {
        let token = Arc::new(());
        let held = Arc::clone(&token);
        connections.open(source, async move {
            std::future::pending::<()>().await;
            drop(held);
        });
        token
    }

    /// Time stands still until no task has anything left to do.
    async fn settled() {
        sleep(Duration::from_millis(1)).await;
    }

    fn is_open(token: &Arc<()>) -> bool {
        Arc::strong_count(token) > 1
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_open_connection_makes_room() {
        let mut connections = Connections::new(2);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(hold(&mut connections, source(1)));
            connections.open(source(1), async {});
            settled().await;
        }
        settled().await;
        let open: Vec<bool> = held.iter().map(is_open).collect();
        assert_eq!(open.iter().filter(|open| **open).count(), 1, "{open:?}");
        assert!(open[2], "the newest is served");
        drop(connections);
        settled().await;
        assert!(!held.iter().any(is_open));
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_crowds_the_port_ends_only_its_own() {
        let mut connections = Connections::new(512);
        let kubelet = hold(&mut connections, source(1));
        let mut flood: Vec<_> = (0..600).map(|_| hold(&mut connections, source(2))).collect();
        let probe = hold(&mut connections, source(1));
        flood.push(hold(&mut connections, source(2)));
        settled().await;
        assert!(is_open(&kubelet) && is_open(&probe));
        assert!(flood.last().is_some_and(is_open), "the newest of the flood is served");
        assert_eq!(flood.iter().filter(|token| is_open(token)).count(), 510);
        assert!(!flood[..91].iter().any(is_open), "the oldest of the flood went");
    }

    #[tokio::test(start_paused = true)]
    async fn among_equals_a_newcomer_takes_from_its_own_source_or_from_whoever_came_first() {
        let mut connections = Connections::new(4);
        let held = [1, 1, 2, 3].map(|last| hold(&mut connections, source(last)));
        let own = hold(&mut connections, source(2));
        settled().await;
        assert_eq!([&held[0], &held[1], &held[2], &own].map(is_open), [true, true, false, true]);
        let stranger = hold(&mut connections, source(4));
        settled().await;
        assert_eq!(
            [&held[0], &held[1], &held[3], &own, &stranger].map(is_open),
            [false, true, true, true, true]
        );
        let other = hold(&mut connections, source(5));
        settled().await;
        assert!(!is_open(&held[1]) && is_open(&stranger) && is_open(&other), "all had one");
    }
}
