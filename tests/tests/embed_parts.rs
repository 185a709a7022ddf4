//! Long lists to embed go to Ollama in parts, and nobody can tell: not the client from its answer, not its bill, and
//! whoever else waits only by not waiting.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests may panic as tests do")]

use std::time::Duration;

use corral_tests::client::{Answer, Client};
use corral_tests::ollama::{Endpoint, Fault, Pace, ScriptedOllama, Settings};
use corral_tests::sidecar::{PolicyFile, Sidecar};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::sleep;

async fn world(policy: &PolicyFile, input_ms: u64) -> (ScriptedOllama, Sidecar) {
    let pace = Pace { token: Duration::from_millis(input_ms), ..Pace::default() };
    let ollama =
        ScriptedOllama::start(Settings { pace, max_queue: 512, ..Settings::default() }).await.unwrap();
    let sidecar = Sidecar::start(&ollama, policy).await.unwrap();
    (ollama, sidecar)
}

/// So many inputs of two tokens each.
fn texts(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("no.{at:07}")).collect()
}

fn body(count: usize) -> Value {
    json!({ "model": "tinybert", "input": texts(count) })
}

/// How many inputs each request had that reached Ollama.
fn parts(ollama: &ScriptedOllama) -> Vec<usize> {
    let inputs = |body: &str| serde_json::from_str::<Value>(body).unwrap()["input"].as_array().unwrap().len();
    ollama.record().inferences().iter().map(|arrival| inputs(&arrival.text())).collect()
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

/// A metric of the sidecar, by the whole of its name and labels; 0 where it is not there.
async fn metric(sidecar: &Sidecar, name: &str) -> u64 {
    // Metrics are up to 100 ms old.
    sleep(Duration::from_millis(110)).await;
    let metrics = sidecar.metrics().await.unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().unwrap())
}

async fn tokens(sidecar: &Sidecar, phase: &str) -> u64 {
    metric(sidecar, &format!("corral_tokens_total{{kind=\"input\",phase=\"{phase}\"}}")).await
}

/// An answer without the two numbers that are never the same twice.
fn timeless(answer: &Answer) -> String {
    let text = answer.text();
    let Some((before, after)) = text.split_once("\"total_duration\":") else { return text };
    let (_, counts) = after.split_once(",\"prompt_eval_count\"").unwrap();
    assert!(after.contains(",\"load_duration\":"), "{after}");
    format!("{before}…{counts}")
}

fn assert_same(split: &Answer, whole: &Answer) {
    assert_eq!(split.status, whole.status);
    assert_eq!(timeless(split), timeless(whole));
    assert_eq!(split.header("content-type"), whole.header("content-type"));
}

#[tokio::test]
async fn an_answer_in_parts_is_byte_for_byte_the_one_that_ollama_gives_to_the_whole() {
    let (ollama, sidecar) = world(&PolicyFile::open(), 0).await;
    let (direct, client) = (Client::new(ollama.address()), sidecar.client());
    for count in [17, 32, 33, 100] {
        for (path, more) in [
            ("/api/embed", json!({ "truncate": true })),
            ("/v1/embeddings", json!({})),
            ("/v1/embeddings", json!({ "encoding_format": "base64" })),
        ] {
            let mut asked = body(count);
            asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let whole = direct.post(path, &asked).await.unwrap();
            let before = ollama.record().inferences().len();
            let split = client.post(path, &asked).await.unwrap();
            assert_same(&split, &whole);
            let sent = &parts(&ollama)[before..];
            assert_eq!((sent.iter().sum(), sent.len()), (count, count.div_ceil(16)), "{path} {count}");
            assert!(sent.iter().all(|inputs| *inputs <= 16), "{sent:?}");
        }
    }
}

#[tokio::test]
async fn up_to_sixteen_inputs_and_what_is_no_list_of_inputs_go_as_they_are() {
    let (ollama, sidecar) = world(&PolicyFile::open(), 0).await;
    let client = sidecar.client();
    for asked in [
        body(16),
        json!({ "model": "tinybert", "input": "one" }),
        json!({ "model": "tinybert", "input": vec![7; 40] }),
        json!({ "model": "tinybert", "input": texts(20).into_iter().map(Value::from).chain([json!(1)]).collect::<Vec<_>>() }),
    ] {
        let before = ollama.record().inferences().len();
        client.post("/v1/embeddings", &asked).await.unwrap();
        let sent = ollama.record().inferences();
        assert_eq!(sent.len(), before + 1);
        assert_eq!(sent[before].text(), asked.to_string());
    }
}

