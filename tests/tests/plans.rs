//! Where a plan comes from and how it stays: files that change, files that are bad, a leader that speaks, a restart.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::path::Path;
use std::time::Duration;

use corral_tests::client::{Answer, Client};
use corral_tests::ollama::{ScriptedOllama, Settings};
use corral_tests::pod::{Pod, plan};
use corral_tests::scratch::Scratch;
use corral_tests::sidecar::{PolicyFile, Sidecar};
use corral_wire::{Position, ServePermission};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

const TAKEN_WITHIN: Duration = Duration::from_secs(2);
const TIGHT: &str = "{ name: one, per: [Client], requests: 1/h, burst: { requests: 1 } }";
const WIDE: &str = "{ name: one, per: [Client], requests: 1000/s, burst: { requests: 1000 } }";

fn generate() -> Value {
    json!({ "model": "tiny", "prompt": "hi", "stream": false, "options": { "num_predict": 1 } })
}

async fn ask(client: &Client) -> Answer {
    client.post("/api/generate", &generate()).await.unwrap()
}

async fn many(client: &Client, count: usize) -> usize {
    let mut admitted = 0;
    for _ in 0..count {
        admitted += usize::from(ask(client).await.status == StatusCode::OK);
    }
    admitted
}

async fn ollama() -> ScriptedOllama {
    ScriptedOllama::start(Settings { num_parallel: 4, max_queue: 512, ..Settings::default() }).await.unwrap()
}

