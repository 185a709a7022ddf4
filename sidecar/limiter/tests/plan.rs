//! What a plan may say, what is said of one that may not, and how its bounds are printed.
#![cfg(test)]

use std::num::NonZeroU32;

use corral_limiter::{CompileErrors, Plan, compile};
use corral_wire::{
    Action, AdaptiveDoc, Algorithm, ApiKeyDoc, EndpointClass, ExceedDoc, ExemptDoc, HeaderDoc, IdentityDoc,
    KeyPart, LimitDoc, Mode, Oversize, PLAN_VERSION, PathDoc, PlanDoc, PoolRef, QueueDoc, RateDoc, ResetDoc,
    Scope, TierDoc,
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
        queue: QueueDoc { max_depth: 0, max_wait_ms: 1, ..QueueDoc::default() },
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
    doc.queue = QueueDoc { max_depth: 100_001, max_wait_ms: 0, ..QueueDoc::default() };
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

const REQUESTS: RateDoc = RateDoc { count_milli: 60_000, window_seconds: 60, burst: 10 };

fn exceeds(action: Action, max_wait_ms: Option<u64>) -> ExceedDoc {
    ExceedDoc { action, max_wait_ms, ..ExceedDoc::default() }
}

/// The paths of what is wrong with a plan after a change.
fn wrong_plan(change: impl FnOnce(&mut PlanDoc)) -> Vec<String> {
    let mut changed = doc(vec![limit("l")]);
    change(&mut changed);
    paths(&changed)
}

#[test]
fn windows_must_be_those_that_the_algorithm_knows() {
    let fixed = |window_seconds| {
        wrong(|l| {
            l.algorithm = Algorithm::FixedWindow;
            l.requests = Some(RateDoc { window_seconds, burst: 0, ..REQUESTS });
        })
    };
    assert_eq!(fixed(61), ["limits[1].requests.windowSeconds"]);
    assert_eq!(fixed(7 * 86_400), ["limits[1].requests.windowSeconds"]);
    let log = |change: fn(&mut LimitDoc)| {
        wrong(|l| {
            l.algorithm = Algorithm::SlidingLog;
            change(l);
        })
    };
    assert_eq!(log(|l| l.tokens = Some(REQUESTS)), ["limits[1].tokens"]);
    let many = log(|l| l.requests = Some(RateDoc { count_milli: 10_000_001, ..REQUESTS }));
    assert_eq!(many, ["limits[1].requests.countMilli"]);
    let none = wrong(|l| {
        *l = LimitDoc { algorithm: Algorithm::SlidingLog, requests: None, concurrency: Some(1), ..l.clone() };
    });
    assert_eq!(none, ["limits[1].algorithm"]);
}

#[test]
fn a_reset_is_for_days_of_the_clock_in_a_zone_that_there_is() {
    let reset = |algorithm, window_seconds, minute_of_day, zone: &str| {
        let zone = zone.to_owned();
        let mut daily = limit("l");
        daily.algorithm = algorithm;
        daily.requests = Some(RateDoc { window_seconds, ..REQUESTS });
        daily.reset = Some(ResetDoc { minute_of_day, time_zone: zone });
        compile(&doc(vec![daily])).map(|_| ()).map_err(|CompileErrors(errors)| errors[0].path.clone())
    };
    assert_eq!(reset(Algorithm::FixedWindow, 86_400, 1439, "Europe/Kyiv"), Ok(()));
    assert_eq!(reset(Algorithm::FixedWindow, 3600, 0, "UTC"), Err("limits[0].reset".into()));
    assert_eq!(reset(Algorithm::TokenBucket, 86_400, 0, "UTC"), Err("limits[0].reset".into()));
    assert_eq!(reset(Algorithm::FixedWindow, 86_400, 1440, "UTC"), Err("limits[0].reset.minuteOfDay".into()));
    assert_eq!(reset(Algorithm::FixedWindow, 86_400, 0, "Mars/Base"), Err("limits[0].reset.timeZone".into()));
}

#[test]
fn actions_must_make_sense() {
    let on_exceed = |action, wait| wrong(|l| l.on_exceed = exceeds(action, wait));
    assert_eq!(on_exceed(Action::Queue, None), ["limits[1].onExceed.maxWaitMs"]);
    assert_eq!(on_exceed(Action::Delay, None), ["limits[1].onExceed.maxWaitMs"]);
    assert_eq!(on_exceed(Action::Queue, Some(600_001)), ["limits[1].onExceed.maxWaitMs"]);
    assert_eq!(on_exceed(Action::Delay, Some(0)), ["limits[1].onExceed.maxWaitMs"]);
    assert_eq!(on_exceed(Action::Reject, Some(1)), ["limits[1].onExceed.maxWaitMs"]);
    assert_eq!(on_exceed(Action::Deprioritize, Some(1)), ["limits[1].onExceed.maxWaitMs"]);
    let delayed = |change: fn(&mut LimitDoc)| {
        wrong(|l| {
            l.on_exceed = exceeds(Action::Delay, Some(1000));
            change(l);
        })
    };
    assert_eq!(delayed(|l| l.algorithm = Algorithm::SlidingWindow), ["limits[1].onExceed.action"]);
    assert_eq!(delayed(|l| l.concurrency = Some(1)), ["limits[1].onExceed.action"]);
    let leaky = wrong(|l| {
        l.algorithm = Algorithm::LeakyBucket;
        l.on_exceed = exceeds(Action::Queue, Some(1000));
    });
    assert_eq!(leaky, ["limits[1].onExceed.action"]);
    let queued = wrong(|l| {
        l.queued = Some(1);
        l.on_exceed = exceeds(Action::Queue, Some(1000));
    });
    assert_eq!(queued, ["limits[1].onExceed.action"]);
    let oversize = wrong(|l| {
        l.requests = None;
        l.concurrency = Some(1);
        l.on_exceed.oversize = Oversize::Reject;
    });
    assert_eq!(oversize, ["limits[1].onExceed.oversize"]);
    let adaptive = |min_milli| wrong(|l| l.adaptive = Some(AdaptiveDoc { min_milli }));
    assert_eq!(
        [adaptive(0), adaptive(1001)],
        [["limits[1].adaptive.minMilli"], ["limits[1].adaptive.minMilli"]]
    );
}

#[test]
fn what_a_limit_covers_must_be_there() {
    assert_eq!(wrong(|l| l.tiers = vec!["gold".into()]), ["limits[1].tiers[0]"]);
    assert_eq!(wrong(|l| l.cidrs = vec!["10.0.0.0/8".into(), "ten".into()]), ["limits[1].cidrs[1]"]);
    assert_eq!(wrong(|l| l.paths = vec![PathDoc::Exact("v1".into())]), ["limits[1].paths[0]"]);
    assert_eq!(wrong(|l| l.models = vec!["llama3 *".into()]), ["limits[1].models[0]"]);
    let header = HeaderDoc { name: "x-team".into(), value: "red".into() };
    assert_eq!(wrong(|l| l.headers = vec![header.clone()]), ["limits[1].headers[0].name"]);
    let by_team = vec![KeyPart::Model, KeyPart::Header("x-team".into())];
    assert_eq!(wrong(|l| l.per = by_team.clone()), ["limits[1].per[1]"]);
    let mut trusting = doc(vec![LimitDoc { per: by_team, headers: vec![header], ..limit("l") }]);
    let text = compile(&trusting).unwrap_err().to_string();
    assert!(
        text.contains("the pool does not trust header x-team: add it to identity.trustedHeaders"),
        "{text}"
    );
    trusting.identity.trusted_headers = vec!["x-team".into(), "x-unused".into()];
    assert_eq!(compile(&trusting).unwrap().headers(), ["x-team"]);
}

#[test]
fn every_number_of_a_limit_is_bounded() {
    assert_eq!(wrong(|l| l.queued = Some(0)), ["limits[1].queued"]);
    assert_eq!(wrong(|l| l.queued_tokens = Some(0)), ["limits[1].queuedTokens"]);
    let slots = RateDoc { count_milli: 1_000_000_001, window_seconds: 1, burst: 1 };
    assert_eq!(wrong(|l| l.slot_seconds = Some(slots)), ["limits[1].slotSeconds.countMilli"]);
    let fast = RateDoc { count_milli: 600_000_000_000, window_seconds: 1, burst: 1 };
    let mut scaled = doc(vec![LimitDoc { requests: Some(fast), ..limit("l") }]);
    assert!(compile(&scaled).is_ok());
    scaled.tiers = vec![TierDoc { name: "pro".into(), scale_milli: 2000, ..TierDoc::default() }];
    assert_eq!(paths(&scaled), ["limits[0].requests.countMilli"]);
    scaled.limits[0].per = vec![KeyPart::Global];
    assert!(compile(&scaled).is_ok());
}

fn key(digest: &str, client: &str) -> ApiKeyDoc {
    ApiKeyDoc { digest: digest.into(), client: client.into(), tier: Some("gold".into()) }
}

#[test]
fn clients_must_be_told_apart() {
    let one = "ab".repeat(32);
    let keys = |keys: Vec<ApiKeyDoc>| {
        wrong_plan(|plan| {
            plan.identity.api_keys = keys;
            plan.identity.digest_key = Some("id".into());
        })
    };
    assert_eq!(keys(vec![key("AB", "a")]), ["identity.apiKeys[0].digest"]);
    assert_eq!(keys(vec![key(&"AB".repeat(32), "a")]), ["identity.apiKeys[0].digest"]);
    assert_eq!(keys(vec![key(&one, "a b")]), ["identity.apiKeys[0].client"]);
    assert_eq!(keys(vec![key(&one, "a"), key(&one, "b")]), ["identity.apiKeys[1].digest"]);
    assert_eq!(wrong_plan(|p| p.identity.api_keys = vec![key(&one, "a")]), ["identity.digestKey"]);
    let names = |names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        wrong_plan(|plan| plan.identity.trusted_headers = names)
    };
    assert_eq!(names(&["x-ok", "X-Team"]), ["identity.trustedHeaders[1]"]);
    let mut fine = doc(vec![limit("l")]);
    fine.identity.api_keys = vec![key(&one, "a"), key(&"cd".repeat(32), "a")];
    fine.identity.digest_key = Some("id".into());
    let plan = compile(&fine).unwrap();
    let client = plan.client_of(&[0xab; 32]).unwrap();
    assert_eq!((client.name.as_str(), client.tier.as_deref()), ("a", Some("gold")));
    assert_eq!(plan.client_of(&[0xcd; 32]), Some(client));
    assert!(plan.client_of(&[0; 32]).is_none());
}

