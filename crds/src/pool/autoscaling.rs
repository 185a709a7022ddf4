//! How a pool gets its size.

use serde::{Deserialize, Serialize};

use super::Schedule;
use crate::bounds;
#[cfg(feature = "kube")]
use crate::rules;

/// How a pool gets its size. Whatever the mode, all of it has to be valid; what it says is done in mode `Builtin` only, so that
/// a pool can be taken in hand for a while by its mode alone. In mode `External` it is what the operator advises KEDA by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
#[cfg_attr(feature = "kube", schemars(extend("x-kubernetes-validations" = rules::cel(&rules::AUTOSCALING))))]
pub struct Autoscaling {
    /// Who decides: `Builtin` (the default) the operator, by the work that there is, and `spec.replicas` is only what a new pool
    /// begins with; `External` whoever writes `spec.replicas`, such as an HPA, KEDA or `kubectl scale`; `Disabled` `spec.replicas`,
    /// as without autoscaling. Nothing here bounds `spec.replicas` in the latter two.
    pub mode: ScalingMode,
    /// The fewest pods; 0 to 1000, default 1, at most `maxReplicas`. 0 goes with `scaleToZero` and only with it. To stop a pool, write
    /// mode `Disabled` and `replicas: 0`.
    #[cfg_attr(feature = "kube", schemars(range(min = 0, max = bounds::MAX_REPLICAS)))]
    pub min_replicas: u32,
    /// The most pods; 1 to 1000. Needed in mode `Builtin`: it bounds what the pool can cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = bounds::MAX_REPLICAS)))]
    pub max_replicas: Option<u32>,
    /// How fast a backlog has to be gone, with metric `Work`: within the time that a new pod takes to start (`Economy`), half of it
    /// (`Balanced`, the default) or a quarter (`Fast`), and never less than 30 s. What is faster asks for more pods for a short while.
    pub preset: Preset,
    /// What is measured; default `Work`, which needs no tuning. The others are for those who want a plain formula: so many pods
    /// that none has more than `target` of it.
    pub metric: ScalingMetric,
    /// How much of the metric a pod is to have; 1 to 1,000,000. `Work`: percent of the time of its slots that are in use, at most
    /// 100, default 75. `QueuePerReplica`: requests that wait, at most 10,000. `InFlightPerReplica`: requests that run or wait, at most
    /// 10,000. `OldestWait`: seconds that the oldest of those that wait has waited, at most 3600. `TokensPerSecond`: tokens of answers a
    /// second. Needed but with `Work`; 0 is refused, for no number of pods reaches it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = bounds::MAX_TARGET)))]
    pub target: Option<u32>,
    /// How long a request holds a slot, in seconds, until the pool has measured that on 20 requests; 1 to 3600, default 10. For
    /// metric `Work`.
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = bounds::MAX_EXPECTED_SERVICE)))]
    pub expected_service_seconds: u32,
    /// Whether the pool is made as large as will be needed when a pod that is started now is ready: `None` (the default), or
    /// `Trend`, along the line that the rate of requests has followed. For metric `Work`.
    pub prediction: Prediction,
    /// How the pool shrinks.
    pub scale_down: ScaleDown,
    /// Without requests for a while the pool goes to zero; requests that come then are held until a pod is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale_to_zero: Option<ScaleToZero>,
    /// Times of the week with bounds of their own. While one holds, its bounds stand in place of `minReplicas` and `maxReplicas`; of
    /// several that hold at one time, the largest of each. At most 16.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_SCHEDULES), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])))]
    pub schedules: Vec<Schedule>,
}

impl Default for Autoscaling {
    fn default() -> Self {
        Self {
            mode: ScalingMode::default(),
            min_replicas: 1,
            max_replicas: None,
            preset: Preset::default(),
            metric: ScalingMetric::default(),
            target: None,
            expected_service_seconds: 10,
            prediction: Prediction::default(),
            scale_down: ScaleDown::default(),
            scale_to_zero: None,
            schedules: Vec::new(),
        }
    }
}