#[tokio::test]
async fn a_changed_file_is_taken_within_two_seconds() {
    let ollama = ollama().await;
    let sidecar = Sidecar::start(&ollama, &PolicyFile::limits(&[TIGHT])).await.unwrap();
    let client = sidecar.client();
    assert_eq!(many(&client, 3).await, 1);
    sidecar.rewrite(&PolicyFile::limits(&[WIDE])).unwrap();
    let changed = Instant::now();
    while ask(&client).await.status != StatusCode::OK {
        assert!(Instant::now() - changed < TAKEN_WITHIN);
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(many(&client, 20).await, 20);
    sidecar.rewrite(&PolicyFile::limits(&[TIGHT])).unwrap();
    let changed = Instant::now();
    while ask(&client).await.status != StatusCode::TOO_MANY_REQUESTS {
        assert!(Instant::now() - changed < TAKEN_WITHIN);
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_bad_file_leaves_the_last_good_plan() {
    let ollama = ollama().await;
    let sidecar = Sidecar::start(&ollama, &PolicyFile::limits(&[TIGHT])).await.unwrap();
    let client = sidecar.client();
    assert_eq!(many(&client, 2).await, 1);
    for bad in ["", "{", "kind: RateLimitPolicy", "a: [", "\u{0}"] {
        sidecar.rewrite_text(bad).unwrap();
        sleep(Duration::from_millis(700)).await;
        assert_eq!(ask(&client).await.status, StatusCode::TOO_MANY_REQUESTS, "{bad:?}");
    }
    let zero = PolicyFile::limits(&["{ name: one, per: [Client], requests: 0/h }"]);
    sidecar.rewrite(&zero).unwrap();
    sleep(Duration::from_millis(700)).await;
    assert_eq!(ask(&client).await.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(sidecar.metrics().await.unwrap().contains("corral_plan_errors_total"));
    sidecar.rewrite(&PolicyFile::limits(&[WIDE])).unwrap();
    let changed = Instant::now();
    while ask(&client).await.status != StatusCode::OK {
        assert!(Instant::now() - changed < TAKEN_WITHIN);
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_bad_file_at_the_start_is_an_error_and_opens_nothing() {
    let ollama = ollama().await;
    let scratch = Scratch::new().unwrap();
    let file = scratch.write("policy.yaml", "kind: Nonsense").unwrap();
    let error = Sidecar::with_file(&ollama, &file).await.err().unwrap();
    assert!(format!("{error:#}").contains("policy.yaml"), "{error:#}");
    assert_eq!(ollama.record().inferences().len(), 0);
}

fn at(term: u64, sequence: u64) -> Position {
    Position { term, sequence }
}

#[tokio::test]
async fn a_newcomer_serves_when_its_leader_says_so() {
    let ollama = ollama().await;
    let pod = Pod::start(&ollama, Path::new("")).await.unwrap();
    pod.readyz(StatusCode::SERVICE_UNAVAILABLE).await.unwrap();
    assert_eq!(ask(&pod.client()).await.status, StatusCode::SERVICE_UNAVAILABLE, "no plan, no service");
    let report = pod.tell(at(1, 1), Some(plan(1, 5)), 1, ServePermission::Wait).await.unwrap();
    assert_eq!(report.plan.unwrap().sequence, 1);
    assert!(report.able_to_serve && !report.ready);
    pod.readyz(StatusCode::SERVICE_UNAVAILABLE).await.unwrap();
    let report = pod.tell(at(1, 2), None, 1, ServePermission::Granted).await.unwrap();
    assert!(report.ready && report.serve == ServePermission::Granted);
    pod.readyz(StatusCode::OK).await.unwrap();
    assert_eq!(many(&pod.client(), 8).await, 5);
}

#[tokio::test]
async fn a_plan_of_the_leader_holds_at_once_and_d_divides_it() {
    let ollama = ollama().await;
    let pod = Pod::serving(&ollama, plan(1, 12)).await.unwrap();
    assert_eq!(many(&pod.client(), 2).await, 2);
    let report = pod.tell(at(1, 3), Some(plan(2, 4)), 1, ServePermission::Granted).await.unwrap();
    assert_eq!(report.plan.unwrap().sequence, 2);
    assert_eq!(many(&pod.client(), 8).await, 2, "two of the four were used before the change");
    let other = Pod::serving(&ollama, plan(1, 12)).await.unwrap();
    let report = other.tell(at(1, 3), None, 4, ServePermission::Granted).await.unwrap();
    assert_eq!(report.divisor, 4);
    assert_eq!(many(&other.client(), 20).await, 3);
}

#[tokio::test]
async fn only_a_genuine_and_higher_directive_is_obeyed() {
    let ollama = ollama().await;
    let pod = Pod::serving(&ollama, plan(1, 3)).await.unwrap();
    pod.tell(at(5, 1), None, 1, ServePermission::Granted).await.unwrap();
    for position in [at(4, 99), at(5, 1), at(1, 3)] {
        let answer = pod.send(&pod.sign(position, Some(plan(9, 1000)), 1)).await.unwrap();
        assert_eq!(answer.status, StatusCode::CONFLICT, "{position:?}");
        let (shown, report) = pod.open(position, &answer).unwrap();
        assert_eq!(shown, at(5, 1), "it says above what to jump");
        assert_eq!(report.plan.unwrap().sequence, 1);
    }
    let mut forged = pod.sign(at(9, 1), Some(plan(9, 1000)), 1);
    forged.mac = forged.mac.replace('0', "1");
    assert_eq!(pod.send(&forged).await.unwrap().status, StatusCode::UNAUTHORIZED);
    let mut moved = pod.sign(at(5, 2), Some(plan(9, 1000)), 1);
    moved.position = at(9, 1);
    assert_eq!(pod.send(&moved).await.unwrap().status, StatusCode::UNAUTHORIZED);
    let other = pod.sign_for("another-pod", at(9, 1), Some(plan(9, 1000)), 1);
    assert_eq!(pod.send(&other).await.unwrap().status, StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(pod.admin().post("/exchange", &json!({})).await.unwrap().status, StatusCode::BAD_REQUEST);
    assert_eq!(many(&pod.client(), 8).await, 3);
}

#[tokio::test]
async fn a_restart_keeps_plan_divisor_permission_and_place() {
    let ollama = ollama().await;
    let pod = Pod::serving(&ollama, plan(7, 12)).await.unwrap();
    pod.tell(at(3, 8), None, 2, ServePermission::Granted).await.unwrap();
    let state = pod.state_dir().to_owned();
    let kept = pod.stop().await.unwrap();
    let again = Pod::start(&ollama, &state).await.unwrap();
    again.readyz(StatusCode::OK).await.unwrap();
    assert_eq!(many(&again.client(), 20).await, 6);
    let behind = again.send(&again.sign(at(3, 7), Some(plan(9, 1000)), 1)).await.unwrap();
    assert_eq!(behind.status, StatusCode::CONFLICT);
    let (shown, report) = again.open(at(3, 7), &behind).unwrap();
    assert_eq!((shown, report.divisor, report.plan.unwrap().sequence), (at(3, 8), 2, 7));
    drop(kept);
}

#[tokio::test]
async fn a_plan_that_cannot_be_taken_is_told_and_the_last_good_one_stays() {
    let ollama = ollama().await;
    let pod = Pod::serving(&ollama, plan(1, 3)).await.unwrap();
    let mut bad = plan(2, 1000);
    bad.limits[0].requests.as_mut().unwrap().burst = 0;
    let report = pod.tell(at(1, 3), Some(bad), 1, ServePermission::Granted).await.unwrap();
    assert_eq!(report.plan.unwrap().sequence, 1);
    let told = report.plan_error.unwrap();
    assert!(told.contains("burst") && told.len() <= 512, "{told}");
    assert_eq!(many(&pod.client(), 8).await, 3);
}

#[tokio::test]
async fn the_mounted_plan_is_enough_when_nobody_speaks() {
    let ollama = ollama().await;
    let pod = Pod::start(&ollama, Path::new("")).await.unwrap();
    pod.mount(&plan(1, 4), 2).unwrap();
    pod.readyz(StatusCode::OK).await.unwrap();
    assert_eq!(many(&pod.client(), 8).await, 2);
}
