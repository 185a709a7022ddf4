//! What is shown of a pool's size, so that a status moves only when it matters: at once when the size, its reason or what holds
//! it changes; for the numbers alone when they have moved by much, and for other words alone, at most each `NUMBERS_EVERY`.
//!
//! It goes on from what the status held before this process.

use std::time::Duration;

use corral_crds::bounds::MAX_DECISIONS;
use corral_crds::status::{OllamaPoolStatus, ScalingDecision, ScalingNumbers};
use corral_scaler::{Limited, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// How soon numbers alone are shown again.
const NUMBERS_EVERY: Duration = Duration::from_secs(30);
/// How soon another reason alone is shown: with the same size it is no more than a nuance.
const REASON_EVERY: Duration = Duration::from_secs(10);

/// What there is to say of a size at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Words {
    /// Pods that there should be.
    pub desired: u32,
    /// Why, in one word.
    pub reason: &'static str,
    /// Why, in words and numbers.
    pub message: String,
    /// What it was computed from; none where nothing was.
    pub numbers: Option<ScalingNumbers>,
    /// What keeps the pool from the size that it needs.
    pub limited: Option<Limited>,
    /// Why no activator holds what comes, in words, where that is what keeps it.
    pub lack: Option<String>,
    /// Too many pods are silent.
    pub deaf: bool,
    /// Who else scales the pool.
    pub rival: Option<String>,
}

/// What is shown of one pool.
#[derive(Debug, Default)]
pub struct Journal {
    shown: Option<(Words, Duration)>,
    /// The size that was last noted.
    desired: Option<u32>,
    changed: Option<Time>,
    decisions: Vec<ScalingDecision>,
}

impl Journal {
    /// A journal that goes on from a status.
    pub fn after(status: Option<&OllamaPoolStatus>) -> Self {
        let scaling = status.and_then(|status| status.autoscaling.clone()).unwrap_or_default();
        let desired = status.and_then(|status| u32::try_from(status.desired_replicas?).ok());
        Self { shown: None, desired, changed: scaling.last_scale_time, decisions: scaling.decisions }
    }

    /// Takes what there is to say now, and gives what is shown.
    pub fn take(&mut self, words: Words, now: Duration, wall: Timestamp) -> &Words {
        self.note(&words, wall);
        let stays =
            self.shown.as_ref().is_some_and(|(old, at)| !is_due(old, &words, now.saturating_sub(*at)));
        let kept = self.shown.take().filter(|_| stays);
        &self.shown.insert(kept.unwrap_or((words, now))).0
    }

    /// When the size last changed.
    pub fn changed(&self) -> Option<&Time> {
        self.changed.as_ref()
    }

    /// The last changes of the size, the newest first.
    pub fn decisions(&self) -> &[ScalingDecision] {
        &self.decisions
    }

    fn note(&mut self, words: &Words, wall: Timestamp) {
        let before = self.desired.replace(words.desired);
        // With what a new operator begins, nobody has decided anything.
        if self.shown.is_none()
            && [Reason::Restart, Reason::Steady].iter().any(|why| why.as_str() == words.reason)
        {
            return;
        }
        let Some(from) = before.filter(|from| *from != words.desired) else { return };
        // A status holds whole seconds.
        let time = Time(Timestamp::from_second(wall.as_second()).unwrap_or(wall));
        self.changed = Some(time.clone());
        let (from, to) = (number(from), number(words.desired));
        let (reason, message) = (words.reason.to_owned(), words.message.clone());
        self.decisions.insert(0, ScalingDecision { time, from, to, reason, message });
        self.decisions.truncate(MAX_DECISIONS);
    }
}

fn number(pods: u32) -> i32 {
    i32::try_from(pods).unwrap_or(i32::MAX)
}

/// Whether `new` has to be shown in place of `old`, which has been for `age`.
fn is_due(old: &Words, new: &Words, age: Duration) -> bool {
    let graver = |words: &Words| (words.desired, words.limited, words.deaf, words.rival.clone());
    graver(old) != graver(new)
        || (old.reason != new.reason && age >= REASON_EVERY)
        || (old.lack != new.lack && age >= NUMBERS_EVERY)
        || (moved(old.numbers.as_ref(), new.numbers.as_ref()) && age >= NUMBERS_EVERY)
}

/// Whether numbers differ by more than a tenth, which is what they do by themselves.
fn moved(old: Option<&ScalingNumbers>, new: Option<&ScalingNumbers>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return old != new };
    // Of quick requests half a second is no measure: they take another time when it is half or twice what it was.
    let (old_service, new_service) = (decimal(&old.service_seconds), decimal(&new.service_seconds));
    let least_service = f64::min(0.5, old_service.max(new_service) / 2.0);
    let pairs = [
        (decimal(&old.arrivals_per_second), decimal(&new.arrivals_per_second), 0.05),
        (old_service, new_service, least_service),
        (f64::from(old.queued), f64::from(new.queued), 1.0),
        (f64::from(old.startup_seconds), f64::from(new.startup_seconds), 5.0),
        (f64::from(old.needed), f64::from(new.needed), 0.5),
    ];
    pairs.into_iter().any(|(old, new, least)| (old - new).abs() > f64::max(least, old.max(new) / 10.0))
}

