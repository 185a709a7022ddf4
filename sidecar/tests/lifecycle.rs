//! A sidecar from its start to its end, in process, in front of a scripted Ollama.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "what helps tests may panic as tests may")]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use corral_sidecar::config::{PodSettings, Policies, Settings};
use corral_sidecar::run::{Running, start};
use corral_wire::{
    Directive, IdentityDoc, LimitDoc, Mode, PlanDoc, PoolKeys, PoolRef, Position, QueueDoc, RateDoc, Report,
    Scope, ServePermission, Signed,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(10);
const UID: &str = "uid-a";

/// An Ollama that answers each request after `thinks`, on a connection that it then closes.
async fn ollama(thinks: Duration) -> (SocketAddr, AbortHandle) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (address, tokio::spawn(listen(listener, thinks)).abort_handle())
}

async fn listen(listener: TcpListener, thinks: Duration) {
    let mut answers = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        answers.spawn(answer(stream, thinks));
    }
}

async fn answer(mut stream: TcpStream, thinks: Duration) {
    let mut head = [0; 4096];
    let read = stream.read(&mut head).await.unwrap_or(0);
    let version = head[..read].starts_with(b"GET /api/version");
    if !version {
        sleep(thinks).await;
    }
    let body = "{\"model\":\"tiny\",\"response\":\"hi\",\"done\":true,\"done_reason\":\"stop\"}\n";
    let length = body.len();
    let text = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    let _ = stream.write_all(text.as_bytes()).await;
}

async fn send(address: SocketAddr, request: String) -> (u16, String) {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        (answer[9..12].parse().unwrap(), answer)
    };
    timeout(PATIENCE, exchange).await.unwrap()
}

