//! From what is seen to what is needed: the windows are fed, and the formula is asked.

use std::time::Duration;

use crate::counters::{Flow, Lives, Piece, count};
use crate::need::{Totals, Work, drain_seconds};
use crate::panic::{Panic, Sudden};
use crate::rate::{LONGEST, Rates, STABLE, SUDDEN, Window};
use crate::reports::Reports;
use crate::service::Service;
use crate::size::Needs;
use crate::startup::Startup;
use crate::timeline::Timeline;
use crate::trend::ahead;
use crate::{Config, Held, Numbers, Observation, Preset, Reason, Sizing};

/// What is taken off the rate for chance, in standard deviations, before it makes more pods.
const CHANCE: f64 = 1.5;

/// What is remembered of the load of one pool.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    lives: Lives,
    held: Option<(Held, Duration)>,
    rates: Rates,
    service: Service,
    panic: Panic,
}

/// What is looked at now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look<'a> {
    pub(crate) config: &'a Config,
    pub(crate) seen: &'a Observation,
    pub(crate) reports: &'a Reports<'a>,
    /// L, in seconds.
    pub(crate) startup: f64,
    /// How many pods there should be as yet.
    pub(crate) current: u32,
    pub(crate) now: Duration,
}

/// What the formula is asked.
struct Question<'a> {
    look: &'a Look<'a>,
    /// What came within the window by which the pool is sized.
    came: Window,
    totals: Totals,
    work: Work,
}

/// How many pods, and why.
#[derive(Debug, Clone, Copy)]
struct Answer {
    now: u32,
    clear: u32,
    /// Without what waits and what is sudden.
    usual: u32,
    reason: Reason,
}

impl Answer {
    fn or(self, pods: Option<u32>, reason: Reason) -> Self {
        match pods {
            Some(pods) if pods > self.clear => Self { now: self.now.max(pods), clear: pods, reason, ..self },
            _ => self,
        }
    }
}

impl Load {
    pub(crate) fn new(now: Duration) -> Self {
        Self {
            lives: Lives::default(),
            held: None,
            rates: Rates::new(now),
            service: Service::default(),
            panic: Panic::default(),
        }
    }

    /// Takes what pods have told; whether they are in use: a request came that no limit refused, or one that
    /// is no work.
    pub(crate) fn take(&mut self, seen: &Observation, startup: &Startup, time: &Timeline) -> bool {
        self.lives.retain(|uid| startup.knows(uid));
        let mut are_used = false;
        let (mut told, mut pods) = (Duration::ZERO, 0_u32);
        for pod in &seen.pods {
            let Some(heard) = &pod.heard else { continue };
            let at = time.at(heard.at);
            if at.saturating_add(SUDDEN) >= time.now() {
                told = told.saturating_add(time.now().saturating_sub(at));
                pods = pods.saturating_add(1);
            }
            if let Some(piece) = self.lives.take(&pod.uid, heard, at, startup.born(&pod.uid)) {
                are_used |= piece.is_used || piece.flow.arrivals > piece.flow.policy_rejects;
                self.rates.add(&piece);
            }
        }
        self.take_held(seen.held, time.now());
        self.rates.look(time.now().saturating_sub(told.checked_div(pods).unwrap_or_default()));
        are_used
    }

    /// What is held beside what was is new. Another life of the activator has lost what the one before held.
    fn take_held(&mut self, held: Held, now: Duration) {
        if held.epoch == 0 {
            return;
        }
        let Some((before, from)) = self.held.replace((held, now)) else { return };
        if before.epoch == held.epoch && before.requests != held.requests {
            let more = f64::from(held.requests) - f64::from(before.requests);
            self.rates.add(&Piece {
                from,
                to: now,
                flow: Flow { held: more, ..Flow::default() },
                is_used: false,
            });
        }
    }

    /// What the pool needs, and the numbers that say so.
    pub(crate) fn needs(&mut self, look: &Look) -> (Needs, Numbers) {
        let lately = self.rates.over(LONGEST).flow;
        self.service.learn(&lately);
        let heard = look.seen.pods.iter().filter_map(|pod| pod.heard.as_ref());
        self.service.recall(heard.map(|heard| Flow::of_life(&heard.counters)));
        let running = count(look.reports.in_flight());
        let waiting = count(look.reports.queued().saturating_add(u64::from(look.seen.held.requests)));
        let service = self.service.seconds(&lately, (running, waiting), look.config.expected_service);
        let came = self.rates.over(sizing_window(service));
        let totals = self.totals(look, &came);
        let work = work(look, Service::of_now(service, &came, running), totals.backlog);
        let question = Question { look, came, totals, work };
        let answer = self.answer(&question);
        let is_sudden = self.panic.holds(look.now);
        (needs(&answer, look, &question.work, is_sudden), numbers(&answer, &question))
    }

