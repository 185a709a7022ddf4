//! D under any trace: pods come, load, go, answer late; replies are lost; leaders change. At no time do the shares of
//! the pods that serve exceed the whole, and in the end everybody who can serve does.
#![cfg(test)]

use std::collections::BTreeMap;
use std::time::Duration;

use corral_operator::exchange::divisor::{Count, Orders, PodFacts};
use proptest::prelude::*;

/// One step of time.
const TICK: Duration = Duration::from_millis(500);
/// The longest that a pod is not reached: 4 s, below the 5 s after which a raise goes on without it.
const LONGEST_SILENCE: u32 = 8;

#[derive(Debug, Clone, Copy)]
enum Event {
    Nothing,
    Come,
    Go(usize),
    Terminate(usize),
    Deaf(usize),
    LoseReplies(usize),
    NewLeader,
}

#[derive(Debug, Clone)]
struct Pod {
    divisor: u32,
    serves: bool,
    able_in: u32,
    terminating: bool,
    deaf: u32,
    mute: u32,
    /// It was deaf or mute at the last tick: one silence does not follow on another without a word between them.
    silent: bool,
    known: Option<(u32, bool, bool)>,
}

#[derive(Default)]
struct Sim {
    now: Duration,
    led: Duration,
    next: usize,
    stored: u32,
    count: Count,
    pods: BTreeMap<String, Pod>,
}

impl Sim {
    fn happen(&mut self, event: Event) {
        let pick = |sim: &Self, nth: usize| sim.pods.keys().nth(nth % sim.pods.len().max(1)).cloned();
        match event {
            Event::Nothing => {}
            Event::Come => {
                self.next += 1;
                let pod = Pod {
                    divisor: 1,
                    serves: false,
                    able_in: 3,
                    terminating: false,
                    deaf: 0,
                    mute: 0,
                    silent: false,
                    known: None,
                };
                self.pods.insert(format!("{:03}", self.next), pod);
            }
            Event::NewLeader => {
                self.count = Count::default();
                self.led = Duration::ZERO;
                self.pods.values_mut().for_each(|pod| pod.known = None);
            }
            Event::Go(nth) => drop(pick(self, nth).and_then(|uid| self.pods.remove(&uid))),
            Event::Terminate(nth) => self.change(pick(self, nth), |pod| pod.terminating = true),
            Event::Deaf(nth) => self.change(pick(self, nth), |pod| pod.deaf = LONGEST_SILENCE),
            Event::LoseReplies(nth) => self.change(pick(self, nth), |pod| pod.mute = LONGEST_SILENCE),
        }
    }

    fn change(&mut self, uid: Option<String>, change: impl FnOnce(&mut Pod)) {
        let free = |pod: &&mut Pod| pod.deaf + pod.mute == 0 && !pod.silent;
        if let Some(pod) = uid.and_then(|uid| self.pods.get_mut(&uid)).filter(free) {
            change(pod);
        }
    }

    fn tick(&mut self) -> Orders {
        let facts: Vec<PodFacts> = self.pods.iter().map(|(uid, pod)| pod.facts(uid)).collect();
        let orders = self.count.step(self.now, self.led, self.stored, &facts);
        for (uid, pod) in &mut self.pods {
            pod.hear(uid, &orders);
        }
        self.stored = orders.divisor;
        self.now += TICK;
        self.led += TICK;
        orders
    }

    /// Σ 1/D over the pods that serve, in units of a thousandth of a share: the whole is 1,000,000.
    fn shares(&self) -> u64 {
        self.pods.values().filter(|pod| pod.serves).map(|pod| 1_000_000 / u64::from(pod.divisor)).sum()
    }
}

impl Pod {
    fn facts(&self, uid: &str) -> PodFacts {
        PodFacts {
            uid: uid.to_owned(),
            serves: self.known.map_or(self.serves, |(_, serves, _)| serves),
            able: self.known.is_some_and(|(_, _, able)| able),
            terminating: self.terminating,
            divisor: self.known.map(|(divisor, _, _)| divisor),
        }
    }

    /// Obeys, and is heard, unless what goes to it or comes from it is lost.
    fn hear(&mut self, uid: &str, orders: &Orders) {
        self.able_in = self.able_in.saturating_sub(1);
        if let Some((known, _, _)) = &mut self.known {
            *known = (*known).min(orders.divisor);
        }
        self.silent = self.deaf + self.mute > 0;
        if self.deaf > 0 {
            self.deaf -= 1;
            return;
        }
        self.divisor = orders.divisor;
        self.serves |= orders.serve.contains(uid);
        if self.mute > 0 {
            self.mute -= 1;
            return;
        }
        self.known = Some((self.divisor, self.serves, self.able_in == 0));
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => Just(Event::Nothing),
        3 => Just(Event::Come),
        2 => (0..8_usize).prop_map(Event::Go),
        1 => (0..8_usize).prop_map(Event::Terminate),
        1 => (0..8_usize).prop_map(Event::Deaf),
        1 => (0..8_usize).prop_map(Event::LoseReplies),
        1 => Just(Event::NewLeader),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_pods_that_serve_never_share_more_than_the_whole(events in prop::collection::vec(event(), 1..120)) {
        let mut sim = Sim::default();
        for event in events {
            sim.happen(event);
            sim.tick();
            prop_assert!(sim.shares() <= 1_000_000, "{:?}", sim.pods);
        }
        for _ in 0..60 {
            sim.tick();
            prop_assert!(sim.shares() <= 1_000_000, "{:?}", sim.pods);
        }
        let alive = sim.pods.values().filter(|pod| pod.serves || !pod.terminating).count();
        let serving = sim.pods.values().filter(|pod| pod.serves).count();
        prop_assert_eq!(serving, alive, "everybody who can serve does");
        let last = sim.tick();
        prop_assert_eq!(last.divisor as usize, serving.max(1), "D counts who serves, and nobody else");
    }
}
