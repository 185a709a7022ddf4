//! Conditions: what the operator says of an object, in types and reasons that are spelled in one place.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The most bytes of a message; Kubernetes allows 32,768, a reader less.
pub const MAX_MESSAGE_BYTES: usize = 2048;

/// What a condition is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// The policy means something, and the operator has taken it.
    Accepted,
    /// Everything it names is there.
    ResolvedRefs,
    /// Every pod and activator goes by it as it is written now.
    Programmed,
    /// The pool serves as asked.
    Ready,
    /// The operator is still bringing about what the spec asks for.
    Reconciling,
    /// A pod that has GPUs runs a model beside them.
    GPUFallback,
    /// The operator would render the pool's pods otherwise than they are, and waits to be asked.
    UpdateAvailable,
    /// The policy has more pools than its status lists.
    AncestorsTruncated,
    /// The operator decides how many pods the pool has.
    ScalingActive,
    /// The pool would be larger or smaller if something did not hold it.
    ScalingLimited,
    /// Enough pods tell what they do for the pool's size to go by it.
    MetricsAvailable,
    /// Somebody else scales the pool as well.
    AutoscalingConflict,
}

impl ConditionType {
    /// As it stands in the status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::Programmed => "Programmed",
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::GPUFallback => "GPUFallback",
            Self::UpdateAvailable => "UpdateAvailable",
            Self::AncestorsTruncated => "AncestorsTruncated",
            Self::ScalingActive => "ScalingActive",
            Self::ScalingLimited => "ScalingLimited",
            Self::MetricsAvailable => "MetricsAvailable",
            Self::AutoscalingConflict => "AutoscalingConflict",
        }
    }
}

/// Whether a condition holds, as it stands in the status. What nobody knows is not told.
const fn word(is: bool) -> &'static str {
    if is { "True" } else { "False" }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Why a condition is as it is; one word that tools can match.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)+
        }

        impl Reason {
            /// As it stands in the status.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }
        }
    };
}

