//! What a user must be able to do, on a real cluster.
//!
//! A story is a function that says with an error what does not hold. It gets a namespace of its own, removed when it is
//! over, and a deadline, which every wait of it keeps.

pub mod activator_killed_while_holding;
pub mod api_server_gone;
pub mod apis;
pub mod bad_policy;
pub mod batch_flood_leaves_chat_alive;
pub mod cancel_storm;
pub mod chart_is_sound;
pub mod cluster_is_real;
pub mod condition;
pub mod control_plane_gone;
pub mod crowd;
pub mod drift_is_healed;
pub mod elephant_and_mice;
pub mod endpoints;
pub mod full_disk;
pub mod gpu_fallback_seen;
pub mod gpu_quota_hit;
pub mod hpa_on_scale_subresource;
pub mod in_flight;
pub mod install;
pub mod keys_and_tiers;
pub mod kubectl_scale;
pub mod limit_is_exact;
pub mod metrics_are_sound;
pub mod nginx_beside_ours;
pub mod no_way_around;
pub mod ollama_answers;
pub mod ollama_killed;
pub mod operator_killed_every_few_seconds;
pub mod operator_reinstalled;
pub mod operator_restart_at_peak;
pub mod operator_upgrade_restarts_nothing;
pub mod operators;
pub mod outage;
pub mod overload_keeps_goodput;
pub mod overloaded_pod_leaves_service;
pub mod policies_combine;
pub mod policy_change_in_two_seconds;
pub mod pool;
pub mod pool_runs_on_gpus;
pub mod published_clients_obey;
pub mod queue_grows_pool;
pub mod rest;
pub mod rolling_update_under_load;
pub mod rollout;
pub mod runner;
pub mod scale_down_under_streams;
pub mod scaling;
pub mod scene;
pub mod schema_on_the_real_server;
pub mod sidecar_guards_ollama;
pub mod sidecar_killed;
pub mod single_replica_update;
pub mod stream_through_service;
pub mod streams;
pub mod tokens_are_exact;
pub mod traffic;
pub mod two_clusters_side_by_side;
pub mod two_operators;
pub mod two_policies_one_pool;
pub mod undrain_when_load_returns;
pub mod update_with_pending_replica;
pub mod wedged_engine;
pub mod what_it_costs;
pub mod zero;
pub mod zero_and_back;

use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};

use scene::Scene;

/// Which stories may run beside a story.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Beside others of its kind: what it needs is its own.
    Parallel,
    /// No other story meanwhile: it breaks parts of the cluster and mends them.
    Cluster,
    /// No other story meanwhile: it measures.
    Quiet,
}

/// One story.
#[derive(Clone, Copy)]
pub struct Story {
    /// Its name, as `cargo e2e test NAME` takes it.
    pub name: &'static str,
    /// Which stories may run beside it.
    pub lane: Lane,
    /// How long it should take. It fails at twice this.
    pub budget: Duration,
    /// What it does.
    pub run: fn(&Scene) -> Result<()>,
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?}, {} s)", self.name, self.lane, self.budget.as_secs())
    }
}

const fn story(name: &'static str, lane: Lane, seconds: u64, run: fn(&Scene) -> Result<()>) -> Story {
    Story { name, lane, budget: Duration::from_secs(seconds), run }
}