/// When a pool goes to zero, and how much is held for it then. Of all that is held, one client has at most a quarter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ScaleToZero {
    /// How long no request may have come that would wake the pool before the last pod goes, in seconds; 60 to 86,400, default 600.
    /// Lists of models count too; `GET /` does not.
    #[cfg_attr(feature = "kube", schemars(range(min = bounds::MIN_IDLE, max = bounds::MAX_IDLE)))]
    pub idle_after_seconds: u32,
    /// How long a request is held at most, in seconds; 1 to 3600, default 600. Then it gets 503. Longer than a pod takes to start.
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = bounds::MAX_HOLD)))]
    pub max_hold_seconds: u32,
    /// How many requests each of the two activators holds at most; 1 to 10,000, default 1000. More get 503.
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = bounds::MAX_HELD)))]
    pub max_held_requests: u32,
    /// How many bytes of bodies each of them holds at most, in mebibytes; `1Mi` to `4096Mi`, default `64Mi`. Its memory limit follows
    /// from it: more than twice as much. One body is held up to 1 MiB.
    #[cfg_attr(feature = "kube", schemars(length(max = bounds::MAX_HELD_BYTES_TEXT), extend("x-kubernetes-validations" = rules::cel(&[rules::HELD_BYTES]))))]
    pub max_held_bytes: String,
}

impl Default for ScaleToZero {
    fn default() -> Self {
        Self {
            idle_after_seconds: 600,
            max_hold_seconds: 600,
            max_held_requests: 1000,
            max_held_bytes: "64Mi".to_owned(),
        }
    }
}

impl ScaleToZero {
    /// [`Self::max_held_bytes`] as a number of mebibytes; none where it says none, or one out of bounds.
    pub fn held_mebibytes(&self) -> Option<u32> {
        let digits = self.max_held_bytes.strip_suffix("Mi")?;
        let is_number = digits.len() <= 4 && digits.bytes().all(|byte| byte.is_ascii_digit());
        let canonical = is_number && !digits.starts_with('0');
        let mebibytes = canonical.then(|| digits.parse().ok()).flatten()?;
        (1..=bounds::MAX_HELD_MEBIBYTES).contains(&mebibytes).then_some(mebibytes)
    }
}

/// Who decides how many pods there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum ScalingMode {
    /// The operator, by the work that there is.
    #[default]
    Builtin,
    /// Whoever writes `spec.replicas`: an HPA, KEDA, `kubectl scale`.
    External,
    /// `spec.replicas`, as without autoscaling.
    Disabled,
}

impl ScalingMode {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Builtin => "Builtin",
            Self::External => "External",
            Self::Disabled => "Disabled",
        }
    }
}

/// How fast a backlog has to be gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum Preset {
    /// Within the time that a new pod takes to start.
    Economy,
    /// Within half of it.
    #[default]
    Balanced,
    /// Within a quarter of it.
    Fast,
}

/// What the size of a pool goes by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum ScalingMetric {
    /// The work that comes and the work that waits: requests a second by the time that each holds a slot, and the backlog.
    #[default]
    Work,
    /// Requests that wait for a slot.
    QueuePerReplica,
    /// For how long the oldest request has waited for a slot.
    OldestWait,
    /// Requests that run or wait.
    InFlightPerReplica,
    /// Tokens of answers.
    TokensPerSecond,
}

impl ScalingMetric {
    /// The largest target that has a meaning with it.
    pub const fn max_target(self) -> u32 {
        match self {
            Self::Work => 100,
            Self::QueuePerReplica | Self::InFlightPerReplica => 10_000,
            Self::OldestWait => 3600,
            Self::TokensPerSecond => 1_000_000,
        }
    }

    /// The target where none is given; a plain metric has none.
    pub const fn default_target(self) -> Option<u32> {
        match self {
            Self::Work => Some(75),
            Self::QueuePerReplica | Self::OldestWait | Self::InFlightPerReplica | Self::TokensPerSecond => {
                None
            }
        }
    }
}

/// Whether a pool looks ahead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum Prediction {
    /// It goes by what is now.
    #[default]
    None,
    /// It goes by what will be when a pod that is started now is ready, if the rate goes on as it has.
    Trend,
}

/// How a pool shrinks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ScaleDown {
    /// It shrinks to no less than what was needed at any moment of so many seconds; 0 to 3600, default 300. 0: only the present
    /// counts. With metric `Work`, what was made for a backlog or a jump is kept for less, unless that comes again.
    #[cfg_attr(feature = "kube", schemars(range(min = 0, max = bounds::MAX_SCALE_DOWN_SECONDS)))]
    pub window_seconds: u32,
    /// It loses at most this share of its pods within `periodSeconds`, in percent, and always one if it has to lose any; 1 to 100,
    /// default 25.
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = 100)))]
    pub max_percent: u32,
    /// The time that `maxPercent` is about, in seconds; 1 to 3600, default 30.
    #[cfg_attr(feature = "kube", schemars(range(min = 1, max = bounds::MAX_SCALE_DOWN_SECONDS)))]
    pub period_seconds: u32,
}

