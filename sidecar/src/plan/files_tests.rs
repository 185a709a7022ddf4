use std::fs;

use super::*;
use crate::plan::core_for_tests;

const POLICY: &str = "\
apiVersion: corral.dev/v1alpha1
kind: RateLimitPolicy
metadata: { name: fair-use }
spec:
  targetRefs: [{ kind: OllamaPool, name: chat }]
  limits:
  - name: per-client
    per: [Client]
    requests: 60/m
";
const POOL: &str = "\
apiVersion: corral.dev/v1alpha1
kind: OllamaPool
metadata: { name: chat }
spec:
  ollama: { numParallel: 4 }
";

struct Laptop {
    dir: tempfile::TempDir,
}

impl Laptop {
    fn with(files: &[(&str, &str)]) -> Self {
        let laptop = Self { dir: tempfile::tempdir().unwrap() };
        for (name, text) in files {
            laptop.write(name, text);
        }
        laptop
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn paths(&self) -> Vec<PathBuf> {
        let mut paths: Vec<_> =
            fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    }

    fn open(&self) -> (PolicyFiles, Standalone) {
        self.open_with(None)
    }

    /// With the number of slots that a flag gives.
    fn open_with(&self, flag: Option<u32>) -> (PolicyFiles, Standalone) {
        PolicyFiles::open(self.paths(), slots(flag), digester()).unwrap()
    }

    fn error(&self) -> String {
        PolicyFiles::open(self.paths(), slots(None), digester()).unwrap_err().to_string()
    }
}

fn digester() -> KeyDigester {
    KeyDigester::derive(&[7; 32])
}

fn slots(flag: Option<u32>) -> SlotSettings {
    SlotSettings { per_model: flag.and_then(NonZeroU32::new), loaded_models: NonZeroU32::new(3).unwrap() }
}

fn store(first: PlanDoc) -> PlanStore {
    let store = PlanStore::open(core_for_tests(), own_pool(), None);
    store.offer(Ok(first), NonZeroU32::MIN, PlanSource::File);
    store
}

fn rate(store: &PlanStore) -> (u64, u64) {
    let plan = store.core().plan().unwrap();
    let limit = plan.limits().iter().find(|limit| limit.info().name == "per-client").unwrap();
    (plan.sequence(), limit.info().rate(corral_limiter::Unit::Requests).unwrap().count_milli)
}

#[test]
fn a_policy_alone_applies_to_whatever_runs_behind() {
    let (_, standalone) = Laptop::with(&[("a.yaml", POLICY)]).open();
    assert_eq!(standalone.slots_per_model, None);
    assert_eq!(standalone.doc.pool, own_pool());
    let [limit] = standalone.doc.limits.as_slice() else { panic!("{:?}", standalone.doc) };
    assert_eq!((limit.policy.as_str(), limit.name.as_str()), ("standalone/fair-use", "per-client"));
}

#[test]
fn a_pool_beside_it_gives_slots_and_queue() {
    let queue = "  capacity: { queue: { maxDepth: 7 } }\n";
    let pool = format!("{POOL}{queue}");
    let (_, standalone) = Laptop::with(&[("a.yaml", POLICY), ("b.yaml", &pool)]).open();
    assert_eq!(standalone.slots_per_model, NonZeroU32::new(4));
    assert_eq!(standalone.doc.queue.max_depth, 7);
}

#[test]
fn what_is_wrong_with_files_is_told_with_the_place() {
    let two_pools = format!("{POOL}---\n{}", POOL.replace("chat", "code"));
    let elsewhere = POLICY.replace("name: chat", "name: code");
    let no_model = POLICY.replace("60/m", "60/m\n    match: { models: [\"tiny:\"] }");
    for (files, told) in [
        (vec![("a.yaml", "")], "a.yaml"),
        (vec![("a.yaml", &*POLICY.replace("60/m", "60/x"))], "line 9: spec.limits[0].requests"),
        (vec![("a.yaml", &*POLICY.replace("requests", "request"))], "spec.limits[0].request"),
        (
            vec![("a.yaml", POOL), ("b.yaml", &no_model)],
            "b.yaml: document 1, line 10: spec.limits[0].match.models[0]: ",
        ),
        (vec![("a.yaml", POLICY), ("b.yaml", POLICY)], "standalone/fair-use stands in another file too"),
        (vec![("a.yaml", POLICY), ("b.yaml", &two_pools)], "document 2: there may be only one OllamaPool"),
        (vec![("a.yaml", POOL), ("b.yaml", &elsewhere)], "does not target the pool standalone/chat"),
    ] {
        let error = Laptop::with(&files).error();
        assert!(error.contains(told), "{told}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let missing =
        PolicyFiles::open(vec![PathBuf::from("/nowhere/policy.yaml")], slots(None), digester()).unwrap_err();
    assert!(missing.to_string().contains("/nowhere/policy.yaml"));
}

#[test]
fn a_changed_file_is_taken_once_it_has_stopped_changing() {
    let laptop = Laptop::with(&[("a.yaml", POLICY)]);
    let (mut files, first) = laptop.open();
    let store = store(first.doc);
    files.look(&store);
    assert_eq!(rate(&store), (1, 60_000));
    laptop.write("a.yaml", &POLICY.replace("60/m", "90/m"));
    files.look(&store);
    assert_eq!(rate(&store), (1, 60_000), "it may still be changing");
    files.look(&store);
    assert_eq!(rate(&store), (2, 90_000));
    laptop.write("a.yaml", POLICY);
    files.look(&store);
    files.look(&store);
    assert_eq!(rate(&store), (3, 60_000), "what was there before is a change too");
}

/// Slots per model, the most that wait, and how many proxies are trusted.
fn pool_in_force(store: &PlanStore) -> (u32, u32, usize) {
    let plan = store.core().plan().unwrap();
    (store.core().gauges().slots, plan.queue().max_depth, plan.trusted_proxies().len())
}

#[test]
fn a_changed_pool_gives_slots_queue_and_trusted_proxies_at_once() {
    let laptop = Laptop::with(&[("a.yaml", POLICY), ("b.yaml", POOL)]);
    let (mut files, first) = laptop.open();
    let store = store(first.doc);
    let mut take = |pool: &str| {
        laptop.write("b.yaml", pool);
        files.look(&store);
        files.look(&store);
        pool_in_force(&store)
    };
    let rest = "  capacity: { queue: { maxDepth: 7 } }\n  identity: { trustedProxies: [10.0.0.0/8] }\n";
    assert_eq!(take(&format!("{POOL}{rest}")), (4, 7, 1));
    assert_eq!(take(&POOL.replace('4', "2")), (2, 64, 0));
    assert_eq!(take(&POOL.replace('4', "0")), (2, 64, 0), "a bad pool changes nothing");
    assert_eq!(take(&POLICY.replace("fair-use", "more")), (1, 64, 0), "without a pool there is one slot");
}

#[test]
fn a_flag_for_the_slots_wins_over_a_changed_pool() {
    let laptop = Laptop::with(&[("a.yaml", POLICY), ("b.yaml", POOL)]);
    let (mut files, first) = laptop.open_with(Some(3));
    let store = store(first.doc);
    laptop.write("b.yaml", &POOL.replace('4', "8"));
    files.look(&store);
    files.look(&store);
    assert_eq!(pool_in_force(&store).0, 3);
}

#[test]
fn a_bad_file_leaves_the_last_good_plan_until_it_is_good_again() {
    let laptop = Laptop::with(&[("a.yaml", POLICY)]);
    let (mut files, first) = laptop.open();
    let store = store(first.doc);
    for bad in ["", "a: [", &POLICY[..60], "kind: Pod\napiVersion: v1\n"] {
        laptop.write("a.yaml", bad);
        files.look(&store);
        files.look(&store);
        assert_eq!(rate(&store), (1, 60_000), "{bad}");
        assert!(store.view().plan_error.is_some(), "{bad}");
    }
    fs::remove_file(laptop.dir.path().join("a.yaml")).unwrap();
    files.look(&store);
    assert_eq!(rate(&store), (1, 60_000), "a file that is gone");
    laptop.write("a.yaml", &POLICY.replace("60/m", "90/m"));
    files.look(&store);
    files.look(&store);
    assert_eq!((rate(&store), store.view().plan_error), ((2, 90_000), None));
}

#[test]
fn what_is_no_regular_file_is_refused_instead_of_waited_for() {
    let laptop = Laptop::with(&[]);
    let _listener = std::os::unix::net::UnixListener::bind(laptop.dir.path().join("policy.yaml")).unwrap();
    assert!(laptop.error().contains("not a regular file"), "{}", laptop.error());
}

const KEYED_POOL: &str = "\
apiVersion: corral.dev/v1alpha1
kind: OllamaPool
metadata: { name: chat, labels: { size: big } }
spec:
  identity:
    apiKeys: [{ secretName: team-keys }]
";
const SECRET: &str = "\
apiVersion: v1
kind: Secret
metadata: { name: team-keys }
type: Opaque
data: { alice: YWxpY2Uta2V5LTE= }
stringData:
  bob: |
    bob-key-1
    bob-key-2
";

/// The clients of the keys in a plan, and whether a key is one of them.
fn known(doc: &PlanDoc, key: &str) -> (Vec<String>, bool) {
    let plan = corral_limiter::compile(doc).unwrap();
    let keys = doc.identity.api_keys.iter();
    let is_known = plan.client_of(&digester().digest(key.as_bytes())).is_some();
    (keys.map(|key| key.client.clone()).collect(), is_known)
}

#[test]
fn the_secrets_that_the_pool_names_give_its_api_keys() {
    let files = [("a.yaml", POLICY), ("b.yaml", KEYED_POOL), ("c.yaml", SECRET)];
    let (_, standalone) = Laptop::with(&files).open();
    let clients = ["alice", "bob", "bob"].map(str::to_owned).to_vec();
    for key in ["alice-key-1", "bob-key-1", "bob-key-2"] {
        assert_eq!(known(&standalone.doc, key), (clients.clone(), true), "{key}");
    }
    assert!(!known(&standalone.doc, "alice-key-2").1);
    assert_eq!(standalone.doc.identity.digest_key.as_deref(), Some(digester().id()));
}

#[test]
fn a_key_that_is_taken_out_of_the_files_is_known_no_longer() {
    let laptop = Laptop::with(&[("a.yaml", POLICY), ("b.yaml", KEYED_POOL), ("c.yaml", SECRET)]);
    let (mut files, first) = laptop.open();
    let store = store(first.doc);
    laptop.write("c.yaml", &SECRET.replace("    bob-key-1\n", ""));
    files.look(&store);
    files.look(&store);
    let plan = store.core().plan().unwrap();
    let is_known = |key: &str| plan.client_of(&digester().digest(key.as_bytes())).is_some();
    assert_eq!(["alice-key-1", "bob-key-1", "bob-key-2"].map(is_known), [true, false, true]);
}

#[test]
fn what_is_wrong_with_secrets_is_told_by_their_names_and_never_by_their_content() {
    let unnamed = KEYED_POOL.replace("team-keys", "other-keys");
    let tier = KEYED_POOL.replace("team-keys", "team-keys, tier: gold");
    let number = SECRET.replace("|\n    bob-key-1\n    bob-key-2", "12345678");
    for (pool, secret, told) in [
        (KEYED_POOL, "", "line 6: spec.identity.apiKeys[0]: there is no Secret team-keys"),
        (&*unnamed, SECRET, "no OllamaPool in these files names Secret standalone/team-keys"),
        ("", SECRET, "no OllamaPool in these files names Secret standalone/team-keys"),
        (&*tier, SECRET, "no policy of the pool has a tier gold"),
        (KEYED_POOL, &*number, "stringData.bob: is no text"),
        (KEYED_POOL, &*SECRET.replace("YWxp", "Y!xp"), "data.alice: is not base64"),
        (
            KEYED_POOL,
            &*SECRET.replace("    bob-key-2", "    bob key 2"),
            "Secret team-keys, entry bob: an API key has",
        ),
        (
            KEYED_POOL,
            &*SECRET.replace("bob-key-2", "alice-key-1"),
            "entry bob: entry alice has the same API key",
        ),
    ] {
        let files: Vec<_> = [("a.yaml", POLICY), ("b.yaml", pool), ("c.yaml", secret)].into();
        let files: Vec<_> = files.into_iter().filter(|(_, text)| !text.is_empty()).collect();
        let error = Laptop::with(&files).error();
        assert!(error.contains(told), "{told}: {error}");
        for key in ["alice-key", "bob-key", "bob key", "12345678", "YWxp", "Y!xp"] {
            assert!(!error.contains(key), "{error}");
        }
    }
}

#[test]
fn a_policy_may_select_the_pool_by_its_labels() {
    let selecting = |size: &str| {
        let selector = format!("targetSelector: {{ matchLabels: {{ size: {size} }} }}");
        POLICY.replace("targetRefs: [{ kind: OllamaPool, name: chat }]", &selector)
    };
    let keyless = KEYED_POOL.replace("    apiKeys: [{ secretName: team-keys }]\n", "    apiKeys: []\n");
    let (_, standalone) = Laptop::with(&[("a.yaml", &selecting("big")), ("b.yaml", &keyless)]).open();
    assert_eq!(standalone.doc.limits.len(), 1);
    let error = Laptop::with(&[("a.yaml", &selecting("small")), ("b.yaml", &keyless)]).error();
    assert!(error.contains("does not target the pool standalone/chat"), "{error}");
}

/// With other lines in place of the rate of the one limit.
fn limited(lines: &str) -> String {
    POLICY.replace("requests: 60/m", &lines.replace('\n', "\n    "))
}

/// Bad policies, and what is told of each.
fn bad_policies() -> Vec<(String, &'static str)> {
    let tiers = "  tiers: [{ name: free }, { name: pro, scale: \"1000\" }]\n  limits:";
    let with_tiers = |lines: &str| limited(lines).replace("  limits:", tiers);
    let twice = format!("{POLICY}  - name: per-client\n    per: [Global]\n    requests: 1/s\n");
    let selector = POLICY.replace(
        "targetRefs: [{ kind: OllamaPool, name: chat }]",
        "targetSelector: { matchLabels: { a: b } }",
    );
    vec![
        // What can never admit anything.
        (limited("requests: 0/m"), "line 9: spec.limits[0].requests: this is no rate"),
        (
            limited("concurrency: 0"),
            "line 9: spec.limits[0].concurrency: should be greater than or equal to 1",
        ),
        (limited("queued: 0"), "line 9: spec.limits[0].queued: should be greater than or equal to 1"),
        (
            limited("requests: 60/m\nburst: { requests: 0 }"),
            "line 10: spec.limits[0].burst.requests: should be",
        ),
        (limited("mode: Enforce"), "line 7: spec.limits[0]: a limit needs at least one unit"),
        // Names.
        (twice, "line 10: spec.limits[1]: Duplicate value"),
        (
            with_tiers("requests: 60/m\nmatch: { tiers: [gold] }"),
            "spec.limits: match.tiers names tiers of this policy",
        ),
        (
            POLICY.replace("  limits:", "  defaultTier: gold\n  limits:"),
            "line 6: spec.defaultTier: defaultTier is a",
        ),
        // Numbers.
        (limited("requests: 99999999999999999999/s"), "line 9: spec.limits[0].requests: this is no rate"),
        (limited("tokens: 999999999G/s"), "line 9: spec.limits[0].tokens: the rate is above"),
        (
            limited("requests: 60/m\nburst: { requests: 2000000000 }"),
            "line 10: spec.limits[0].burst.requests: ",
        ),
        (
            limited("requests: 60/m\nburst: { requests: 99999999999999999999 }"),
            "line 10: spec.limits[0].burst.requests: ",
        ),
        (limited("concurrency: 99999999999"), "line 9: spec.limits[0].concurrency: "),
        (limited("tokens: 2G/h"), "line 9: spec.limits[0].tokens: its burst would be"),
        (with_tiers("requests: 10M/s"), "spec.limits[0].requests: "),
        (
            limited("requests: 20k/h\nalgorithm: SlidingLog"),
            "spec.limits[0].requests: SlidingLog remembers at most 10000",
        ),
        (with_tiers("requests: 100/h\nalgorithm: SlidingLog"), "spec.limits[0].requests: "),
        (limited("requests: 60/32d"), "line 9: spec.limits[0].requests: the window is longer than 31 days"),
        (limited("requests: 60/9999h"), "line 9: spec.limits[0].requests: the window is longer than 31 days"),
        (
            limited("requests: 60/5m\nalgorithm: FixedWindow"),
            "spec.limits[0].requests: FixedWindow counts minutes",
        ),
        // What is nowhere.
        (selector, "policy standalone/fair-use does not target the pool standalone/chat"),
        (
            POLICY.replace("[Client]", "[\"Header:x-team\"]"),
            "line 8: spec.limits[0].per[0]: the pool does not trust",
        ),
    ]
}

#[test]
fn bad_input_is_told_by_its_field_and_line_and_the_plan_before_stays() {
    let mut missed = Vec::new();
    for (policy, told) in bad_policies() {
        let laptop = Laptop::with(&[("a.yaml", POLICY), ("b.yaml", POOL)]);
        let (mut files, first) = laptop.open();
        let store = store(first.doc);
        laptop.write("a.yaml", &policy);
        files.look(&store);
        files.look(&store);
        let error = store.view().plan_error.unwrap_or_default();
        let at_start = laptop.error();
        if !error.contains(told) || !at_start.contains(told) || rate(&store) != (1, 60_000) {
            missed.push(format!("{told}\n  later: {error}\n  at the start: {at_start}"));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}
