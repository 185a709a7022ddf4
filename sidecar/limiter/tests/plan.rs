//! What a plan may say, what is said of one that may not, and how its bounds are printed.
#![cfg(test)]

use std::num::NonZeroU32;

use corral_limiter::{CompileErrors, Plan, compile};
use corral_wire::{
    EndpointClass, IdentityDoc, KeyPart, LimitDoc, Mode, PLAN_VERSION, PlanDoc, PoolRef, QueueDoc, RateDoc,
    Scope,
};

fn limit(name: &str) -> LimitDoc {
    LimitDoc {
        policy: "llm/fair-use".into(),
        name: name.into(),
        mode: Mode::Enforce,
        endpoints: vec![],
        models: vec![],
        per: vec![KeyPart::Client],
        scope: Scope::Pool,
        requests: Some(RateDoc { count_milli: 60_000, window_seconds: 60, burst: 10 }),
        concurrency: None,
        ..LimitDoc::default()
    }
}

fn doc(limits: Vec<LimitDoc>) -> PlanDoc {
    PlanDoc {
        version: PLAN_VERSION,
        pool: PoolRef { namespace: "llm".into(), name: "chat".into() },
        sequence: 7,
        identity: IdentityDoc {
            trusted_proxies: vec!["10.0.0.0/8".into(), "fd00::/64".into()],
            ..IdentityDoc::default()
        },
        queue: QueueDoc { max_depth: 0, max_wait_ms: 1 },
        limits,
        ..PlanDoc::default()
    }
}

fn paths(doc: &PlanDoc) -> Vec<String> {
    let CompileErrors(errors) = compile(doc).unwrap_err();
    errors.into_iter().map(|error| error.path).collect()
}

/// The paths of what is wrong with a limit after a change.
fn wrong(change: impl FnOnce(&mut LimitDoc)) -> Vec<String> {
    let mut changed = limit("l");
    change(&mut changed);
    paths(&doc(vec![limit("ok"), changed]))
}

fn requests(count_milli: u64, window_seconds: u64, burst: u64) -> Vec<String> {
    wrong(|limit| limit.requests = Some(RateDoc { count_milli, window_seconds, burst }))
}

#[test]
fn a_plan_says_what_its_document_says() {
    let doc = doc(vec![LimitDoc { models: vec!["Tiny".into(), "tiny:latest".into()], ..limit("l") }]);
    let plan = compile(&doc).unwrap();
    assert_eq!((plan.sequence(), plan.digest()), (7, doc.digest().as_str()));
    assert_eq!(plan.trusted_proxies().len(), 2);
    let names: Vec<_> = plan.limits().iter().map(|limit| limit.info().to_string()).collect();
    assert_eq!(names, ["corral.dev/built-in/metadata", "llm/fair-use/l"]);
    let limit = &plan.limits()[1];
    assert_eq!(limit.models().iter().map(ToString::to_string).collect::<Vec<_>>(), ["tiny:latest"]);
    assert_eq!(limit.endpoints(), [EndpointClass::Chat, EndpointClass::Generate, EndpointClass::Embed]);
}

#[test]
fn every_rule_is_told_by_its_path() {
    assert_eq!(wrong(|l| l.name = "ok".into()), ["limits[1].name"]);
    assert_eq!(wrong(|l| l.name = "say \"x\"".into()), ["limits[1].name"]);
    assert_eq!(wrong(|l| l.policy = String::new()), ["limits[1].policy"]);
    assert_eq!(wrong(|l| l.policy = "corral.dev/built-in".into()), ["limits[1].policy"]);
    assert_eq!(wrong(|l| l.per = vec![]), ["limits[1].per"]);
    assert_eq!(wrong(|l| l.per = vec![KeyPart::Model, KeyPart::Global]), ["limits[1].per"]);
    assert_eq!(wrong(|l| l.requests = None), ["limits[1]"]);
    assert_eq!(wrong(|l| l.concurrency = Some(0)), ["limits[1].concurrency"]);
    assert_eq!(wrong(|l| l.concurrency = Some(1_000_001)), ["limits[1].concurrency"]);
    assert_eq!(wrong(|l| l.models = vec!["fine".into(), "./tiny".into()]), ["limits[1].models[1]"]);
    assert_eq!(wrong(|l| l.models = vec!["m".into(); 257]), ["limits[1].models"]);
    assert_eq!(requests(0, 60, 10), ["limits[1].requests.countMilli"]);
    assert_eq!(requests(1_000_000_000_001, 1, 10), ["limits[1].requests.countMilli"]);
    assert_eq!(requests(1, 31 * 86_400, 1), ["limits[1].requests.countMilli"]);
    assert_eq!(
        requests(60_000, 0, 10),
        ["limits[1].requests.windowSeconds", "limits[1].requests.countMilli"]
    );
    assert_eq!(requests(60_000, 31 * 86_400 + 1, 10), ["limits[1].requests.windowSeconds"]);
    assert_eq!(requests(60_000, 60, 0), ["limits[1].requests.burst"]);
    assert_eq!(requests(60_000, 60, 1_000_000_001), ["limits[1].requests.burst"]);
}

