//! An overloaded sidecar leaves its Service as it is permitted to, serves whoever still comes, and comes back.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use corral_sidecar::health::load::LoadSettings;
use corral_sidecar::health::overload::OverloadSettings;
use corral_sidecar::health::relief::ReliefSettings;
use corral_tests::client::{Client, Reply};
use corral_tests::ollama::{Pace, ScriptedOllama, Settings};
use corral_tests::pod::{Pod, plan};
use corral_wire::{PlanDoc, Position, QueueDoc, Relief, Report, ServePermission};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(10);

fn ask(tokens: u32) -> Value {
    json!({ "model": "tiny", "prompt": "hi", "stream": true, "options": { "num_predict": tokens } })
}

/// Everything twenty times as fast, but for the lease.
fn quick(lease: Duration) -> OverloadSettings {
    let millis = Duration::from_millis;
    OverloadSettings {
        every: millis(20),
        load: LoadSettings { smooth: millis(100), refusal_counts: millis(100) },
        relief: ReliefSettings {
            overloaded_for: millis(250),
            calm_for: millis(500),
            least_out: millis(500),
            least_in: millis(500),
            jitter: millis(50),
            lease,
            ..ReliefSettings::default()
        },
    }
}

/// A pod with one slot, two places, and a leader.
struct Scene {
    ollama: ScriptedOllama,
    pod: Pod,
    said: AtomicU64,
}

impl Scene {
    async fn start(plan: PlanDoc, lease: Duration) -> Self {
        let pace = Pace { token: Duration::from_millis(50), ..Pace::default() };
        let settings = Settings { num_parallel: 1, max_queue: 512, pace, ..Settings::default() };
        let ollama = ScriptedOllama::start(settings).await.unwrap();
        let change = |settings: &mut corral_sidecar::config::Settings| settings.overload = quick(lease);
        let pod = Pod::start_with(&ollama, Path::new(""), change).await.unwrap();
        let first = Position { term: 1, sequence: 1 };
        pod.tell(first, Some(plan), 1, ServePermission::Granted).await.unwrap();
        pod.readyz(StatusCode::OK).await.unwrap();
        Self { ollama, pod, said: AtomicU64::new(1) }
    }

    async fn say(&self, relief: bool) -> Report {
        let sequence = self.said.fetch_add(1, Ordering::Relaxed) + 1;
        self.pod.permit(Position { term: 1, sequence }, relief).await.unwrap()
    }

    async fn readyz(&self) -> (StatusCode, String) {
        let answer = self.pod.admin().get("/readyz").await.unwrap();
        (answer.status, answer.text())
    }

    /// Says the same and sends one request too many, until the pod reports this.
    async fn press_until(&self, may: bool, relief: Relief) -> Report {
        let began = Instant::now();
        loop {
            let refused = self.pod.client().stream("/api/generate", &ask(1)).await.unwrap();
            assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
            let report = self.say(may).await;
            if report.relief == relief {
                return report;
            }
            assert!(Instant::now() - began < PATIENCE, "{report:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

fn two_places() -> PlanDoc {
    PlanDoc {
        queue: QueueDoc { max_depth: 2, max_wait_ms: 60_000, ..QueueDoc::default() },
        limits: Vec::new(),
        ..plan(1, 1)
    }
}

/// A stream that runs, and two that wait.
async fn fill(client: &Client) -> (Reply, [tokio::task::JoinHandle<StatusCode>; 2]) {
    let mut running = client.stream("/api/generate", &ask(150)).await.unwrap();
    assert!(running.chunk().await.unwrap().is_some());
    let waits = || {
        let client = client.clone();
        tokio::spawn(async move { client.post("/api/generate", &ask(2)).await.unwrap().status })
    };
    let waiting = [waits(), waits()];
    sleep(Duration::from_millis(100)).await;
    (running, waiting)
}

#[tokio::test]
async fn it_leaves_when_it_may_serves_whoever_comes_and_comes_back() {
    let scene = Scene::start(two_places(), Duration::from_secs(10)).await;
    let client = scene.pod.client();
    sleep(Duration::from_millis(600)).await;
    let (mut running, waiting) = fill(&client).await;
    let asks = scene.press_until(false, Relief::Wanted).await;
    assert!(asks.ready && asks.gauges.load_permille >= 1000, "{asks:?}");
    let out = scene.press_until(true, Relief::Taken).await;
    assert_eq!((out.ready, out.reason.as_str()), (false, "Overloaded"));
    assert_eq!(scene.readyz().await, (StatusCode::SERVICE_UNAVAILABLE, "Overloaded".to_owned()));
    let turned_away = client.post("/api/generate", &ask(1)).await.unwrap();
    assert_eq!((turned_away.status.as_u16(), turned_away.header("connection")), (429, "close"));

    assert!(running.rest().await.1, "what runs is served to its end");
    for waiter in waiting {
        assert_eq!(waiter.await.unwrap(), StatusCode::OK, "and what waits");
    }
    let served = client.post("/api/generate", &ask(1)).await.unwrap();
    assert_eq!((served.status.as_u16(), served.header("connection")), (200, "close"));

    let began = Instant::now();
    while scene.say(true).await.relief != Relief::Unneeded {
        assert!(Instant::now() - began < PATIENCE);
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(scene.readyz().await.0, StatusCode::OK);
    assert_eq!(client.post("/api/generate", &ask(1)).await.unwrap().header("connection"), "");
    let metrics = scene.pod.admin().get("/metrics").await.unwrap().text();
    for line in [
        "corral_readiness_transitions_total{reason=\"Overloaded\"} 1",
        "corral_queue_predicted_wait_seconds 0.0",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line}\n{metrics}");
    }
    assert_eq!(scene.ollama.record().model("tiny:latest").max_waiting, 0);
}

#[tokio::test]
async fn a_leader_that_falls_silent_or_withdraws_brings_it_back_at_once() {
    let scene = Scene::start(two_places(), Duration::from_millis(800)).await;
    sleep(Duration::from_millis(600)).await;
    let held = fill(&scene.pod.client()).await;
    scene.press_until(true, Relief::Taken).await;
    let silent = Instant::now();
    scene.pod.readyz(StatusCode::OK).await.unwrap();
    assert!(Instant::now() - silent < Duration::from_millis(1500));
    scene.press_until(true, Relief::Taken).await;
    scene.say(false).await;
    let withdrawn = Instant::now();
    scene.pod.readyz(StatusCode::OK).await.unwrap();
    assert!(Instant::now() - withdrawn < Duration::from_millis(400));
    drop(held);
}

#[tokio::test]
async fn ten_times_what_a_limit_allows_changes_nothing_about_readiness() {
    let scene = Scene::start(plan(1, 20), Duration::from_secs(10)).await;
    let client = scene.pod.client();
    sleep(Duration::from_millis(600)).await;
    let (mut refused, began) = (0, Instant::now());
    while refused < 200 || Instant::now() - began < Duration::from_secs(2) {
        let status = client.post("/api/generate", &ask(1)).await.unwrap().status;
        refused += usize::from(status == StatusCode::TOO_MANY_REQUESTS);
        if refused.is_multiple_of(10) {
            let report = scene.say(true).await;
            assert_eq!((report.ready, report.relief), (true, Relief::Unneeded));
            assert_eq!(scene.readyz().await.0, StatusCode::OK);
            assert!(report.gauges.load_permille < 500, "{report:?}");
        }
    }
    assert!(scene.say(true).await.counters.policy_rejects >= 200);
}
