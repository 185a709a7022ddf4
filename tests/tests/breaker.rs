//! An Ollama that fails what it is sent is left alone for a while, and tried with one request after that.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::time::Duration;

use corral_tests::client::{Answer, Client};
use corral_tests::ollama::{Fault, ScriptedOllama, Settings};
use corral_tests::sidecar::{PolicyFile, Sidecar};
use http::StatusCode;
use serde_json::json;
use tokio::time::{Instant, sleep};

const OK: StatusCode = StatusCode::OK;
const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

async fn world() -> (ScriptedOllama, Sidecar) {
    let settings = Settings { num_parallel: 8, max_queue: 512, ..Settings::default() };
    let ollama = ScriptedOllama::start(settings).await.unwrap();
    let sidecar = Sidecar::start(&ollama, &PolicyFile::open().slots(8)).await.unwrap();
    (ollama, sidecar)
}

async fn ask(client: &Client, model: &str) -> Answer {
    let body = json!({ "model": model, "prompt": "hi", "stream": false });
    client.post("/api/generate", &body).await.unwrap()
}

/// Has so many requests fail before their first byte.
async fn fail(ollama: &ScriptedOllama, sidecar: &Sidecar, times: usize) {
    for _ in 0..times {
        ollama.fault_at(corral_tests::ollama::Endpoint::Generate, Fault::Close);
        assert_eq!(ask(&sidecar.client(), "tinyz").await.status, UNAVAILABLE);
    }
}

async fn shows(sidecar: &Sidecar, state: &str) -> bool {
    // Metrics are up to 100 ms old.
    sleep(Duration::from_millis(110)).await;
    let line = format!("corral_breaker_state{{state=\"{state}\"}} 1\n");
    sidecar.metrics().await.unwrap().contains(&line)
}

#[tokio::test]
async fn five_failures_open_it_and_one_trial_after_its_time_closes_it() {
    let (ollama, sidecar) = world().await;
    assert!(shows(&sidecar, "closed").await);
    fail(&ollama, &sidecar, 4).await;
    assert!(sidecar.readyz(OK).await.is_ok() && shows(&sidecar, "closed").await);
    fail(&ollama, &sidecar, 1).await;
    let opened = Instant::now();

    let ready = sidecar.admin().get("/readyz").await.unwrap();
    assert_eq!(ready.status, UNAVAILABLE);
    assert!(ready.text().contains("BreakerOpen"), "{}", ready.text());
    assert!(shows(&sidecar, "open").await);
    let refused = ask(&sidecar.client(), "tinyz").await;
    assert_eq!(refused.status, UNAVAILABLE);
    // 5 s ± 20 %, and up to a fifth of jitter.
    assert!((1..=8).contains(&refused.header("retry-after").parse::<u32>().unwrap()));
    assert_eq!(refused.header("connection"), "close", "its client is to find another pod");
    assert_eq!(ollama.record().inferences().len(), 5, "Ollama is left alone");

    // Half open, it is in its Service again: somebody must come to try it.
    sidecar.ready().await.unwrap();
    let waited = opened.elapsed();
    assert!((Duration::from_millis(3900)..Duration::from_millis(6300)).contains(&waited), "{waited:?}");
    assert!(shows(&sidecar, "half_open").await);
    assert_eq!(ask(&sidecar.client(), "tinyz").await.status, OK);
    assert!(shows(&sidecar, "closed").await);
}

#[tokio::test]
async fn a_trial_that_fails_opens_it_again_for_longer() {
    let (ollama, sidecar) = world().await;
    fail(&ollama, &sidecar, 5).await;
    assert_eq!(sidecar.admin().get("/readyz").await.unwrap().status, UNAVAILABLE);
    sidecar.ready().await.unwrap();
    fail(&ollama, &sidecar, 1).await;
    let refused = ask(&sidecar.client(), "tinyz").await;
    assert!(
        (7..=15).contains(&refused.header("retry-after").parse::<u32>().unwrap()),
        "10 s ± 20 %, and up to a fifth of jitter"
    );
    assert_eq!(ollama.record().inferences().len(), 6);
}

#[tokio::test]
async fn what_ollama_answers_is_no_failure_whatever_it_says() {
    let (ollama, sidecar) = world().await;
    for _ in 0..12 {
        assert_eq!(ask(&sidecar.client(), "nope").await.status, StatusCode::NOT_FOUND);
        // It is tried once more.
        (0..2).for_each(|_| ollama.fault(Fault::Busy));
        ask(&sidecar.client(), "tinyz").await;
        ollama.fault(Fault::Crash { after: 0 });
        assert_eq!(ask(&sidecar.client(), "tinyz").await.status, StatusCode::INTERNAL_SERVER_ERROR);
    }
    assert!(sidecar.readyz(OK).await.is_ok() && shows(&sidecar, "closed").await);
}

#[tokio::test]
async fn a_failure_after_the_first_byte_is_none_of_its() {
    let (ollama, sidecar) = world().await;
    for _ in 0..8 {
        ollama.fault(Fault::Cut { after: 2 });
        let body = json!({ "model": "tinyz", "prompt": "hi", "stream": true });
        sidecar.client().stream("/api/generate", &body).await.unwrap().rest().await;
    }
    assert!(shows(&sidecar, "closed").await);
}

/// The probes have waited for it already.
#[tokio::test]
async fn an_ollama_that_was_gone_and_is_back_is_served_at_once() {
    let (mut ollama, sidecar) = world().await;
    fail(&ollama, &sidecar, 5).await;
    ollama.kill().await;
    sleep(Duration::from_millis(300)).await;
    let ready = sidecar.admin().get("/readyz").await.unwrap();
    assert!(ready.text().contains("OllamaDown"), "the graver is told: {}", ready.text());
    ollama.revive().await.unwrap();
    let revived = Instant::now();
    sidecar.ready().await.unwrap();
    assert!(revived.elapsed() < Duration::from_secs(2), "{:?}", revived.elapsed());
    assert_eq!(ask(&sidecar.client(), "tinyz").await.status, OK);
}
