//! The queue stands in front of Ollama, never in it: bounded, in order, and empty of those who have left.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::time::Duration;

use corral_tests::client::{Answer, Client, Reply};
use corral_tests::ollama::{ModelSpec, Outcome, Pace, ScriptedOllama, Settings};
use corral_tests::sidecar::{PolicyFile, Sidecar};
use http::StatusCode;
use proptest::prelude::Rng as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep, timeout};

fn ask(model: &str, tokens: u32) -> Value {
    let prompt = "hi";
    json!({ "model": model, "prompt": prompt, "stream": true, "options": { "num_predict": tokens } })
}

async fn world(policy: &PolicyFile, num_parallel: usize, token_ms: u64) -> (ScriptedOllama, Sidecar) {
    let pace = Pace { token: Duration::from_millis(token_ms), ..Pace::default() };
    let ollama =
        ScriptedOllama::start(Settings { num_parallel, max_queue: 512, pace, ..Settings::default() })
            .await
            .unwrap();
    let sidecar = Sidecar::start(&ollama, policy).await.unwrap();
    (ollama, sidecar)
}

async fn whole(client: &Client, model: &str, tokens: u32) -> Answer {
    client.post("/api/generate", &ask(model, tokens)).await.unwrap()
}

/// A stream that holds a slot.
async fn running(client: &Client, model: &str, tokens: u32) -> Reply {
    let mut reply = client.stream("/api/generate", &ask(model, tokens)).await.unwrap();
    assert_eq!(reply.status, StatusCode::OK);
    reply.chunk().await.unwrap().unwrap();
    reply
}

/// A gauge of the sidecar, by what its line begins with and holds.
async fn gauge(sidecar: &Sidecar, name: &str) -> f64 {
    let metrics = sidecar.metrics().await.unwrap();
    let line = metrics.lines().find(|line| line.starts_with(name));
    line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

async fn soon(what: impl AsyncFn() -> bool) -> bool {
    for _ in 0..300 {
        if what().await {
            return true;
        }
        sleep(Duration::from_millis(10)).await;
    }
    false
}

#[tokio::test]
async fn ollama_runs_as_many_as_it_has_slots_and_queues_none() {
    let (ollama, sidecar) = world(&PolicyFile::open().slots(2), 2, 2).await;
    let client = sidecar.client();
    let asks = (0..30).map(|at| whole(&client, if at % 2 == 0 { "tiny" } else { "slow" }, 5));
    let answers = futures::future::join_all(asks).await;
    assert!(answers.iter().all(|answer| answer.status == StatusCode::OK));
    for model in ["tiny:latest", "slow:latest"] {
        let load = ollama.record().model(model);
        assert_eq!((load.max_running, load.max_waiting), (2, 0), "{model}");
    }
    assert_eq!(ollama.record().count(Outcome::Finished), 30);
}

#[tokio::test]
async fn waiters_are_served_in_the_order_they_came() {
    let (ollama, sidecar) = world(&PolicyFile::open(), 1, 5).await;
    let client = sidecar.client();
    let first = running(&client, "tiny", 40).await;
    let mut waiting = Vec::new();
    for number in 0..5 {
        let client = client.clone();
        let mut body = ask("tiny", 1);
        body["prompt"] = format!("number {number}").into();
        waiting.push(tokio::spawn(async move { client.post("/api/generate", &body).await }));
        sleep(Duration::from_millis(15)).await;
    }
    drop(first);
    for answer in waiting {
        assert_eq!(answer.await.unwrap().unwrap().status, StatusCode::OK);
    }
    let order: Vec<String> =
        ollama.record().inferences().iter().skip(1).map(corral_tests::ollama::Arrival::text).collect();
    for (number, body) in order.iter().enumerate() {
        assert!(body.contains(&format!("number {number}")), "{order:?}");
    }
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let (ollama, sidecar) = world(&PolicyFile::open().queue(3, 30), 1, 10).await;
    let client = sidecar.client();
    let mut first = running(&client, "tiny", 60).await;
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { whole(&client, "tiny", 1).await.status })
        })
        .collect();
    assert!(soon(async || gauge(&sidecar, "corral_queue_depth").await > 2.5).await);
    let started = Instant::now();
    let refused = whole(&client, "tiny", 1).await;
    assert!(Instant::now() - started < Duration::from_millis(200));
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.header("x-corral-retry"), "estimate");
    assert!(refused.header("retry-after").parse::<u32>().unwrap() >= 1);
    first.chunks().await.unwrap();
    for status in waiting {
        assert_eq!(status.await.unwrap(), StatusCode::OK);
    }
    assert_eq!(ollama.record().load().max_waiting, 0);
}

/// What the list of limits says to a client that something else refused.
fn contradicts(refused: &Answer) -> bool {
    let told = refused.header("ratelimit");
    assert!(told.starts_with("\"wide.requests\";r="), "{told}");
    told.contains(";t=") || refused.headers.keys().any(|name| name.as_str().contains("-reset-"))
}