    fn totals(&self, look: &Look, came: &Window) -> Totals {
        let Look { seen, reports, .. } = look;
        let lately = self.rates.over(STABLE);
        let written = lately.flow.tokens / lately.seconds;
        // A pool that is full writes no more than it can: what comes would have it write more.
        let to_write = self.service.tokens().map_or(0.0, |tokens| tokens * came.rate());
        Totals {
            ready: reports.ready,
            backlog: reports.queued().saturating_add(u64::from(seen.held.requests)),
            in_flight: reports.in_flight(),
            oldest_wait_ms: reports.oldest_wait_ms().max(seen.held.oldest_wait_ms),
            tokens_per_second: written.max(to_write),
        }
    }

    fn answer(&mut self, question: &Question) -> Answer {
        let Question { look, came, totals, work } = question;
        if let Some(pods) = totals.pods(look.config.sizing) {
            return Answer { now: pods, clear: pods, usual: pods, reason: Reason::Target };
        }
        let clear = came.rate_but_chance(CHANCE);
        let reason = if work.is_backlog(clear) { Reason::Backlog } else { Reason::Work };
        let later = look.config.trend.then(|| ahead(&self.rates, look.startup)).flatten();
        let usual = Work { backlog: 0.0, ..*work }.pods(later.unwrap_or_default().max(came.rate()));
        let answer = Answer { now: work.pods(came.rate()), clear: work.pods(clear), usual, reason };
        let window = self.rates.over(SUDDEN);
        let service = Service::of_now(work.service, &window, count(totals.in_flight));
        let sudden = Sudden {
            window,
            work: Work { service, ..*work },
            current: look.current.min(look.config.max),
            in_flight: totals.in_flight,
            startup: look.startup,
        };
        answer
            .or(later.map(|rate| work.pods(rate)), Reason::Trend)
            .or(self.panic.look(&sudden, look.now), Reason::Panic)
    }
}

/// A minute, or twice what an answer takes: in less than an answer takes a single one looks like a flood.
fn sizing_window(service: f64) -> Duration {
    Duration::from_secs_f64((2.0 * service).clamp(STABLE.as_secs_f64(), LONGEST.as_secs_f64()))
}

fn work(look: &Look, service: f64, backlog: u64) -> Work {
    let (percent, preset) = match look.config.sizing {
        Sizing::Work { utilization_percent, preset } => (utilization_percent.clamp(1, 100), preset),
        _ => (100, Preset::default()),
    };
    Work {
        service,
        slots: look.reports.slots(look.config.slots_per_pod),
        utilization: f64::from(percent) / 100.0,
        drain: drain_seconds(preset, look.startup),
        backlog: count(backlog),
    }
}

fn needs(answer: &Answer, look: &Look, work: &Work, is_sudden: bool) -> Needs {
    let reports = look.reports;
    let unknown = reports.silent.saturating_add(reports.unknown);
    let running = Work { utilization: 1.0, backlog: 0.0, ..*work }.pods_for(count(reports.in_flight()));
    Needs {
        now: answer.now,
        clear: answer.clear,
        usual: answer.usual,
        // What took so long to make is not thrown away sooner.
        beyond: Duration::try_from_secs_f64(look.startup).unwrap_or_default().max(STABLE),
        reason: answer.reason,
        is_sudden,
        unknown,
        floor: running.saturating_add(unknown),
        is_blind: false,
        has_no_place: false,
        rollout: false,
    }
}

fn numbers(answer: &Answer, question: &Question) -> Numbers {
    let Question { look, came, totals, work } = question;
    Numbers {
        rate: came.rate(),
        service_seconds: work.service,
        backlog: totals.backlog,
        in_flight: totals.in_flight,
        oldest_wait_seconds: count(totals.oldest_wait_ms) / 1000.0,
        startup_seconds: look.startup,
        drain_seconds: work.drain,
        needed: answer.now.max(answer.clear),
        slots: work.slots,
        ready: look.reports.ready,
        missing: look.reports.silent,
    }
}