reasons! {
    /// Accepted: it is taken.
    Accepted,
    /// Not accepted: it contradicts itself or cannot be enforced; the message names the fields.
    Invalid,
    /// Not accepted: the plan of the pool has no room for it as it is written; the message says what is short.
    PlanTooLarge,
    /// Resolved: everything named is there.
    ResolvedRefs,
    /// Not resolved: a pool that is named does not exist, or none is selected.
    TargetNotFound,
    /// Not resolved: a Secret with API keys does not exist; the message names it. The keys of the others count.
    SecretNotFound,
    /// Not resolved: API keys do not count; the message names Secret and entry. The others count.
    InvalidApiKeys,
    /// Programmed: every pod and activator has acknowledged it.
    Programmed,
    /// Not programmed: a pod or activator does not answer; the message names it.
    PartiallyProgrammed,
    /// On its way.
    Reconciling,
    /// Programmed: there is no pod to enforce it, and every activator has acknowledged it.
    NoPods,
    /// Not programmed: limits of other policies are in force in place of all of its own; the message names them.
    Overridden,
    /// Truncated: there are more pools than a status lists.
    TooManyAncestors,
    /// Not programmed: a pod's sidecar does not know this version of plan.
    SidecarTooOld,
    /// Not programmed: a pod refused the plan; the message says why.
    PlanRefused,
    /// Ready: as many pods serve as asked for.
    Ready,
    /// Ready, and at zero: whoever asks wakes it.
    ScaledToZero,
    /// Ready, as asked for: no pod, and nobody wakes one.
    Stopped,
    /// Not ready: pods are starting.
    Starting,
    /// Not ready: a change is reaching the pods.
    RollingOut,
    /// Not ready: a pod that has to go finishes what it has begun, and a new one may wait for its GPU; the message says
    /// how much is left, and for how long at most.
    WaitingForDrain,
    /// Not ready, or of no more pods: no node has the GPUs free, or no quota is left for them.
    InsufficientGPU,
    /// Not ready: no node that fits has room.
    Unschedulable,
    /// Not ready: a rollout made no progress within its deadline.
    ProgressDeadlineExceeded,
    /// Not ready: the image cannot be pulled.
    ImagePullFailed,
    /// Not ready: a container ends again and again.
    CrashLooping,
    /// Not ready: Ollama does not answer in a pod; the message names it.
    OllamaDown,
    /// Not ready: Ollama answers in a pod, and its model has stopped working; the message names it.
    Stalled,
    /// Not ready: Ollama fails what it is sent in a pod, and is left alone for a while; the message names it.
    BreakerOpen,
    /// Not ready: a pod has left the Service while it works off more than it can in time; the message names it.
    Overloaded,
    /// Not ready: a pod has left the Service while it loads a model; the message names it.
    ModelLoading,
    /// Not ready: the API server does not let the pod exist; the message says why.
    PodRejected,
    /// Not ready: the operator cannot reach the sidecars.
    SidecarUnreachable,
    /// Not ready: an object of this name belongs to somebody else, and is left alone.
    NameConflict,
    /// Not ready: the podTemplate would open a way around the limits, or is no pod template.
    TemplateInvalid,
    /// Not ready: the spec contradicts itself; the message names the fields.
    InvalidSpec,
    /// Not reconciling: all is as the spec asks. No update available: the pods are as this operator renders them.
    UpToDate,
    /// GPU fallback: a model is not wholly on its pod's GPUs; the message names it, and how much of it is.
    ModelOffGPU,
    /// No GPU fallback: no model is known to be beside its pod's GPUs.
    AllOnGPU,
    /// Update available: the message says what it would change, and how to ask for it.
    UpdateAvailable,
    /// Not ready: the revision that the pods are of was kept by a newer operator, or is damaged. They are left alone.
    RevisionUnreadable,
    /// Scaling active: the operator decides how many pods there are.
    ScalingActive,
    /// Scaling not active: `spec.replicas` says how many pods there are, and nobody is expected to change it.
    Disabled,
    /// Scaling not active: whoever writes `spec.replicas` decides how many pods there are.
    External,
    /// Scaling limited: fewer pods would do, and `minReplicas` or that of a schedule holds them.
    TooFewReplicas,
    /// Scaling limited: more pods are needed than `maxReplicas` or that of a schedule lets there be.
    TooManyReplicas,
    /// Scaling limited: no pod is taken away while a change reaches the pods.
    RolloutInProgress,
    /// Scaling limited: pods have had no place for so long that no more are asked for until they have one.
    ProvisioningTimeout,
    /// Scaling limited: the pool would go to zero, and no activator is ready and heard that would hold what comes; the
    /// message says what is missing.
    NoActivator,
    /// Scaling not limited: the pool is of the size that it needs.
    DesiredWithinRange,
    /// Metrics available: enough pods tell what they do.
    ReportsHeard,
    /// Metrics not available: too many pods are silent; until they are heard, none is taken away.
    ReportsMissing,
    /// Conflict, and so scaling not active: an HPA or a `ScaledObject` scales the same pool; the message names it.
    SecondWriter,
    /// The operator failed; the message says how, and it tries again.
    Failed,
}

/// One condition as it should stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCondition {
    /// What it is about.
    pub kind: ConditionType,
    /// Whether it is so.
    pub status: bool,
    /// Why, in one word.
    pub reason: Reason,
    /// Why, in words; may be empty, is always sent, and is cut at [`MAX_MESSAGE_BYTES`].
    pub message: String,
}

impl NewCondition {
    /// A condition with its message.
    pub fn new(kind: ConditionType, status: bool, reason: Reason, message: impl Into<String>) -> Self {
        Self { kind, status, reason, message: message.into() }
    }
}

/// Sets one condition in a list that is kept in order of type. `lastTransitionTime` moves only when the status flips, so
/// that a second call with the same facts changes nothing. Returns whether anything changed.
pub fn set_condition(
    conditions: &mut Vec<Condition>,
    new: NewCondition,
    generation: i64,
    now: &Time,
) -> bool {
    let kind = new.kind.as_str();
    let place = conditions.iter().position(|old| old.type_ == kind);
    let old = place.map(|place| conditions.remove(place));
    let since = old.as_ref().filter(|old| old.status == word(new.status));
    let set = Condition {
        last_transition_time: since.map_or_else(|| now.clone(), |old| old.last_transition_time.clone()),
        message: cut(new.message),
        observed_generation: Some(generation),
        reason: new.reason.as_str().to_owned(),
        status: word(new.status).to_owned(),
        type_: kind.to_owned(),
    };
    let changed = old.as_ref() != Some(&set);
    let place = conditions.partition_point(|other| other.type_ < set.type_);
    conditions.insert(place, set);
    changed
}

