//! What has happened in each pod between two of its reports, from counters that may lie.
//!
//! Counters only grow within one life of a sidecar. An epoch that changes, or a counter that falls, begins a new life,
//! whose counters began at 0; more in a time than any pod can do is no news at all, and counted from there on.

use std::collections::BTreeMap;
use std::time::Duration;

use corral_wire::{Counters, Gauges};

use crate::Heard;

/// The most requests a second that one pod is believed to have had. A sidecar passes some ten thousand.
const MOST_REQUESTS: f64 = 1e6;
/// The most requests that one pod is believed to run at one time.
pub(crate) const MOST_RUNNING: u32 = 1000;
/// The most requests that one pod is believed to keep waiting.
pub(crate) const MOST_WAITING: u32 = 1_000_000;
/// What ran between two reports that are further apart than this, in seconds, they do not say.
const LONGEST_STEP: f64 = 30.0;
/// The most tokens a second, likewise.
const MOST_TOKENS: f64 = 1e9;

/// What happened in some time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Flow {
    /// Requests about which limits and queue have decided.
    pub(crate) arrivals: f64,
    /// Of those, refused by a limit.
    pub(crate) policy_rejects: f64,
    /// Of those, refused by the queue.
    pub(crate) capacity_rejects: f64,
    /// Of those, that say they come again.
    pub(crate) retries: f64,
    /// Requests that have had their slot and gave it back, whatever became of them. A sidecar that does not count them is
    /// believed by the answers that it completed.
    pub(crate) finished: f64,
    /// Seconds for which slots were held that came back.
    pub(crate) slot_seconds: f64,
    /// Seconds for which requests ran, also those that run still, as far as reports show it.
    pub(crate) running_seconds: f64,
    /// Tokens of answers.
    pub(crate) tokens: f64,
    /// By how much more is held for the pool outside of it. What is let go comes to a pod, and arrives there.
    pub(crate) held: f64,
}

impl Flow {
    /// New requests: what limits refuse is none of the pool's work, and one that the queue refused and that comes again
    /// is the same. It may come again to another pod and at another time, so this is asked of a whole pool, with how many
    /// its queues have refused of late: no more than those can come again, whatever clients say.
    pub(crate) fn wanted(&self, refused: f64) -> f64 {
        let again = self.retries.min(refused);
        (self.arrivals - self.policy_rejects - again + self.held).max(0.0)
    }

    pub(crate) fn add(&mut self, other: &Self, share: f64) {
        self.arrivals += other.arrivals * share;
        self.policy_rejects += other.policy_rejects * share;
        self.capacity_rejects += other.capacity_rejects * share;
        self.retries += other.retries * share;
        self.finished += other.finished * share;
        self.slot_seconds += other.slot_seconds * share;
        self.running_seconds += other.running_seconds * share;
        self.tokens += other.tokens * share;
        self.held += other.held * share;
    }

    fn between(before: &Counters, after: &Counters) -> Option<Self> {
        let grown = |of: fn(&Counters) -> u64| Some(count(of(after).checked_sub(of(before))?));
        Some(Self {
            arrivals: grown(|counters| counters.arrivals)?,
            policy_rejects: grown(|counters| counters.policy_rejects)?,
            capacity_rejects: grown(|counters| counters.capacity_rejects)?,
            retries: grown(|counters| counters.retries)?,
            finished: grown(if after.releases > 0 { releases } else { completions })?,
            slot_seconds: grown(|counters| counters.slot_millis)? / 1000.0,
            tokens: grown(|counters| counters.tokens_out)?,
            ..Self::default()
        })
    }

    /// What happened in all of a life.
    pub(crate) fn of_life(counters: &Counters) -> Self {
        Self::between(&Counters::default(), counters).unwrap_or_default()
    }

    /// Whether a pod can have done as much in so many seconds.
    fn is_possible(&self, seconds: f64) -> bool {
        let seconds = seconds.max(1.0);
        let requests =
            [self.arrivals, self.policy_rejects, self.capacity_rejects, self.retries, self.finished];
        // A slot may come back after hours: its time counts against the requests that held one.
        let slot_seconds = f64::from(MOST_RUNNING) * (seconds + 86_400.0);
        requests.iter().all(|count| *count <= MOST_REQUESTS * seconds)
            && self.tokens <= MOST_TOKENS * seconds
            && self.slot_seconds <= slot_seconds
    }
}

