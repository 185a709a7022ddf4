//! What a pool asks of its size, as the core takes it: its spec, and the schedules that hold now. Pure.

use std::time::Duration;

use corral_crds::pool::{
    Autoscaling, Day, OllamaPoolSpec, Prediction, ScaleToZero, ScalingMetric, ScalingMode, Schedule,
};
use corral_crds::valid::{Problem, check_zones};
use corral_scaler::{Config, Down, Holder, Preset, Sizing};
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::civil::Weekday;
use k8s_openapi::jiff::tz::TimeZone;

/// Who decides how many pods there are.
pub fn mode(spec: &OllamaPoolSpec) -> ScalingMode {
    spec.autoscaling.as_ref().map_or(ScalingMode::Disabled, |autoscaling| autoscaling.mode)
}

/// When a pool that scales itself goes to zero, and what is held for it then.
pub fn to_zero(spec: &OllamaPoolSpec) -> Option<&ScaleToZero> {
    let autoscaling = spec.autoscaling.as_ref()?;
    autoscaling.scale_to_zero.as_ref().filter(|_| autoscaling.mode == ScalingMode::Builtin)
}

/// What `spec.replicas` asks for.
pub fn replicas(spec: &OllamaPoolSpec) -> u32 {
    u32::try_from(spec.replicas).unwrap_or(0)
}

/// The fewest and the most pods at `wall`. A schedule in a time zone that nobody knows never holds.
pub fn bounds(autoscaling: &Autoscaling, wall: Timestamp) -> (u32, u32) {
    let bounds = autoscaling.bounds(|schedule| holds(schedule, wall));
    // A pool that scales itself has an upper bound, by a rule of its own.
    bounds.unwrap_or((autoscaling.min_replicas, autoscaling.min_replicas))
}

/// Which schedules are in no known time zone, where schedules count at all.
pub fn unknown_zones(spec: &OllamaPoolSpec) -> Vec<Problem> {
    if mode(spec) == ScalingMode::Disabled { Vec::new() } else { check_zones(spec) }
}

fn holds(schedule: &Schedule, wall: Timestamp) -> bool {
    let Ok(zone) = TimeZone::get(schedule.zone()) else { return false };
    let there = wall.to_zoned(zone);
    let of_day = |part: i8| u16::try_from(part).unwrap_or(0);
    let minute = of_day(there.hour()).saturating_mul(60).saturating_add(of_day(there.minute()));
    schedule.holds(day(there.weekday()), minute)
}

const fn day(weekday: Weekday) -> Day {
    match weekday {
        Weekday::Monday => Day::Mon,
        Weekday::Tuesday => Day::Tue,
        Weekday::Wednesday => Day::Wed,
        Weekday::Thursday => Day::Thu,
        Weekday::Friday => Day::Fri,
        Weekday::Saturday => Day::Sat,
        Weekday::Sunday => Day::Sun,
    }
}

/// What the core goes by for a pool that scales itself, between these bounds; `holder` is who holds what comes at
/// zero.
pub fn of_builtin(
    spec: &OllamaPoolSpec,
    autoscaling: &Autoscaling,
    (min, max): (u32, u32),
    holder: Holder,
) -> Config {
    let down = &autoscaling.scale_down;
    Config {
        min,
        max,
        sizing: sizing(autoscaling),
        slots_per_pod: spec.ollama.num_parallel,
        expected_service: seconds(autoscaling.expected_service_seconds),
        down: Down {
            window: seconds(down.window_seconds),
            max_percent: down.max_percent,
            period: seconds(down.period_seconds),
        },
        drain_timeout: seconds(spec.drain.timeout_seconds),
        trend: autoscaling.prediction == Prediction::Trend,
        to_zero: autoscaling.scale_to_zero.as_ref().map(|zero| seconds(zero.idle_after_seconds)),
        holder,
    }
}

/// What it goes by where `pods` were asked for by name: only who goes is left to find.
pub fn of_fixed(spec: &OllamaPoolSpec, pods: u32) -> Config {
    let own = of_builtin(spec, &Autoscaling::default(), (pods, pods), Holder::Nobody);
    Config { down: Down { window: Duration::ZERO, max_percent: 100, period: seconds(1) }, ..own }
}

