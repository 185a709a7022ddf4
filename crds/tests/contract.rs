//! Everything that a policy and a pool can say, and the plan that it comes to.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper of tests may panic as a test may")]

use corral_crds::{
    api_keys::KeyRing,
    manifest::{self, Spec},
    merge::{Merged, PolicyInput, PoolInputs, merge},
};
use serde_json::{Value, json};

const POOL: &str = r"
apiVersion: corral.dev/v1alpha1
kind: OllamaPool
metadata: { name: chat, namespace: llm }
spec:
  ollama: { contextLength: 8192 }
  identity:
    trustedProxies: [10.0.0.0/8]
    unauthenticated: Reject
    trustedHeaders: [x-team]
    priorityHeader: x-priority
  capacity:
    queue: { maxDepth: 200, maxWaitSeconds: 30, batchMaxWaitSeconds: 600, maxDepthPerClient: 40, costModel: Tokens }
  tokens: { outputCap: 4096, cachedTokenPercent: 25 }
";

const POLICY: &str = r#"
apiVersion: corral.dev/v1alpha1
kind: RateLimitPolicy
metadata: { name: whole, namespace: llm }
spec:
  targetSelector: {}
  tiers: [{ name: premium, scale: "2.5", weight: 5, priority: high }, { name: basic }]
  defaultTier: basic
  endpointPriorities: [{ endpoint: Embed, priority: low }, { endpoint: Chat, priority: critical }]
  exempt: { cidrs: [10.1.0.0/16], apiKeys: [ci-bot] }
  limits:
  - name: bucket
    match:
      endpoints: [Generate, Chat]
      paths: [{ type: Exact, value: /api/chat }, { type: Prefix, value: /v1 }]
      models: ["Llama3*", Tiny]
      tiers: [premium, basic]
      headers: [{ name: x-team, value: rnd }]
      cidrs: [192.0.2.0/24]
    per: ["Header:x-team", Client]
    requests: 60/m
    tokens: 40k/m
    inputTokens: 1.5/s
    outputTokens: 10/m
    slotSeconds: 600/h
    concurrency: 4
    queued: 8
    queuedTokens: 9000
    burst: { outputTokens: 3 }
    onExceed: { action: Reject, oversize: Reject }
    adaptive: { minPercent: 10 }
  - name: day
    mode: Shadow
    per: [ApiKey]
    scope: Pod
    requests: 100/d
    tokens: 1M/24h
    algorithm: FixedWindow
    resetAt: "06:30"
    timeZone: Europe/Kyiv
    onExceed: { action: Queue, maxWait: 2m }
  - name: zone
    per: [Tier, Model]
    requests: 100/d
    algorithm: FixedWindow
    timeZone: UTC
  - name: log
    per: [Endpoint]
    requests: 7.5/s
    algorithm: SlidingLog
    onExceed: { action: Deprioritize }
  - name: leaky
    per: [ClientIP]
    requests: 60/m
    algorithm: LeakyBucket
  - name: paced
    per: [Global]
    requests: 60/m
    onExceed: { action: Delay, maxWait: 30s }
"#;

fn merged() -> Merged {
    let read = |text: &str| manifest::read(text).unwrap().remove(0);
    let (Spec::Pool(pool), Spec::Policy(policy)) = (read(POOL).spec, read(POLICY).spec) else {
        panic!("a pool and a policy");
    };
    let keys = KeyRing::default();
    let inputs = PoolInputs { namespace: "llm", name: "chat", spec: &pool, keys: &keys };
    merge(&inputs, &[PolicyInput { namespace: "llm", name: "whole", created: 0, spec: &policy }], 1)
}

fn rate(count_milli: u64, window_seconds: u64, burst: u64) -> Value {
    json!({"countMilli": count_milli, "windowSeconds": window_seconds, "burst": burst})
}

fn limit(name: &str, rest: Value) -> Value {
    let mut limit = json!({"policy": "llm/whole", "name": name, "mode": "Enforce", "scope": "Pool"});
    let Value::Object(rest) = rest else { panic!("fields") };
    limit.as_object_mut().unwrap().extend(rest);
    limit
}

fn written() -> Value {
    let merged = merged();
    assert!(merged.is_clean(), "{:?} {:?}", merged.problems, merged.policies);
    serde_json::to_value(&merged.doc).unwrap()
}

#[test]
fn all_that_can_be_written_of_clients_and_tokens_is_in_the_plan() {
    let plan = written();
    assert_eq!(
        plan["identity"],
        json!({"trustedProxies": ["10.0.0.0/8"], "unauthenticated": "Reject", "trustedHeaders": ["x-team"],
            "priorityHeader": "x-priority"})
    );
    assert_eq!(
        plan["queue"],
        json!({"maxDepth": 200, "maxWaitMs": 30_000, "batchMaxWaitMs": 600_000, "maxDepthPerClient": 40,
            "costModel": "Tokens"})
    );
    assert_eq!(plan["tokens"], json!({"outputCap": 4096, "cachedWeightMilli": 250, "contextLength": 8192}));
    assert_eq!(
        plan["tiers"],
        json!([{"name": "basic", "scaleMilli": 1000}, {"name": "premium", "scaleMilli": 2500, "weight": 5, "priority": "high",
            "policy": "llm/whole"}])
    );
    assert_eq!(plan["defaultTier"], "basic");
    assert_eq!(
        plan["endpointPriorities"],
        json!([{"policy": "llm/whole", "endpoint": "Chat", "priority": "critical"},
            {"policy": "llm/whole", "endpoint": "Embed", "priority": "low"}])
    );
    assert_eq!(
        plan["exempt"],
        json!([{"policy": "llm/whole", "cidrs": ["10.1.0.0/16"], "clients": ["ci-bot"]}])
    );
}

