//! Which pods go, when fewer are needed.
//!
//! First those that have not begun to work, in the order in which the ReplicaSet controller would take them anyway. Then
//! those that were chosen before. Then who works least: by requests that run, requests that wait, models that no other
//! pod has loaded, and the youngest first. Nobody knows what a silent pod does, so it counts as the busiest.
//!
//! Who works least may be all that serve, beside one that is stuck: as many stay that can serve as there should be pods,
//! even if too many pods stay for it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::order::Standing;
use crate::reports::{Report, Reports};

/// What was decided of a pod until now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Past {
    /// The Deployment was asked for fewer pods, so that it goes.
    GivenUp,
    /// It was chosen to go.
    Chosen,
    /// Nothing.
    Stays,
}

/// The UIDs of the pods that go, at most `count`. Who was chosen stays so unless fewer go, or it fell silent.
pub(crate) fn choose(reports: &Reports, past: impl Fn(&Report) -> Past, count: usize) -> BTreeSet<String> {
    let is_sure =
        |report: &Report| report.has_not_begun || (past(report) != Past::Stays && report.fresh().is_some());
    let (mut sure, others): (Vec<&Report>, Vec<&Report>) = reports.all.iter().partition(|one| is_sure(one));
    sure.sort_by_cached_key(|report| Rank::of(report, past(report)));
    sure.truncate(count);
    let mut chosen: BTreeSet<String> = sure.iter().map(|report| report.pod.uid.clone()).collect();
    let mut candidates = Candidates::of(&others);
    while chosen.len() < count {
        let Some(uid) = candidates.take_least() else { break };
        chosen.insert(uid.to_owned());
    }
    chosen
}

/// Takes back from the chosen the busiest of those that can serve, until as many of these stay as there should be pods; whom.
/// Who `was_chosen` comes back only if otherwise nobody would be left to serve: pods leave their Service for a moment.
pub(crate) fn keep_serving(
    chosen: &mut BTreeSet<String>,
    desired: u32,
    reports: &Reports,
    was_chosen: impl Fn(&str) -> bool,
) -> BTreeSet<String> {
    let able: Vec<&Report> = reports.all.iter().filter(|report| report.can_serve()).collect();
    let needed = able.len().min(usize::try_from(desired).unwrap_or(usize::MAX));
    let (mut going, stay): (Vec<&Report>, Vec<&Report>) =
        able.into_iter().partition(|report| chosen.contains(&report.pod.uid));
    let is_old = |report: &Report| was_chosen(&report.pod.uid);
    going.sort_by_cached_key(|report| {
        (is_old(report), Reverse((report.in_flight(), report.queued())), report.pod.created)
    });
    let (mut staying, mut kept) = (stay.len(), BTreeSet::new());
    for report in going {
        let enough = if is_old(report) { needed.min(1) } else { needed };
        if staying >= enough {
            break;
        }
        kept.extend(chosen.take(&report.pod.uid));
        staying = staying.saturating_add(1);
    }
    kept
}

/// The order among those that have not begun, and then among those that were chosen.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank<'a> {
    has_begun: bool,
    standing: Option<Standing>,
    past: Past,
    work: (u32, u32),
    age: Reverse<Duration>,
    uid: &'a str,
}

impl<'a> Rank<'a> {
    fn of(report: &Report<'a>, past: Past) -> Self {
        Self {
            has_begun: !report.has_not_begun,
            standing: report.has_not_begun.then(|| Standing::of(report.pod)),
            past,
            work: (report.in_flight(), report.queued()),
            age: Reverse(report.pod.created),
            uid: &report.pod.uid,
        }
    }
}

/// Pods that work, with what they have loaded.
struct Candidates<'a> {
    pods: Vec<Candidate<'a>>,
    /// How many of them have each model.
    copies: Vec<u32>,
}

struct Candidate<'a> {
    work: (bool, u32, u32),
    models: Vec<usize>,
    age: Reverse<Duration>,
    uid: &'a str,
}

impl<'a> Candidates<'a> {
    fn of(reports: &[&Report<'a>]) -> Self {
        let mut numbers: BTreeMap<&'a str, usize> = BTreeMap::new();
        let mut copies = Vec::new();
        let mut pods = Vec::with_capacity(reports.len());
        for report in reports {
            let models = report.fresh().map_or(&[][..], |heard| &heard.models);
            let named: BTreeSet<&str> = models.iter().map(String::as_str).collect();
            let numbered = named.into_iter().map(|model| {
                let next = numbers.len();
                *numbers.entry(model).or_insert(next)
            });
            let models: Vec<usize> = numbered.collect();
            copies.resize(numbers.len(), 0);
            bump(&mut copies, &models, 1);
            let work = (report.fresh().is_none(), report.in_flight(), report.queued());
            let (age, uid) = (Reverse(report.pod.created), report.pod.uid.as_str());
            pods.push(Candidate { work, models, age, uid });
        }
        Self { pods, copies }
    }

    /// How many models would be loaded nowhere without this pod.
    fn alone_with(&self, pod: &Candidate) -> usize {
        pod.models.iter().filter(|model| self.copies.get(**model) == Some(&1)).count()
    }

    fn take_least(&mut self) -> Option<&'a str> {
        let least_work = self.pods.iter().map(|pod| pod.work).min()?;
        let idlest = self.pods.iter().enumerate().filter(|(_, pod)| pod.work == least_work);
        let (at, _) = idlest.min_by_key(|(_, pod)| (self.alone_with(pod), pod.age, pod.uid))?;
        let taken = self.pods.swap_remove(at);
        bump(&mut self.copies, &taken.models, -1);
        Some(taken.uid)
    }
}

