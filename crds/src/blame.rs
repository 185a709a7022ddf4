//! Whose fault a plan's error is: from the plan's paths back to the fields that a person wrote.

use corral_limiter::CompileError;
use corral_wire::PlanDoc;

use crate::{merge::PolicyInput, valid::Problem};

/// Who is at fault, and what to tell them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Culprit {
    /// `namespace/name` of the policy; none when it is the pool, or the plan as a whole.
    pub(crate) policy: Option<String>,
    /// What is wrong, by the culprit's own fields.
    pub(crate) problem: Problem,
}

/// Finds who wrote what the compiler refused.
pub(crate) fn culprit(doc: &PlanDoc, policies: &[PolicyInput<'_>], error: CompileError) -> Culprit {
    let limit = limit_place(&error.path).and_then(|(place, rest)| Some((doc.limits.get(place)?, rest)));
    let Some((limit, rest)) = limit else {
        return Culprit {
            policy: None,
            problem: Problem { path: pool_path(&error.path), message: error.message },
        };
    };
    let policy = policies.iter().find(|policy| policy.identity() == limit.policy);
    let place =
        policy.and_then(|policy| policy.spec.limits.iter().position(|written| written.name == limit.name));
    let written = place.map_or_else(|| "spec.limits".to_owned(), |place| format!("spec.limits[{place}]"));
    let problem = Problem { path: format!("{written}{}", limit_path(rest)), message: error.message };
    Culprit { policy: Some(limit.policy.clone()), problem }
}

/// `limits[3].requests.burst` is place 3 and `.requests.burst`.
fn limit_place(path: &str) -> Option<(usize, &str)> {
    let (place, rest) = path.strip_prefix("limits[")?.split_once(']')?;
    Some((place.parse().ok()?, rest))
}

/// Where a field of the plan's limit stands in the policy's.
fn limit_path(rest: &str) -> String {
    let moved = |field: &str| rest.starts_with(field).then(|| format!(".match{rest}"));
    match rest {
        ".requests.burst" => ".burst.requests".to_owned(),
        _ if rest.starts_with(".requests.") => ".requests".to_owned(),
        _ => moved(".models").or_else(|| moved(".endpoints")).unwrap_or_else(|| rest.to_owned()),
    }
}

/// Where a field of the plan stands in the pool.
fn pool_path(path: &str) -> String {
    match path {
        "queue.maxDepth" => "spec.capacity.queue.maxDepth".to_owned(),
        "queue.maxWaitMs" => "spec.capacity.queue.maxWaitSeconds".to_owned(),
        _ if path.starts_with("identity.") => format!("spec.{path}"),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_plan_become_paths_of_the_policy() {
        assert_eq!(limit_path(".requests.burst"), ".burst.requests");
        assert_eq!(limit_path(".requests.countMilli"), ".requests");
        assert_eq!(limit_path(".models[2]"), ".match.models[2]");
        assert_eq!(limit_path(".endpoints"), ".match.endpoints");
        assert_eq!(limit_path(".per"), ".per");
        assert_eq!(limit_place("limits[12].per"), Some((12, ".per")));
        assert_eq!(limit_place("limits"), None);
    }

    #[test]
    fn paths_of_the_plan_become_paths_of_the_pool() {
        assert_eq!(pool_path("identity.trustedProxies[1]"), "spec.identity.trustedProxies[1]");
        assert_eq!(pool_path("queue.maxWaitMs"), "spec.capacity.queue.maxWaitSeconds");
        assert_eq!(pool_path("limits"), "limits");
    }
}
