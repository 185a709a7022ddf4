//! What Ollama cannot have begun to work on is sent once more, once, and nothing else ever is.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::time::Duration;

use corral_tests::client::{Answer, Client};
use corral_tests::ollama::{Endpoint, Fault, ScriptedOllama, Settings};
use corral_tests::sidecar::{PolicyFile, Sidecar};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

const OK: StatusCode = StatusCode::OK;
const BUSY: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

async fn world() -> (ScriptedOllama, Sidecar) {
    let settings = Settings { num_parallel: 64, max_queue: 512, ..Settings::default() };
    let ollama = ScriptedOllama::start(settings).await.unwrap();
    // No probe comes in between.
    let policy = PolicyFile::open().slots(64).queue(400, 30);
    let sidecar = Sidecar::tuned(&ollama, &policy, |settings| {
        settings.health.probe_interval = Duration::from_mins(1);
    });
    let sidecar = sidecar.await.unwrap();
    (ollama, sidecar)
}

/// A request to each endpoint that infers, as a stream where it can be one.
fn all(stream: bool) -> [(&'static str, Endpoint, Value); 8] {
    let hi = json!([{ "role": "user", "content": "hi" }]);
    let say = |more: Value| {
        let mut body = json!({ "model": "tinyz", "stream": stream });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    [
        ("/api/chat", Endpoint::Chat, say(json!({ "messages": hi }))),
        ("/api/generate", Endpoint::Generate, say(json!({ "prompt": "hi" }))),
        ("/v1/chat/completions", Endpoint::ChatCompletions, say(json!({ "messages": hi }))),
        ("/v1/completions", Endpoint::Completions, say(json!({ "prompt": "hi" }))),
        ("/v1/messages", Endpoint::Messages, say(json!({ "messages": hi, "max_tokens": 99 }))),
        ("/v1/responses", Endpoint::Responses, say(json!({ "input": "hi" }))),
        ("/api/embed", Endpoint::Embed, json!({ "model": "tinybert", "input": "hi" })),
        ("/v1/embeddings", Endpoint::OpenAiEmbeddings, json!({ "model": "tinybert", "input": "hi" })),
    ]
}

async fn retries(sidecar: &Sidecar, kind: &str) -> u64 {
    // Metrics are up to 100 ms old.
    sleep(Duration::from_millis(110)).await;
    let metrics = sidecar.metrics().await.unwrap();
    let name = format!("corral_upstream_retries_total{{kind=\"{kind}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn what_ollama_had_no_room_for_is_sent_once_more() {
    for stream in [false, true] {
        let (ollama, sidecar) = world().await;
        for (number, (path, endpoint, body)) in all(stream).into_iter().enumerate() {
            ollama.fault_at(endpoint, Fault::Busy);
            let answer = sidecar.client().post(path, &body).await.unwrap();
            assert_eq!(answer.status, OK, "{path}: {}", answer.text());
            let sent = ollama.record().inferences();
            assert_eq!(sent.len(), 2 * (number + 1), "{path}");
            assert_eq!(sent[2 * number].body, sent[2 * number + 1].body);
        }
        assert_eq!(retries(&sidecar, "busy").await, 8);
    }
}

/// The body, but for the number of the request in it.
fn unnumbered(answer: &Answer) -> String {
    let text = answer.text();
    text.split("\"request_id\"").next().unwrap().to_owned()
}

#[tokio::test]
async fn it_is_sent_once_more_only_once_and_then_ollamas_answer_is_the_answer() {
    let (ollama, sidecar) = world().await;
    let direct = Client::new(ollama.address());
    for (number, (path, endpoint, body)) in all(false).into_iter().enumerate() {
        (0..3).for_each(|_| ollama.fault_at(endpoint, Fault::Busy));
        let before = ollama.record().inferences().len();
        let answer = sidecar.client().post(path, &body).await.unwrap();
        assert_eq!(ollama.record().inferences().len(), before + 2, "{path}");
        let own = direct.post(path, &body).await.unwrap();
        assert_eq!(answer.status, BUSY, "{path}");
        assert_eq!(unnumbered(&answer), unnumbered(&own), "{path}");
        assert_eq!(answer.header("content-type"), own.header("content-type"));
        assert!(answer.header("retry-after").parse::<u32>().unwrap() >= 1);
        assert_eq!(retries(&sidecar, "busy").await, number as u64 + 1);
    }
}

#[tokio::test]
async fn whatever_ollama_may_have_begun_is_never_sent_again() {
    for fault in [
        Fault::Crash { after: 0 },
        Fault::Crash { after: 2 },
        Fault::Cut { after: 0 },
        Fault::Cut { after: 2 },
        Fault::NoEnd { after: 2 },
        Fault::WrongJson,
        Fault::Close,
    ] {
        let (ollama, sidecar) = world().await;
        for stream in [false, true] {
            let body = json!({ "model": "tinyz", "prompt": "hi", "stream": stream });
            let before = ollama.record().inferences().len();
            ollama.fault(fault.clone());
            let mut reply = sidecar.client().stream("/api/generate", &body).await.unwrap();
            reply.rest().await;
            sleep(Duration::from_millis(200)).await;
            assert_eq!(ollama.record().inferences().len(), before + 1, "{fault:?}");
        }
        for kind in ["busy", "connect", "stale"] {
            assert_eq!(retries(&sidecar, kind).await, 0, "{fault:?}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_is_refused_twice_is_told_of() {
    let (mut ollama, sidecar) = world().await;
    let client = sidecar.client();
    let body = json!({ "model": "tinyz", "prompt": "hi", "stream": false });
    ollama.kill().await;
    let started = Instant::now();
    let refused = client.post("/api/generate", &body).await.unwrap();
    assert_eq!(refused.status, BUSY);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(retries(&sidecar, "connect").await, 1);
    assert_eq!(client.post("/api/generate", &body).await.unwrap().status, BUSY);
    assert_eq!(retries(&sidecar, "connect").await, 1, "it is known to be down");
}

#[tokio::test]
async fn a_connection_that_is_refused_is_tried_once_more() {
    let (mut ollama, sidecar) = world().await;
    let client = sidecar.client();
    let body = json!({ "model": "tinyz", "prompt": "hi", "stream": false });
    ollama.kill().await;
    let asking = tokio::spawn(async move { client.post("/api/generate", &body).await.unwrap() });
    sleep(Duration::from_millis(30)).await;
    ollama.revive().await.unwrap();
    assert_eq!(asking.await.unwrap().status, OK, "it was back by the second try");
    assert_eq!(ollama.record().inferences().len(), 1);
}

#[tokio::test]
async fn nothing_is_sent_once_more_for_a_client_that_has_left() {
    let (ollama, sidecar) = world().await;
    let client = sidecar.client();
    ollama.fault(Fault::Busy);
    let body = json!({ "model": "tinyz", "prompt": "hi" });
    let leaving = tokio::spawn(async move { client.post("/api/generate", &body).await });
    while ollama.record().inferences().is_empty() {
        sleep(Duration::from_millis(1)).await;
    }
    sleep(Duration::from_millis(20)).await;
    leaving.abort();
    sleep(Duration::from_millis(300)).await;
    assert_eq!(ollama.record().inferences().len(), 1);
    assert!(sidecar.metrics().await.unwrap().contains("corral_in_flight 0\n"));
}

#[tokio::test]
async fn an_ollama_that_is_busy_for_everybody_is_not_asked_twice_by_everybody() {
    let (ollama, sidecar) = world().await;
    (0..200).for_each(|_| ollama.fault_at(Endpoint::Generate, Fault::Busy));
    let body = json!({ "model": "tinyz", "prompt": "hi", "stream": false });
    let (client, body) = (sidecar.client(), &body);
    let started = Instant::now();
    let asked = futures::future::join_all((0..60).map(|_| client.post("/api/generate", body))).await;
    let statuses: Vec<StatusCode> = asked.into_iter().map(|answer| answer.unwrap().status).collect();
    let busy = statuses.iter().filter(|status| **status == BUSY).count() as u64;
    // The slots of a model that Ollama has no room for become fewer: some that come late are not let in at all.
    assert!(
        statuses.iter().all(|status| [BUSY, StatusCode::TOO_MANY_REQUESTS].contains(status)),
        "{statuses:?}"
    );
    let (retries, sent) = (retries(&sidecar, "busy").await, ollama.record().inferences().len() as u64);
    let most = 10 + 6 + started.elapsed().as_secs() + 1;
    assert_eq!(sent, busy + retries);
    assert!(retries > 0 && retries <= most && retries < busy, "{retries} of {busy}, at most {most}");
}
