//! Which models Ollama has in memory, and how long others wait for a load, as its scheduler does it: a model goes when
//! nothing of it runs, and one load at a time.

use std::collections::BTreeMap;

use corral_limiter::Nanos;

/// The models of a pod.
#[derive(Debug)]
pub(crate) struct Memory {
    /// How many fit.
    places: usize,
    load_time: Nanos,
    /// Those that are there or on their way, each with when it is there.
    there: BTreeMap<usize, Nanos>,
    /// How many have a slot, by model.
    running: BTreeMap<usize, u32>,
    loads: u32,
}

impl Memory {
    pub(crate) fn new(places: usize, load_time: Nanos) -> Self {
        Self { places, load_time, there: BTreeMap::new(), running: BTreeMap::new(), loads: 0 }
    }

    /// A request has a slot: when its service begins, or not before another model can go.
    pub(crate) fn start(&mut self, model: usize, now: Nanos) -> Option<Nanos> {
        if !self.there.contains_key(&model) {
            self.make_room()?;
            let busy_until = self.there.values().copied().max().unwrap_or(Nanos::ZERO);
            self.loads += 1;
            self.there.insert(model, busy_until.max(now).plus(self.load_time));
        }
        *self.running.entry(model).or_default() += 1;
        self.there.get(&model).map(|there| now.max(*there))
    }

    pub(crate) fn end(&mut self, model: usize) {
        *self.running.get_mut(&model).unwrap() -= 1;
    }

    pub(crate) fn loads(&self) -> u32 {
        self.loads
    }

    fn make_room(&mut self) -> Option<()> {
        if self.there.len() < self.places {
            return Some(());
        }
        let idle = self
            .there
            .keys()
            .copied()
            .find(|model| self.running.get(model).is_none_or(|count| *count == 0))?;
        self.there.remove(&idle);
        Some(())
    }
}

#[test]
fn a_model_that_runs_makes_room_for_no_other() {
    let mut memory = Memory::new(1, Nanos::from_secs(5));
    let second = Nanos::from_secs(1);
    assert_eq!(memory.start(0, second), Some(Nanos::from_secs(6)));
    assert_eq!(memory.start(1, second), None);
    memory.end(0);
    assert_eq!(memory.start(1, Nanos::from_secs(9)), Some(Nanos::from_secs(14)));
    assert_eq!((memory.start(1, Nanos::from_secs(20)), memory.loads()), (Some(Nanos::from_secs(20)), 2));
}
