use std::fs;

use corral_limiter::queue::{Runner, WaiterId, Wish};
use corral_wire::{IdentityDoc, OffGpu, PlanDoc, QueueDoc};
use serde_json::json;

use super::*;
use crate::plan::core_for_tests;

const UID: &str = "6f1c0c6e-8a54-4c0d-9b57-5f3a3f4d2b1a";

struct Pod {
    exchange: Exchange,
    keys_dir: tempfile::TempDir,
}

fn pool(name: &str) -> PoolRef {
    PoolRef { namespace: "llm".into(), name: name.into() }
}

fn key(byte: u8) -> PoolKeys {
    PoolKeys::new(vec![vec![byte; 32]]).unwrap()
}

fn at(term: u64, sequence: u64) -> Position {
    Position { term, sequence }
}

impl Pod {
    fn new() -> Self {
        let store = Arc::new(PlanStore::open(core_for_tests(), pool("chat"), None));
        let keys_dir = tempfile::tempdir().unwrap();
        fs::write(keys_dir.path().join("1"), [1; 32]).unwrap();
        let exchange = Exchange::new(keys_dir.path().into(), UID.into(), store, 77);
        Self { exchange, keys_dir }
    }

    fn send(&self, signed: &Signed) -> Reply {
        self.exchange.answer(&serde_json::to_vec(signed).unwrap())
    }

    fn tell(&self, at: Position, directive: &Directive) -> (StatusCode, Report, Position) {
        match self.send(&key(1).sign(UID, at, directive).unwrap()) {
            Reply::Report(status, signed) => {
                (status, key(1).open(UID, Some(at), &signed).unwrap(), signed.position)
            }
            Reply::Refusal(status, why) => panic!("{status} {why}"),
        }
    }

    fn refusal(&self, signed: &Signed) -> StatusCode {
        match self.send(signed) {
            Reply::Refusal(status, _) => status,
            Reply::Report(status, _) => panic!("{status}"),
        }
    }
}

fn directive(plan: Option<PlanDoc>) -> Directive {
    Directive {
        pool: pool("chat"),
        plan,
        divisor: 3,
        serve: ServePermission::Granted,
        relief: false,
        retire: false,
    }
}

fn plan(sequence: u64) -> PlanDoc {
    PlanDoc {
        version: 1,
        pool: pool("chat"),
        sequence,
        identity: IdentityDoc::default(),
        queue: QueueDoc { max_depth: 4, max_wait_ms: 1000, ..QueueDoc::default() },
        limits: vec![],
        ..PlanDoc::default()
    }
}

#[test]
fn a_directive_is_obeyed_and_acknowledged() {
    let pod = Pod::new();
    let (status, report, position) = pod.tell(at(1, 1), &directive(Some(plan(5))));
    assert_eq!((status, position), (StatusCode::OK, at(1, 1)));
    assert_eq!(report.plan, Some(PlanState { sequence: 5, digest: plan(5).digest() }));
    assert_eq!((report.divisor, report.serve), (3, ServePermission::Granted));
    assert_eq!((report.ready, report.reason.as_str(), report.able_to_serve), (false, "Starting", false));
    assert_eq!((report.epoch, report.plan_versions.as_slice()), (77, &[1][..]));
}

#[test]
fn a_frozen_leader_hears_how_high_it_would_have_to_jump() {
    let pod = Pod::new();
    pod.tell(at(5, 9), &directive(Some(plan(5))));
    for low in [at(5, 9), at(4, 1000)] {
        let late = Directive { divisor: 1, ..directive(Some(plan(6))) };
        let (status, report, position) = pod.tell(low, &late);
        assert_eq!((status, position), (StatusCode::CONFLICT, at(5, 9)));
        assert_eq!((report.divisor, report.plan.unwrap().sequence), (3, 5));
    }
}