#[test]
fn the_ends_of_every_range_are_inside() {
    let rate = |count_milli, window_seconds, burst| RateDoc { count_milli, window_seconds, burst };
    let rates = [rate(1_000_000_000_000, 1, 1), rate(1000, 31 * 86_400, 1_000_000_000), rate(1, 1, 1)];
    let fine = rates.into_iter().enumerate().map(|(place, rate)| LimitDoc {
        requests: Some(rate),
        concurrency: Some(1_000_000),
        ..limit(&format!("l{place}"))
    });
    assert!(compile(&doc(fine.collect())).is_ok());
}

#[test]
fn all_errors_are_told_at_once_and_in_words() {
    let bad = LimitDoc { per: vec![], concurrency: Some(0), ..limit("ok") };
    let mut doc = doc(vec![limit("ok"), bad]);
    doc.queue = QueueDoc { max_depth: 100_001, max_wait_ms: 0 };
    doc.identity.trusted_proxies.push("10.0.0.1".into());
    assert_eq!(
        paths(&doc),
        [
            "queue.maxDepth",
            "queue.maxWaitMs",
            "identity.trustedProxies[2]",
            "limits[1].name",
            "limits[1].per",
            "limits[1].concurrency",
        ]
    );
    let text = compile(&doc).unwrap_err().to_string();
    assert!(text.contains("limits[1].concurrency: is 1 to 1000000; 0 does not mean unlimited"), "{text}");
    assert!(text.contains("identity.trustedProxies[2]: is no CIDR"), "{text}");
}

#[test]
fn too_many_limits_are_refused() {
    let many = |count: usize| doc((0..count).map(|place| limit(&format!("l{place}"))).collect());
    assert!(compile(&many(256)).is_ok());
    assert_eq!(paths(&many(257)), ["limits"]);
}

#[test]
fn a_version_that_is_not_read_is_the_only_error() {
    let mut other = doc(vec![LimitDoc { per: vec![], ..limit("l") }]);
    other.version = PLAN_VERSION + 1;
    assert_eq!(paths(&other), ["version"]);
}

fn bound(limit: LimitDoc, pods: u32) -> String {
    let plan: Plan = compile(&doc(vec![limit])).unwrap();
    plan.bound(&plan.limits()[1], NonZeroU32::new(pods).unwrap()).to_string()
}

#[test]
fn bounds_are_printed_in_words() {
    assert_eq!(bound(limit("l"), 2), "≤ 70/min pool-wide (2 pods × 30/min, burst 5)");
    assert_eq!(bound(limit("l"), 1), "≤ 70/min pool-wide (1 pod × 60/min, burst 10)");
    assert_eq!(bound(limit("l"), 7), "≤ 67/min pool-wide (7 pods × 8.572/min, burst 1)");
    assert_eq!(bound(LimitDoc { scope: Scope::Pod, ..limit("l") }, 2), "≤ 70/min per pod (60/min, burst 10)");
    let both = LimitDoc { concurrency: Some(4), ..limit("l") };
    assert_eq!(
        bound(both, 3),
        "≤ 69/min pool-wide (3 pods × 20/min, burst 3); ≤ 3 at once pool-wide (3 pods × 1)"
    );
    let rate = |count_milli, window_seconds| Some(RateDoc { count_milli, window_seconds, burst: 1 });
    let odd = LimitDoc { requests: rate(1500, 1), ..limit("l") };
    assert_eq!(bound(odd, 1), "≤ 3/s pool-wide (1 pod × 1.5/s, burst 1)");
    let hours = LimitDoc { requests: rate(5000, 5 * 3600), ..limit("l") };
    assert_eq!(bound(hours, 1), "≤ 6/5h pool-wide (1 pod × 5/5h, burst 1)");
    let held = LimitDoc { requests: None, concurrency: Some(5), scope: Scope::Pod, ..limit("l") };
    assert_eq!(bound(held, 9), "≤ 5 at once per pod (5)");
}
