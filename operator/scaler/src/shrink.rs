//! A shrink: pods are told to retire, and only when they have nothing left is the Deployment asked for fewer.
//!
//! ```text
//! chosen ── retire ──▶ obeys, and is idle ── priced ──▶ all costs quiet for 5 s, the lowest of all ──▶ fewer replicas
//!    ◀───────────────── let go: load returned, a rollout began, somebody else goes instead
//! ```
//!
//! Kubernetes picks who dies, by an order in which a pod that is not ready goes before any cost. So the Deployment is asked
//! for `n` fewer only when `n` pods that may go stand lower than every other pod, by those rules that do not hang on the
//! moment; an overloaded pod that left its Service, or one whose cost somebody else has set, holds a shrink up until it is
//! clear again. Pods that may go do not wait for those that still work: these have no price yet. While some have one and
//! live, nobody else gets one, or the controller could not tell them apart.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::order::Standing;
use crate::reports::{Report, Reports, Word};
use crate::victims::{Past, choose, keep_serving};
use crate::{Phase, VICTIM_COST};

/// For how long no cost may have changed: the controller's view lags as ours does.
const QUIET: Duration = Duration::from_secs(5);

/// Who is to go, and how far that is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shrink {
    victims: BTreeMap<String, Victim>,
    /// Who lived at the last look, at which cost.
    live: BTreeMap<String, i32>,
    /// When a cost was last seen to change.
    changed: Duration,
    /// Who should die by the last order.
    going: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy)]
struct Victim {
    since: Duration,
    is_priced: bool,
}

/// What a shrink is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    pub(crate) desired: u32,
    /// What the Deployment is asked for now.
    pub(crate) replicas: u32,
    pub(crate) rollout: bool,
    /// Too few pods report.
    pub(crate) is_blind: bool,
    pub(crate) drain_timeout: Duration,
    pub(crate) now: Duration,
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    pub(crate) replicas: u32,
    pub(crate) retire: BTreeSet<String>,
    pub(crate) costs: BTreeMap<String, i32>,
    pub(crate) wrong: u32,
    /// Some who were to go stay.
    pub(crate) has_let_go: bool,
}

impl Shrink {
    pub(crate) fn step(&mut self, ask: &Ask, reports: &Reports) -> Orders {
        let wrong = self.count_wrong(ask, reports);
        let has_let_go = self.choose(ask, reports);
        self.price(ask, reports);
        let may_go = self.lowest_that_may_go(ask, reports);
        let replicas = replicas(ask, reports.all.len(), may_go.len());
        if replicas < size(reports.all.len()) && !may_go.is_empty() {
            self.going = may_go;
        }
        let retire = self.victims.keys().cloned().collect();
        let priced = self.victims.iter().filter(|(_, victim)| victim.is_priced);
        let costs = priced.map(|(uid, _)| (uid.clone(), VICTIM_COST)).collect();
        Orders { replicas, retire, costs, wrong, has_let_go }
    }

    /// Who went since the last look and was not meant to, while the ReplicaSet had more pods than it was asked for.
    fn count_wrong(&mut self, ask: &Ask, reports: &Reports) -> u32 {
        let costs = reports.all.iter().map(|report| (report.pod.uid.clone(), report.pod.deletion_cost));
        let live: BTreeMap<String, i32> = costs.collect();
        if live.iter().any(|(uid, cost)| self.live.get(uid).copied().unwrap_or_default() != *cost) {
            self.changed = ask.now;
        }
        let was_asked = !self.going.is_empty() && ask.replicas < size(self.live.len());
        let gone = self.live.keys().filter(|uid| !live.contains_key(*uid) && !self.going.contains(*uid));
        let wrong = if was_asked { size(gone.count()) } else { 0 };
        self.going.retain(|uid| live.contains_key(uid));
        if size(live.len()) <= ask.replicas {
            self.going.clear();
        }
        self.live = live;
        wrong
    }

    /// Chooses as many as are too many; whether any stays that was to go.
    fn choose(&mut self, ask: &Ask, reports: &Reports) -> bool {
        let too_many = |than: u32| size(reports.all.len()).saturating_sub(than);
        let excess = if ask.rollout { 0 } else { too_many(ask.desired) };
        // Who was given up will be taken, whatever is wanted by now, until the Deployment is asked for as many again.
        let excess = excess.max(too_many(ask.replicas).min(size(self.going.len())));
        let mut before: BTreeSet<&str> = self.victims.keys().map(String::as_str).collect();
        let chosen = loop {
            let (chosen, kept) = self.choose_among(&before, ask, reports, excess);
            let known = before.len();
            before.retain(|uid| !kept.contains(*uid));
            // One that was to go and is needed after all comes after others, who are chosen in its place.
            if before.len() == known {
                break chosen;
            }
        };
        let before = &self.victims;
        let stays = |uid: &&String| self.live.contains_key(*uid) && !chosen.contains(*uid);
        let has_let_go = before.keys().any(|uid| stays(&uid));
        let new = Victim { since: ask.now, is_priced: false };
        let victims = chosen.into_iter().map(|uid| {
            let victim = before.get(&uid).copied().unwrap_or(new);
            (uid, victim)
        });
        self.victims = victims.collect();
        has_let_go
    }

