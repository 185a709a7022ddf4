//! Places for what is held in memory before anybody has shown who they are, shared out by source.
//!
//! A source has few of its own, so that one that fills them keeps nobody else out; over all sources there is a bound too,
//! and with it one on memory.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::source::Source;

/// The places, and who has them.
#[derive(Debug)]
pub(super) struct Places {
    /// Only sources with a place.
    taken: Mutex<HashMap<Source, usize>>,
    each: usize,
    all: usize,
}

impl Places {
    /// At most `each` for one source, and `all` over all of them.
    pub(super) fn new(each: usize, all: usize) -> Arc<Self> {
        Arc::new(Self { taken: Mutex::default(), each, all })
    }

    /// One for this source, until it is dropped; `None` when there is none.
    pub(super) fn take(self: &Arc<Self>, source: Source) -> Option<Place> {
        let mut taken = self.taken.lock();
        let own = taken.get(&source).copied().unwrap_or_default();
        if own >= self.each || taken.values().sum::<usize>() >= self.all {
            return None;
        }
        taken.insert(source, own + 1);
        Some(Place { places: Arc::clone(self), source })
    }

    fn give_back(&self, source: Source) {
        let mut taken = self.taken.lock();
        match taken.get_mut(&source) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(taken.remove(&source)),
        }
    }
}

/// A place; dropped, it is free again.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    source: Source,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.give_back(self.source);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn source(last: u8) -> Source {
        IpAddr::from(Ipv4Addr::new(10, 0, 0, last)).into()
    }

    #[test]
    fn a_source_that_fills_its_places_keeps_no_other_out() {
        let places = Places::new(2, 32);
        let held = [places.take(source(1)), places.take(source(1))];
        assert!(held.iter().all(Option::is_some));
        assert!(places.take(source(1)).is_none(), "two are its share");
        assert!(places.take(source(2)).is_some());
        drop(held);
        assert!(places.take(source(1)).is_some(), "given back");
    }

    #[test]
    fn there_is_a_bound_over_all_sources_and_nothing_is_kept_of_those_that_left() {
        let places = Places::new(2, 32);
        let held: Vec<_> = (0..40).map(|last| places.take(source(last))).collect();
        assert_eq!(held.iter().flatten().count(), 32);
        drop(held);
        assert!(places.taken.lock().is_empty());
    }
}
