//! A policy that is wrong says where; what was accepted before stays in force, and nobody else notices.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::pool::policy;
use super::scene::Scene;
use super::traffic::{names_limit, one_token, sort};

const POOL: &str = "chat";

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let pods = scene.serving_pool(POOL, 1)?;
    scene.warm_up(&pods)?;
    let to = pods.first().context("the pool has a pod")?.client_port()?;
    kubectl_refuses_a_schema_error_by_its_field(scene)?;
    scene.enforced_policy(&policy("fair", POOL, &few(2)))?;
    a_semantic_error_is_not_accepted(scene)?;
    let (served, refused) = sort(scene.volley(to, &one_token(), 5)?)?;
    ensure!(served.len() == 2, "the last good plan admits 2 of 5, not {}", served.len());
    for attempt in &refused {
        names_limit(&attempt.answer, &format!("{}/fair/few", scene.namespace))?;
    }
    another_policy_goes_its_way(scene)?;
    a_pool_that_is_not_there_is_named(scene)?;
    one_broken_object_stalls_no_other(scene)
}

fn few(burst: u32) -> Value {
    json!([{ "name": "few", "per": ["Global"], "requests": "1/h", "burst": { "requests": burst } }])
}

fn kubectl_refuses_a_schema_error_by_its_field(scene: &Scene) -> Result<()> {
    let wrong = [
        ("spec.limits[0].requests", json!([{ "name": "a", "per": ["Client"], "requests": "sixty" }])),
        ("spec.limits[0].concurrency", json!([{ "name": "a", "per": ["Client"], "concurrency": 0 }])),
        (
            "spec.limits[0].token",
            json!([{ "name": "a", "per": ["Client"], "requests": "1/s", "token": "1/s" }]),
        ),
        (
            "spec.limits[0]",
            json!([{ "name": "a", "per": ["Client"], "requests": "1/s", "burst": { "tokens": 5 } }]),
        ),
        (
            "spec.limits[0]",
            json!([{ "name": "a", "per": ["Client"], "algorithm": "SlidingLog", "tokens": "5/m" }]),
        ),
        (
            "spec",
            json!([{ "name": "a", "per": ["Client"], "requests": "1/s", "match": { "tiers": ["gold"] } }]),
        ),
        (
            "spec.limits[0]",
            json!([{ "name": "a", "per": ["Client"], "requests": "1/s", "onExceed": { "action": "Queue" } }]),
        ),
    ];
    for (field, limits) in wrong {
        let apply = scene.cluster.kubectl(["apply", "--namespace", &scene.namespace, "--filename", "-"]);
        let said = apply.input(policy("wrong", POOL, &limits).to_string()).attempt()?;
        ensure!(!said.status.success(), "kubectl takes a wrong {field}");
        ensure!(said.err.contains(field), "kubectl does not name {field}: {}", said.err);
    }
    Ok(())
}

/// What no schema can say: a name that is no model's.
fn wrong_model() -> Value {
    json!([{
        "name": "few", "per": ["Global"], "requests": "1/h", "burst": { "requests": 50 },
        "match": { "models": ["not a model"] },
    }])
}

fn a_semantic_error_is_not_accepted(scene: &Scene) -> Result<()> {
    scene.apply(&policy("fair", POOL, &wrong_model()).to_string())?;
    let said = scene.until_reason("ratelimitpolicy/fair", "Accepted", "False", "Invalid")?;
    ensure!(said.message.contains("limits[0].match.models[0]"), "the field is not named: {}", said.message);
    scene.tell(&format!("Accepted=False Invalid: {}", said.message));
    scene.until_condition("ratelimitpolicy/fair", "Programmed", "False").map(drop)
}

/// On the same pool, while the first policy is still wrong.
fn another_policy_goes_its_way(scene: &Scene) -> Result<()> {
    let limits = json!([{ "name": "all", "per": ["Global"], "concurrency": 9 }]);
    scene.enforced_policy(&policy("other", POOL, &limits)).map(drop)
}

