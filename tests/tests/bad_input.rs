//! Nothing that is spelt strangely escapes a limit: the corpus, and random bodies.
//!
//! The bucket of `tiny` at `/api/generate` is spent first. Then whatever is charged to it gets 429, whatever is in
//! doubt is refused, and what still reaches Ollama's inference has escaped.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::time::Duration;

use corral_tests::client::Client;
use corral_tests::corpus::{self, BODY, Verdict, expand, raw_bytes};
use corral_tests::ollama::{Arrival, ModelSpec, ScriptedOllama, Settings};
use corral_tests::sidecar::{PolicyFile, Sidecar};
use http::{Method, StatusCode};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use serde_json::json;

const CLOSES_WITHIN: Duration = Duration::from_secs(5);

/// One request an hour for every model and endpoint.
fn strict() -> PolicyFile {
    let limit = "{ name: one, per: [Model, Endpoint], requests: 1/h, burst: { requests: 1 } }";
    PolicyFile::limits(&[limit])
}

/// Ollama, and a sidecar in which the bucket of `tiny` at `/api/generate` is spent.
async fn spent(policy: &PolicyFile) -> (ScriptedOllama, Sidecar) {
    let models = vec![ModelSpec::endless("tiny"), ModelSpec::endless("other")];
    let ollama = ScriptedOllama::start(Settings { models, ..Settings::default() }).await.unwrap();
    let sidecar = Sidecar::tuned(&ollama, policy, |settings| {
        settings.proxy.stall_timeout = Duration::from_millis(300);
        settings.proxy.body_timeout = Duration::from_millis(600);
        settings.proxy.head_timeout = Duration::from_millis(500);
    });
    let sidecar = sidecar.await.unwrap();
    let first = sidecar.client().send(Method::POST, "/api/generate", BODY).await.unwrap();
    assert_eq!(first.status, StatusCode::OK, "{}", first.text());
    assert_eq!(ollama.record().inferences().len(), 1);
    (ollama, sidecar)
}

fn assert_verdict(name: &str, verdict: Verdict, statuses: &[u16], closed: bool) {
    let refused = |status: &u16| (400..500).contains(status) && *status != 429 || *status == 505;
    match verdict {
        Verdict::Same => assert_eq!(statuses, [429], "{name}"),
        Verdict::Refused => {
            assert!(statuses.len() == 1 && statuses.iter().all(refused), "{name}: {statuses:?}");
        }
        Verdict::Closed => {
            assert!(closed, "{name}: still open after {statuses:?}");
            assert!(statuses.len() <= 1 && statuses.iter().all(refused), "{name}: {statuses:?}");
        }
    }
}

fn assert_nothing_new(ollama: &ScriptedOllama, name: &str) {
    let inferences = ollama.record().inferences();
    assert_eq!(inferences.len(), 1, "{name}: {:?}", inferences.last());
}

fn host_of(client: &Client) -> String {
    client.address().to_string()
}

#[tokio::test]
async fn no_spelling_of_a_target_escapes_its_limit() {
    let (ollama, sidecar) = spent(&strict()).await;
    let client = sidecar.client();
    let host = host_of(&client);
    for case in corpus::targets().unwrap() {
        let raw = format!(
            "{} {} HTTP/1.1\r\nHost: $HOST\r\nContent-Length: $LEN\r\nConnection: close\r\n\r\n$BODY",
            case.method, case.target
        );
        let name: String = format!("{} {}", case.method, case.target).chars().take(60).collect();
        let answer = client.raw(&raw_bytes(&raw, &host), CLOSES_WITHIN).await.unwrap();
        assert_verdict(&name, case.verdict, &answer.statuses(), answer.closed);
        assert_nothing_new(&ollama, &name);
    }
    let own = |one: &&Arrival| one.method == "GET" || one.target == "/api/show";
    assert_eq!(ollama.record().arrivals().iter().filter(|one| !own(one)).count(), 1);
}

#[tokio::test]
async fn no_framing_trick_smuggles_a_request() {
    let (ollama, sidecar) = spent(&strict()).await;
    let client = sidecar.client();
    let host = host_of(&client);
    for case in corpus::framing().unwrap() {
        let answer = client.raw(&raw_bytes(&case.raw, &host), CLOSES_WITHIN).await.unwrap();
        assert_verdict(&case.name, case.verdict, &answer.statuses(), answer.closed);
        assert_nothing_new(&ollama, &case.name);
    }
}