fn decimal(text: &str) -> f64 {
    text.parse().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(desired: u32, reason: &'static str, rate: &str) -> Words {
        let numbers = ScalingNumbers { arrivals_per_second: rate.to_owned(), ..ScalingNumbers::default() };
        Words {
            desired,
            reason,
            message: format!("{rate} requests/s"),
            numbers: Some(numbers),
            limited: None,
            lack: None,
            deaf: false,
            rival: None,
        }
    }

    /// What is shown at a second.
    fn shown(journal: &mut Journal, second: u64, words: Words) -> (u32, &'static str, String) {
        let wall = Timestamp::from_second(1_800_000_000).unwrap();
        let shown = journal.take(words, Duration::from_secs(second), wall);
        (shown.desired, shown.reason, shown.message.clone())
    }

    #[test]
    fn numbers_alone_are_shown_rarely_and_only_when_they_moved() {
        let mut journal = Journal::default();
        let first = shown(&mut journal, 0, words(2, "Work", "1.00"));
        for second in 1..30 {
            assert_eq!(shown(&mut journal, second, words(2, "Work", "9.00")), first);
        }
        assert_eq!(shown(&mut journal, 30, words(2, "Work", "1.05")), first, "no more than noise");
        assert_eq!(shown(&mut journal, 31, words(2, "Work", "2.00")).2, "2.00 requests/s");
    }

    #[test]
    fn the_time_of_quick_requests_has_moved_when_it_is_another_and_not_when_it_wavers() {
        let taking = |seconds: &str| ScalingNumbers {
            service_seconds: seconds.to_owned(),
            ..ScalingNumbers::default()
        };
        let has = |old, new| moved(Some(&taking(old)), Some(&taking(new)));
        assert!(has("0.043", "0.43") && has("0.43", "0.043") && has("0.0", "0.043") && has("1.0", "1.6"));
        assert!(!has("0.043", "0.061") && !has("0.61", "0.43") && !has("1.4", "1.0") && !has("0.0", "0.0"));
    }

    #[test]
    fn what_activators_lack_is_shown_at_once_and_its_words_change_rarely() {
        let mut journal = Journal::default();
        let wall = Timestamp::from_second(1_800_000_000).unwrap();
        let mut lack = |second, lack: Option<&str>| {
            let limited = lack.map(|_| Limited::NoActivator);
            let words = Words { limited, lack: lack.map(str::to_owned), ..words(1, "Steady", "0.00") };
            journal.take(words, Duration::from_secs(second), wall).lack.clone().unwrap_or_default()
        };
        assert_eq!(lack(0, None), "");
        assert_eq!(lack(1, Some("back-off 10s")), "back-off 10s");
        assert_eq!(lack(2, Some("back-off 20s")), "back-off 10s");
        assert_eq!(lack(31, Some("back-off 20s")), "back-off 20s");
        assert_eq!(lack(32, None), "");
    }

    #[test]
    fn another_size_is_shown_and_noted_at_once() {
        let mut journal = Journal::default();
        shown(&mut journal, 0, words(1, "Steady", "1.00"));
        assert!(journal.decisions().is_empty(), "the first is no change");
        assert_eq!(shown(&mut journal, 1, words(3, "Work", "4.00")).0, 3);
        let noted = journal.decisions().first().unwrap();
        assert_eq!((noted.from, noted.to, noted.reason.as_str()), (1, 3, "Work"));
        assert!(journal.changed().is_some());
        for second in 2..40 {
            shown(&mut journal, second, words(3 + u32::try_from(second).unwrap(), "Work", "4.00"));
        }
        assert_eq!(journal.decisions().len(), MAX_DECISIONS);
        assert_eq!(journal.decisions().first().unwrap().to, 42);
    }

    #[test]
    fn it_goes_on_from_the_status() {
        let mut before = Journal::default();
        shown(&mut before, 0, words(1, "Steady", "1.00"));
        shown(&mut before, 1, words(3, "Work", "4.00"));
        let mut status = OllamaPoolStatus { desired_replicas: Some(3), ..OllamaPoolStatus::default() };
        let scaling = status.autoscaling.get_or_insert_default();
        scaling.decisions = before.decisions().to_vec();
        let mut after = Journal::after(Some(&status));
        shown(&mut after, 0, words(3, "Restart", "0.00"));
        assert_eq!(after.decisions(), before.decisions());
        let mut taller = Journal::after(Some(&status));
        shown(&mut taller, 0, words(4, "Restart", "0.00"));
        assert_eq!(taller.decisions(), before.decisions(), "it begins with what there is");
        shown(&mut after, 1, words(2, "ScaleDown", "0.00"));
        assert_eq!((after.decisions().len(), after.decisions().first().unwrap().from), (2, 3));
    }
}
