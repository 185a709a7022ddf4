//! A pod that is chosen to go leaves its Service at once, loses nothing that it has or that still comes, and is back at once
//! when it is let go.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use corral_sidecar::config::Mode;
use corral_tests::client::{Client, Connection, Reply};
use corral_tests::ollama::{Pace, ScriptedOllama, Settings};
use corral_tests::pod::{Pod, plan};
use corral_wire::{PlanDoc, Position, QueueDoc, Report, ServePermission};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// As in a cluster: too long for anything here to wait for.
const LONG: Duration = Duration::from_secs(10);

fn ask(tokens: u32) -> Value {
    json!({ "model": "tiny", "prompt": "hi", "stream": true, "options": { "num_predict": tokens } })
}

/// A pod with one slot, its Ollama, and its leader.
struct Scene {
    ollama: ScriptedOllama,
    pod: Pod,
    said: AtomicU64,
}

impl Scene {
    async fn start(lease: Duration) -> Self {
        let pace = Pace { token: Duration::from_millis(20), ..Pace::default() };
        let settings = Settings { max_queue: 512, pace, ..Settings::default() };
        let ollama = ScriptedOllama::start(settings).await.unwrap();
        let change = |settings: &mut corral_sidecar::config::Settings| {
            settings.drain.delay = Duration::from_millis(300);
            if let Mode::Pod(pod) = &mut settings.mode {
                pod.retire_lease = lease;
            }
        };
        let pod = Pod::start_with(&ollama, Path::new(""), change).await.unwrap();
        let queue = QueueDoc { max_depth: 20, max_wait_ms: 60_000, ..QueueDoc::default() };
        let open = PlanDoc { queue, limits: Vec::new(), ..plan(1, 1) };
        let first = Position { term: 1, sequence: 1 };
        pod.tell(first, Some(open), 1, ServePermission::Granted).await.unwrap();
        pod.readyz(StatusCode::OK).await.unwrap();
        Self { ollama, pod, said: AtomicU64::new(1) }
    }

    /// Orders it to retire, or lets it go.
    async fn order(&self, retire: bool) -> Report {
        let sequence = self.said.fetch_add(1, Ordering::Relaxed) + 1;
        self.pod.order_to_retire(Position { term: 1, sequence }, retire).await.unwrap()
    }

    async fn readyz(&self) -> (u16, String) {
        let answer = self.pod.admin().get("/readyz").await.unwrap();
        (answer.status.as_u16(), answer.text())
    }
}

/// A stream that runs.
async fn running(client: &Client, tokens: u32) -> Reply {
    let mut running = client.stream("/api/generate", &ask(tokens)).await.unwrap();
    assert!(running.chunk().await.unwrap().is_some());
    running
}

async fn generate(connection: &mut Connection) -> (u16, String) {
    let answer = connection.send(Method::POST, "/api/generate", &ask(1).to_string()).await.unwrap();
    (answer.status.as_u16(), answer.header("connection").to_owned())
}

fn retiring() -> (u16, String) {
    (503, "Retiring".to_owned())
}

#[tokio::test]
async fn it_leaves_at_once_and_whatever_it_has_or_still_comes_is_served_to_its_end() {
    let scene = Scene::start(LONG).await;
    let client = scene.pod.client();
    let (mut kept, mut idle) = (client.connect().await.unwrap(), client.connect().await.unwrap());
    assert_eq!(generate(&mut kept).await, (200, String::new()));
    let mut running = running(&client, 100).await;
    let waiting: Vec<_> = (0..5)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.post("/api/generate", &ask(2)).await.unwrap() })
        })
        .collect();
    while scene.order(false).await.gauges.queued < 5 {
        sleep(Duration::from_millis(5)).await;
    }

    let report = scene.order(true).await;
    assert_eq!((report.retiring, report.ready, report.reason.as_str()), (true, false, "Retiring"));
    assert_eq!((report.gauges.in_flight, report.gauges.queued, report.draining), (1, 5, false));
    assert_eq!(scene.readyz().await, retiring());

    let on_open_connections = async { (generate(&mut kept).await, generate(&mut idle).await) };
    let ((first, second), new) =
        tokio::join!(on_open_connections, async { client.post("/api/generate", &ask(1)).await.unwrap() });
    let closes = (200, "close".to_owned());
    assert_eq!((first, second), (closes.clone(), closes), "on connections that were open");
    assert_eq!((new.status.as_u16(), new.header("connection")), (200, "close"), "and on a new one");
    let metadata = client.get("/api/version").await.unwrap();
    assert_eq!((metadata.status.as_u16(), metadata.header("connection")), (200, "close"));
    assert!(running.rest().await.1, "what ran goes on to its end");
    for waiter in waiting {
        assert_eq!(waiter.await.unwrap().status, StatusCode::OK, "and what waited is served");
    }

    let rest = scene.order(true).await;
    assert_eq!((rest.gauges.in_flight, rest.gauges.queued), (0, 0));
    assert_eq!((rest.counters.arrivals, rest.counters.completions), (10, 10));
    assert_eq!((rest.counters.capacity_rejects, rest.counters.policy_rejects), (0, 0));
    assert_eq!(rest.models, ["tiny:latest"]);
    assert_eq!(scene.ollama.record().inferences().len(), 10);
}

