//! How far a plan has come: the fold from what each pod and activator holds to one word and one sentence.

use std::fmt;

use super::peer::Role;
use super::stance::{PodPlan, Stance};

/// How many of some hold a plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// Those that hold it.
    pub done: usize,
    /// All.
    pub all: usize,
}

/// How many hold a plan, in words too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// Of the pods that run.
    pub pods: Share,
    /// Of the activators that run.
    pub activators: Share,
}

/// How far a plan has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Programmed {
    /// There is no pod to hold it, and every activator that there is does.
    NoPods(Extent),
    /// Every pod and every activator holds it.
    All(Extent),
    /// Some are about to.
    Reconciling(Extent),
    /// Some do not, and will not by themselves soon.
    Partial {
        /// How many do.
        extent: Extent,
        /// Whether a sidecar that is too old is among the causes.
        too_old: bool,
        /// Whether a sidecar that refused the plan is among the causes.
        refused: bool,
        /// Which do not, and why; at most three are named.
        causes: String,
    },
}

impl Share {
    fn of(stances: &[Stance<'_>], role: Role) -> Self {
        let count = |is: fn(&Stance<'_>) -> bool| {
            stances.iter().filter(|stance| stance.role == role && is(stance)).count()
        };
        Self { done: count(|stance| stance.plan == PodPlan::InForce), all: count(|_| true) }
    }

    fn is_whole(self) -> bool {
        self.done == self.all
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pods, activators } = self;
        match pods.all {
            0 => f.write_str("no pod runs; the first will start with it")?,
            all => write!(f, "{}/{all} pods enforce it", pods.done)?,
        }
        match activators.all {
            0 => Ok(()),
            all => write!(f, "; {}/{all} activators go by it", activators.done),
        }
    }
}

