//! Several pods behind one Service, each with a queue of its own that knows nothing of the others. A request goes to any.

use std::collections::BTreeMap;

use corral_limiter::Nanos;

use crate::load::{Client, Request};
use crate::policy::{Arrived, Dispatched, Policy};
use crate::random::Random;

/// The pods.
pub(crate) struct Pods {
    each: Vec<Box<dyn Policy>>,
    random: Random,
    /// Where each request is.
    of: BTreeMap<u64, usize>,
}

impl Pods {
    pub(crate) fn new(pods: Vec<Box<dyn Policy>>) -> Self {
        Self { each: pods, random: Random::new(11, 11), of: BTreeMap::new() }
    }

    fn of(&mut self, request: &Request) -> &mut dyn Policy {
        self.each[self.of[&request.number]].as_mut()
    }
}

impl Policy for Pods {
    fn arrive(&mut self, request: &Request, client: &Client, now: Nanos) -> Arrived {
        let pod = self.random.below(self.each.len());
        self.of.insert(request.number, pod);
        self.each[pod].arrive(request, client, now)
    }

    fn dispatch(&mut self, now: Nanos) -> Dispatched {
        let mut all = Dispatched::default();
        for pod in &mut self.each {
            let one = pod.dispatch(now);
            all.started.extend(one.started);
            all.late.extend(one.late);
        }
        all
    }

    fn progress(&mut self, request: &Request, generated: u32) {
        self.of(request).progress(request, generated);
    }

    fn finish(&mut self, request: &Request, now: Nanos) {
        self.of(request).finish(request, now);
    }

    fn leave(&mut self, request: &Request, waits: bool, generated: u32, now: Nanos) {
        self.of(request).leave(request, waits, generated, now);
    }

    fn time_out(&mut self, request: &Request) -> bool {
        self.of(request).time_out(request)
    }

    fn loaded(&mut self, request: &Request, now: Nanos) {
        self.of(request).loaded(request, now);
    }

    fn next_look(&self, now: Nanos) -> Option<Nanos> {
        self.each.iter().filter_map(|pod| pod.next_look(now)).min()
    }
}