#[tokio::test]
async fn a_full_queue_says_once_when_to_come_back() {
    let wide = PolicyFile::default().queue(0, 30);
    let (_ollama, sidecar) = world(&wide, 1, 10).await;
    let client = sidecar.client();
    let admitted = whole(&client, "tiny", 1).await;
    assert!(contradicts(&admitted), "one that was admitted is told when the limit is whole again");
    let _first = running(&client, "tiny", 200).await;
    let refused = whole(&client, "tiny", 1).await;
    assert_eq!((refused.status.as_u16(), refused.header("x-corral-shed-reason")), (429, "queue_full"));
    assert!(refused.header("retry-after").parse::<u32>().unwrap() >= 1 && !contradicts(&refused));
}

#[tokio::test]
async fn a_body_for_which_others_leave_no_room_is_told_so_and_one_that_comes_later_is_served() {
    let ollama = ScriptedOllama::plain().await.unwrap();
    let tune = |settings: &mut corral_sidecar::config::Settings| {
        (settings.proxy.max_body_bytes, settings.proxy.body_budget_bytes) = (64 * 1024, 64 * 1024);
    };
    let sidecar = Sidecar::tuned(&ollama, &PolicyFile::default(), tune).await.unwrap();
    let client = sidecar.client();
    let prompt = "x".repeat(60 * 1024);
    let large = json!({ "model": "tiny", "prompt": prompt, "options": { "num_predict": 1 } }).to_string();
    let mut half = tokio::net::TcpStream::connect(client.address()).await.unwrap();
    let (host, length) = (client.address(), large.len());
    let head = format!("POST /api/generate HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n\r\n");
    let (first, rest) = large.split_at(40 * 1024);
    half.write_all(head.as_bytes()).await.unwrap();
    half.write_all(first.as_bytes()).await.unwrap();
    sleep(Duration::from_millis(300)).await;

    let refused = client.send(http::Method::POST, "/api/generate", large.clone()).await.unwrap();
    assert_eq!((refused.status.as_u16(), refused.header("x-corral-shed-reason")), (429, "no_room"));
    assert_eq!((refused.header("connection"), refused.header("x-corral-retry")), ("close", "estimate"));
    assert!(refused.header("retry-after").parse::<u32>().unwrap() >= 1 && !contradicts(&refused));

    half.write_all(rest.as_bytes()).await.unwrap();
    let mut begun = [0; 15];
    half.read_exact(&mut begun).await.unwrap();
    assert_eq!(&begun, b"HTTP/1.1 200 OK");
    drop(half);
    let later = async || {
        let answer = client.send(http::Method::POST, "/api/generate", large.clone()).await.unwrap();
        answer.status == StatusCode::OK
    };
    assert!(soon(later).await);
    assert!(soon(async || gauge(&sidecar, "corral_refusals_total{reason=\"no_room\"}").await >= 1.0).await);
}