fn releases(counters: &Counters) -> u64 {
    counters.releases
}

fn completions(counters: &Counters) -> u64 {
    counters.completions
}

/// As a number to reckon with; what is lost above 2^53 is of no weight.
#[expect(clippy::cast_precision_loss, reason = "no count that is believed is so large")]
pub(crate) fn count(number: u64) -> f64 {
    number as f64
}

/// What happened in a pod, and when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Piece {
    pub(crate) from: Duration,
    pub(crate) to: Duration,
    pub(crate) flow: Flow,
    /// Whether it was asked for something that is no work and shows that the pool is in use.
    pub(crate) is_used: bool,
}

/// What each pod last said.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lives(BTreeMap<String, Life>);

#[derive(Debug, Clone, Copy)]
struct Life {
    at: Duration,
    epoch: u64,
    counters: Counters,
    running: f64,
}

impl Lives {
    /// Takes a report, heard `at`; what has happened since the one before. `born` is when the pod began, if that was
    /// looked at: only then is all that its first report counts known to be new.
    pub(crate) fn take(
        &mut self,
        uid: &str,
        heard: &Heard,
        at: Duration,
        born: Option<Duration>,
    ) -> Option<Piece> {
        let running = running(&heard.gauges);
        let now = Life { at, epoch: heard.epoch, counters: heard.counters, running };
        let Some(known) = self.0.get_mut(uid) else {
            self.0.insert(uid.to_owned(), now);
            let born = Life { at: born?.min(at), counters: Counters::default(), running: 0.0, ..now };
            return now.since(&born);
        };
        if at <= known.at && now.epoch == known.epoch && now.counters == known.counters {
            return None;
        }
        let before = std::mem::replace(known, now);
        now.since(&before)
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|uid, _| keep(uid));
    }
}

impl Life {
    fn since(&self, before: &Self) -> Option<Piece> {
        let from = before.at.min(self.at);
        let seconds = self.at.saturating_sub(from).as_secs_f64();
        let goes_on = (before.epoch == self.epoch).then(|| Flow::between(&before.counters, &self.counters));
        let mut flow = goes_on.flatten().or_else(|| Flow::between(&Counters::default(), &self.counters))?;
        if !flow.is_possible(seconds) {
            return None;
        }
        flow.running_seconds = match seconds {
            ..=LONGEST_STEP => f64::midpoint(before.running, self.running) * seconds,
            _ => flow.slot_seconds,
        };
        Some(Piece { from, to: self.at, flow, is_used: self.is_used(before, seconds) })
    }

    /// Judged by itself: a count that lies here is no other life of the rest, nor of any weight.
    fn is_used(&self, before: &Self, seconds: f64) -> bool {
        let (known, told) = (before.counters.looks, self.counters.looks);
        let goes_on = before.epoch == self.epoch && told >= known;
        let looks = if goes_on { told - known } else { told };
        looks > 0 && count(looks) <= MOST_REQUESTS * seconds.max(1.0)
    }
}

