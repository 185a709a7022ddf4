//! What activators are told of a pool: the pods that are ready, and how long until one is. Pure.

use std::sync::Arc;
use std::time::Duration;

use corral_scaler::{Decision, Heard, Limited};
use corral_wire::{Backend, ports};
use k8s_openapi::api::core::v1::Pod;

use super::moment::Present;
use crate::activation::Outlook;
use crate::pool::observe::is_ready;

/// The longest that is told of a start which nobody knows the end of.
const LONGEST: Duration = Duration::from_mins(10);

/// Whether a pod answers, or may some time.
pub fn outlook(pods: &[Arc<Pod>]) -> Outlook {
    match () {
        () if ready(pods).next().is_some() => Outlook::Served,
        () if staying(pods).next().is_some() => Outlook::Coming,
        () => Outlook::Nobody,
    }
}

fn ready(pods: &[Arc<Pod>]) -> impl Iterator<Item = &Arc<Pod>> {
    staying(pods).filter(|pod| is_ready(pod))
}

fn staying(pods: &[Arc<Pod>]) -> impl Iterator<Item = &Arc<Pod>> {
    pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none())
}

/// The pods that answer, and how long until the first does; none where one does, or where nothing could be decided.
pub fn of(
    pods: &[Arc<Pod>],
    heard: &[(String, Heard)],
    decision: Option<&Decision>,
    present: Present,
) -> (Vec<Backend>, Option<Duration>) {
    let backends: Vec<Backend> = ready(pods).filter_map(|pod| backend(pod, heard)).collect();
    // One that goes still answers, but whoever has a choice goes elsewhere.
    let stays = |backend: &Backend| decision.is_none_or(|decision| !decision.retire.contains(&backend.uid));
    let staying: Vec<Backend> = backends.iter().filter(|backend| stays(backend)).cloned().collect();
    if !staying.is_empty() {
        return (staying, None);
    }
    let asked = decision.filter(|_| backends.is_empty());
    let left = asked.map(|decision| start_left(pods, decision, present));
    (backends, left)
}

fn backend(pod: &Pod, heard: &[(String, Heard)]) -> Option<Backend> {
    let uid = pod.metadata.uid.as_ref()?;
    let gauges = heard.iter().find(|(known, _)| known == uid).map(|(_, heard)| heard.gauges);
    let slots = gauges.map_or(1, |gauges| gauges.slots.max(1));
    let in_flight = gauges.map_or(0, |gauges| gauges.in_flight);
    let ip: std::net::IpAddr = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
    let (address, free) = ((ip, ports::CLIENT).into(), slots.saturating_sub(in_flight));
    Some(Backend { uid: uid.clone(), address, slots, free })
}

/// As long as a start takes, less for how long the first that was begun has gone on. One that has taken half as long again,
/// or has no room, may take as long as it has so far.
fn start_left(pods: &[Arc<Pod>], decision: &Decision, present: Present) -> Duration {
    let whole = Duration::try_from_secs_f64(decision.numbers.startup_seconds).unwrap_or_default();
    let begun = staying(pods).filter_map(|pod| pod.metadata.creation_timestamp.as_ref());
    let first = begun.map(|time| present.moment_of(time)).min();
    let gone = first.map_or(Duration::ZERO, |first| present.moment().saturating_sub(first));
    let has_no_room =
        matches!(decision.limited, Some(Limited::InsufficientGpu | Limited::ProvisioningTimeout));
    if has_no_room || gone > whole.saturating_add(whole / 2) {
        return whole.max(gone).min(LONGEST);
    }
    whole.saturating_sub(gone)
}

#[cfg(test)]
mod tests {
    use corral_scaler::Numbers;
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    use super::*;

    /// How long a pod that was begun at 0 will still take, of a start that takes 60 s.
    fn left_after(seconds: i64, limited: Option<Limited>) -> u64 {
        let pod = json!({"metadata": {"creationTimestamp": "2026-07-06T06:00:00Z"}});
        let pods = [Arc::new(serde_json::from_value(pod).unwrap())];
        let begun: Timestamp = "2026-07-06T06:00:00Z".parse().unwrap();
        let wall = Timestamp::from_second(begun.as_second() + seconds).unwrap();
        let numbers = Numbers { startup_seconds: 60.0, ..Numbers::default() };
        let decision = Decision { desired: 1, limited, numbers, ..Decision::default() };
        let (backends, left) =
            of(&pods, &[], Some(&decision), Present { now: Duration::from_hours(1), wall });
        assert!(backends.is_empty());
        left.unwrap().as_secs()
    }

    #[test]
    fn a_start_that_is_overdue_or_has_no_room_is_not_said_to_end_at_any_moment() {
        let left = [0, 45, 70, 91, 300, 7200].map(|seconds| left_after(seconds, None));
        assert_eq!(left, [60, 15, 0, 91, 300, 600]);
        assert_eq!(left_after(10, Some(Limited::InsufficientGpu)), 60);
        assert_eq!(left_after(200, Some(Limited::ProvisioningTimeout)), 200);
    }
}