async fn generate(running: SocketAddr) -> u16 {
    send(running, post("/api/generate", r#"{"model":"tiny","prompt":"hello","stream":false}"#)).await.0
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

async fn readyz(running: &Running) -> (u16, String) {
    let request = "GET /readyz HTTP/1.1\r\nhost: pod\r\nconnection: close\r\n\r\n";
    let (status, answer) = send(running.admin_address(), request.to_owned()).await;
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

async fn until_readyz(running: &Running, says: &str) {
    let comes = async {
        while readyz(running).await.1 != says {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, comes).await.unwrap();
}

fn pool() -> PoolRef {
    PoolRef { namespace: "llm".into(), name: "chat".into() }
}

fn keys() -> PoolKeys {
    PoolKeys::new(vec![vec![1; 32]]).unwrap()
}

fn settings(dir: &Path, upstream: SocketAddr) -> Settings {
    fs::create_dir_all(dir.join("keys")).unwrap();
    fs::write(dir.join("keys/1"), [1; 32]).unwrap();
    let pod = PodSettings {
        pool: pool(),
        pod_uid: UID.into(),
        pod_name: "chat-0".into(),
        plan_file: dir.join("plan/plan.v1.json"),
        keys_dir: dir.join("keys"),
        state_dir: dir.join("state"),
        serve_without_directive: Duration::from_mins(1),
        retire_lease: Duration::from_secs(10),
    };
    let mut settings = Settings::pod(pod, upstream);
    settings.health.probe_interval = Duration::from_millis(40);
    settings
}

/// `burst` requests an hour, whoever asks.
fn plan(sequence: u64, burst: u64) -> PlanDoc {
    let limit = LimitDoc {
        policy: "llm/fair-use".into(),
        name: "all".into(),
        mode: Mode::Enforce,
        endpoints: vec![],
        models: vec![],
        per: vec![corral_wire::KeyPart::Global],
        scope: Scope::Pool,
        requests: Some(RateDoc { count_milli: 1000, window_seconds: 3600, burst }),
        concurrency: None,
        ..LimitDoc::default()
    };
    PlanDoc {
        version: 1,
        pool: pool(),
        sequence,
        identity: IdentityDoc::default(),
        queue: QueueDoc { max_depth: 4, max_wait_ms: 1000, ..QueueDoc::default() },
        limits: vec![limit],
        ..PlanDoc::default()
    }
}

async fn direct(running: &Running, sequence: u64, plan: Option<PlanDoc>, serve: ServePermission) -> Report {
    let at = Position { term: 1, sequence };
    let directive = Directive { pool: pool(), plan, divisor: 1, serve, relief: false, retire: false };
    let body = serde_json::to_string(&keys().sign(UID, at, &directive).unwrap()).unwrap();
    let (status, answer) = send(running.admin_address(), post("/exchange", &body)).await;
    assert_eq!(status, 200, "{answer}");
    let signed: Signed = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    keys().open(UID, Some(at), &signed).unwrap()
}

#[tokio::test]
async fn a_newcomer_serves_when_its_leader_says_so_and_a_restarted_one_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (upstream, _ollama) = ollama(Duration::ZERO).await;
    let pod = start(settings(dir.path(), upstream)).await.unwrap();
    until_readyz(&pod, "NoPlan").await;
    assert_eq!(generate(pod.client_address()).await, 503);
    let report = direct(&pod, 1, Some(plan(1, 2)), ServePermission::Wait).await;
    assert!(report.able_to_serve && !report.ready && report.reason == "WaitingToServe");
    assert_eq!(generate(pod.client_address()).await, 503, "not yet counted");
    assert!(direct(&pod, 2, None, ServePermission::Granted).await.ready);
    let answers = [
        generate(pod.client_address()).await,
        generate(pod.client_address()).await,
        generate(pod.client_address()).await,
    ];
    assert_eq!(answers, [200, 200, 429]);
    pod.stop().await.unwrap();

    let pod = start(settings(dir.path(), upstream)).await.unwrap();
    until_readyz(&pod, "ok").await;
    assert_eq!(pod.core().plan().unwrap().sequence(), 1);
    assert_eq!(generate(pod.client_address()).await, 200, "a restart costs one share's burst");
    pod.stop().await.unwrap();
}

#[tokio::test]
async fn a_newcomer_that_nobody_directs_serves_the_mounted_plan() {
    let dir = tempfile::tempdir().unwrap();
    let (upstream, _ollama) = ollama(Duration::ZERO).await;
    let mut settings = settings(dir.path(), upstream);
    let corral_sidecar::config::Mode::Pod(pod) = &mut settings.mode else { unreachable!() };
    pod.serve_without_directive = Duration::from_millis(300);
    fs::create_dir(dir.path().join("plan")).unwrap();
    fs::write(dir.path().join("plan/divisor"), "2").unwrap();
    fs::write(dir.path().join("plan/plan.v1.json"), serde_json::to_vec(&plan(3, 4)).unwrap()).unwrap();
    let pod = start(settings).await.unwrap();
    until_readyz(&pod, "WaitingToServe").await;
    until_readyz(&pod, "ok").await;
    assert_eq!(pod.core().divisor().get(), 2);
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(generate(pod.client_address()).await);
    }
    assert_eq!(answers, [200, 200, 429], "its share of a burst of 4");
    pod.stop().await.unwrap();
}

#[tokio::test]
async fn ollama_that_dies_closes_the_sidecar_until_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let (upstream, listening) = ollama(Duration::ZERO).await;
    let pod = start(settings(dir.path(), upstream)).await.unwrap();
    direct(&pod, 1, Some(plan(1, 50)), ServePermission::Granted).await;
    until_readyz(&pod, "ok").await;
    listening.abort();
    until_readyz(&pod, "OllamaDown").await;
    assert_eq!(generate(pod.client_address()).await, 503);
    let listener = TcpListener::bind(upstream).await.unwrap();
    tokio::spawn(listen(listener, Duration::ZERO));
    until_readyz(&pod, "ok").await;
    assert_eq!(generate(pod.client_address()).await, 200);
    pod.stop().await.unwrap();
}

const POLICY: &str = "\
apiVersion: corral.dev/v1alpha1
kind: RateLimitPolicy
metadata: { name: fair-use }
spec:
  targetRefs: [{ kind: OllamaPool, name: chat }]
  limits:
  - name: all
    per: [Global]
    requests: 1/h
";

fn standalone(policy: PathBuf, upstream: SocketAddr) -> Settings {
    Settings::standalone(Policies::Files(vec![policy]), upstream)
}

#[tokio::test]
async fn a_changed_policy_file_is_enforced_within_two_seconds_and_a_bad_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("policy.yaml");
    fs::write(&file, POLICY).unwrap();
    let (upstream, _ollama) = ollama(Duration::ZERO).await;
    let laptop = start(standalone(file.clone(), upstream)).await.unwrap();
    laptop.ready().await;
    let address = laptop.client_address();
    assert_eq!((generate(address).await, generate(address).await), (200, 429));
    fs::write(&file, "limits: none\n").unwrap();
    sleep(Duration::from_millis(1200)).await;
    assert_eq!(generate(address).await, 429);
    fs::write(&file, POLICY.replace("requests: 1/h", "requests: 3600/h")).unwrap();
    let changed = Instant::now();
    while generate(address).await != 200 {
        let waited = Instant::now().duration_since(changed);
        assert!(waited < Duration::from_secs(2), "{waited:?}");
        sleep(Duration::from_millis(20)).await;
    }
    laptop.stop().await.unwrap();
}

#[tokio::test]
async fn a_drain_lets_running_requests_end_and_refuses_new_ones_after_its_delay() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("policy.yaml");
    fs::write(&file, POLICY.replace("1/h", "600/h")).unwrap();
    let (upstream, _ollama) = ollama(Duration::from_millis(800)).await;
    let mut settings = standalone(file, upstream);
    settings.drain.delay = Duration::from_millis(200);
    let laptop = start(settings).await.unwrap();
    laptop.ready().await;
    let address = laptop.client_address();
    let running = tokio::spawn(generate(address));
    while laptop.core().gauges().in_flight == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    laptop.core().health.begin_drain();
    assert_eq!(readyz(&laptop).await.0, 200, "a pod that terminates stays ready");
    sleep(Duration::from_millis(300)).await;
    assert_eq!(generate(address).await, 503);
    assert_eq!(readyz(&laptop).await.0, 200);
    laptop.stop().await.unwrap();
    assert_eq!(running.await.unwrap(), 200);
}