fn sizing(autoscaling: &Autoscaling) -> Sizing {
    let target = autoscaling.target().unwrap_or(1);
    match autoscaling.metric {
        ScalingMetric::Work => {
            Sizing::Work { utilization_percent: target, preset: preset(autoscaling.preset) }
        }
        ScalingMetric::QueuePerReplica => Sizing::QueuePerReplica(target),
        ScalingMetric::OldestWait => Sizing::OldestWait(seconds(target)),
        ScalingMetric::InFlightPerReplica => Sizing::InFlightPerReplica(target),
        ScalingMetric::TokensPerSecond => Sizing::TokensPerSecond(target),
    }
}

const fn preset(preset: corral_crds::pool::Preset) -> Preset {
    match preset {
        corral_crds::pool::Preset::Economy => Preset::Economy,
        corral_crds::pool::Preset::Balanced => Preset::Balanced,
        corral_crds::pool::Preset::Fast => Preset::Fast,
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(seconds))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pool(schedules: &serde_json::Value) -> Autoscaling {
        let text = json!({"minReplicas": 1, "maxReplicas": 4, "schedules": schedules});
        serde_json::from_value(text).unwrap()
    }

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    #[test]
    fn a_schedule_counts_by_the_clocks_of_its_zone_in_summer_as_in_winter() {
        let office = json!([{"name": "office", "timeZone": "Europe/Berlin", "days": ["Mon", "Tue"],
            "from": "08:00", "to": "18:00", "minReplicas": 2, "maxReplicas": 8}]);
        let office = pool(&office);
        // Berlin is two hours ahead of UTC in July, one in January; both days are Mondays.
        for (time, wanted) in [
            ("2026-07-06T05:59:59Z", (1, 4)),
            ("2026-07-06T06:00:00Z", (2, 8)),
            ("2026-07-06T15:59:59Z", (2, 8)),
            ("2026-07-06T16:00:00Z", (1, 4)),
            ("2026-01-05T06:59:59Z", (1, 4)),
            ("2026-01-05T07:00:00Z", (2, 8)),
            ("2026-07-08T10:00:00Z", (1, 4)),
        ] {
            assert_eq!(bounds(&office, at(time)), wanted, "{time}");
        }
    }

    #[test]
    fn a_zone_that_nobody_knows_is_named_with_its_place() {
        let wrong = pool(&json!([{"name": "a", "from": "08:00", "to": "18:00", "maxReplicas": 2},
            {"name": "b", "timeZone": "Europe/Atlantis", "from": "08:00", "to": "18:00", "maxReplicas": 2}]));
        assert_eq!(bounds(&wrong, at("2026-07-06T09:00:00Z")), (1, 2), "the other one holds");
        let of = |mode: &str| {
            let autoscaling =
                Autoscaling { mode: serde_json::from_value(json!(mode)).unwrap(), ..wrong.clone() };
            unknown_zones(&OllamaPoolSpec { autoscaling: Some(autoscaling), ..OllamaPoolSpec::default() })
        };
        assert_eq!(of("Disabled"), []);
        let [problem] = &of("Builtin")[..] else { panic!("one problem") };
        assert_eq!(problem.path, "spec.autoscaling.schedules[1].timeZone");
        assert!(problem.message.contains("Europe/Atlantis"), "{problem}");
    }

    #[test]
    fn every_field_of_autoscaling_reaches_the_core() {
        let spec: OllamaPoolSpec = serde_json::from_value(json!({"ollama": {"numParallel": 4},
            "drain": {"timeoutSeconds": 90}, "autoscaling": {"maxReplicas": 9, "minReplicas": 2, "preset": "Fast",
            "target": 50, "expectedServiceSeconds": 7, "prediction": "Trend",
            "scaleDown": {"windowSeconds": 60, "maxPercent": 10, "periodSeconds": 20}}}))
        .unwrap();
        let autoscaling = spec.autoscaling.as_ref().unwrap();
        let config =
            of_builtin(&spec, autoscaling, bounds(autoscaling, Timestamp::UNIX_EPOCH), Holder::Nobody);
        assert_eq!((config.min, config.max, config.slots_per_pod), (2, 9, 4));
        assert_eq!(config.sizing, Sizing::Work { utilization_percent: 50, preset: Preset::Fast });
        assert_eq!((config.expected_service, config.drain_timeout), (seconds(7), seconds(90)));
        let down = Down { window: seconds(60), max_percent: 10, period: seconds(20) };
        assert!(config.trend && config.down == down, "{config:?}");
    }
}