fn a_pool_that_is_not_there_is_named(scene: &Scene) -> Result<()> {
    scene.apply(&policy("astray", "nowhere", &few(1)).to_string())?;
    let said = scene.until_reason("ratelimitpolicy/astray", "ResolvedRefs", "False", "TargetNotFound")?;
    ensure!(said.message.contains("nowhere"), "the pool is not named: {}", said.message);
    Ok(())
}

/// Objects that the operator cannot even read, as an older or newer definition may have let them in.
fn one_broken_object_stalls_no_other(scene: &Scene) -> Result<()> {
    let told = BROKEN.iter().try_for_each(|broken| broken.make(scene));
    let goes_on = told.and_then(|()| {
        let limits = json!([{ "name": "x", "per": ["Global"], "concurrency": 3 }]);
        scene.enforced_policy(&policy("after", POOL, &limits))?;
        scene.pool_serves(POOL, 1)
    });
    for Broken { kind, .. } in BROKEN {
        let delete = ["delete", kind, "broken", "--namespace", &scene.namespace, "--wait=false"];
        scene.cluster.kubectl(delete).arg("--ignore-not-found").run()?;
    }
    goes_on.map(drop)
}

/// An object whose spec makes no sense, and what it must be told.
struct Broken {
    kind: &'static str,
    plural: &'static str,
    spec: &'static str,
    condition: &'static str,
    reason: &'static str,
}

const BROKEN: [Broken; 2] = [
    Broken {
        kind: "OllamaPool",
        plural: "ollamapools",
        spec: r#"{ "replicas": 1, "gpu": "many" }"#,
        condition: "Ready",
        reason: "InvalidSpec",
    },
    Broken {
        kind: "RateLimitPolicy",
        plural: "ratelimitpolicies",
        spec: r#"{ "targetRefs": "chat", "limits": 7 }"#,
        condition: "Accepted",
        reason: "Invalid",
    },
];

impl Broken {
    /// Makes it while the definition lets everything in, and waits until it is told what is wrong.
    fn make(&self, scene: &Scene) -> Result<()> {
        let definition = format!("{}.corral.dev", self.plural);
        let good = scene.cluster.get(&["customresourcedefinition", &definition])?;
        let schema = "/spec/versions/0/schema/openAPIV3Schema";
        let strict = good.pointer(schema).context("the definition has a schema")?;
        let anything = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        let replace = |value: &Value| json!([{ "op": "replace", "path": schema, "value": value }]);
        patch(scene, &definition, &replace(&anything))?;
        let made = self.create(scene);
        patch(scene, &definition, &replace(strict))?;
        made
    }

    fn create(&self, scene: &Scene) -> Result<()> {
        let Self { kind, spec, .. } = self;
        let manifest = format!(
            r#"{{ "apiVersion": "corral.dev/v1alpha1", "kind": "{kind}", "metadata": {{ "name": "broken" }}, "spec": {spec} }}"#
        );
        scene.until("the API server takes anything", || {
            let create = ["create", "--validate=false", "--namespace", &scene.namespace, "--filename", "-"];
            let made = scene.cluster.kubectl(create).input(manifest.as_str()).attempt()?;
            Ok(if made.status.success() { Ok(()) } else { Err(made.tail()) })
        })?;
        let object = format!("{}/broken", kind.to_lowercase());
        scene.until_reason(&object, self.condition, "False", self.reason).map(drop)
    }
}

fn patch(scene: &Scene, definition: &str, patch: &Value) -> Result<()> {
    let words =
        ["patch", "customresourcedefinition", definition, "--type=json", "--patch", &patch.to_string()];
    // Helm's own name: a field that somebody else has written it would not write over.
    scene.cluster.kubectl(words).arg("--field-manager=helm").run().map(drop)
}
