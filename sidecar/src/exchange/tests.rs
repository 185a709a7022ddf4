use std::fs;

use corral_wire::exchange::MAX_REPORT_BYTES;
use corral_wire::{IdentityDoc, PlanDoc, QueueDoc};
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
    Directive { pool: pool("chat"), plan, divisor: 3, serve: ServePermission::Granted, relief: false }
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
