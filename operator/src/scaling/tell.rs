//! The words for a pool's size: sentence, numbers, conditions. Pure.

use corral_crds::condition::{ConditionType, Reason};
use corral_crds::pool::{Autoscaling, ScalingMode};
use corral_crds::status::{ScalingNumbers, ScalingStatus};
use corral_scaler::{Limited, Numbers, Reason as Why};
use k8s_openapi::jiff::Timestamp;

use super::{Size, settings};
use crate::names;

/// What a size follows from, as one sentence: `2.1 requests/s of 8.0 s each, 14 wait`.
pub fn sentence(why: Why, numbers: &Numbers) -> String {
    if why == Why::IdleToZero {
        return "nobody has asked for as long as scaleToZero.idleAfterSeconds says".to_owned();
    }
    if why == Why::NoActivator {
        return "no activator is ready and heard, to hold what comes at zero".to_owned();
    }
    let Numbers { rate, service_seconds, backlog, .. } = numbers;
    let wait = if *backlog == 1 { "waits" } else { "wait" };
    format!("{rate:.1} requests/s of {} s each, {backlog} {wait}", digits(*service_seconds))
}

/// A time with one decimal, or with two digits that count where it is less than a second.
fn digits(seconds: f64) -> String {
    match seconds {
        _ if seconds < 0.001 => format!("{seconds:.1}"),
        _ if seconds < 0.01 => format!("{seconds:.4}"),
        _ if seconds < 0.1 => format!("{seconds:.3}"),
        _ if seconds < 1.0 => format!("{seconds:.2}"),
        _ => format!("{seconds:.1}"),
    }
}

/// That a pool has nobody who would hold what comes, and why.
pub fn no_activator(pool: &str, lack: Option<&str>) -> String {
    let why = lack.map_or_else(String::new, |lack| format!(": {lack}"));
    let deployment = names::activator(pool);
    format!(
        "the pool does not sleep: no activator of Deployment {deployment} is ready and heard, to hold what comes{why}"
    )
}

