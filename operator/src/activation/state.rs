//! The activators of one pool: what they are told, what they said, and what is held in all of them. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use corral_scaler::{Held, Holder};
use corral_wire::activation::MAX_BACKENDS;
use corral_wire::{Backend, Duty, Holding, PoolKeys, PoolRef, Position, Signed, VerifyError};

/// How long an activator that holds nothing may keep its answer back.
const IDLE_PATIENCE: Duration = Duration::from_secs(20);
/// The same of one that holds something: how long that has waited changes all the time.
const BUSY_PATIENCE: Duration = Duration::from_secs(2);
/// After so long without a word nothing counts as held: longer than any answer is kept back.
const SILENCE: Duration = Duration::from_secs(30);
/// The first number of what is held together; 0 would say that nobody tells.
const EPOCH: u64 = 1;

/// What a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// To hear of what is held, as soon as that is more than was known.
    Listen,
    /// To tell news.
    Tell,
}

/// How Kubernetes has an activator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Standing {
    /// New traffic may be brought to it.
    Ready,
    /// It may be some time.
    #[default]
    Unready,
    /// It is at its end.
    Ends,
}

/// The activators of one pool.
#[derive(Debug)]
pub struct Activators {
    pool: PoolRef,
    keys: PoolKeys,
    term: u64,
    backends: Vec<Backend>,
    /// When a pod will probably be ready.
    start_by: Option<Duration>,
    /// No pod is asked for.
    stopped: bool,
    all: BTreeMap<String, Activator>,
    /// Requests that came to any of them, as far as was heard. It only grows.
    arrivals: u64,
    /// Moves when what is held changes though nothing came and nothing was let go: with an activator that is lost while it
    /// holds something, or found.
    epoch: u64,
    /// The greatest term that one of them obeys, where that is above ours.
    overtaken_by: Option<u64>,
}

#[derive(Debug, Default)]
struct Activator {
    sent: u64,
    heard: Option<(Duration, Holding)>,
    /// What it held does not count any more, for it is silent.
    is_lost: bool,
    standing: Standing,
}

impl Activator {
    /// What it last said, unless that is long ago.
    fn fresh(&self, now: Duration) -> Option<&Holding> {
        self.heard.as_ref().filter(|(at, _)| now.saturating_sub(*at) < SILENCE).map(|(_, holding)| holding)
    }

    fn holds(&self) -> bool {
        !self.is_lost && self.heard.as_ref().is_some_and(|(_, holding)| holding.requests > 0)
    }
}

impl Activators {
    /// A pool without any yet.
    pub fn new(pool: PoolRef, keys: PoolKeys, term: u64) -> Self {
        let (backends, all) = (Vec::new(), BTreeMap::new());
        Self {
            pool,
            keys,
            term,
            backends,
            start_by: None,
            stopped: false,
            all,
            arrivals: 0,
            epoch: EPOCH,
            overtaken_by: None,
        }
    }

    /// Takes the keys and the term to speak with.
    pub fn take_keys(&mut self, keys: PoolKeys, term: u64) {
        if term != self.term {
            for activator in self.all.values_mut() {
                activator.sent = 0;
            }
            self.overtaken_by = None;
        }
        (self.keys, self.term) = (keys, term);
    }

