//! Who has told how things stand, and who is silent.

use std::time::Duration;

use corral_wire::Gauges;

use crate::counters::{MOST_RUNNING, MOST_WAITING};
use crate::startup::Startup;
use crate::{Heard, Observation, Phase, PodSeen};

/// After this long without a word a pod is silent; until then its last word holds.
const SILENCE: Duration = Duration::from_secs(10);

/// A pod that is not on its way out, and its word.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Report<'a> {
    pub(crate) pod: &'a PodSeen,
    pub(crate) word: Word<'a>,
    /// It has not been ready since it was made, and nothing says that it works.
    pub(crate) has_not_begun: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Word<'a> {
    /// It has told how it stands.
    Fresh(&'a Heard),
    /// It should tell, and does not.
    Silent,
    /// Nothing is expected of it yet.
    None,
}

impl<'a> Report<'a> {
    fn of(pod: &'a PodSeen, startup: &Startup, told: Duration, now: Duration) -> Self {
        let is_fresh = |heard: &&Heard| told.saturating_sub(heard.at) <= SILENCE;
        let word = match pod.heard.as_ref().filter(is_fresh) {
            Some(heard) => Word::Fresh(heard),
            None if should_tell(pod) && startup.known_for(&pod.uid, now) > SILENCE => Word::Silent,
            None => Word::None,
        };
        let is_starting =
            startup.is_starting(&pod.uid) || pod.node.is_none() || startup.is_overdue(&pod.uid, now);
        let has_not_begun = !pod.ready
            && match word {
                // Who retires is not ready either, and has begun before.
                Word::Fresh(heard) => {
                    let has_never = startup.is_starting(&pod.uid) || !heard.retiring;
                    has_never && !heard.ready && is_idle(&heard.gauges)
                }
                Word::Silent => false,
                Word::None => is_starting && pod.heard.is_none(),
            };
        Self { pod, word, has_not_begun }
    }

    pub(crate) fn fresh(&self) -> Option<&'a Heard> {
        match self.word {
            Word::Fresh(heard) => Some(heard),
            Word::Silent | Word::None => None,
        }
    }

    /// Whether it is known to have no work.
    pub(crate) fn is_idle(&self) -> bool {
        self.has_not_begun || self.fresh().is_some_and(|heard| is_idle(&heard.gauges))
    }

    /// Whether it answers what comes to its Service, or would were it not told to leave it.
    pub(crate) fn can_serve(&self) -> bool {
        match self.word {
            Word::Fresh(heard) => self.pod.ready || heard.retiring,
            Word::None => self.pod.ready,
            Word::Silent => false,
        }
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.fresh().map_or(0, |heard| heard.gauges.in_flight.min(MOST_RUNNING))
    }

    pub(crate) fn queued(&self) -> u32 {
        self.fresh().map_or(0, |heard| heard.gauges.queued.min(MOST_WAITING))
    }
}

/// It has told before, or must have begun to.
fn should_tell(pod: &PodSeen) -> bool {
    pod.phase != Phase::Pending && (pod.ready || pod.heard.is_some())
}

fn is_idle(gauges: &Gauges) -> bool {
    gauges.in_flight == 0 && gauges.queued == 0
}

/// All pods of a pool that are not on their way out.
#[derive(Debug)]
pub(crate) struct Reports<'a> {
    pub(crate) all: Vec<Report<'a>>,
    /// Those that have told.
    pub(crate) telling: u32,
    /// Those that should have.
    pub(crate) silent: u32,
    /// Of those that have neither told nor are silent yet, and may well work.
    pub(crate) unknown: u32,
    pub(crate) ready: u32,
    /// Pods that Kubernetes counts and that are not among `all`: nothing is known of them.
    pub(crate) unseen: u32,
}

impl<'a> Reports<'a> {
    pub(crate) fn of(seen: &'a Observation, startup: &Startup, told: Duration, now: Duration) -> Self {
        let live = seen.pods.iter().filter(|pod| !pod.terminating);
        let all: Vec<_> = live.map(|pod| Report::of(pod, startup, told, now)).collect();
        let count = |is: &dyn Fn(&Report) -> bool| u32::try_from(all.iter().filter(|one| is(one)).count());
        let [telling, silent, unknown, ready] = [
            count(&|one| one.fresh().is_some()),
            count(&|one| matches!(one.word, Word::Silent)),
            count(&|one| matches!(one.word, Word::None) && !one.has_not_begun),
            count(&|one| one.pod.ready),
        ]
        .map(|count| count.unwrap_or(u32::MAX));
        let unseen = seen.exist.saturating_sub(u32::try_from(all.len()).unwrap_or(u32::MAX));
        Self { all, telling, silent, unknown, ready, unseen }
    }

    /// Pods that were not seen for so long should have been: they are as good as silent.
    pub(crate) fn miss_unseen(&mut self, since: Duration) {
        if since > SILENCE {
            self.silent = self.silent.saturating_add(self.unseen);
        }
    }

    /// Whether too little is known to let anybody go: the Service may have pods that nobody has looked at.
    pub(crate) fn are_partial(&self) -> bool {
        self.unseen > 0 || !self.suffice()
    }

    /// Whether enough of those that should tell do: four of five.
    pub(crate) fn suffice(&self) -> bool {
        u64::from(self.silent) * 5 <= u64::from(self.silent) + u64::from(self.telling)
    }

    /// How many requests one pod answers at one time: what pods say of themselves, on average.
    pub(crate) fn slots(&self, configured: u32) -> f64 {
        let told =
            self.all.iter().filter_map(Report::fresh).map(|heard| heard.gauges.slots.min(MOST_RUNNING));
        let (sum, pods) = told
            .filter(|slots| *slots > 0)
            .fold((0.0, 0.0), |(sum, pods), slots| (sum + f64::from(slots), pods + 1.0));
        if pods > 0.0 { sum / pods } else { f64::from(configured.clamp(1, MOST_RUNNING)) }
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.all.iter().map(|report| u64::from(report.in_flight())).sum()
    }

    pub(crate) fn queued(&self) -> u64 {
        self.all.iter().map(|report| u64::from(report.queued())).sum()
    }

    pub(crate) fn oldest_wait_ms(&self) -> u64 {
        let waits = self.all.iter().filter_map(Report::fresh).map(|heard| heard.gauges.oldest_wait_ms);
        waits.max().unwrap_or_default()
    }

    /// Whether every pod is known to have no work.
    pub(crate) fn are_idle(&self) -> bool {
        self.all.iter().all(Report::is_idle)
    }
}