    /// Chooses as many as are too many; those whom `before` names stay chosen if they can. The second are taken back from the
    /// chosen, so that some serve.
    fn choose_among(
        &self,
        before: &BTreeSet<&str>,
        ask: &Ask,
        reports: &Reports,
        excess: u32,
    ) -> (BTreeSet<String>, BTreeSet<String>) {
        let past = |report: &Report| {
            // One that shows the price and is idle was chosen before this operator was.
            let is_heirloom = report.pod.deletion_cost == VICTIM_COST && report.is_idle();
            match report.pod.uid.as_str() {
                uid if self.going.contains(uid) => Past::GivenUp,
                uid if is_heirloom || before.contains(uid) => Past::Chosen,
                _ => Past::Stays,
            }
        };
        let mut chosen = choose(reports, past, usize::try_from(excess).unwrap_or(usize::MAX));
        if ask.is_blind {
            chosen.retain(|uid| before.contains(uid.as_str()));
        }
        let kept = keep_serving(&mut chosen, ask.desired, reports, |uid| before.contains(uid));
        (chosen, kept)
    }

    /// A victim has a price while it is done: until then it does not go, so there is nothing to be patched if it stays.
    fn price(&mut self, ask: &Ask, reports: &Reports) {
        let done = |victim: &Victim, report: &Report| victim.is_done(report, ask);
        for report in &reports.all {
            if let Some(victim) = self.victims.get_mut(&report.pod.uid) {
                victim.is_priced &= done(victim, report);
            }
        }
        let is_one_priced = self.victims.values().any(|victim| victim.is_priced);
        // Who does not run yet goes before any price: nobody can go while it has none.
        let goes_first = |report: &&Report| report.pod.node.is_none() || report.pod.phase == Phase::Pending;
        for report in reports.all.iter().filter(|report| goes_first(report) || !is_one_priced) {
            if let Some(victim) = self.victims.get_mut(&report.pod.uid) {
                victim.is_priced |= done(victim, report);
            }
        }
    }

    /// Those that may go and stand lower than everybody else.
    fn lowest_that_may_go(&self, ask: &Ask, reports: &Reports) -> BTreeSet<String> {
        if ask.is_blind || ask.now.saturating_sub(self.changed) < QUIET {
            return BTreeSet::new();
        }
        let may_go = |report: &&Report| {
            report.pod.deletion_cost == VICTIM_COST
                && self.victims.get(&report.pod.uid).is_some_and(|victim| {
                    // One that is still ready stands above each that ceases to be, but some never say that they retire.
                    victim.is_priced && (!report.pod.ready || victim.is_overdue(ask))
                })
        };
        let (may, others): (Vec<&Report>, Vec<&Report>) = reports.all.iter().partition(may_go);
        let lowest_other = others.iter().map(|report| Standing::of(report.pod)).min();
        let is_lower =
            |report: &&&Report| lowest_other.is_none_or(|lowest| Standing::of(report.pod) < lowest);
        may.iter().filter(is_lower).map(|report| report.pod.uid.clone()).collect()
    }
}

impl Victim {
    fn is_overdue(&self, ask: &Ask) -> bool {
        ask.now.saturating_sub(self.since) >= ask.drain_timeout
    }

    /// Whether it obeys and has no work left, or has been waited for long enough.
    fn is_done(&self, report: &Report, ask: &Ask) -> bool {
        let is_overdue = self.is_overdue(ask);
        match report.word {
            Word::Fresh(heard) => is_overdue || (heard.retiring && report.is_idle()),
            // It has never said anything, and has no work.
            Word::None => report.has_not_begun,
            Word::Silent => false,
        }
    }
}

/// How many pods the Deployment is asked for.
fn replicas(ask: &Ask, live: usize, may_go: usize) -> u32 {
    if ask.desired >= ask.replicas {
        return ask.desired;
    }
    if ask.rollout || ask.is_blind {
        return ask.replicas;
    }
    size(live.saturating_sub(may_go)).max(ask.desired).min(ask.replicas)
}

fn size(pods: usize) -> u32 {
    u32::try_from(pods).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "shrink_tests.rs"]
mod tests;