#[tokio::test]
async fn with_no_depth_a_busy_pod_refuses_at_once() {
    let (_ollama, sidecar) = world(&PolicyFile::open().queue(0, 30), 1, 10).await;
    let client = sidecar.client();
    let _first = running(&client, "tiny", 100).await;
    assert_eq!(whole(&client, "tiny", 1).await.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn nobody_waits_longer_than_the_bound() {
    let (ollama, sidecar) = world(&PolicyFile::open().queue(10, 1), 1, 10).await;
    let client = sidecar.client();
    let first = running(&client, "tiny", 400).await;
    let started = Instant::now();
    let late = whole(&client, "tiny", 1).await;
    let waited = Instant::now() - started;
    assert_eq!(late.status, StatusCode::TOO_MANY_REQUESTS);
    assert!((Duration::from_millis(900)..Duration::from_millis(1500)).contains(&waited), "{waited:?}");
    assert!(!late.header("retry-after").is_empty());
    drop(first);
    assert_eq!(whole(&client, "tiny", 1).await.status, StatusCode::OK);
    assert_eq!(ollama.record().inferences().len(), 2);
}

#[tokio::test]
async fn a_full_model_blocks_nobody_who_waits_for_another() {
    let (_ollama, sidecar) = world(&PolicyFile::open(), 1, 10).await;
    let client = sidecar.client();
    let _first = running(&client, "slow", 400).await;
    let waiting = client.clone();
    let waiting = tokio::spawn(async move { whole(&waiting, "slow", 1).await });
    let other = timeout(Duration::from_secs(1), whole(&client, "tiny", 1)).await;
    assert_eq!(other.unwrap().status, StatusCode::OK);
    waiting.abort();
}

#[tokio::test]
async fn a_client_that_leaves_the_queue_never_reaches_ollama_and_is_not_charged() {
    let limit = "{ name: three, per: [Client], requests: 3/h, burst: { requests: 3 } }";
    let (ollama, sidecar) = world(&PolicyFile::limits(&[limit]), 1, 10).await;
    let client = sidecar.client();
    let mut first = running(&client, "tiny", 40).await;
    let leaving = client.clone();
    let leaving = tokio::spawn(async move { whole(&leaving, "tiny", 1).await });
    assert!(soon(async || gauge(&sidecar, "corral_queue_depth").await > 0.5).await);
    leaving.abort();
    assert!(soon(async || gauge(&sidecar, "corral_queue_depth").await < 0.5).await);
    first.chunks().await.unwrap();
    assert_eq!(whole(&client, "tiny", 1).await.status, StatusCode::OK);
    assert_eq!(
        whole(&client, "tiny", 1).await.status,
        StatusCode::OK,
        "the one that left gave its permit back"
    );
    assert_eq!(ollama.record().inferences().len(), 3);
}

/// The real server never lets go of a connection whose client leaves before it has a runner.
#[tokio::test]
async fn an_exchange_whose_client_leaves_too_early_is_held_until_its_first_byte() {
    let (ollama, sidecar) = world(&PolicyFile::open(), 1, 5).await;
    let client = sidecar.client();
    whole(&client, "tiny", 1).await;
    ollama.set_pace(Pace { schedule: Duration::from_millis(200), ..Pace::default() });
    let leaving = client.clone();
    let leaving = tokio::spawn(async move { whole(&leaving, "tiny", 4000).await });
    assert!(soon(async || ollama.record().inferences().len() == 2).await);
    leaving.abort();
    assert_eq!(whole(&client, "tiny", 1).await.status, StatusCode::OK);
    let record = ollama.record();
    assert_eq!((record.leaked(), record.load().max_waiting), (0, 0));
}

#[tokio::test]
async fn a_load_that_nobody_waits_for_any_more_is_not_cut() {
    let (ollama, sidecar) = world(&PolicyFile::open(), 1, 1).await;
    ollama.set_pace(Pace { load: Duration::from_millis(1500), ..Pace::default() });
    let client = sidecar.client();
    let leaving = client.clone();
    let leaving = tokio::spawn(async move { whole(&leaving, "tiny", 1).await });
    assert!(soon(async || ollama.record().inferences().len() == 1).await);
    leaving.abort();
    assert_eq!(whole(&client, "tiny", 1).await.status, StatusCode::OK);
    assert_eq!(ollama.record().leaked(), 0);
}

#[tokio::test]
async fn two_hundred_random_cancels_leave_nothing_behind() {
    let limit = "{ name: all, per: [Client], concurrency: 1000 }";
    let (ollama, sidecar) = world(&PolicyFile::limits(&[limit]).slots(2).queue(500, 30), 2, 2).await;
    let client = sidecar.client();
    for model in ["tiny", "slow"] {
        whole(&client, model, 1).await;
    }
    let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut below = |bound: u32| random.next_u32() % bound;
    let mut running = Vec::new();
    for number in 0..200 {
        let client = client.clone();
        let patience = Duration::from_millis(below(150).into());
        let tokens = 1 + below(40);
        let model = if number % 2 == 0 { "tiny" } else { "slow" };
        running.push(tokio::spawn(async move {
            // Most give up: while they are sent, wait, start or stream.
            let _ = timeout(patience, client.post("/api/generate", &ask(model, tokens))).await;
        }));
        sleep(Duration::from_millis(below(4).into())).await;
    }
    for task in running {
        task.await.unwrap();
    }
    assert!(soon(async || ollama.record().load().running == 0).await);
    assert!(soon(async || gauge(&sidecar, "corral_in_flight").await < 0.5).await);
    assert!(gauge(&sidecar, "corral_queue_depth").await < 0.5);
    let standing = client.get("/corral/v1/limits").await.unwrap().text();
    assert!(standing.contains("\"remaining\":1000"), "a guard was never given back: {standing}");
    let record = ollama.record();
    assert_eq!(record.leaked(), 0);
    assert!(record.load().longest_wait < Duration::from_millis(50), "{:?}", record.load());
    let started = Instant::now();
    let both = futures::future::join_all((0..2).map(|_| whole(&client, "tiny", 20))).await;
    assert!(both.iter().all(|answer| answer.status == StatusCode::OK));
    assert!(Instant::now() - started < Duration::from_millis(500), "both slots are there");
}

#[tokio::test]
async fn all_models_together_have_as_many_slots_as_ollama_may_load() {
    let pace = Pace { token: Duration::from_millis(2), ..Pace::default() };
    let models = ["a", "b", "c", "d", "e"].map(ModelSpec::endless).to_vec();
    let settings = Settings { num_parallel: 2, max_queue: 512, pace, models, ..Settings::default() };
    let ollama = ScriptedOllama::start(settings).await.unwrap();
    let policy = PolicyFile::open().slots(2);
    let sidecar = Sidecar::tuned(&ollama, &policy, |settings| {
        settings.slots.loaded_models = 2.try_into().unwrap();
    });
    let sidecar = sidecar.await.unwrap();
    let client = sidecar.client();
    let asks = (0..30).map(|at| whole(&client, ["a", "b", "c", "d", "e"][at % 5], 5));
    let answers = futures::future::join_all(asks).await;
    assert!(answers.iter().all(|answer| answer.status == StatusCode::OK));
    assert_eq!(ollama.record().load().max_running, 4);
}