fn running(gauges: &Gauges) -> f64 {
    f64::from(gauges.in_flight.min(MOST_RUNNING))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::float_cmp, reason = "these are exact")]

    use super::*;

    fn heard(epoch: u64, arrivals: u64) -> Heard {
        Heard { epoch, counters: Counters { arrivals, ..Counters::default() }, ..Heard::default() }
    }

    /// The arrivals counted of each of these reports: when, epoch and counter.
    fn counted(born: Option<u64>, reports: &[(u64, u64, u64)]) -> Vec<Option<f64>> {
        let mut lives = Lives::default();
        let at = Duration::from_secs;
        reports
            .iter()
            .map(|(second, epoch, arrivals)| {
                let piece = lives.take("a", &heard(*epoch, *arrivals), at(*second), born.map(at));
                piece.map(|piece| piece.flow.arrivals)
            })
            .collect()
    }

    #[test]
    fn what_a_counter_has_grown_is_counted_once() {
        let reports = [(10, 1, 500), (12, 1, 510), (12, 1, 510), (30, 1, 511)];
        assert_eq!(counted(None, &reports), [None, Some(10.0), None, Some(1.0)]);
    }

    #[test]
    fn the_first_report_counts_only_of_a_pod_whose_beginning_was_seen() {
        assert_eq!(counted(None, &[(10, 1, 500)]), [None]);
        assert_eq!(counted(Some(5), &[(10, 1, 500)]), [Some(500.0)]);
    }

    #[test]
    fn a_new_life_counts_from_zero_and_never_below() {
        assert_eq!(counted(None, &[(10, 1, 500), (12, 2, 3)]), [None, Some(3.0)]);
        assert_eq!(counted(None, &[(10, 1, 500), (12, 1, 3)]), [None, Some(3.0)]);
    }

    #[test]
    fn more_than_any_pod_can_do_is_no_news() {
        let reports = [(10, 1, 5), (12, 1, u64::MAX), (14, 1, u64::MAX), (16, 1, 7), (18, 1, 9)];
        assert_eq!(counted(None, &reports), [None, None, Some(0.0), Some(7.0), Some(2.0)]);
    }

    #[test]
    fn looks_are_counted_by_themselves_and_only_as_news() {
        let mut lives = Lives::default();
        let mut told = |second, epoch, looks| {
            let counters = Counters { arrivals: second, looks, ..Counters::default() };
            let heard = Heard { epoch, counters, ..Heard::default() };
            let piece = lives.take("a", &heard, Duration::from_secs(second), Some(Duration::ZERO));
            piece.map(|piece| (piece.is_used, piece.flow.arrivals))
        };
        assert_eq!(told(2, 1, 0), Some((false, 2.0)));
        assert_eq!(told(4, 1, 1), Some((true, 2.0)));
        assert_eq!(told(6, 1, 1), Some((false, 2.0)));
        assert_eq!(told(8, 2, 0), Some((false, 8.0)), "another life, of which nothing came");
        assert_eq!(told(10, 2, 5), Some((true, 2.0)));
        assert_eq!(told(12, 2, 3), Some((true, 2.0)), "it fell by itself: the rest goes on");
        assert_eq!(told(14, 2, u64::MAX), Some((false, 2.0)), "more than any pod can have been asked");
        assert_eq!(told(16, 2, 0), Some((false, 2.0)));
    }

    #[test]
    fn who_had_a_slot_has_finished_also_without_an_answer() {
        let of = |completions, releases| Counters { completions, releases, ..Counters::default() };
        let grown = |before, after| Flow::between(&before, &after).unwrap().finished;
        assert_eq!(grown(of(3, 9), of(5, 20)), 11.0);
        assert_eq!(grown(of(3, 0), of(5, 0)), 2.0, "an older sidecar counts answers only");
        assert_eq!(grown(of(0, 0), of(0, 4)), 4.0);
    }

    #[test]
    fn a_report_of_the_past_counts_at_no_time() {
        let mut lives = Lives::default();
        let at = Duration::from_secs;
        lives.take("a", &heard(1, 5), at(10), None);
        let piece = lives.take("a", &heard(1, 8), at(4), None).unwrap();
        assert_eq!((piece.from, piece.to, piece.flow.arrivals), (at(4), at(4), 3.0));
    }

    #[test]
    fn what_limits_refuse_and_what_comes_again_is_no_new_work() {
        let flow =
            |arrivals, policy_rejects, retries| Flow { arrivals, policy_rejects, retries, ..Flow::default() };
        assert_eq!(flow(1000.0, 998.0, 0.0).wanted(0.0), 2.0);
        assert_eq!(flow(30.0, 0.0, 0.0).wanted(10.0), 30.0, "refused for want of room: wanted all the same");
        assert_eq!(flow(40.0, 0.0, 10.0).wanted(10.0), 30.0, "each of them once");
        assert_eq!(flow(40.0, 0.0, 10.0).wanted(90.0), 30.0, "nor those that were refused a while ago");
        assert_eq!(
            flow(40.0, 0.0, 40.0).wanted(0.0),
            40.0,
            "after a limit's refusal it is the first that counts"
        );
        assert_eq!(flow(1.0, 2.0, 0.0).wanted(0.0), 0.0);
    }

    #[test]
    fn what_is_let_go_to_a_pod_is_not_counted_again() {
        let flow = Flow { arrivals: 500.0, held: -500.0, ..Flow::default() };
        assert_eq!(flow.wanted(0.0), 0.0);
    }
}