/// Folds those that run into one word.
pub fn programmed(stances: &[Stance<'_>]) -> Programmed {
    let extent =
        Extent { pods: Share::of(stances, Role::Pod), activators: Share::of(stances, Role::Activator) };
    if extent.pods.is_whole() && extent.activators.is_whole() {
        return if extent.pods.all == 0 { Programmed::NoPods(extent) } else { Programmed::All(extent) };
    }
    let causes: Vec<String> = stances.iter().filter_map(cause).collect();
    if causes.is_empty() {
        return Programmed::Reconciling(extent);
    }
    let too_old = stances.iter().any(|stance| stance.plan == PodPlan::TooOld);
    let refused = stances.iter().any(|stance| matches!(stance.plan, PodPlan::Refused(_)));
    Programmed::Partial { extent, too_old, refused, causes: named(&causes) }
}

/// The pods that run, in words, if none of them answers. Whether activators do is another matter.
pub fn out_of_reach(stances: &[Stance<'_>]) -> Option<String> {
    let pods = || stances.iter().filter(|stance| stance.role == Role::Pod);
    let is_silent = |stance: &Stance<'_>| stance.plan == PodPlan::Silent;
    let all_are = pods().next().is_some() && pods().all(is_silent);
    all_are.then(|| named(&pods().filter_map(cause).collect::<Vec<_>>()))
}

fn cause(Stance { name, plan, .. }: &Stance<'_>) -> Option<String> {
    match plan {
        PodPlan::InForce | PodPlan::Pending => None,
        PodPlan::Silent => Some(format!("{name} has not answered for 10 s")),
        PodPlan::TooOld => Some(format!("the sidecar of {name} is too old for this plan")),
        PodPlan::Refused(error) => Some(format!("{name} refused the plan: {error}")),
    }
}

fn named(causes: &[String]) -> String {
    let shown: Vec<&str> = causes.iter().take(3).map(String::as_str).collect();
    let more = causes.len().saturating_sub(shown.len());
    let tail = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("{}{tail}", shown.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(plans: &[PodPlan]) -> Vec<Stance<'static>> {
        all("p", Role::Pod, plans)
    }

    fn all(name: &'static str, role: Role, plans: &[PodPlan]) -> Vec<Stance<'static>> {
        plans.iter().map(|plan| Stance { name, role, plan: plan.clone() }).collect()
    }

    fn with(pods: &[PodPlan], activators: &[PodPlan]) -> Vec<Stance<'static>> {
        [self::pods(pods), all("a", Role::Activator, activators)].concat()
    }

    fn extent(pods: (usize, usize), activators: (usize, usize)) -> Extent {
        let share = |(done, all)| Share { done, all };
        Extent { pods: share(pods), activators: share(activators) }
    }

    #[test]
    fn programmed_is_true_only_when_every_pod_holds_the_plan() {
        let of = |plans: &[PodPlan]| programmed(&pods(plans));
        assert_eq!(of(&[]), Programmed::NoPods(Extent::default()));
        assert_eq!(of(&[PodPlan::InForce, PodPlan::InForce]), Programmed::All(extent((2, 2), (0, 0))));
        let half = Programmed::Reconciling(extent((1, 2), (0, 0)));
        assert_eq!(of(&[PodPlan::InForce, PodPlan::Pending]), half);
        let Programmed::Partial { extent: found, too_old: false, refused: true, causes } =
            of(&[PodPlan::InForce, PodPlan::Silent, PodPlan::Refused("no".into())])
        else {
            panic!("partial");
        };
        assert_eq!(found, extent((1, 3), (0, 0)));
        assert_eq!(causes, "p has not answered for 10 s; p refused the plan: no");
    }

    #[test]
    fn an_activator_is_waited_for_as_a_pod_is() {
        let (held, pending) = ([PodPlan::InForce], [PodPlan::Pending]);
        let of = |pods: &[PodPlan], activators: &[PodPlan]| programmed(&with(pods, activators));
        assert_eq!(of(&held, &held), Programmed::All(extent((1, 1), (1, 1))));
        assert_eq!(of(&held, &pending), Programmed::Reconciling(extent((1, 1), (0, 1))));
        assert_eq!(of(&[], &held), Programmed::NoPods(extent((0, 0), (1, 1))));
        assert_eq!(of(&[], &pending), Programmed::Reconciling(extent((0, 0), (0, 1))));
        let Programmed::Partial { causes, .. } = of(&held, &[PodPlan::Silent]) else { panic!("partial") };
        assert_eq!(causes, "a has not answered for 10 s");
    }

    #[test]
    fn pods_are_out_of_reach_if_none_of_them_answers_whatever_activators_do() {
        let of = |pods: &[PodPlan], activators: &[PodPlan]| out_of_reach(&with(pods, activators));
        let silent = [PodPlan::Silent];
        assert_eq!(of(&silent, &[PodPlan::InForce]).as_deref(), Some("p has not answered for 10 s"));
        assert_eq!(of(&[PodPlan::Silent, PodPlan::Pending], &silent), None);
        assert_eq!(of(&[], &silent), None);
    }

    #[test]
    fn it_is_told_of_pods_and_of_activators_where_there_are_any() {
        assert_eq!(extent((1, 2), (0, 0)).to_string(), "1/2 pods enforce it");
        assert_eq!(extent((1, 2), (2, 2)).to_string(), "1/2 pods enforce it; 2/2 activators go by it");
        assert_eq!(extent((0, 0), (0, 0)).to_string(), "no pod runs; the first will start with it");
        let asleep = "no pod runs; the first will start with it; 1/2 activators go by it";
        assert_eq!(extent((0, 0), (1, 2)).to_string(), asleep);
    }

    #[test]
    fn at_most_three_pods_are_named() {
        let pods = pods(&vec![PodPlan::TooOld; 5]);
        let Programmed::Partial { too_old: true, causes, .. } = programmed(&pods) else { panic!("partial") };
        assert!(causes.ends_with("; and 2 more"), "{causes}");
    }
}
