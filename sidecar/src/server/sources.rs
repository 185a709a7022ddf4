//! How many connections each source has, so that one of them does not keep all others out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use corral_limiter::network;
use parking_lot::Mutex;

/// Only sources with a connection, so connections bound it.
#[derive(Debug, Default)]
pub(super) struct Sources {
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection of a source; dropped, it is over.
#[derive(Debug)]
pub(super) struct Counted {
    sources: Arc<Sources>,
    source: IpAddr,
}

impl Sources {
    /// Counts one more; none where the source has as many as it may.
    pub(super) fn open(self: &Arc<Self>, peer: IpAddr, most: usize) -> Option<Counted> {
        let source = network(peer);
        let mut open = self.open.lock();
        let own = open.get(&source).copied().unwrap_or_default();
        if own >= most {
            return None;
        }
        open.insert(source, own + 1);
        Some(Counted { sources: Arc::clone(self), source })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.sources.open.lock();
        match open.get_mut(&self.source) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(open.remove(&self.source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(sources: &Arc<Sources>, peer: &str) -> Option<Counted> {
        sources.open(peer.parse().unwrap(), 2)
    }

    #[test]
    fn one_source_has_so_many_and_keeps_no_other_out() {
        let sources = Arc::new(Sources::default());
        let held = [open(&sources, "10.0.0.1"), open(&sources, "::ffff:10.0.0.1")];
        assert!(held.iter().all(Option::is_some) && open(&sources, "10.0.0.1").is_none());
        assert!(open(&sources, "10.0.0.2").is_some());
        let net = [open(&sources, "fd00::1"), open(&sources, "fd00::2")];
        assert!(open(&sources, "fd00::3").is_none() && open(&sources, "fd00:0:0:1::1").is_some());
        drop((held, net));
        assert!(open(&sources, "10.0.0.1").is_some());
        assert!(sources.open.lock().is_empty());
    }
}