#[tokio::test]
async fn a_request_in_parts_is_one_request_and_its_tokens_are_those_of_all_parts() {
    let limit = "{ name: two, per: [Client], requests: 2/h, burst: { requests: 2 } }";
    let (ollama, sidecar) = world(&PolicyFile::limits(&[limit]), 0).await;
    let client = sidecar.client();
    for _ in 0..2 {
        assert_eq!(client.post("/api/embed", &body(50)).await.unwrap().status, StatusCode::OK);
    }
    assert_eq!(client.post("/api/embed", &body(50)).await.unwrap().status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(parts(&ollama), [16, 16, 16, 2, 16, 16, 16, 2]);
    assert_eq!(tokens(&sidecar, "settled").await, 200);
    assert_eq!(metric(&sidecar, "corral_requests_total{endpoint=\"embed\",outcome=\"served\"}").await, 2);
    assert_eq!(metric(&sidecar, "corral_in_flight").await, 0);
}

/// Waits for the first part of a request, and has the next ones meet these faults.
async fn meets(ollama: &ScriptedOllama, faults: &[Fault]) {
    assert!(soon(async || !ollama.record().inferences().is_empty()).await);
    for fault in faults {
        ollama.fault_at(Endpoint::Embed, fault.clone());
    }
}

#[tokio::test]
async fn the_first_part_that_fails_ends_it_with_ollamas_own_answer_and_what_was_done_is_charged() {
    let (ollama, sidecar) = world(&PolicyFile::open(), 10).await;
    let client = sidecar.client();
    let asking = tokio::spawn(async move { client.post("/api/embed", &body(50)).await.unwrap() });
    // It is tried once more.
    meets(&ollama, &[Fault::Busy, Fault::Busy]).await;
    let answer = asking.await.unwrap();
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    let said = r#"{"error":"server busy, please try again.  maximum pending requests exceeded"}"#;
    assert_eq!(answer.text(), said);
    assert!(!answer.header("retry-after").is_empty());
    assert_eq!(parts(&ollama), [16, 16, 16], "the second part came twice, and no third one");
    assert_eq!(tokens(&sidecar, "settled").await, 32);
    assert_eq!(metric(&sidecar, "corral_in_flight").await, 0);
}

#[tokio::test]
async fn a_broken_answer_to_a_part_ends_it_and_is_never_asked_for_again() {
    for fault in [Fault::WrongJson, Fault::Close] {
        let (ollama, sidecar) = world(&PolicyFile::open(), 10).await;
        let client = sidecar.client();
        let asking = tokio::spawn(async move { client.post("/api/embed", &body(50)).await.unwrap() });
        meets(&ollama, std::slice::from_ref(&fault)).await;
        let answer = asking.await.unwrap();
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{fault:?}");
        assert!(!answer.json()["error"].is_null() && !answer.header("retry-after").is_empty());
        assert_eq!(parts(&ollama), [16, 16], "{fault:?}");
        assert_eq!(tokens(&sidecar, "settled").await, 32, "{fault:?}");
        assert_eq!(metric(&sidecar, "corral_in_flight").await, 0, "{fault:?}");
    }
}

#[tokio::test]
async fn what_ollama_refuses_at_once_costs_no_tokens_and_is_told_as_ollama_tells_it() {
    let (ollama, sidecar) = world(&PolicyFile::open(), 0).await;
    let direct = Client::new(ollama.address());
    for (path, asked) in [
        ("/api/embed", json!({ "model": "nope", "input": texts(40) })),
        ("/v1/embeddings", json!({ "model": "nope", "input": texts(40) })),
        ("/v1/embeddings", json!({ "model": "tinybert", "input": texts(40), "encoding_format": "hex" })),
    ] {
        let whole = direct.post(path, &asked).await.unwrap();
        let before = ollama.record().inferences().len();
        let split = sidecar.client().post(path, &asked).await.unwrap();
        assert_eq!((split.status, split.body), (whole.status, whole.body), "{path}");
        assert_eq!(ollama.record().inferences().len(), before + 1);
    }
    assert_eq!(tokens(&sidecar, "settled").await, 0);
}

#[tokio::test]
async fn a_client_that_leaves_is_charged_for_what_was_done_and_nothing_more_is_sent() {
    let (ollama, sidecar) = world(&PolicyFile::open(), 10).await;
    let client = sidecar.client();
    // What inputs come to is learned.
    client.post("/api/embed", &body(50)).await.unwrap();
    let before = (tokens(&sidecar, "settled").await, ollama.record().inferences().len());
    let leaving = tokio::spawn(async move { client.post("/api/embed", &body(160)).await });
    assert!(soon(async || ollama.record().inferences().len() == before.1 + 3).await);
    leaving.abort();
    assert!(soon(async || ollama.record().load().running == 0).await);
    assert!(soon(async || metric(&sidecar, "corral_in_flight").await == 0).await);
    assert_eq!(ollama.record().inferences().len(), before.1 + 3);
    assert_eq!(ollama.record().leaked(), 0);
    let charged = tokens(&sidecar, "settled").await - before.0;
    assert!((64 + 16..=64 + 48).contains(&charged), "two parts, and a third as estimated: {charged}");
    let reserved = tokens(&sidecar, "reserved").await;
    assert_eq!(
        tokens(&sidecar, "settled").await + tokens(&sidecar, "refunded").await,
        reserved + tokens(&sidecar, "debt").await
    );
}

#[tokio::test]
async fn who_leaves_while_a_part_waits_for_its_slot_is_charged_for_what_was_done() {
    let policy = PolicyFile::open().trusting(&["127.0.0.0/8"]);
    let (ollama, sidecar) = world(&policy, 10).await;
    let (long, other) = (as_client(&sidecar, "192.0.2.1"), as_client(&sidecar, "192.0.2.2"));
    let leaving = tokio::spawn(async move { long.post("/api/embed", &body(48)).await });
    assert!(soon(async || !ollama.record().inferences().is_empty()).await);
    // It takes the slot between the parts, for a second.
    ollama.set_pace(Pace { token: Duration::from_millis(65), ..Pace::default() });
    let between = tokio::spawn(async move { other.post("/api/embed", &body(16)).await.unwrap() });
    assert!(soon(async || ollama.record().inferences().len() == 2).await);
    sleep(Duration::from_millis(30)).await;
    leaving.abort();
    assert_eq!(between.await.unwrap().status, StatusCode::OK);
    sleep(Duration::from_millis(50)).await;
    assert_eq!(parts(&ollama), [16, 16], "nothing is sent for who has left");
    assert_eq!(tokens(&sidecar, "settled").await, 64);
    assert_eq!(metric(&sidecar, "corral_in_flight").await, 0);
}

fn as_client(sidecar: &Sidecar, address: &str) -> Client {
    sidecar.client().with("x-forwarded-for", address)
}

#[tokio::test]
async fn somebody_elses_request_comes_in_between_two_parts() {
    let policy = PolicyFile::open().trusting(&["127.0.0.0/8"]);
    let (ollama, sidecar) = world(&policy, 10).await;
    let (long, other) = (as_client(&sidecar, "192.0.2.1"), as_client(&sidecar, "192.0.2.2"));
    let asking = tokio::spawn(async move { long.post("/api/embed", &body(160)).await.unwrap() });
    assert!(soon(async || !ollama.record().inferences().is_empty()).await);
    let short = other.post("/api/embed", &body(1)).await.unwrap();
    assert_eq!(short.status, StatusCode::OK);
    let sent = parts(&ollama);
    assert!(sent.len() <= 4 && sent.contains(&1), "it waited for all parts: {sent:?}");
    assert_eq!(asking.await.unwrap().json()["embeddings"].as_array().unwrap().len(), 160);
    let record = ollama.record();
    assert_eq!((record.load().max_running, record.load().max_waiting), (1, 0));
}

#[tokio::test]
async fn a_part_whose_ollama_has_no_room_is_sent_once_more_and_the_answer_is_whole() {
    let (ollama, sidecar) = world(&PolicyFile::open(), 10).await;
    let whole = Client::new(ollama.address()).post("/api/embed", &body(40)).await.unwrap();
    let before = ollama.record().inferences().len();
    let client = sidecar.client();
    let asking = tokio::spawn(async move { client.post("/api/embed", &body(40)).await.unwrap() });
    assert!(soon(async || ollama.record().inferences().len() > before).await);
    ollama.fault_at(Endpoint::Embed, Fault::Busy);
    assert_same(&asking.await.unwrap(), &whole);
    assert_eq!(&parts(&ollama)[before..], [16, 16, 16, 8]);
    assert_eq!(metric(&sidecar, "corral_upstream_retries_total{kind=\"busy\"}").await, 1);
}
