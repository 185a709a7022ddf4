//! To zero, after long enough without a request, and back at the first.

use std::time::Duration;

use crate::reports::Reports;
use crate::{Config, Held, Holder};

/// A pool that was woken does not go back to zero for so long after its first pod is ready.
const STAY: Duration = Duration::from_mins(1);
/// How long a pod that was asked for is waited for, though nobody waits for it any more.
const WAIT_FOR_READY: Duration = Duration::from_mins(15);

/// A pool that sleeps is woken after so long in which nobody was heard who holds what comes: a new operator has yet to hear
/// of them, and the first ones have yet to start.
const UNHEARD: Duration = Duration::from_mins(1);
/// It is woken after so long without anybody where somebody was there before: who asks meanwhile is refused, and those that
/// come in the place of others are there within seconds.
const UNHELD: Duration = Duration::from_secs(10);
/// A pool sleeps only where somebody has held what comes for so long without a break: activators that come and go are no
/// reason to let a pod go that would be asked for again.
const STEADY: Duration = Duration::from_mins(1);

/// Whether a pool sleeps, and what keeps it awake.
#[derive(Debug, Clone)]
pub(crate) struct Idle {
    sleeps: bool,
    /// When it last had work, or may have had.
    active: Duration,
    woken: Duration,
    /// When a pod was ready first, since it was woken.
    ready: Option<Duration>,
    /// How much had come to be held.
    arrivals: Option<u64>,
    /// When somebody who was heard last held what comes.
    heard: Duration,
    /// Since when somebody has, without a break.
    heard_since: Option<Duration>,
    /// When somebody last did, or may have; none before the first.
    held: Option<Duration>,
    /// It would sleep, and nobody has been there for long who would hold what comes.
    lacks: bool,
    /// It was woken for want of them, and nothing has come since.
    lost: bool,
}

impl Idle {
    pub(crate) fn new(now: Duration, sleeps: bool) -> Self {
        Self {
            sleeps,
            active: now,
            woken: now,
            ready: None,
            arrivals: None,
            heard: now,
            heard_since: None,
            held: None,
            lacks: false,
            lost: false,
        }
    }

    pub(crate) fn sleeps(&self) -> bool {
        self.sleeps
    }

    /// Whether it is for want of anybody who holds what comes that it does not sleep. So until somebody is there or the
    /// pool is in use: that too little is known of it for a moment is no end of it.
    pub(crate) fn lacks(&self) -> bool {
        self.lacks
    }

