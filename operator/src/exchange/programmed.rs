//! How far a plan has come: the fold from what each pod holds to one word and one sentence.

/// How a pod stands to the plan on offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodPlan {
    /// It has said that the plan is in force.
    InForce,
    /// It holds another plan, or has not said anything yet.
    Pending,
    /// It has not said anything for too long.
    Silent,
    /// It cannot read plans of this version.
    TooOld,
    /// It could not take the plan, for this reason.
    Refused(String),
}

/// How far a plan has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Programmed {
    /// There is no pod to hold it.
    NoPods,
    /// Every pod holds it.
    All {
        /// How many.
        pods: usize,
    },
    /// Some are about to.
    Reconciling {
        /// Pods that hold it.
        done: usize,
        /// All pods.
        pods: usize,
    },
    /// Some do not, and will not by themselves soon.
    Partial {
        /// Pods that hold it.
        done: usize,
        /// All pods.
        pods: usize,
        /// How many pods do not answer.
        silent: usize,
        /// Whether a sidecar that is too old is among the causes.
        too_old: bool,
        /// Whether a sidecar that refused the plan is among the causes.
        refused: bool,
        /// Which pods, and why; at most three are named.
        causes: String,
    },
}

/// Folds the pods, by name, into one word.
pub fn programmed(pods: &[(&str, PodPlan)]) -> Programmed {
    let done = pods.iter().filter(|(_, plan)| *plan == PodPlan::InForce).count();
    if pods.is_empty() {
        return Programmed::NoPods;
    }
    if done == pods.len() {
        return Programmed::All { pods: done };
    }
    let causes: Vec<String> = pods.iter().filter_map(|(name, plan)| cause(name, plan)).collect();
    if causes.is_empty() {
        return Programmed::Reconciling { done, pods: pods.len() };
    }
    let too_old = pods.iter().any(|(_, plan)| *plan == PodPlan::TooOld);
    let refused = pods.iter().any(|(_, plan)| matches!(plan, PodPlan::Refused(_)));
    let silent = pods.iter().filter(|(_, plan)| *plan == PodPlan::Silent).count();
    Programmed::Partial { done, pods: pods.len(), silent, too_old, refused, causes: named(&causes) }
}

fn cause(name: &str, plan: &PodPlan) -> Option<String> {
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

    #[test]
    fn programmed_is_true_only_when_every_pod_holds_the_plan() {
        let of = |plans: &[PodPlan]| {
            let pods: Vec<(&str, PodPlan)> = plans.iter().map(|plan| ("p", plan.clone())).collect();
            programmed(&pods)
        };
        assert_eq!(of(&[]), Programmed::NoPods);
        assert_eq!(of(&[PodPlan::InForce, PodPlan::InForce]), Programmed::All { pods: 2 });
        assert_eq!(of(&[PodPlan::InForce, PodPlan::Pending]), Programmed::Reconciling { done: 1, pods: 2 });
        let Programmed::Partial { done: 1, pods: 3, silent: 1, too_old: false, refused: true, causes } =
            of(&[PodPlan::InForce, PodPlan::Silent, PodPlan::Refused("no".into())])
        else {
            panic!("partial");
        };
        assert_eq!(causes, "p has not answered for 10 s; p refused the plan: no");
    }

    #[test]
    fn at_most_three_pods_are_named() {
        let pods: Vec<(&str, PodPlan)> = vec![("p", PodPlan::TooOld); 5];
        let Programmed::Partial { too_old: true, causes, .. } = programmed(&pods) else { panic!("partial") };
        assert!(causes.ends_with("; and 2 more"), "{causes}");
    }
}
