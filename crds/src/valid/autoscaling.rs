//! The size of a pool, against its schema and rules.

use corral_limiter::calendar::Calendar;

use super::{Checks, Problem, text};
use crate::{
    bounds,
    pool::{Autoscaling, OllamaPoolSpec, ScaleDown, ScaleToZero, ScalingMode, Schedule},
    rules,
};

const MAX_REPLICAS: u32 = bounds::MAX_REPLICAS.unsigned_abs();

pub(super) fn autoscaling(checks: &mut Checks, autoscaling: &Autoscaling) {
    replicas(checks, Some(autoscaling.min_replicas), autoscaling.max_replicas);
    let zero = &autoscaling.scale_to_zero;
    checks.rule(&rules::ZERO_IS_HELD, zero.is_some() == (autoscaling.min_replicas == 0));
    if let Some(zero) = zero {
        checks.at(".scaleToZero", |checks| scale_to_zero(checks, zero));
    }
    let bounded = autoscaling.mode != ScalingMode::Builtin || autoscaling.max_replicas.is_some();
    checks.rule(&rules::MAX_NEEDED, bounded);
    let most = autoscaling.max_replicas;
    checks.rule(&rules::MIN_WITHIN_MAX, fit(autoscaling.min_replicas, most));
    target(checks, autoscaling);
    let bounds = 1..=bounds::MAX_EXPECTED_SERVICE;
    checks.within(".expectedServiceSeconds", autoscaling.expected_service_seconds, bounds);
    checks.at(".scaleDown", |checks| scale_down(checks, &autoscaling.scale_down));
    schedules(checks, autoscaling);
}

fn replicas(checks: &mut Checks, fewest: Option<u32>, most: Option<u32>) {
    if let Some(fewest) = fewest {
        checks.within(".minReplicas", fewest, 0..=MAX_REPLICAS);
    }
    if let Some(most) = most {
        checks.within(".maxReplicas", most, 1..=MAX_REPLICAS);
    }
}

/// Whether there is a size within both bounds. Of one that is wrong by itself no more is said.
fn fit(fewest: u32, most: Option<u32>) -> bool {
    most.is_none_or(|most| fewest <= most || most == 0)
}

fn scale_to_zero(checks: &mut Checks, zero: &ScaleToZero) {
    checks.within(".idleAfterSeconds", zero.idle_after_seconds, bounds::MIN_IDLE..=bounds::MAX_IDLE);
    checks.within(".maxHoldSeconds", zero.max_hold_seconds, 1..=bounds::MAX_HOLD);
    checks.within(".maxHeldRequests", zero.max_held_requests, 1..=bounds::MAX_HELD);
    checks.at(".maxHeldBytes", |checks| {
        checks.own_length(&zero.max_held_bytes, 0..=bounds::MAX_HELD_BYTES_TEXT);
        checks.rule(&rules::HELD_BYTES, zero.held_mebibytes().is_some());
    });
}

fn target(checks: &mut Checks, autoscaling: &Autoscaling) {
    checks.rule(&rules::TARGET_NEEDED, autoscaling.target().is_some());
    let Some(target) = autoscaling.target else {
        return;
    };
    checks.within(".target", target, 1..=bounds::MAX_TARGET);
    checks.rule(&rules::TARGET_OF_METRIC, target <= autoscaling.metric.max_target());
}

fn scale_down(checks: &mut Checks, down: &ScaleDown) {
    checks.within(".windowSeconds", down.window_seconds, 0..=bounds::MAX_SCALE_DOWN_SECONDS);
    checks.within(".maxPercent", down.max_percent, 1..=100);
    checks.within(".periodSeconds", down.period_seconds, 1..=bounds::MAX_SCALE_DOWN_SECONDS);
}

fn schedules(checks: &mut Checks, autoscaling: &Autoscaling) {
    let schedules = &autoscaling.schedules;
    checks.items(".schedules", schedules.len(), 0..=bounds::MAX_SCHEDULES);
    let names: Vec<_> = schedules.iter().map(|schedule| &schedule.name).collect();
    checks.distinct(".schedules", &names);
    checks.each(".schedules", schedules, schedule);
    let within = |schedule: &Schedule| {
        let fewest = schedule.min_replicas.unwrap_or(autoscaling.min_replicas);
        fit(fewest, schedule.max_replicas.or(autoscaling.max_replicas))
    };
    checks.rule(&rules::SCHEDULES_WITHIN, schedules.iter().all(within));
}

fn schedule(checks: &mut Checks, schedule: &Schedule) {
    checks.at(".name", |checks| {
        checks.own_length(&schedule.name, 1..=bounds::MAX_LIMIT_NAME);
        checks.rule(&rules::SCHEDULE_NAME, text::is_label(&schedule.name));
    });
    if let Some(zone) = &schedule.time_zone {
        checks.at(".timeZone", |checks| {
            checks.own_length(zone, 0..=bounds::MAX_TIME_ZONE);
            checks.rule(&rules::TIME_ZONE, text::is_time_zone(zone));
        });
    }
    checks.items(".days", schedule.days.len(), 0..=bounds::MAX_DAYS);
    checks.distinct(".days", &schedule.days);
    checks.at(".from", |checks| {
        checks.own_length(&schedule.from, 0..=bounds::MAX_TIME_OF_DAY);
        checks.rule(&rules::FROM, text::minute_of_day(&schedule.from).is_some());
    });
    checks.at(".to", |checks| {
        checks.own_length(&schedule.to, 0..=bounds::MAX_TIME_OF_DAY);
        checks.rule(&rules::TO, text::day_end(&schedule.to).is_some());
    });
    checks.rule(&rules::SCHEDULE_LASTS, schedule.from != schedule.to);
    replicas(checks, schedule.min_replicas, schedule.max_replicas);
    if let Some(fewest) = schedule.min_replicas {
        checks.at(".minReplicas", |checks| checks.rule(&rules::POD_MEANWHILE, fewest > 0));
    }
    checks.rule(&rules::SCHEDULE_SAYS, schedule.min_replicas.is_some() || schedule.max_replicas.is_some());
}

/// The schedules of a pool in time zones that the database does not know, which no schema has: these can never hold. The rest
/// of such a pool is as good as any.
pub fn check_zones(spec: &OllamaPoolSpec) -> Vec<Problem> {
    let mut checks = Checks::of("spec.autoscaling");
    let schedules = spec.autoscaling.as_ref().map_or(&[][..], |autoscaling| &autoscaling.schedules);
    checks.each(".schedules", schedules, |checks, schedule| {
        if text::is_time_zone(schedule.zone())
            && let Err(unknown) = Calendar::day(0, schedule.zone())
        {
            checks.at(".timeZone", |checks| checks.refuse(unknown.to_string()));
        }
    });
    checks.problems
}