    /// Takes those that exist now, and how Kubernetes has each of them.
    pub fn take<'a>(&mut self, activators: impl Iterator<Item = (&'a str, Standing)>) {
        let mut before = std::mem::take(&mut self.all);
        self.all = activators
            .map(|(uid, standing)| {
                (uid.to_owned(), Activator { standing, ..before.remove(uid).unwrap_or_default() })
            })
            .collect();
        if before.values().any(Activator::holds) {
            self.begin_anew();
        }
    }

    /// What is held from now on is not compared with what was.
    fn begin_anew(&mut self) {
        self.epoch = self.epoch.saturating_add(1);
    }

    /// Takes the pods that are ready now; whether activators must be told at once.
    pub fn tell(&mut self, mut backends: Vec<Backend>, start_left: Option<Duration>, now: Duration) -> bool {
        backends.sort_by(|one, other| other.free.cmp(&one.free).then_with(|| one.uid.cmp(&other.uid)));
        backends.truncate(MAX_BACKENDS);
        let start_by = start_left.map(|left| now.saturating_add(left));
        // Of slots that come and go, and of an estimate that gets better, is told with the next call.
        let who = |backends: &[Backend]| {
            let mut who: Vec<_> = backends
                .iter()
                .map(|backend| (backend.uid.clone(), backend.address, backend.slots))
                .collect();
            who.sort();
            who
        };
        let news = who(&backends) != who(&self.backends) || start_by.is_some() != self.start_by.is_some();
        (self.backends, self.start_by) = (backends, start_by);
        news
    }

    /// Takes whether the pool is stopped; whether activators must be told at once.
    pub fn stop(&mut self, stopped: bool) -> bool {
        std::mem::replace(&mut self.stopped, stopped) != stopped
    }

    /// The next message to an activator, signed, and its place; none when it is gone or nothing can be signed.
    pub fn message(&mut self, uid: &str, call: Call, now: Duration) -> Option<(Position, Signed)> {
        let duty = self.duty(uid, call, now)?;
        let activator = self.all.get_mut(uid)?;
        activator.sent = activator.sent.saturating_add(1);
        let position = Position { term: self.term, sequence: activator.sent };
        Some((position, self.keys.sign(uid, position, &duty).ok()?))
    }

    fn duty(&self, uid: &str, call: Call, now: Duration) -> Option<Duty> {
        let known = self.all.get(uid)?.fresh(now).map(|holding| holding.requests);
        // Of one that was never heard, or long ago, everything is news.
        let patience = match (call, known) {
            (Call::Tell, _) | (Call::Listen, None) => Duration::ZERO,
            (Call::Listen, Some(0)) => IDLE_PATIENCE,
            (Call::Listen, Some(_)) => BUSY_PATIENCE,
        };
        let known = known.unwrap_or(0);
        let left =
            self.start_by.map_or(Duration::ZERO, |by| by.saturating_sub(now).max(Duration::from_millis(1)));
        Some(Duty {
            pool: self.pool.clone(),
            backends: self.backends.clone(),
            start_left_ms: millis(left),
            patience_ms: millis(patience),
            // Half as many again: a crowd is heard of a few times, not for each of it.
            wake_above: known.saturating_add(known / 2),
            stopped: self.stopped,
        })
    }

    /// Takes an activator's answer to what stood at `asked`; whether the size of the pool should be looked at for it.
    pub fn hear(
        &mut self,
        uid: &str,
        asked: Position,
        answer: &Signed,
        now: Duration,
    ) -> Result<bool, VerifyError> {
        let holding: Holding = self.keys.open(uid, Some(asked), answer)?;
        let Some(activator) = self.all.get_mut(uid) else { return Ok(false) };
        let obeys = answer.position;
        if obeys > (Position { term: self.term, sequence: activator.sent }) {
            // It takes no pod from us, and so holds what nobody will let go.
            if obeys.term == self.term {
                activator.sent = obeys.sequence;
            } else {
                self.overtaken_by = self.overtaken_by.max(Some(obeys.term));
            }
            return Ok(true);
        }
        let was_lost = std::mem::take(&mut activator.is_lost);
        let held = activator.holds();
        let before = activator.heard.take().map(|(_, holding)| holding);
        let known = before.as_ref().filter(|before| before.epoch == holding.epoch);
        let came = known.map_or(0, |before| holding.arrivals.saturating_sub(before.arrivals));
        // Of a life that was never heard of before, only what it holds is known to be new.
        let is_another_life = known.is_none();
        let came = if is_another_life { u64::from(holding.requests) } else { came };
        self.arrivals = self.arrivals.saturating_add(came);
        let stirs = came > 0 || holding.requests > known.map_or(0, |before| before.requests);
        let is_found = was_lost || (is_another_life && holding.requests > 0);
        activator.heard = Some((now, holding));
        if is_found || (is_another_life && held) {
            self.begin_anew();
        }
        Ok(stirs)
    }

    /// The term that one of them obeys in place of ours: with a greater one it obeys us.
    pub fn overtaken_by(&self) -> Option<u64> {
        self.overtaken_by
    }

    /// What is held in all of them.
    pub fn held(&mut self, now: Duration) -> Held {
        let silent = self.all.values_mut().filter(|activator| activator.fresh(now).is_none());
        let lost = silent.filter(|activator| activator.holds()).map(|activator| activator.is_lost = true);
        if lost.count() > 0 {
            self.begin_anew();
        }
        let mut held = Held { arrivals: self.arrivals, epoch: self.epoch, ..Held::default() };
        for holding in self.all.values().filter_map(|activator| activator.fresh(now)) {
            held.requests = held.requests.saturating_add(holding.requests);
            held.oldest_wait_ms = held.oldest_wait_ms.max(holding.oldest_wait_ms);
        }
        held
    }

    /// Who of them would hold what comes. It is brought only to one that is ready; one that is heard and is not ready, as
    /// where the word of its kubelet does not come through, may soon be.
    pub fn holder(&self, now: Duration) -> Holder {
        let one = |activator: &Activator| match (activator.standing, activator.fresh(now).is_some()) {
            (Standing::Ready, true) => Holder::Heard,
            (Standing::Ready, false) | (Standing::Unready, true) => Holder::Unheard,
            (Standing::Unready, false) | (Standing::Ends, _) => Holder::Nobody,
        };
        self.all.values().map(one).max().unwrap_or_default()
    }

    /// Whether one of them was heard lately.
    pub fn is_heard(&self, uid: &str, now: Duration) -> bool {
        self.all.get(uid).is_some_and(|activator| activator.fresh(now).is_some())
    }
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::Standing::{Ends, Ready, Unready};
    use super::*;

    fn keys() -> PoolKeys {
        PoolKeys::new(vec![vec![1; 32]]).unwrap()
    }

    fn pool() -> PoolRef {
        PoolRef { namespace: "llm".into(), name: "chat".into() }
    }

    fn two() -> Activators {
        let mut all = Activators::new(pool(), keys(), 3);
        all.take([("a", Ready), ("b", Ready)].into_iter());
        all
    }

    fn holding(epoch: u64, requests: u32, arrivals: u64) -> Holding {
        Holding {
            pool: pool(),
            epoch,
            arrivals,
            refused: 0,
            requests,
            bytes: 0,
            oldest_wait_ms: u64::from(requests) * 100,
            forwarding: 0,
            ready_pods: 0,
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// One call, answered with this; what was said, and whether it stirs.
    fn say(all: &mut Activators, uid: &str, call: Call, answer: &Holding, now: u64) -> (Duty, bool) {
        let (asked, message) = all.message(uid, call, at(now)).unwrap();
        let duty: Duty = keys().open(uid, None, &message).unwrap();
        let signed = keys().sign_answer(uid, asked, asked, answer).unwrap();
        (duty, all.hear(uid, asked, &signed, at(now)).unwrap())
    }

    fn backend(uid: &str, free: u32) -> Backend {
        Backend { uid: uid.to_owned(), address: ([10, 0, 0, 1], 11434).into(), slots: 4, free }
    }

    #[test]
    fn an_activator_that_holds_nothing_keeps_its_answer_back_and_one_that_does_tells_soon_again() {
        let mut all = two();
        let (first, stirs) = say(&mut all, "a", Call::Listen, &holding(7, 0, 0), 0);
        assert_eq!((first.patience_ms, first.wake_above, stirs), (0, 0, false), "it was never heard");
        let (idle, stirs) = say(&mut all, "a", Call::Listen, &holding(7, 10, 10), 1);
        assert_eq!((idle.patience_ms, idle.wake_above, stirs), (20_000, 0, true));
        let (busy, stirs) = say(&mut all, "a", Call::Listen, &holding(7, 10, 10), 2);
        assert_eq!((busy.patience_ms, busy.wake_above, stirs), (2000, 15, false));
        assert_eq!(say(&mut all, "a", Call::Tell, &holding(7, 10, 10), 2).0.patience_ms, 0);
    }

    #[test]
    fn what_is_held_is_that_of_all_that_were_heard_lately_and_arrivals_only_grow() {
        let mut all = two();
        say(&mut all, "a", Call::Listen, &holding(7, 3, 30), 0);
        assert_eq!(all.holder(at(0)), Holder::Heard);
        say(&mut all, "b", Call::Listen, &holding(8, 5, 50), 0);
        let held = all.held(at(0));
        assert_eq!((held.requests, held.arrivals, held.oldest_wait_ms), (8, 8, 500));
        say(&mut all, "a", Call::Listen, &holding(7, 1, 34), 20);
        assert_eq!((all.held(at(20)).requests, all.held(at(20)).arrivals), (6, 12));
        let (_, stirs) = say(&mut all, "a", Call::Listen, &holding(9, 0, 0), 21);
        assert_eq!((all.held(at(21)).arrivals, stirs), (12, false), "it began anew, and holds nothing");
        assert_eq!(all.held(at(31)).requests, 0, "the other one is silent");
        assert_eq!(all.holder(at(60)), Holder::Unheard);
        all.take([("b", Ready)].into_iter());
        assert_eq!(all.held(at(61)).arrivals, 12, "nor is what came forgotten with the one it came to");
    }

    #[test]
    fn activators_are_told_at_once_of_pods_that_come_and_go_and_of_the_rest_by_and_by() {
        let mut all = two();
        assert!(!all.tell(vec![], None, at(0)));
        assert!(all.tell(vec![], Some(at(60)), at(0)), "a start has begun");
        assert!(!all.tell(vec![], Some(at(50)), at(1)));
        assert!(all.tell(vec![backend("p", 1), backend("q", 4)], None, at(2)));
        assert!(!all.tell(vec![backend("q", 3), backend("p", 4)], None, at(3)));
        let (_, message) = all.message("a", Call::Tell, at(3)).unwrap();
        let duty: Duty = keys().open("a", None, &message).unwrap();
        let order: Vec<&str> = duty.backends.iter().map(|backend| backend.uid.as_str()).collect();
        assert_eq!(order, ["p", "q"], "the emptiest first");
        assert!(all.tell(vec![backend("p", 4)], None, at(4)));
    }

    #[test]
    fn they_hold_what_comes_once_one_was_heard_to_which_it_is_brought() {
        let mut all = two();
        assert_eq!(all.holder(at(0)), Holder::Unheard);
        say(&mut all, "a", Call::Listen, &holding(7, 0, 0), 40);
        assert_eq!([all.holder(at(69)), all.holder(at(70))], [Holder::Heard, Holder::Unheard]);
        say(&mut all, "a", Call::Listen, &holding(7, 0, 0), 71);
        all.take([("a", Unready), ("b", Ready)].into_iter());
        assert_eq!(
            all.holder(at(72)),
            Holder::Unheard,
            "who is heard is not ready, and who is ready is not heard"
        );
        all.take([("a", Unready)].into_iter());
        assert_eq!(all.holder(at(72)), Holder::Unheard, "it may soon be ready again");
        all.take([("a", Ends)].into_iter());
        assert_eq!(all.holder(at(72)), Holder::Nobody);
    }

    #[test]
    fn what_is_held_by_one_that_is_lost_was_not_let_go_to_pods() {
        let mut all = two();
        say(&mut all, "a", Call::Listen, &holding(7, 0, 0), 0);
        say(&mut all, "b", Call::Listen, &holding(8, 0, 0), 0);
        say(&mut all, "a", Call::Listen, &holding(7, 30, 30), 1);
        let counted = all.held(at(1));
        assert_ne!(counted.epoch, 0, "somebody tells");
        say(&mut all, "a", Call::Listen, &holding(7, 20, 30), 2);
        assert_eq!(all.held(at(2)).epoch, counted.epoch, "ten were let go");
        say(&mut all, "b", Call::Listen, &holding(8, 0, 0), 20);
        let silent = all.held(at(40));
        assert_eq!(silent.requests, 0);
        assert_ne!(silent.epoch, counted.epoch, "it is silent");
        assert_eq!(all.held(at(41)), silent);
        say(&mut all, "a", Call::Listen, &holding(7, 20, 30), 42);
        let found = all.held(at(42));
        assert_eq!(found.requests, 20);
        assert_ne!(found.epoch, silent.epoch, "and back: those twenty came long ago");
        all.take([("b", Ready)].into_iter());
        assert_ne!(all.held(at(43)).epoch, found.epoch, "it is gone");
    }

    #[test]
    fn what_is_left_of_a_start_is_told_as_of_now_and_is_never_unknown_again() {
        let mut all = two();
        all.tell(vec![], Some(at(60)), at(0));
        let left = |all: &mut Activators, now| {
            let (_, message) = all.message("a", Call::Tell, at(now)).unwrap();
            keys().open::<Duty>("a", None, &message).unwrap().start_left_ms
        };
        assert_eq!([left(&mut all, 0), left(&mut all, 45), left(&mut all, 90)], [60_000, 15_000, 1]);
    }

    #[test]
    fn every_message_stands_above_the_one_before_and_a_new_term_begins_anew() {
        let mut all = two();
        let place = |all: &mut Activators| all.message("a", Call::Tell, at(0)).unwrap().0;
        let places = [place(&mut all), place(&mut all)];
        all.take_keys(keys(), 4);
        all.take([("a", Ready)].into_iter());
        let after = place(&mut all);
        assert!(places[0] < places[1] && places[1] < after, "{places:?} {after:?}");
        assert!(all.message("b", Call::Tell, at(0)).is_none(), "it is gone");
    }

    #[test]
    fn nobody_is_believed_who_has_not_the_key_or_answers_something_else() {
        let mut all = two();
        let (asked, _) = all.message("a", Call::Listen, at(0)).unwrap();
        let other = PoolKeys::new(vec![vec![2; 32]]).unwrap();
        let forged = other.sign_answer("a", asked, asked, &holding(7, 9, 9)).unwrap();
        assert_eq!(all.hear("a", asked, &forged, at(0)), Err(VerifyError::BadSignature));
        let old = keys().sign_answer("a", asked, Position::default(), &holding(7, 9, 9)).unwrap();
        assert_eq!(all.hear("a", asked, &old, at(0)), Err(VerifyError::OtherQuestion));
        assert_eq!(all.held(at(0)).requests, 0);
    }

    #[test]
    fn one_that_obeys_what_we_never_said_is_not_heard_until_it_obeys_us() {
        let mut all = two();
        let (asked, _) = all.message("a", Call::Tell, at(0)).unwrap();
        let refuses = |term, sequence| {
            keys().sign_answer("a", Position { term, sequence }, asked, &holding(7, 9, 9)).unwrap()
        };
        all.hear("a", asked, &refuses(3, 50), at(0)).unwrap();
        assert_eq!((all.held(at(0)).requests, all.overtaken_by()), (0, None), "it takes no pod from us");
        let (next, _) = all.message("a", Call::Tell, at(0)).unwrap();
        assert_eq!(next, Position { term: 3, sequence: 51 });
        all.hear("a", asked, &refuses(7, 1), at(0)).unwrap();
        assert_eq!((all.held(at(0)).requests, all.overtaken_by()), (0, Some(7)));
        all.take_keys(keys(), 8);
        assert_eq!(all.overtaken_by(), None);
        say(&mut all, "a", Call::Tell, &holding(7, 9, 9), 0);
        assert_eq!(all.held(at(0)).requests, 9);
    }
}