/// The numbers as a status shows them.
pub fn numbers(numbers: &Numbers) -> ScalingNumbers {
    ScalingNumbers {
        arrivals_per_second: format!("{:.2}", numbers.rate),
        service_seconds: digits(numbers.service_seconds),
        queued: u32::try_from(numbers.backlog).unwrap_or(u32::MAX),
        startup_seconds: whole(numbers.startup_seconds),
        needed: numbers.needed,
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float is cut to what fits")]
fn whole(seconds: f64) -> u32 {
    seconds.round() as u32
}

/// What the status says.
pub fn status(size: &Size) -> ScalingStatus {
    ScalingStatus {
        mode: size.mode,
        reason: size.words.reason.to_owned(),
        message: size.words.message.clone(),
        numbers: size.words.numbers.clone(),
        last_scale_time: size.changed.clone(),
        decisions: size.decisions.clone(),
    }
}

/// Why a pool has more pods on their way, if it scales itself; empty where it does not.
pub fn growth(size: &Size) -> String {
    let last = size.decisions.first().filter(|last| size.mode == ScalingMode::Builtin && last.to > last.from);
    last.map_or_else(String::new, |last| format!("from {} to {}: {}", last.from, last.to, last.message))
}

/// What conditions are about size. One that is not among those that [`conditions`] gives does not stand.
pub const TYPES: [ConditionType; 4] = [
    ConditionType::ScalingActive,
    ConditionType::ScalingLimited,
    ConditionType::MetricsAvailable,
    ConditionType::AutoscalingConflict,
];

/// The conditions of a size, of a pool that is scaled as its spec says at `wall`.
pub fn conditions(
    size: &Size,
    (autoscaling, wall): (Option<&Autoscaling>, Timestamp),
) -> Vec<(ConditionType, bool, Reason, String)> {
    let mut all = vec![active(size)];
    if size.mode == ScalingMode::Builtin && size.words.rival.is_none() {
        all.extend([limited(size, (autoscaling, wall)), heard(size)]);
    }
    if let Some(rival) = &size.words.rival {
        let message =
            format!("{rival} scales this pool too: its size is left as it is until one of them goes");
        all.push((ConditionType::AutoscalingConflict, true, Reason::SecondWriter, message));
    }
    all
}

fn active(size: &Size) -> (ConditionType, bool, Reason, String) {
    let (is, reason, message) = match (size.mode, &size.words.rival) {
        (ScalingMode::Builtin, Some(_)) => (false, Reason::SecondWriter, "its size is left as it is"),
        (ScalingMode::Builtin, None) => (true, Reason::ScalingActive, ""),
        (ScalingMode::External, _) => (false, Reason::External, "whoever writes spec.replicas decides"),
        (ScalingMode::Disabled, _) => (false, Reason::Disabled, "spec.replicas says how many pods there are"),
    };
    (ConditionType::ScalingActive, is, reason, message.to_owned())
}

fn limited(
    size: &Size,
    (autoscaling, wall): (Option<&Autoscaling>, Timestamp),
) -> (ConditionType, bool, Reason, String) {
    let Some(limited) = size.words.limited else {
        return (ConditionType::ScalingLimited, false, Reason::DesiredWithinRange, String::new());
    };
    let needed = size.words.numbers.as_ref().map(|numbers| numbers.needed);
    let bounds = autoscaling.map(|autoscaling| (autoscaling, settings::bounds(autoscaling, wall)));
    let held_up = bounds.zip(needed).map(|((own, (least, _)), needed)| held_up(needed, least, own));
    let held_down = bounds.zip(needed).map(|((own, (_, most)), needed)| held_down(needed, most, own));
    let (reason, message) = match limited {
        Limited::TooFewReplicas => (
            Reason::TooFewReplicas,
            held_up.as_deref().unwrap_or("fewer pods would do; the lower bound holds them"),
        ),
        Limited::TooManyReplicas => (
            Reason::TooManyReplicas,
            held_down.as_deref().unwrap_or("more pods are needed than the upper bound allows"),
        ),
        Limited::RolloutInProgress => {
            (Reason::RolloutInProgress, "no pod is taken away while a change reaches the pods")
        }
        Limited::InsufficientGpu => {
            (Reason::InsufficientGPU, "pods have no place: no more are asked for until they have one")
        }
        Limited::ProvisioningTimeout => (
            Reason::ProvisioningTimeout,
            "pods have had no place for long: no more are asked for until they have one",
        ),
        Limited::NoActivator => (Reason::NoActivator, size.words.lack.as_deref().unwrap_or_default()),
    };
    (ConditionType::ScalingLimited, true, reason, message.to_owned())
}

/// That a lower bound holds a pool up, which it does from when that is sure until it has not done so for a while.
fn held_up(needed: u32, least: u32, own: &Autoscaling) -> String {
    let whose = if least == own.min_replicas { "minReplicas" } else { "a schedule's minReplicas" };
    // One pod without any work is no more than there has to be.
    match needed.max(1) {
        needed if needed < least => format!("{needed} would do, and {whose} is {least}"),
        needed => {
            format!("fewer would have done of late than {least}, which is {whose}; now {needed} are needed")
        }
    }
}

/// The same of an upper bound that holds it down.
fn held_down(needed: u32, most: u32, own: &Autoscaling) -> String {
    let whose = if own.max_replicas == Some(most) { "maxReplicas" } else { "a schedule's maxReplicas" };
    if needed > most {
        return format!("{needed} are needed, and {whose} is {most}");
    }
    format!("more were needed of late than {most}, which is {whose}; now {needed} are")
}

fn heard(size: &Size) -> (ConditionType, bool, Reason, String) {
    if size.words.deaf {
        let message = "too many pods do not say what they do: none is taken away until they are heard";
        return (ConditionType::MetricsAvailable, false, Reason::ReportsMissing, message.to_owned());
    }
    (ConditionType::MetricsAvailable, true, Reason::ReportsHeard, String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_less_than_a_second_is_told_with_two_digits_that_count() {
        let told = [0.0, 0.0004, 0.0043, 0.043, 0.43, 1.0, 8.04].map(digits);
        assert_eq!(told, ["0.0", "0.0", "0.0043", "0.043", "0.43", "1.0", "8.0"]);
        let quick = Numbers { rate: 40.0, service_seconds: 0.043, backlog: 1, ..Numbers::default() };
        assert_eq!(sentence(Why::Work, &quick), "40.0 requests/s of 0.043 s each, 1 waits");
        assert!(sentence(Why::IdleToZero, &quick).contains("idleAfterSeconds"), "no number says that");
    }

    #[test]
    fn what_holds_a_pool_is_told_with_its_numbers_also_while_it_only_did_so_of_late() {
        let own = Autoscaling { min_replicas: 2, max_replicas: Some(4), ..Autoscaling::default() };
        assert_eq!(held_down(7, 4, &own), "7 are needed, and maxReplicas is 4");
        assert_eq!(held_down(7, 6, &own), "7 are needed, and a schedule's maxReplicas is 6");
        assert!(held_down(3, 4, &own).ends_with("of late than 4, which is maxReplicas; now 3 are"));
        assert_eq!(held_up(0, 2, &own), "1 would do, and minReplicas is 2");
        assert_eq!(held_up(1, 3, &own), "1 would do, and a schedule's minReplicas is 3");
        assert!(held_up(3, 2, &own).ends_with("of late than 2, which is minReplicas; now 3 are needed"));
    }
}