/// The worst condition of a type over several objects: what `kubectl get` has room for. It is the first that is not True,
/// else the first.
pub fn worst_of<'a>(
    kind: ConditionType,
    lists: impl IntoIterator<Item = &'a [Condition]>,
) -> Option<&'a Condition> {
    let of_kind = |list: &'a [Condition]| list.iter().find(|condition| condition.type_ == kind.as_str());
    let all: Vec<&Condition> = lists.into_iter().filter_map(of_kind).collect();
    all.iter().find(|condition| condition.status != word(true)).or(all.first()).copied()
}

/// Cuts a message that is longer than [`MAX_MESSAGE_BYTES`].
pub fn cut(mut message: String) -> String {
    if message.len() > MAX_MESSAGE_BYTES {
        let end = (0..=MAX_MESSAGE_BYTES - 3).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    fn ready(is: bool, message: &str) -> NewCondition {
        let reason = if is { Reason::Ready } else { Reason::Starting };
        NewCondition::new(ConditionType::Ready, is, reason, message)
    }

    #[test]
    fn saying_the_same_again_changes_nothing() {
        let mut list = Vec::new();
        assert!(set_condition(&mut list, ready(true, ""), 1, &at(1)));
        let before = list.clone();
        assert!(!set_condition(&mut list, ready(true, ""), 1, &at(9)));
        assert_eq!(list, before);
    }

    #[test]
    fn the_transition_time_moves_only_when_the_status_flips() {
        let mut list = Vec::new();
        set_condition(&mut list, ready(false, "1 of 2"), 1, &at(1));
        assert!(set_condition(&mut list, ready(false, "2 of 2"), 2, &at(5)));
        assert_eq!((list[0].last_transition_time.clone(), list[0].observed_generation), (at(1), Some(2)));
        set_condition(&mut list, ready(true, ""), 2, &at(7));
        assert_eq!(list[0].last_transition_time, at(7));
    }

    #[test]
    fn the_message_is_always_sent_and_never_too_long() {
        let mut list = Vec::new();
        set_condition(&mut list, ready(true, ""), 1, &at(1));
        assert_eq!(serde_json::to_value(&list[0]).unwrap()["message"], "");
        set_condition(&mut list, ready(true, &"ä".repeat(MAX_MESSAGE_BYTES)), 1, &at(1));
        assert!(list[0].message.len() <= MAX_MESSAGE_BYTES && list[0].message.ends_with('…'));
    }

    #[test]
    fn conditions_stand_in_order_of_type_whatever_the_order_of_calls() {
        let mut list = Vec::new();
        for kind in [ConditionType::Ready, ConditionType::Accepted, ConditionType::Reconciling] {
            set_condition(&mut list, NewCondition::new(kind, true, Reason::UpToDate, ""), 1, &at(1));
        }
        let types: Vec<_> = list.iter().map(|condition| condition.type_.as_str()).collect();
        assert_eq!(types, ["Accepted", "Ready", "Reconciling"]);
    }

    #[test]
    fn the_worst_is_the_first_that_is_not_true() {
        let one = |is: bool, message: &str| {
            let mut list = Vec::new();
            let new = NewCondition::new(ConditionType::Programmed, is, Reason::Reconciling, message);
            set_condition(&mut list, new, 1, &at(1));
            list
        };
        let (good, bad, also) = (one(true, "a"), one(false, "b"), one(false, "c"));
        let worst = |lists: &[&Vec<Condition>]| {
            worst_of(ConditionType::Programmed, lists.iter().map(|list| list.as_slice()))
                .map(|condition| condition.message.clone())
        };
        assert_eq!(worst(&[&good, &bad, &also]).as_deref(), Some("b"));
        assert_eq!(worst(&[&good]).as_deref(), Some("a"));
        assert_eq!(worst(&[]), None);
    }
}