#[test]
fn only_the_own_pools_leader_is_heard() {
    let pod = Pod::new();
    let good = directive(None);
    let forged = key(9).sign(UID, at(1, 1), &good).unwrap();
    assert_eq!(pod.refusal(&forged), StatusCode::UNAUTHORIZED);
    let other_pod = key(1).sign("another-uid", at(1, 1), &good).unwrap();
    assert_eq!(pod.refusal(&other_pod), StatusCode::MISDIRECTED_REQUEST);
    let other_pool = Directive { pool: pool("code"), ..good.clone() };
    assert_eq!(
        pod.refusal(&key(1).sign(UID, at(1, 1), &other_pool).unwrap()),
        StatusCode::MISDIRECTED_REQUEST
    );
    let nobody = Directive { divisor: 0, ..good };
    assert_eq!(pod.refusal(&key(1).sign(UID, at(1, 1), &nobody).unwrap()), StatusCode::BAD_REQUEST);
    assert!(matches!(pod.exchange.answer(b"{}"), Reply::Refusal(StatusCode::BAD_REQUEST, _)));
    let huge = vec![b' '; MAX_DIRECTIVE_BYTES + 1];
    assert!(matches!(pod.exchange.answer(&huge), Reply::Refusal(StatusCode::PAYLOAD_TOO_LARGE, _)));
    assert_eq!(pod.exchange.store.view().obeyed, Position::default());
}

#[test]
fn a_rotated_key_counts_at_once() {
    let pod = Pod::new();
    let with_new = |sequence| key(2).sign(UID, at(1, sequence), &directive(None)).unwrap();
    assert_eq!(pod.refusal(&with_new(1)), StatusCode::UNAUTHORIZED);
    fs::write(pod.keys_dir.path().join("2"), [2; 32]).unwrap();
    assert!(matches!(pod.send(&with_new(2)), Reply::Report(StatusCode::OK, _)));
    fs::remove_file(pod.keys_dir.path().join("1")).unwrap();
    assert_eq!(pod.refusal(&key(1).sign(UID, at(1, 3), &directive(None)).unwrap()), StatusCode::UNAUTHORIZED);
    fs::remove_file(pod.keys_dir.path().join("2")).unwrap();
    assert_eq!(pod.refusal(&with_new(4)), StatusCode::SERVICE_UNAVAILABLE);
}

/// A directive as a newer operator may write it.
#[derive(serde::Serialize)]
#[serde(transparent)]
struct Newer(Value);

impl Purpose for Newer {
    const DOMAIN: &'static str = Directive::DOMAIN;
}

#[test]
fn a_newer_operator_is_obeyed_as_far_as_this_build_understands() {
    let pod = Pod::new();
    pod.tell(at(1, 1), &directive(Some(plan(5))));
    let newer = Newer(json!({
        "pool": pool("chat"), "divisor": 7, "serve": "Granted", "moonPhase": "full",
        "plan": {"version": 2, "sequence": 6, "anything": []},
    }));
    let Reply::Report(StatusCode::OK, signed) = pod.send(&key(1).sign(UID, at(1, 2), &newer).unwrap()) else {
        panic!("refused")
    };
    let report: Report = key(1).open(UID, Some(at(1, 2)), &signed).unwrap();
    assert_eq!((report.divisor, report.plan.unwrap().sequence), (7, 5));
    assert!(report.plan_error.unwrap().contains("version 2"));
}

#[test]
fn no_report_is_longer_than_a_leader_reads() {
    let pod = Pod::new();
    let core = pod.exchange.store.core();
    load_models(core, 20);
    core.health.set_off_gpu(vec![OffGpu { model: "\u{1}".repeat(128), gpu_percent: 99 }; 4]);
    let name = "\"".repeat(5000) + "\u{1}\u{2}";
    let worst = Newer(json!({
        "pool": pool("chat"), "divisor": 4_294_967_295u32, "serve": "Granted", "plan": {"version": 1, name: 1},
    }));
    let last = at(u64::MAX, u64::MAX);
    let Reply::Report(_, signed) = pod.send(&key(1).sign(UID, last, &worst).unwrap()) else { panic!() };
    let report: Report = key(1).open(UID, Some(last), &signed).unwrap();
    assert!(report.plan_error.is_some_and(|why| why.len() == 512));
    let length = serde_json::to_vec(&signed).unwrap().len();
    assert!(length <= MAX_REPORT_BYTES, "{length}");
}