#[tokio::test]
async fn it_is_back_at_once_when_it_is_let_go() {
    let scene = Scene::start(LONG).await;
    for _ in 0..3 {
        assert!(scene.order(true).await.retiring);
        assert_eq!(scene.readyz().await, retiring());
        let report = scene.order(false).await;
        assert_eq!((report.retiring, report.ready, report.reason.as_str()), (false, true, ""));
        assert_eq!(scene.readyz().await.0, 200);
        let mut connection = scene.pod.client().connect().await.unwrap();
        assert_eq!(generate(&mut connection).await, (200, String::new()));
        assert_eq!(generate(&mut connection).await, (200, String::new()), "connections are kept again");
    }
    // Metrics are up to 100 ms old.
    sleep(Duration::from_millis(150)).await;
    let metrics = scene.pod.admin().get("/metrics").await.unwrap().text();
    for line in [
        "corral_readiness_transitions_total{reason=\"Retiring\"} 3",
        "corral_readiness{reason=\"Retiring\"} 0",
        "corral_readiness{reason=\"Ready\"} 1",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn an_order_holds_while_it_is_given_anew_and_runs_out_in_silence() {
    let lease = Duration::from_millis(600);
    let scene = Scene::start(lease).await;
    let began = Instant::now();
    let mut last = began;
    while Instant::now() - began < Duration::from_millis(1500) {
        assert!(scene.order(true).await.retiring);
        last = Instant::now();
        assert_eq!(scene.readyz().await, retiring());
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(scene.readyz().await, retiring(), "it is longer out than one lease");
    scene.pod.readyz(StatusCode::OK).await.unwrap();
    let silent = Instant::now() - last;
    assert!(silent + Duration::from_millis(100) >= lease && silent < lease + LONG, "{silent:?}");
}

#[tokio::test]
async fn a_leader_whose_time_is_over_neither_orders_nor_renews() {
    let scene = Scene::start(Duration::from_millis(1500)).await;
    let old = Position { term: 0, sequence: 99 };
    assert!(scene.pod.order_to_retire(old, true).await.is_err());
    assert_eq!(scene.readyz().await.0, 200);
    scene.order(true).await;
    let ordered = Instant::now();
    while scene.readyz().await.0 != 200 {
        assert!(scene.pod.order_to_retire(old, true).await.is_err());
        assert!(Instant::now() - ordered < LONG, "renewed, it would be out for ever");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_new_life_of_the_sidecar_knows_of_no_order() {
    let scene = Scene::start(LONG).await;
    assert!(scene.order(true).await.retiring);
    let (state_dir, Scene { ollama, pod, .. }) = (scene.pod.state_dir().to_owned(), scene);
    let folders = pod.stop().await.unwrap();
    let anew = Pod::start(&ollama, &state_dir).await.unwrap();
    anew.readyz(StatusCode::OK).await.unwrap();
    let report = anew.order_to_retire(Position { term: 1, sequence: 100 }, false).await.unwrap();
    assert_eq!((report.ready, report.retiring), (true, false));
    drop(folders);
}

#[tokio::test]
async fn a_drain_that_begins_meanwhile_leaves_the_pod_out_and_finishes_what_runs() {
    let scene = Scene::start(LONG).await;
    let mut running = running(&scene.pod.client(), 40).await;
    assert!(scene.order(true).await.retiring);
    let admin = scene.pod.admin();
    let stopping = tokio::spawn(scene.pod.stop());
    sleep(Duration::from_millis(100)).await;
    let answer = admin.get("/readyz").await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (503, "Draining"));
    assert!(running.rest().await.1, "what ran goes on to its end");
    stopping.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_lost_ollama_is_told_before_the_order() {
    let mut scene = Scene::start(LONG).await;
    scene.order(true).await;
    scene.ollama.kill().await;
    let refused = scene.pod.client().post("/api/generate", &ask(1)).await.unwrap();
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    let report = scene.order(true).await;
    assert_eq!((report.retiring, report.reason.as_str()), (true, "OllamaDown"));
    assert_eq!(scene.readyz().await, (503, "OllamaDown".to_owned()));
}
