//! Holes that other limiters and proxies have, or had, seen from a client: each as a test of this one.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::time::Duration;

use corral_tests::client::{Answer, Client};
use corral_tests::ollama::{Fault, ScriptedOllama, Settings};
use corral_tests::sidecar::{PolicyFile, Sidecar};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

const OK: StatusCode = StatusCode::OK;
const TOO_MANY: StatusCode = StatusCode::TOO_MANY_REQUESTS;

async fn world(policy: &PolicyFile) -> (ScriptedOllama, Sidecar) {
    let settings = Settings { num_parallel: 8, max_queue: 512, ..Settings::default() };
    let ollama = ScriptedOllama::start(settings).await.unwrap();
    let sidecar = Sidecar::start(&ollama, policy).await.unwrap();
    (ollama, sidecar)
}

fn once(per: &str) -> String {
    format!("{{ name: one, per: [{per}], requests: 1/h, burst: {{ requests: 1 }} }}")
}

/// What every API understands: chat, completion and embedding at once.
fn body(user: &str, stream: bool) -> Value {
    json!({ "model": "tiny", "user": user, "metadata": { "user_id": user }, "prompt": "hi", "input": "hi",
        "messages": [{ "role": "user", "content": "hi" }], "stream": stream, "max_tokens": 1,
        "options": { "num_predict": 1 } })
}

async fn chat(client: &Client, user: &str) -> Answer {
    client.post("/v1/chat/completions", &body(user, false)).await.unwrap()
}

/// `AIBrix` limited nobody who left the user out; llm-d gave a share to each value of a header.
#[tokio::test]
async fn nothing_that_a_client_says_of_itself_gives_it_another_share_or_none() {
    let policy = PolicyFile::limits(&[&once("Client")]).slots(8);
    let (ollama, sidecar) = world(&policy).await;
    assert_eq!(chat(&sidecar.client(), "ann").await.status, OK);
    let names = [
        "user",
        "x-user-id",
        "x-tenant",
        "x-gateway-inference-fairness-id",
        "x-api-key",
        "authorization",
        "cookie",
        "x-forwarded-for",
        "forwarded",
        "x-real-ip",
        "true-client-ip",
        "user-agent",
        "openai-organization",
    ];
    for name in names {
        for n in 0..5 {
            let value =
                if name == "authorization" { format!("Bearer key-{n}") } else { format!("192.0.2.{n}") };
            let rotating = sidecar.client().with(name, &value);
            assert_eq!(chat(&rotating, &format!("user-{n}")).await.status, TOO_MANY, "{name}: {value}");
        }
    }
    assert_eq!(chat(&sidecar.client(), "").await.status, TOO_MANY);
    assert_eq!(ollama.record().inferences().len(), 1);
}

/// TGI said that it was unhealthy while its queue was full, and was restarted with all that ran.
#[tokio::test]
async fn a_full_queue_never_fails_liveness() {
    let policy = PolicyFile::open().slots(1).queue(2, 60);
    let (ollama, sidecar) = world(&policy).await;
    let gate = ollama.gate();
    let client = sidecar.client();
    let asking: Vec<_> = (0..40)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { chat(&client, &n.to_string()).await.status })
        })
        .collect();
    let until = Instant::now() + Duration::from_secs(10);
    while asking.iter().filter(|one| one.is_finished()).count() < 37 {
        assert!(Instant::now() < until, "the queue never was full");
        sleep(Duration::from_millis(5)).await;
    }
    for path in ["/livez", "/startupz", "/ollama/livez", "/readyz"] {
        let probed = Instant::now();
        assert_eq!(sidecar.admin().get(path).await.unwrap().status, OK, "{path}");
        assert!(probed.elapsed() < Duration::from_secs(1), "{path}");
    }
    (0..100).for_each(|_| gate.step());
    let mut statuses = Vec::new();
    for one in asking {
        statuses.push(one.await.unwrap());
    }
    let count = |status| statuses.iter().filter(|one| **one == status).count();
    assert_eq!((count(OK), count(TOO_MANY)), (3, 37));
}

/// Kong counted refused requests, so that whoever went on trying was refused for ever.
#[tokio::test]
async fn a_client_that_goes_on_trying_through_429_recovers_when_a_patient_one_would() {
    let limit = "{ name: one, per: [Client], requests: 2/s, burst: { requests: 1 } }";
    let (ollama, sidecar) = world(&PolicyFile::limits(&[limit]).slots(8)).await;
    let client = sidecar.client();
    let began = Instant::now();
    let (mut admitted, mut refused) = (0, 0);
    while began.elapsed() < Duration::from_millis(2250) {
        match chat(&client, "ann").await.status {
            OK => admitted += 1,
            TOO_MANY => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert_eq!(admitted, 5, "one at once, and one each half second");
    assert!(refused > 20, "{refused}");
    assert_eq!(ollama.record().inferences().len(), 5);
}

/// `ParisNeo`'s proxy raised a 429 that did not reach the client on every route.
#[tokio::test]
async fn a_429_reaches_the_client_on_every_route_whether_it_streams_or_not() {
    let (ollama, sidecar) = world(&PolicyFile::limits(&[&once("Global")]).slots(8)).await;
    assert_eq!(chat(&sidecar.client(), "ann").await.status, OK);
    for path in [
        "/api/chat",
        "/api/generate",
        "/api/embed",
        "/api/embeddings",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/messages",
        "/v1/responses",
    ] {
        for stream in [false, true] {
            let answer = sidecar.client().post(path, &body("ann", stream)).await.unwrap();
            assert_eq!(answer.status, TOO_MANY, "{path} {stream}");
            assert!(answer.header("retry-after").parse::<u32>().unwrap() >= 1, "{path}");
            assert!(answer.header("content-type").starts_with("application/json"), "{path}");
            assert!(!answer.json()["error"].is_null(), "{path}: {}", answer.text());
        }
    }
    assert_eq!(ollama.record().inferences().len(), 1);
}

/// `KubeAI` sent a request again that a server had failed; each try costs a GPU its time.
#[tokio::test]
async fn what_ollama_fails_is_not_sent_to_it_again() {
    for fault in [Fault::Crash { after: 0 }, Fault::Close, Fault::WrongJson, Fault::Cut { after: 1 }] {
        let (ollama, sidecar) = world(&PolicyFile::open().slots(8)).await;
        ollama.fault(fault.clone());
        let mut reply = sidecar.client().stream("/api/chat", &body("ann", true)).await.unwrap();
        reply.rest().await;
        assert_eq!(ollama.record().inferences().len(), 1, "{fault:?}");
    }
}

/// Envoy's rate limit service took another number only with the next window.
#[tokio::test]
async fn raising_a_limit_lets_a_client_in_that_was_refused() {
    let (_ollama, sidecar) = world(&PolicyFile::limits(&[&once("Client")]).slots(8)).await;
    let client = sidecar.client();
    assert_eq!(chat(&client, "ann").await.status, OK);
    assert_eq!(chat(&client, "ann").await.status, TOO_MANY);
    let more = "{ name: one, per: [Client], requests: 3/h, burst: { requests: 3 } }";
    sidecar.rewrite(&PolicyFile::limits(&[more]).slots(8)).unwrap();
    let changed = Instant::now();
    while chat(&client, "ann").await.status != OK {
        assert!(changed.elapsed() < Duration::from_secs(2), "the old number is still in force");
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(chat(&client, "ann").await.status, OK);
    assert_eq!(chat(&client, "ann").await.status, TOO_MANY, "what was used before counts");
}