fn ordered(retire: bool) -> Directive {
    Directive { retire, ..directive(None) }
}

#[test]
fn an_order_to_retire_is_obeyed_in_the_answer_to_it_and_so_is_its_end() {
    let pod = Pod::new();
    let core = pod.exchange.store.core();
    core.health.upstream_answered();
    pod.tell(at(1, 1), &directive(Some(plan(5))));
    for (sequence, retire) in (2..).zip([true, true, false, true, false]) {
        let (_, report, _) = pod.tell(at(1, sequence), &ordered(retire));
        assert_eq!((report.retiring, report.ready), (retire, !retire));
        assert_eq!(report.reason, if retire { "Retiring" } else { "" });
        assert_eq!((report.able_to_serve, report.serve), (true, ServePermission::Granted));
        let (status, late, _) = pod.tell(at(1, 1), &ordered(!retire));
        assert_eq!((status, late.retiring), (StatusCode::CONFLICT, retire), "a frozen leader orders nothing");
    }
}

#[test]
fn an_older_operator_that_knows_of_no_such_order_gives_none_and_ends_one() {
    let pod = Pod::new();
    pod.exchange.store.core().health.upstream_answered();
    pod.tell(at(1, 1), &directive(Some(plan(5))));
    assert!(pod.tell(at(1, 2), &ordered(true)).1.retiring);
    let older = Newer(json!({ "pool": pool("chat"), "divisor": 3, "serve": "Granted" }));
    let Reply::Report(StatusCode::OK, signed) = pod.send(&key(1).sign(UID, at(1, 3), &older).unwrap()) else {
        panic!("refused")
    };
    let report: Report = key(1).open(UID, Some(at(1, 3)), &signed).unwrap();
    assert!(report.ready && !report.retiring);
}

/// Has so many models loaded, each with as long a name as Ollama takes.
fn load_models(core: &Core, models: usize) {
    core.fit_models(|_| u32::MAX);
    for number in 0..models {
        let name = format!("{0}{number:02}.example/{0}/{0}:{0}", "x".repeat(78));
        let runner = Runner::of(&ModelName::parse(&name).unwrap());
        let id = WaiterId(number as u64);
        core.lock().queue.arrive(id, Wish::slot(&runner), core.clock().now()).unwrap();
        core.loaded(&runner);
    }
}

#[test]
fn at_most_eight_loaded_models_are_named_each_cut_and_in_order() {
    let pod = Pod::new();
    let tell = |sequence| pod.tell(at(1, sequence), &directive(None)).1.models;
    assert_eq!(tell(1), Vec::<String>::new());
    load_models(pod.exchange.store.core(), 20);
    let named = tell(2);
    assert_eq!(named.len(), MAX_MODELS);
    assert!(named.iter().all(|name| name.len() == MAX_MODEL_BYTES), "{named:?}");
    assert!(named.is_sorted() && named[7].starts_with(&format!("{}07.example/", "x".repeat(78))));
}

#[test]
fn models_make_way_in_a_report_for_what_is_worth_more() {
    let pod = Pod::new();
    let core = pod.exchange.store.core();
    load_models(core, 20);
    for (odd, models, off_gpu) in [("a", 8, 4), ("\"", 8, 4), ("\u{1}", 0, 3)] {
        let off = OffGpu { model: odd.repeat(128), gpu_percent: 99 };
        core.health.set_off_gpu(vec![off; 9]);
        let last = at(u64::MAX, u64::MAX);
        let directive = directive(None);
        let Reply::Report(_, signed) = pod.send(&key(1).sign(UID, last, &directive).unwrap()) else {
            panic!()
        };
        let report: Report = key(1).open(UID, Some(last), &signed).unwrap();
        let length = serde_json::to_vec(&signed).unwrap().len();
        assert!(length <= MAX_REPORT_BYTES, "{length}");
        assert_eq!((report.models.len(), report.off_gpu.len()), (models, off_gpu), "{odd:?} {length}");
    }
}