    /// Whether it was for want of them that it was woken.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost
    }

    /// Takes what there is to do; `are_used` says whether a request came to a pod: whatever would wake a pool that sleeps
    /// also keeps it awake, or it would go to zero and back for ever.
    pub(crate) fn look(&mut self, held: &Held, reports: &Reports, are_used: bool, now: Duration) {
        let has_come = self.has_come(held) || are_used || held.requests > 0;
        self.lost &= !has_come;
        if has_come || !reports.are_idle() {
            self.active = now;
            if self.sleeps {
                (self.sleeps, self.woken, self.ready) = (false, now, None);
            }
        }
        if reports.ready > 0 {
            self.ready.get_or_insert(now);
        }
    }

    /// Whether a request came to be held, even if it is not held any more.
    fn has_come(&mut self, held: &Held) -> bool {
        if held.epoch == 0 {
            return false;
        }
        self.arrivals.replace(held.arrivals).is_some_and(|before| held.arrivals > before)
    }

    /// Puts a pool of one pod to sleep if it has been idle for long enough; whether it sleeps.
    pub(crate) fn rest(&mut self, config: &Config, may: bool, now: Duration) -> bool {
        let since = |at: Duration| now.saturating_sub(at);
        self.take(config.holder, now);
        let is_unheld = since(self.heard) >= UNHEARD || self.held.is_some_and(|held| since(held) >= UNHELD);
        let Some(after) = config.to_zero.filter(|_| config.min == 0) else {
            (self.sleeps, self.lacks, self.lost) = (false, false, false);
            return false;
        };
        self.lost &= is_unheld;
        if self.sleeps && is_unheld {
            (self.sleeps, self.woken, self.ready, self.lost) = (false, now, None, true);
        }
        let is_idle = since(self.active) >= after;
        self.lacks = self.lost || (is_unheld && is_idle && (may || self.lacks));
        let has_stayed = self.ready.map_or(since(self.woken) >= WAIT_FOR_READY, |ready| since(ready) >= STAY);
        let is_held = self.heard_since.is_some_and(|from| since(from) >= STEADY);
        self.sleeps |= is_held && may && is_idle && has_stayed;
        self.sleeps
    }

    /// Takes who holds what comes.
    fn take(&mut self, holder: Holder, now: Duration) {
        let is_heard = holder == Holder::Heard;
        self.heard_since = is_heard.then(|| self.heard_since.unwrap_or(now));
        self.heard = if is_heard { now } else { self.heard };
        self.held = if holder == Holder::Nobody { self.held } else { Some(now) };
    }

    /// Goes on after a time in which nobody looked: it is not known who held what came in it.
    pub(crate) fn resume(&mut self, now: Duration) {
        self.heard = now;
        self.held = self.held.map(|_| now);
        self.heard_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::startup::Startup;
    use crate::{Heard, Observation, Phase, PodSeen};

    const NOBODY: Held = Held { requests: 0, arrivals: 0, epoch: 1, oldest_wait_ms: 0 };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn config() -> Config {
        Config { min: 0, to_zero: Some(at(600)), holder: Holder::Heard, ..Config::default() }
    }

    /// Looks at a pool with one pod, or none.
    fn look(idle: &mut Idle, held: Held, in_flight: Option<u32>, now: u64) {
        let pod = in_flight.map(|in_flight| {
            let mut heard = Heard { at: at(now), ready: true, ..Heard::default() };
            heard.gauges.in_flight = in_flight;
            PodSeen { ready: true, phase: Phase::Running, heard: Some(heard), ..PodSeen::default() }
        });
        let seen = Observation { pods: pod.into_iter().collect(), ..Observation::default() };
        let reports = Reports::of(&seen, &Startup::default(), at(now), at(now));
        idle.look(&held, &reports, false, at(now));
    }

    #[test]
    fn a_pool_sleeps_once_it_has_been_idle_for_long_enough() {
        let mut idle = Idle::new(at(0), false);
        look(&mut idle, NOBODY, Some(1), 100);
        assert!(!idle.rest(&config(), true, at(100)));
        look(&mut idle, NOBODY, Some(0), 699);
        assert!(!idle.rest(&config(), true, at(699)));
        assert!(!idle.rest(&config(), false, at(700)), "more than one pod is left");
        assert!(idle.rest(&config(), true, at(700)));
        look(&mut idle, NOBODY, None, 9000);
        assert!(idle.rest(&config(), true, at(9000)), "it sleeps on");
    }

    #[test]
    fn one_request_wakes_it_also_if_it_did_not_stay() {
        for held in [
            Held { requests: 1, ..NOBODY },
            Held { arrivals: 1, ..NOBODY },
            Held { arrivals: 3, epoch: 2, ..NOBODY },
        ] {
            let mut idle = Idle::new(at(0), true);
            look(&mut idle, NOBODY, None, 1);
            assert!(idle.rest(&config(), true, at(1)));
            look(&mut idle, held, None, 2);
            assert!(!idle.rest(&config(), true, at(2)), "{held:?}");
        }
    }

    #[test]
    fn who_comes_and_goes_lets_no_pool_sleep() {
        let mut idle = Idle::new(at(0), false);
        let unheard = Config { holder: Holder::Unheard, ..config() };
        let mut rests = |config: &Config, now| {
            look(&mut idle, NOBODY, Some(0), now);
            idle.rest(config, true, at(now))
        };
        assert!(!rests(&config(), 550));
        assert!(!rests(&unheard, 600));
        assert!(!rests(&config(), 601));
        assert!(!rests(&config(), 660));
        assert!(rests(&config(), 661), "a minute without a break");
    }

    #[test]
    fn a_time_in_which_nobody_looked_wakes_no_pool() {
        let nobody = Config { holder: Holder::Nobody, ..config() };
        let mut idle = Idle::new(at(0), true);
        assert!(idle.rest(&config(), true, at(1)));
        idle.resume(at(900));
        assert!(idle.rest(&nobody, true, at(909)));
        assert!(!idle.rest(&nobody, true, at(910)));
    }

    #[test]
    fn a_pool_that_was_woken_stays_until_a_pod_is_ready_and_a_minute_longer() {
        let quick = Config { to_zero: Some(at(10)), ..config() };
        let mut idle = Idle::new(at(0), true);
        look(&mut idle, NOBODY, None, 0);
        look(&mut idle, Held { arrivals: 1, ..NOBODY }, None, 1);
        look(&mut idle, Held { arrivals: 1, ..NOBODY }, None, 800);
        assert!(!idle.rest(&quick, true, at(800)), "its pod is on its way");
        look(&mut idle, Held { arrivals: 1, ..NOBODY }, Some(0), 810);
        assert!(!idle.rest(&quick, true, at(869)));
        assert!(idle.rest(&quick, true, at(870)));
    }

    #[test]
    fn a_pod_that_never_comes_is_not_waited_for_without_end() {
        let mut idle = Idle::new(at(0), true);
        look(&mut idle, NOBODY, None, 0);
        look(&mut idle, Held { arrivals: 1, ..NOBODY }, None, 1);
        assert!(!idle.rest(&config(), true, at(1)));
        assert!(!idle.rest(&config(), true, at(900)));
        assert!(idle.rest(&config(), true, at(901)));
    }

    #[test]
    fn another_activator_of_which_nothing_came_wakes_nobody() {
        let mut idle = Idle::new(at(0), true);
        for held in [NOBODY, Held::default(), NOBODY, Held { epoch: 2, ..NOBODY }] {
            look(&mut idle, held, None, 1);
            assert!(idle.rest(&config(), true, at(1)), "{held:?}");
        }
    }

    #[test]
    fn a_new_operator_lets_a_pool_sleep_until_it_may_have_heard_who_holds_its_requests() {
        let unheard = Config { holder: Holder::Unheard, ..config() };
        let mut idle = Idle::new(at(0), true);
        assert!(idle.rest(&unheard, true, at(59)));
        assert!(idle.rest(&config(), true, at(70)));
        assert!(idle.rest(&unheard, true, at(129)));
        assert!(!idle.rest(&unheard, true, at(130)));
        assert!(!idle.rest(&unheard, true, at(131)), "it is awake");
    }

    #[test]
    fn a_pool_that_sleeps_is_woken_sooner_where_nobody_is_there_to_hold_its_requests() {
        let nobody = Config { holder: Holder::Nobody, ..config() };
        let unheard = Config { holder: Holder::Unheard, ..config() };
        let mut idle = Idle::new(at(0), true);
        assert!(idle.rest(&nobody, true, at(11)), "the first is on its way");
        assert!(idle.rest(&unheard, true, at(12)));
        assert!(idle.rest(&nobody, true, at(21)));
        assert!(!idle.lacks() && !idle.is_lost());
        assert!(!idle.rest(&nobody, true, at(22)));
        assert!(idle.lacks() && idle.is_lost());
        assert!(!idle.rest(&unheard, true, at(23)), "it is awake");
        assert!(!idle.lacks() && !idle.is_lost(), "somebody may be there");
        assert!(!idle.rest(&config(), true, at(800)), "its pod is on its way");
        look(&mut idle, NOBODY, Some(0), 810);
        assert!(!idle.rest(&config(), true, at(869)));
        assert!(idle.rest(&config(), true, at(870)));
    }

    #[test]
    fn it_is_told_that_nobody_holds_requests_once_that_is_what_keeps_a_pool_awake() {
        let unheard = Config { holder: Holder::Unheard, ..config() };
        let mut idle = Idle::new(at(0), false);
        let mut lacks = |config: &Config, in_flight, may, now| {
            look(&mut idle, NOBODY, Some(in_flight), now);
            idle.rest(config, may, at(now));
            idle.lacks()
        };
        assert!(!lacks(&unheard, 1, true, 100), "it works");
        assert!(!lacks(&unheard, 0, true, 699));
        assert!(!lacks(&unheard, 0, false, 700), "it would not sleep in any case");
        assert!(lacks(&unheard, 0, true, 702));
        assert!(lacks(&unheard, 0, false, 704), "for a moment too little is known");
        assert!(!lacks(&config(), 0, false, 706), "somebody is there");
        assert!(!lacks(&unheard, 0, false, 765), "and may soon be again");
        assert!(lacks(&unheard, 0, true, 766));
        assert!(!lacks(&Config { min: 1, ..unheard.clone() }, 0, true, 768), "a schedule keeps it awake");
        assert!(lacks(&unheard, 0, true, 770));
        assert!(!lacks(&unheard, 1, true, 772));
    }

    #[test]
    fn without_anybody_who_holds_requests_no_pool_sleeps() {
        let mut idle = Idle::new(at(0), false);
        assert!(!idle.rest(&Config { holder: Holder::Nobody, ..config() }, true, at(9000)));
        assert!(!idle.rest(&Config { to_zero: None, ..config() }, true, at(9000)));
        assert!(!idle.rest(&Config { min: 1, ..config() }, true, at(9000)));
    }
}
