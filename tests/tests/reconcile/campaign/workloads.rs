//! Everyday changes: what is there before, and what somebody does.

use corral_tests::fake_api::store::Key;
use serde_json::{Value, json};

use crate::world::{NS, World, policy_spec, pool_spec};

/// One change.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    /// Whether a pool with two policies runs before.
    pub(crate) furnished: bool,
    pub(crate) change: fn(&World),
}

pub(crate) const CREATE: Workload = Workload { name: "create", furnished: false, change: furnish };
pub(crate) const CHANGE_A_POLICY: Workload = Workload {
    name: "change_a_policy",
    furnished: true,
    change: |world| world.put_policy("fair-use", &policy_spec("chat", "7/m")),
};
pub(crate) const GROW: Workload =
    Workload { name: "grow", furnished: true, change: |world| world.put_pool("chat", &pool_spec(4)) };
pub(crate) const SHRINK: Workload =
    Workload { name: "shrink", furnished: true, change: |world| world.put_pool("chat", &pool_spec(1)) };
pub(crate) const CHANGE_THE_PODS: Workload = Workload {
    name: "change_the_pods",
    furnished: true,
    change: |world| world.put_pool("chat", &changed_pods()),
};
pub(crate) const DELETE_A_POLICY: Workload = Workload {
    name: "delete_a_policy",
    furnished: true,
    change: |world| remove(world, "ratelimitpolicies", "night"),
};
pub(crate) const DELETE_A_POOL: Workload =
    Workload { name: "delete_a_pool", furnished: true, change: |world| remove(world, "ollamapools", "chat") };

pub(crate) const ALL: &[Workload] =
    &[CREATE, CHANGE_A_POLICY, GROW, SHRINK, CHANGE_THE_PODS, DELETE_A_POLICY, DELETE_A_POOL];

/// A pool with two policies.
pub(crate) fn furnish(world: &World) {
    world.put_pool("chat", &pool_spec(2));
    world.put_policy("fair-use", &policy_spec("chat", "60/m"));
    world.put_policy("night", &policy_spec("chat", "9/m"));
}

fn changed_pods() -> Value {
    json!({"replicas": 2, "gpu": {"vendor": "nvidia", "count": 1}, "image": "registry.example/ollama:9",
        "podTemplate": {"metadata": {"labels": {"team": "x"}}}})
}

fn remove(world: &World, plural: &str, name: &str) {
    world.api.store(|store| store.remove(&Key::new("corral.dev", plural, Some(NS), name)));
}