#[tokio::test]
async fn no_header_changes_what_is_charged() {
    let (ollama, sidecar) = spent(&strict()).await;
    let client = sidecar.client();
    let host = host_of(&client);
    for case in corpus::headers().unwrap() {
        let lines = case.lines.join("\r\n") + "\r\n";
        let close = if lines.contains("Connection:") { "" } else { "Connection: close\r\n" };
        let raw = format!(
            "POST /api/generate HTTP/1.1\r\nHost: $HOST\r\n{lines}{close}Content-Length: $LEN\r\n\r\n$BODY"
        );
        let answer = client.raw(&raw_bytes(&raw, &host), Duration::from_millis(500)).await.unwrap();
        assert_verdict(&case.name, case.verdict, &answer.statuses(), true);
        assert_nothing_new(&ollama, &case.name);
    }
}

#[tokio::test]
async fn no_body_is_charged_to_another_model_than_it_runs() {
    let (ollama, sidecar) = spent(&strict()).await;
    for case in corpus::bodies().unwrap() {
        let answer = sidecar.client().send(Method::POST, "/api/generate", case.bytes()).await.unwrap();
        assert_verdict(&case.name, case.verdict, &[answer.status.as_u16()], true);
        assert_nothing_new(&ollama, &case.name);
    }
}

#[tokio::test]
async fn every_spelling_of_a_model_shares_one_bucket() {
    let (ollama, sidecar) = spent(&strict()).await;
    for case in corpus::models().unwrap() {
        let spelling = expand(&case.spelling);
        let body = json!({ "model": spelling, "prompt": "hi", "stream": false });
        let answer = sidecar.client().post("/api/generate", &body).await.unwrap();
        let name: String = spelling.chars().take(60).collect();
        assert_verdict(&name, case.verdict, &[answer.status.as_u16()], true);
        assert_nothing_new(&ollama, &name);
    }
}

/// Anthropic's SDKs put `?beta=true` behind the path of their newer calls.
#[tokio::test]
async fn the_one_query_that_clients_send_shares_the_bucket_and_ends_here() {
    let ollama = ScriptedOllama::plain().await.unwrap();
    let sidecar = Sidecar::start(&ollama, &strict()).await.unwrap();
    let message = json!({ "role": "user", "content": "hi" });
    let body = json!({ "model": "tiny", "messages": [message], "max_tokens": 1 });
    let first = sidecar.client().post("/v1/messages?beta=true", &body).await.unwrap();
    assert_eq!(first.status, StatusCode::OK, "{}", first.text());
    assert_eq!(ollama.record().inferences()[0].target, "/v1/messages");
    let second = sidecar.client().post("/v1/messages", &body).await.unwrap();
    assert_eq!(second.status, StatusCode::TOO_MANY_REQUESTS);
    for target in
        ["/v1/messages?beta=false", "/v1/messages?beta=true&x=1", "/v1/messages?", "/api/chat?beta=true"]
    {
        let other = sidecar.client().post(target, &body).await.unwrap();
        assert_eq!(other.status, StatusCode::BAD_REQUEST, "{target}");
    }
}