#[test]
fn tiers_and_exemptions_must_be_clear() {
    let tier = |name: &str, scale_milli| TierDoc { name: name.into(), scale_milli, ..TierDoc::default() };
    assert_eq!(wrong_plan(|p| p.tiers = vec![tier("a", 1), tier("a", 2)]), ["tiers[1].name"]);
    assert_eq!(wrong_plan(|p| p.tiers = vec![tier("a", 0)]), ["tiers[0].scaleMilli"]);
    assert_eq!(wrong_plan(|p| p.tiers = vec![tier("a", 1_000_001)]), ["tiers[0].scaleMilli"]);
    assert_eq!(wrong_plan(|p| p.default_tier = Some("gold".into())), ["defaultTier"]);
    let exempt = ExemptDoc { cidrs: vec!["::1".into()], ..ExemptDoc::default() };
    assert_eq!(wrong_plan(|p| p.exempt = vec![exempt]), ["exempt[0].cidrs[0]"]);
}

#[test]
fn bounds_of_every_algorithm_and_unit_are_printed_in_words() {
    let by = |algorithm| LimitDoc { algorithm, ..limit("l") };
    assert_eq!(
        bound(by(Algorithm::LeakyBucket), 2),
        "≤ 62/min pool-wide (2 pods × 30/min one by one, up to 5 wait)"
    );
    assert_eq!(
        bound(by(Algorithm::SlidingWindow), 2),
        "< 120 in any min pool-wide (2 pods × 30/min by a sliding window)"
    );
    assert_eq!(bound(by(Algorithm::SlidingLog), 1), "≤ 60 in any min pool-wide (1 pod × 60/min)");
    assert_eq!(
        bound(by(Algorithm::FixedWindow), 3),
        "≤ 60/min by the clock, ≤ 120 around an edge pool-wide (3 pods × 20/min)"
    );
    let tokens = LimitDoc { requests: None, tokens: Some(RateDoc { burst: 60, ..REQUESTS }), ..limit("l") };
    assert_eq!(
        bound(tokens.clone(), 1),
        "≤ 120 tokens/min pool-wide (1 pod × 60/min, burst 60) + what answers in flight exceed their reservation"
    );
    let slots =
        LimitDoc { requests: None, slot_seconds: Some(RateDoc { burst: 5, ..REQUESTS }), ..limit("l") };
    assert!(bound(slots, 2).starts_with("≤ 65 slot seconds/min pool-wide (2 pods × 30/min, burst 3)"));
    let waiting = LimitDoc { requests: None, queued: Some(4), queued_tokens: Some(900), ..limit("l") };
    assert_eq!(
        bound(waiting, 2),
        "≤ 4 waiting at once pool-wide (2 pods × 2); ≤ 900 prompt tokens waiting at once pool-wide (2 pods × 450)"
    );
    let soft = LimitDoc {
        on_exceed: exceeds(Action::Deprioritize, None),
        adaptive: Some(AdaptiveDoc { min_milli: 100 }),
        ..limit("l")
    };
    assert_eq!(
        bound(soft, 1),
        "≤ 70/min pool-wide (1 pod × 60/min, burst 10); less while Ollama fares badly; soft: beyond it requests run \
         where nobody else wants the slot"
    );
    let mut scaled = doc(vec![limit("l")]);
    scaled.tiers = vec![TierDoc { name: "pro".into(), scale_milli: 2500, ..TierDoc::default() }];
    let plan = compile(&scaled).unwrap();
    let text = plan.bound(&plan.limits()[1], NonZeroU32::MIN).to_string();
    assert_eq!(text, "≤ 70/min pool-wide (1 pod × 60/min, burst 10); up to 2.5 times that by tier");
}