#[test]
fn all_that_can_be_written_of_limits_is_in_the_plan() {
    let plan = written();
    let expected = [
        limit(
            "bucket",
            json!({
                "endpoints": ["Chat", "Generate"], "paths": [{"exact": "/api/chat"}, {"prefix": "/v1"}],
                "models": ["llama3*", "tiny:latest"], "tiers": ["basic", "premium"],
                "headers": [{"name": "x-team", "value": "rnd"}], "cidrs": ["192.0.2.0/24"],
                "per": ["Client", "Header:x-team"],
                "requests": rate(60_000, 60, 10), "tokens": rate(40_000_000, 60, 40_000),
                "inputTokens": rate(1500, 1, 2), "outputTokens": rate(10_000, 60, 3),
                "slotSeconds": rate(600_000, 3600, 600),
                "concurrency": 4, "queued": 8, "queuedTokens": 9000,
                "onExceed": {"action": "Reject", "oversize": "Reject"}, "adaptive": {"minMilli": 100},
            }),
        ),
        limit(
            "day",
            json!({
                "mode": "Shadow", "scope": "Pod", "per": ["ApiKey"], "algorithm": "FixedWindow",
                "reset": {"minuteOfDay": 390, "timeZone": "Europe/Kyiv"},
                "requests": rate(100_000, 86_400, 100), "tokens": rate(1_000_000_000, 86_400, 1_000_000),
                "onExceed": {"action": "Queue", "maxWaitMs": 120_000, "oversize": "Debt"},
            }),
        ),
        limit(
            "leaky",
            json!({"per": ["ClientIP"], "algorithm": "LeakyBucket", "requests": rate(60_000, 60, 10)}),
        ),
        limit(
            "log",
            json!({
                "per": ["Endpoint"], "algorithm": "SlidingLog", "requests": rate(7500, 1, 8),
                "onExceed": {"action": "Deprioritize", "oversize": "Debt"},
            }),
        ),
        limit(
            "paced",
            json!({
                "per": ["Global"], "requests": rate(60_000, 60, 10),
                "onExceed": {"action": "Delay", "maxWaitMs": 30_000, "oversize": "Debt"},
            }),
        ),
        limit(
            "zone",
            json!({
                "per": ["Tier", "Model"], "algorithm": "FixedWindow",
                "reset": {"minuteOfDay": 0, "timeZone": "UTC"}, "requests": rate(100_000, 86_400, 100),
            }),
        ),
    ];
    for (place, expected) in expected.iter().enumerate() {
        assert_eq!(plan["limits"][place], *expected);
    }
    assert_eq!(plan["limits"].as_array().unwrap().len(), expected.len());
}

/// What is wrong with the policy once `from` is written as `to`.
fn problems(from: &str, to: &str) -> Vec<String> {
    let text = POLICY.replace(from, to);
    assert_ne!(text, POLICY, "{from} stands there");
    let (pool, policy) = (manifest::read(POOL).unwrap().remove(0), manifest::read(&text));
    let policy = match policy {
        Ok(mut read) => read.remove(0),
        Err(errors) => {
            return errors.0.iter().map(|error| format!("{}: {}", error.path, error.message)).collect();
        }
    };
    let (Spec::Pool(pool), Spec::Policy(policy)) = (pool.spec, policy.spec) else {
        panic!("a pool and a policy")
    };
    let keys = KeyRing::default();
    let inputs = PoolInputs { namespace: "llm", name: "chat", spec: &pool, keys: &keys };
    let merged =
        merge(&inputs, &[PolicyInput { namespace: "llm", name: "whole", created: 0, spec: &policy }], 1);
    merged.policies.iter().flat_map(|outcome| &outcome.problems).map(ToString::to_string).collect()
}

#[test]
fn bad_input_is_told_by_the_field_that_was_written() {
    for (from, to, told) in [
        (
            "requests: 60/m\n    tokens",
            "requests: 60/32d\n    tokens",
            "spec.limits[0].requests: the window is longer than 31 days",
        ),
        (
            "tokens: 40k/m",
            "tokens: 2G/s",
            "spec.limits[0].tokens: the rate is above 1,000,000,000 per second",
        ),
        (
            "outputTokens: 3 }",
            "outputTokens: 2000000000 }",
            "spec.limits[0].burst.outputTokens: should be less than or equal",
        ),
        (
            "tokens: 40k/m",
            "tokens: 999999M/31d",
            "spec.limits[0].tokens: its burst would be 999999000000, and is at most 1000000000: write a smaller burst.tokens",
        ),
        ("Europe/Kyiv", "Europe/Atlantis", "spec.limits[1].timeZone: "),
        (
            "[{ name: x-team,",
            "[{ name: x-env,",
            "spec.limits[0].match.headers[0].name: the pool does not trust header x-env",
        ),
        ("Header:x-team", "Header:x-env", "spec.limits[0].per[0]: the pool does not trust header x-env"),
        (
            "tiers: [premium, basic]",
            "tiers: [premium, gold]",
            "spec.limits: match.tiers names tiers of this policy",
        ),
        ("requests: 7.5/s", "requests: 20k/s", "spec.limits[3].requests: SlidingLog remembers at most 10000"),
        ("models: [\"Llama3*\", Tiny]", "models: [\"a b*\"]", "spec.limits[0].match.models[0]: "),
        ("[\"Llama3*\", Tiny]", "[Tiny, \"a b*\"]", "spec.limits[0].match.models[1]: "),
        ("slotSeconds: 600/h", "slotSeconds: 2000000000/h", "spec.limits[0].slotSeconds: "),
    ] {
        let found = problems(from, to);
        assert!(found.iter().any(|problem| problem.starts_with(told)), "{to}: {found:?}");
    }
}