/// Every story there is.
pub const ALL: &[Story] = &[
    story("cluster_is_real", Lane::Cluster, 30, cluster_is_real::run),
    story("ollama_answers", Lane::Parallel, 30, ollama_answers::run),
    story("sidecar_guards_ollama", Lane::Parallel, 45, sidecar_guards_ollama::run),
    story("schema_on_the_real_server", Lane::Parallel, 30, schema_on_the_real_server::run),
    story("chart_is_sound", Lane::Parallel, 40, chart_is_sound::run),
    story("pool_runs_on_gpus", Lane::Parallel, 60, pool_runs_on_gpus::run),
    story("no_way_around", Lane::Parallel, 60, no_way_around::run),
    story("ollama_killed", Lane::Parallel, 60, ollama_killed::run),
    story("sidecar_killed", Lane::Parallel, 45, sidecar_killed::run),
    story("gpu_fallback_seen", Lane::Parallel, 60, gpu_fallback_seen::run),
    story("drift_is_healed", Lane::Parallel, 60, drift_is_healed::run),
    story("full_disk", Lane::Parallel, 45, full_disk::run),
    story("wedged_engine", Lane::Parallel, 240, wedged_engine::run),
    story("two_policies_one_pool", Lane::Parallel, 45, two_policies_one_pool::run),
    story("limit_is_exact", Lane::Parallel, 120, limit_is_exact::run),
    story("metrics_are_sound", Lane::Parallel, 45, metrics_are_sound::run),
    story("tokens_are_exact", Lane::Parallel, 60, tokens_are_exact::run),
    story("keys_and_tiers", Lane::Parallel, 60, keys_and_tiers::run),
    story("policies_combine", Lane::Parallel, 60, policies_combine::run),
    story("nginx_beside_ours", Lane::Parallel, 60, nginx_beside_ours::run),
    story("published_clients_obey", Lane::Parallel, 75, published_clients_obey::run),
    story("update_with_pending_replica", Lane::Parallel, 90, update_with_pending_replica::run),
    story("single_replica_update", Lane::Parallel, 75, single_replica_update::run),
    story("queue_grows_pool", Lane::Parallel, 110, queue_grows_pool::run),
    story("scale_down_under_streams", Lane::Parallel, 70, scale_down_under_streams::run),
    story("zero_and_back", Lane::Parallel, 220, zero_and_back::run),
    story("gpu_quota_hit", Lane::Parallel, 90, gpu_quota_hit::run),
    story("kubectl_scale", Lane::Parallel, 45, kubectl_scale::run),
    story("hpa_on_scale_subresource", Lane::Parallel, 75, hpa_on_scale_subresource::run),
    story("bad_policy", Lane::Cluster, 60, bad_policy::run),
    story("control_plane_gone", Lane::Cluster, 90, control_plane_gone::run),
    story("api_server_gone", Lane::Cluster, 110, api_server_gone::run),
    story("two_operators", Lane::Cluster, 100, two_operators::run),
    story("operator_killed_every_few_seconds", Lane::Cluster, 110, operator_killed_every_few_seconds::run),
    story("operator_reinstalled", Lane::Cluster, 75, operator_reinstalled::run),
    story("operator_upgrade_restarts_nothing", Lane::Cluster, 75, operator_upgrade_restarts_nothing::run),
    story("operator_restart_at_peak", Lane::Cluster, 90, operator_restart_at_peak::run),
    story("activator_killed_while_holding", Lane::Cluster, 110, activator_killed_while_holding::run),
    story("install", Lane::Cluster, 75, install::run),
    story("rolling_update_under_load", Lane::Cluster, 150, rolling_update_under_load::run),
    story("two_clusters_side_by_side", Lane::Cluster, 90, two_clusters_side_by_side::run),
    story("undrain_when_load_returns", Lane::Quiet, 60, undrain_when_load_returns::run),
    story("stream_through_service", Lane::Quiet, 60, stream_through_service::run),
    story("what_it_costs", Lane::Quiet, 60, what_it_costs::run),
    story("overloaded_pod_leaves_service", Lane::Quiet, 180, overloaded_pod_leaves_service::run),
    story("elephant_and_mice", Lane::Quiet, 50, elephant_and_mice::run),
    story("batch_flood_leaves_chat_alive", Lane::Quiet, 50, batch_flood_leaves_chat_alive::run),
    story("overload_keeps_goodput", Lane::Quiet, 60, overload_keeps_goodput::run),
    story("cancel_storm", Lane::Quiet, 35, cancel_storm::run),
    story("policy_change_in_two_seconds", Lane::Quiet, 120, policy_change_in_two_seconds::run),
];

/// The stories of these names; all when there is none.
pub fn choose(names: &[String]) -> Result<Vec<Story>> {
    let known = |name: &String| ALL.iter().any(|story| story.name == name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let all: Vec<_> = ALL.iter().map(|story| story.name).collect();
        bail!("there is no story `{unknown}`; there are {}", all.join(", "));
    }
    let wanted = |story: &&Story| names.is_empty() || names.iter().any(|name| name == story.name);
    Ok(ALL.iter().filter(wanted).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_means_all_and_an_unknown_one_is_refused() {
        assert_eq!(choose(&[]).unwrap().len(), ALL.len());
        assert_eq!(choose(&["ollama_answers".to_owned()]).unwrap().len(), 1);
        assert!(choose(&["ollama_sings".to_owned()]).err().unwrap().to_string().contains("there are"));
    }

    #[test]
    fn names_are_distinct_and_can_name_a_namespace() {
        for (index, story) in ALL.iter().enumerate() {
            assert!(story.name.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit()));
            assert!(ALL.iter().skip(index + 1).all(|other| other.name != story.name), "{} twice", story.name);
        }
    }
}