impl Default for ScaleDown {
    fn default() -> Self {
        Self { window_seconds: 300, max_percent: 25, period_seconds: 30 }
    }
}

impl Autoscaling {
    /// The target, or its default.
    pub fn target(&self) -> Option<u32> {
        self.target.or_else(|| self.metric.default_target())
    }

    /// The fewest and the most pods while the schedules hold that `holds` says hold: what a schedule does not say is as
    /// without it, and of several the largest of each counts. None where nothing bounds the pool above.
    pub fn bounds(&self, holds: impl Fn(&Schedule) -> bool) -> Option<(u32, u32)> {
        let most = self.max_replicas?;
        let holding = self.schedules.iter().filter(|schedule| holds(schedule));
        let ranges = holding.map(|schedule| schedule.bounds((self.min_replicas, most)));
        let widest = ranges.reduce(|one, other| (one.0.max(other.0), one.1.max(other.1)));
        Some(widest.unwrap_or((self.min_replicas, most)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(name: &str, min: Option<u32>, max: Option<u32>) -> Schedule {
        Schedule { name: name.to_owned(), min_replicas: min, max_replicas: max, ..Schedule::default() }
    }

    fn pool(schedules: Vec<Schedule>) -> Autoscaling {
        Autoscaling { min_replicas: 2, max_replicas: Some(10), schedules, ..Autoscaling::default() }
    }

    #[test]
    fn without_a_schedule_that_holds_the_pools_own_bounds_count() {
        let pool = pool(vec![schedule("night", Some(1), Some(1))]);
        assert_eq!(pool.bounds(|_| false), Some((2, 10)));
    }

    #[test]
    fn a_schedule_replaces_what_it_says_and_nothing_else() {
        let pool = pool(vec![schedule("night", None, Some(3)), schedule("fair", Some(6), None)]);
        assert_eq!(pool.bounds(|schedule| schedule.name == "night"), Some((2, 3)));
        assert_eq!(pool.bounds(|schedule| schedule.name == "fair"), Some((6, 10)));
    }

    #[test]
    fn of_several_schedules_the_largest_of_each_bound_counts() {
        let pool = pool(vec![schedule("night", Some(1), Some(2)), schedule("batch", Some(4), Some(20))]);
        assert_eq!(pool.bounds(|_| true), Some((4, 20)));
    }

    #[test]
    fn schedules_that_are_right_alone_are_right_together() {
        let pool = pool(vec![schedule("fair", Some(8), None), schedule("night", None, Some(3))]);
        let (fewest, most) = pool.bounds(|_| true).unwrap();
        assert!(fewest <= most, "{fewest} to {most}");
    }

    #[test]
    fn nothing_bounds_a_pool_that_does_not_say_how_large_it_may_be() {
        assert_eq!(Autoscaling::default().bounds(|_| true), None);
    }

    #[test]
    fn what_may_be_held_is_the_same_in_cel_and_in_rust() {
        let pattern = rules::HELD_BYTES.cel.split('\'').nth(1).unwrap();
        let pattern = regex::Regex::new(pattern).unwrap();
        let numbers = (0..=10_000).map(|number| format!("{number}Mi"));
        for text in
            numbers.chain(["", "Mi", "064Mi", "64", "64Gi", "+64Mi", "6.4Mi", "64Mi "].map(str::to_owned))
        {
            let zero = ScaleToZero { max_held_bytes: text.clone(), ..ScaleToZero::default() };
            assert_eq!(zero.held_mebibytes().is_some(), pattern.is_match(&text), "{text:?}");
        }
        let most = ScaleToZero { max_held_bytes: "4096Mi".to_owned(), ..ScaleToZero::default() };
        assert_eq!(most.held_mebibytes(), Some(bounds::MAX_HELD_MEBIBYTES));
    }

    #[test]
    fn only_work_has_a_target_of_its_own() {
        assert_eq!(Autoscaling::default().target(), Some(75));
        let waits = Autoscaling { metric: ScalingMetric::OldestWait, ..Autoscaling::default() };
        assert_eq!(waits.target(), None);
    }
}