#[tokio::test]
async fn refusals_never_redirect_and_speak_the_callers_family() {
    let (_ollama, sidecar) = spent(&strict()).await;
    let client = sidecar.client();
    for (target, pointer) in [
        ("/api/generate/", "/error"),
        ("/v1/chat/completions/", "/error/message"),
        ("/v1/messages/x", "/error/message"),
    ] {
        let answer = client.send(Method::POST, target, BODY).await.unwrap();
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{target}");
        assert!(answer.headers.get("location").is_none());
        assert!(
            answer.json().pointer(pointer).is_some_and(serde_json::Value::is_string),
            "{}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn pipelined_requests_are_two_requests() {
    let ollama = ScriptedOllama::plain().await.unwrap();
    let policy = PolicyFile::limits(&["{ name: two, per: [Client], requests: 2/h, burst: { requests: 2 } }"]);
    let sidecar = Sidecar::start(&ollama, &policy).await.unwrap();
    let client = sidecar.client();
    let one = "POST /api/generate HTTP/1.1\r\nHost: $HOST\r\nContent-Length: $LEN\r\n\r\n$BODY";
    let last = one.replace("Content-Length", "Connection: close\r\nContent-Length");
    let raw = raw_bytes(&format!("{one}{one}{last}"), &host_of(&client));
    let answer = client.raw(&raw, CLOSES_WITHIN).await.unwrap();
    assert!(answer.closed);
    let admitted = answer.statuses().iter().filter(|status| **status == 200).count();
    assert_eq!(ollama.record().inferences().len(), admitted);
    assert!(admitted <= 2, "{:?}", answer.statuses());
}

#[tokio::test]
async fn ollama_gets_the_same_bytes_in_a_frame_of_our_own() {
    let ollama = ScriptedOllama::plain().await.unwrap();
    let sidecar = Sidecar::start(&ollama, &PolicyFile::open()).await.unwrap();
    let client = sidecar.client();
    let body = "{ \"Model\" : \" TINY \",\"prompt\":\"\\u0041\",\"stream\":false,\n\"options\":{\"num_predict\":1} }";
    let chunked = format!(
        "POST /api/generate HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\nAuthorization: Bearer secret\r\n\
         X-API-Key: secret\r\nCookie: secret\r\nX-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\n\
         Origin: http://localhost\r\nProxy-Authorization: Basic secret\r\nTE: trailers\r\n\
         Connection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n5\r\n{}\r\n{:x}\r\n{}\r\n0\r\nAuthorization: secret\r\n\r\n",
        client.address(),
        &body[..5],
        body.len() - 5,
        &body[5..]
    );
    let answer = client.raw(chunked.as_bytes(), CLOSES_WITHIN).await.unwrap();
    assert_eq!(answer.statuses(), [200], "{}", String::from_utf8_lossy(&answer.read));
    let arrived = ollama.record().inferences().pop().unwrap();
    assert_eq!(arrived.text(), body);
    assert_eq!(arrived.target, "/api/generate");
    assert_eq!(arrived.headers["host"], "localhost");
    assert_eq!(arrived.headers["content-length"], body.len().to_string());
    for name in [
        "transfer-encoding",
        "authorization",
        "x-api-key",
        "cookie",
        "x-forwarded-for",
        "forwarded",
        "origin",
        "proxy-authorization",
        "te",
        "upgrade",
    ] {
        assert!(!arrived.headers.contains_key(name), "{name}");
    }
    assert!(!format!("{:?}", arrived.headers).contains("secret"));
}

#[tokio::test]
async fn one_byte_over_the_body_cap_is_413_however_it_is_framed() {
    let ollama = ScriptedOllama::plain().await.unwrap();
    let policy = PolicyFile::open();
    let tuned = Sidecar::tuned(&ollama, &policy, |settings| settings.proxy.max_body_bytes = 2000);
    let sidecar = tuned.await.unwrap();
    let client = sidecar.client();
    let body = |length: usize| {
        let frame = r#"{"model":"tiny","stream":false,"options":{"num_predict":1},"prompt":""}"#.len();
        let prompt = "x".repeat(length - frame);
        format!(r#"{{"model":"tiny","stream":false,"options":{{"num_predict":1}},"prompt":"{prompt}"}}"#)
    };
    assert_eq!(body(2000).len(), 2000);
    assert_eq!(client.send(Method::POST, "/api/generate", body(2000)).await.unwrap().status, StatusCode::OK);
    let over = client.send(Method::POST, "/api/generate", body(2001)).await.unwrap();
    assert_eq!(over.status, StatusCode::PAYLOAD_TOO_LARGE);
    let chunked = format!(
        "POST /api/generate HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n7d1\r\n{}\r\n0\r\n\r\n",
        body(2001)
    );
    let answer = client.raw(chunked.as_bytes(), CLOSES_WITHIN).await.unwrap();
    assert_eq!(answer.statuses(), [413]);
    assert_eq!(ollama.record().inferences().len(), 1);
}

#[tokio::test]
async fn slow_clients_are_closed_and_hold_nothing() {
    let (ollama, sidecar) = spent(&strict()).await;
    let client = sidecar.client();
    let half_head = b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\n";
    assert!(client.raw(half_head, CLOSES_WITHIN).await.unwrap().closed);
    let half_body = b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{";
    assert!(client.raw(half_body, CLOSES_WITHIN).await.unwrap().closed);
    assert_nothing_new(&ollama, "slow clients");
}

/// Keys that Go takes for `model`, or that a careless reader would.
const KEYS: &[&str] = &[
    "model",
    "MODEL",
    "Model",
    "\\u006dodel",
    "mode\\u006c",
    "\\u004dodel",
    "model ",
    "model\\u0000",
    "mo\u{301}del",
    "name",
];
const MODELS: &[&str] = &[
    "\"tiny\"",
    "\"TINY\"",
    "\"library/tiny\"",
    "\" tiny\"",
    "\"t\\u0069ny\"",
    "\"tiny:latest\"",
    "\"other\"",
    "\"other\"",
    "\"Other:latest\"",
    "null",
    "\"\"",
    "[\"tiny\"]",
];
const REST: &[&str] = &[
    "\"prompt\":\"hi\"",
    "\"stream\":false",
    "\"\u{17f}tream\":false",
    "\"keep_alive\":1",
    "\"\u{212a}eep_alive\":1",
    "\"options\":{\"num_predict\":1,\"model\":\"tiny\"}",
    "\"format\":{\"model\":{\"model\":\"tiny\"}}",
];

fn any_body() -> impl Strategy<Value = String> {
    let space = prop::sample::select(vec!["", " ", "\t\r\n"]);
    let model = (prop::sample::select(KEYS), prop::sample::select(MODELS), space);
    let models = prop::collection::vec(model, 1..4);
    let rest = prop::sample::subsequence(REST, 0..4);
    let end = prop::sample::select(vec!["", "", "", " ", "{\"model\":\"tiny\"}", "x"]);
    (models, rest, end).prop_flat_map(|(models, rest, end)| {
        let named =
            models.iter().map(|(key, value, space)| format!("{space}\"{key}\"{space}:{space}{value}"));
        let pairs: Vec<String> = named.chain(rest.iter().map(ToString::to_string)).collect();
        Just(pairs).prop_shuffle().prop_map(move |pairs| format!("{{{}}}{end}", pairs.join(",")))
    })
}

/// The bucket of `tiny` is spent and no other model has a limit: what runs `tiny` was charged to another.
#[test]
fn whatever_reaches_inference_was_charged_to_the_model_that_runs() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limit =
        "{ name: one, match: { models: [tiny] }, per: [Model], requests: 1/h, burst: { requests: 1 } }";
    let (ollama, sidecar) = runtime.block_on(spent(&PolicyFile::limits(&[limit])));
    let config = ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() };
    let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, random);
    let outcome = runner.run(&any_body(), |body| {
        let before = ollama.record().inferences().len();
        let answer = runtime.block_on(sidecar.client().send(Method::POST, "/api/generate", body.clone()));
        answer.map_err(|error| TestCaseError::fail(error.to_string()))?;
        let new = ollama.record().inferences().split_off(before);
        let escaped = new.iter().any(|arrival| arrival.model().as_deref() == Some("tiny:latest"));
        prop_assert!(!escaped, "{} ran tiny", body);
        Ok(())
    });
    assert!(outcome.is_ok(), "{outcome:?}");
    assert!(ollama.record().inferences().len() > 5, "the other model ran");
}

#[tokio::test]
async fn a_request_of_a_foreign_web_page_is_refused_in_the_words_of_its_api() {
    let ollama = ScriptedOllama::plain().await.unwrap();
    let sidecar = Sidecar::start(&ollama, &PolicyFile::open()).await.unwrap();
    for (name, value, header) in [
        ("origin", "https://evil.example", "Origin"),
        ("origin", "null", "Origin"),
        ("host", "evil.example:11434", "Host"),
    ] {
        let client = sidecar.client().with(name, value);
        for (target, message) in [
            ("/api/generate", "/error"),
            ("/v1/chat/completions", "/error/message"),
            ("/v1/messages", "/error/message"),
        ] {
            let answer = client.send(Method::POST, target, BODY).await.unwrap();
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{target} {value}");
            let told: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            let told = told.pointer(message).and_then(serde_json::Value::as_str).unwrap();
            assert!(told.contains(header), "{told}");
        }
    }
    assert_eq!(ollama.record().arrivals().iter().filter(|one| one.method == "POST").count(), 0);
    let local = sidecar.client().with("origin", "http://localhost:3000");
    let answer = local.send(Method::POST, "/api/generate", BODY).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
}