fn bump(copies: &mut [u32], models: &[usize], by: i32) {
    for model in models {
        if let Some(count) = copies.get_mut(*model) {
            *count = count.saturating_add_signed(by);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::startup::Startup;
    use crate::timeline::Timeline;
    use crate::{Heard, Observation, Phase, PodSeen};

    const NOW: Duration = Duration::from_secs(1000);

    /// A pod that works on so much, and has these models.
    fn pod(uid: &str, work: (u32, u32), models: &[&str]) -> PodSeen {
        let mut heard = Heard { at: NOW, ready: true, ..Heard::default() };
        (heard.gauges.in_flight, heard.gauges.queued) = work;
        heard.models = models.iter().map(ToString::to_string).collect();
        let node = Some(format!("node-of-{uid}"));
        PodSeen {
            uid: uid.into(),
            node,
            phase: Phase::Running,
            ready: true,
            heard: Some(heard),
            ..PodSeen::default()
        }
    }

    /// Who goes, of pods that are all known for long, when so many were chosen before.
    fn chosen(pods: Vec<PodSeen>, before: &[&str], count: usize) -> Vec<String> {
        let seen = Observation { pods, ..Observation::default() };
        let mut startup = Startup::default();
        startup.look(&seen, &Timeline::new(Duration::ZERO));
        let reports = Reports::of(&seen, &startup, NOW, NOW);
        let was_chosen = |report: &Report| before.contains(&report.pod.uid.as_str());
        let past = |report: &Report| if was_chosen(report) { Past::Chosen } else { Past::Stays };
        choose(&reports, past, count).into_iter().collect()
    }

    #[test]
    fn who_works_least_goes() {
        let pods = vec![pod("a", (2, 0), &[]), pod("b", (1, 3), &[]), pod("c", (1, 0), &[])];
        assert_eq!(chosen(pods.clone(), &[], 1), ["c"]);
        assert_eq!(chosen(pods.clone(), &[], 2), ["b", "c"]);
        assert_eq!(chosen(pods, &[], 9).len(), 3);
    }

    #[test]
    fn of_equals_the_youngest_goes() {
        let young = PodSeen { created: Duration::from_secs(500), ..pod("z", (0, 0), &[]) };
        assert_eq!(chosen(vec![pod("a", (0, 0), &[]), young], &[], 1), ["z"]);
    }

    #[test]
    fn the_last_with_a_model_stays() {
        let pods =
            vec![pod("a", (0, 0), &["rare"]), pod("b", (0, 0), &["common"]), pod("c", (0, 0), &["common"])];
        assert_eq!(chosen(pods.clone(), &[], 1), ["b"]);
        // Two of them are not the two that share a model.
        let young = PodSeen { created: Duration::from_secs(500), ..pod("d", (0, 0), &["rare"]) };
        assert_eq!(chosen([pods, vec![young]].concat(), &[], 2), ["b", "d"]);
    }

    #[test]
    fn who_has_not_begun_goes_first_in_the_order_of_the_controller() {
        let waiting = |uid: &str, node: Option<&str>| PodSeen {
            uid: uid.into(),
            node: node.map(str::to_owned),
            ..PodSeen::default()
        };
        let loading = {
            let mut pod = pod("loading", (0, 0), &[]);
            pod.ready = false;
            pod.heard = pod.heard.map(|heard| Heard { ready: false, ..heard });
            pod
        };
        let pods =
            vec![pod("idle", (0, 0), &[]), loading, waiting("placed", Some("n")), waiting("unplaced", None)];
        assert_eq!(chosen(pods.clone(), &["idle"], 1), ["unplaced"]);
        assert_eq!(chosen(pods.clone(), &[], 2), ["placed", "unplaced"]);
        assert_eq!(chosen(pods, &[], 3), ["loading", "placed", "unplaced"]);
    }

    #[test]
    fn a_choice_stands_and_who_works_most_is_let_go_first() {
        let pods = vec![pod("a", (3, 0), &[]), pod("b", (1, 0), &[]), pod("c", (0, 0), &[])];
        assert_eq!(chosen(pods.clone(), &["a", "b"], 2), ["a", "b"]);
        assert_eq!(chosen(pods, &["a", "b"], 1), ["b"]);
    }

    #[test]
    fn a_silent_pod_goes_last_even_if_it_was_chosen() {
        let silent = {
            let mut pod = pod("silent", (0, 0), &[]);
            pod.heard = pod.heard.map(|heard| Heard { at: Duration::from_secs(1), ..heard });
            pod
        };
        assert_eq!(chosen(vec![silent.clone(), pod("busy", (9, 9), &[])], &["silent"], 1), ["busy"]);
        assert_eq!(
            chosen(vec![PodSeen { ready: false, ..silent }, pod("busy", (9, 9), &[])], &[], 1),
            ["busy"]
        );
    }

    #[test]
    fn an_overloaded_pod_that_is_not_ready_has_begun() {
        let overloaded = {
            let mut pod = pod("overloaded", (4, 9), &[]);
            pod.ready = false;
            pod.heard = pod.heard.map(|heard| Heard { ready: false, ..heard });
            pod
        };
        assert_eq!(chosen(vec![overloaded, pod("b", (1, 0), &[])], &[], 1), ["b"]);
    }
}
