//! A limit means what it says, seen from a client: how many are let in, what a refusal says, and when to come back.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::time::Duration;

use corral_tests::client::{Answer, Client};
use corral_tests::fields::{Item, parse_list};
use corral_tests::ollama::{Pace, ScriptedOllama, Settings};
use corral_tests::sidecar::{PolicyFile, Sidecar};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

fn generate() -> Value {
    json!({ "model": "tiny", "prompt": "hi", "stream": false, "options": { "num_predict": 1 } })
}

fn chat(model: &str) -> Value {
    let message = json!({ "role": "user", "content": "hi" });
    json!({ "model": model, "messages": [message], "stream": false, "max_tokens": 1, "options": { "num_predict": 1 } })
}

async fn world(policy: &PolicyFile) -> (ScriptedOllama, Sidecar) {
    let ollama = ScriptedOllama::start(Settings { num_parallel: 8, max_queue: 512, ..Settings::default() })
        .await
        .unwrap();
    let sidecar = Sidecar::start(&ollama, policy).await.unwrap();
    (ollama, sidecar)
}

async fn limited(items: &[&str]) -> (ScriptedOllama, Sidecar) {
    world(&PolicyFile::limits(items).slots(8)).await
}

async fn ask(client: &Client) -> Answer {
    client.post("/api/generate", &generate()).await.unwrap()
}

fn retry_after(answer: &Answer) -> Duration {
    Duration::from_millis(answer.header("retry-after-ms").parse().unwrap())
}

fn items(answer: &Answer, name: &str) -> Vec<Item> {
    parse_list(answer.header(name)).unwrap()
}

#[tokio::test]
async fn exactly_the_stated_share_is_admitted_at_one_instant() {
    let (ollama, sidecar) =
        limited(&["{ name: ten, per: [Client], requests: 60/h, burst: { requests: 10 } }"]).await;
    let client = sidecar.client();
    let answers = futures::future::join_all((0..40).map(|_| ask(&client))).await;
    let admitted = answers.iter().filter(|answer| answer.status == StatusCode::OK).count();
    let refused = answers.iter().filter(|answer| answer.status == StatusCode::TOO_MANY_REQUESTS).count();
    assert_eq!((admitted, refused), (10, 30));
    assert_eq!(ollama.record().inferences().len(), 10);
}

#[tokio::test]
async fn the_default_burst_is_a_sixth_of_the_rate() {
    let (_ollama, sidecar) = limited(&["{ name: sixty, per: [Client], requests: 60/m }"]).await;
    let client = sidecar.client();
    for _ in 0..10 {
        assert_eq!(ask(&client).await.status, StatusCode::OK);
    }
    assert_eq!(ask(&client).await.status, StatusCode::TOO_MANY_REQUESTS);
}

/// 429 until the stated time, 200 from then on; as close to it as the clock of this machine allows to say.
#[tokio::test]
async fn obeying_retry_after_succeeds_and_coming_earlier_does_not() {
    let (_ollama, sidecar) =
        limited(&["{ name: slow, per: [Client], requests: 4/s, burst: { requests: 1 } }"]).await;
    let client = sidecar.client();
    assert_eq!(ask(&client).await.status, StatusCode::OK);
    let mut early = 0;
    for _ in 0..8 {
        let sent = Instant::now();
        let refused = ask(&client).await;
        let heard = Instant::now();
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(retry_after(&refused) <= Duration::from_millis(250));
        assert_eq!(refused.header("retry-after"), "1");
        // Decided somewhere between `sent` and `heard`; the wait is rounded up by less than a millisecond.
        let certainly_early = sent + retry_after(&refused) - Duration::from_millis(1);
        sleep_until(certainly_early - Duration::from_millis(4)).await;
        let too_soon = ask(&client).await;
        if Instant::now() <= certainly_early {
            assert_eq!(too_soon.status, StatusCode::TOO_MANY_REQUESTS);
            early += 1;
        }
        if too_soon.status != StatusCode::OK {
            sleep_until(heard + retry_after(&refused)).await;
            assert_eq!(ask(&client).await.status, StatusCode::OK);
        }
    }
    assert!(early > 0, "this machine never answered within 4 ms");
}

#[tokio::test]
async fn a_refused_request_costs_nothing() {
    let (_ollama, sidecar) = limited(&[
        "{ name: slow, per: [Client], requests: 2/s, burst: { requests: 1 } }",
        "{ name: wide, per: [Client], requests: 100/h, burst: { requests: 50 } }",
        "{ name: models, per: [Client, Model], requests: 1/h, burst: { requests: 40 } }",
    ])
    .await;
    let client = sidecar.client();
    assert_eq!(ask(&client).await.status, StatusCode::OK);
    let first = ask(&client).await;
    let heard = Instant::now();
    let left = |answer: &Answer, name: &str| {
        items(answer, "ratelimit").iter().find(|item| item.name == name).unwrap().integer("r").unwrap()
    };
    let before = left(&first, "wide.requests");
    assert_eq!(before, 49);
    let mut last = first.clone();
    while Instant::now() + Duration::from_millis(30) < heard + retry_after(&first) {
        last = ask(&client).await;
        assert_eq!(last.status, StatusCode::TOO_MANY_REQUESTS);
    }
    assert_eq!(left(&last, "wide.requests"), before);
    sleep_until(heard + retry_after(&first)).await;
    let admitted = ask(&client).await;
    assert_eq!(admitted.status, StatusCode::OK);
    assert_eq!(left(&admitted, "models.requests"), 38);
}

#[tokio::test]
async fn a_spoofed_forwarded_for_changes_nothing() {
    let (ollama, sidecar) =
        limited(&["{ name: one, per: [ClientIP], requests: 1/h, burst: { requests: 1 } }"]).await;
    assert_eq!(ask(&sidecar.client()).await.status, StatusCode::OK);
    for spoof in ["1.2.3.4", "::1", "127.0.0.2", "unknown", "1.1.1.1, 2.2.2.2"] {
        let client = sidecar.client().with("x-forwarded-for", spoof).with("x-real-ip", spoof);
        assert_eq!(ask(&client).await.status, StatusCode::TOO_MANY_REQUESTS, "{spoof}");
    }
    assert_eq!(ollama.record().inferences().len(), 1);
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_client_is_whom_it_names_from_the_right() {
    let limit = "{ name: one, per: [ClientIP], requests: 1/h, burst: { requests: 1 } }";
    let policy = PolicyFile::limits(&[limit]).slots(8).trusting(&["127.0.0.0/8"]);
    let (_ollama, sidecar) = world(&policy).await;
    let from = |chain: &str| sidecar.client().with("x-forwarded-for", chain);
    let admitted = StatusCode::OK;
    let refused = StatusCode::TOO_MANY_REQUESTS;
    for (chain, status) in [
        ("1.2.3.4", admitted),
        ("1.2.3.4", refused),
        ("9.9.9.9, 1.2.3.4", refused),
        ("1.2.3.4, 127.0.0.9", refused),
        ("1.2.3.5", admitted),
        ("::ffff:1.2.3.5", refused),
        ("2001:db8::1", admitted),
        ("2001:db8::2", refused),
        ("2001:db8:0:1::1", admitted),
    ] {
        assert_eq!(ask(&from(chain)).await.status, status, "{chain}");
    }
}

#[tokio::test]
async fn refusals_speak_the_family_of_the_endpoint() {
    let limit = "{ name: one, per: [Client, Endpoint], requests: 1/h, burst: { requests: 1 } }";
    let (_ollama, sidecar) = limited(&[limit]).await;
    let client = sidecar.client();
    assert_eq!(client.post("/api/chat", &chat("tiny")).await.unwrap().status, StatusCode::OK);
    for target in ["/api/chat", "/v1/chat/completions", "/v1/messages", "/v1/responses"] {
        let body = json!({ "model": "tiny", "messages": [], "input": "hi", "max_tokens": 1 });
        let answer = client.post(target, &body).await.unwrap();
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{target}");
        assert!(answer.header("content-type").starts_with("application/json"), "{target}");
        let error = &answer.json()["error"];
        let text = match target {
            "/api/chat" => error,
            "/v1/messages" => {
                assert_eq!(answer.json()["type"], "error");
                assert_eq!(error["type"], "rate_limit_error");
                &error["message"]
            }
            _ => {
                assert_eq!(error["code"], "rate_limit_exceeded");
                assert!(error["type"].is_string() && error.get("param").is_some());
                &error["message"]
            }
        };
        let text = text.as_str().unwrap();
        assert!(text.contains("one") && text.contains("fair-use"), "names its limit: {text}");
    }
}

#[tokio::test]
async fn every_exceeded_limit_is_named_as_far_as_the_model_is_known() {
    let once = |name: &str, per: &str| {
        format!("{{ name: {name}, per: [{per}], requests: 1/h, burst: {{ requests: 1 }} }}")
    };
    let limits =
        [("first", "Client"), ("second", "Global"), ("third", "Model"), ("fourth", "ClientIP, Model")];
    let named = async |asked: &[(&str, &str)]| {
        let items: Vec<_> = asked.iter().map(|(name, per)| once(name, per)).collect();
        let (_ollama, sidecar) = limited(&items.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let client = sidecar.client();
        assert_eq!(ask(&client).await.status, StatusCode::OK);
        let refused = ask(&client).await;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        let text = refused.text();
        let is_named = |name: &&str| text.contains(&format!("fair-use/{name}"));
        limits.map(|(name, _)| name).into_iter().filter(is_named).collect::<Vec<_>>()
    };
    assert_eq!(named(&limits).await, ["first", "second"], "the head refuses, and its model is not read");
    assert_eq!(named(&limits[2..]).await, ["third", "fourth"]);
}

#[tokio::test]
async fn rate_limit_headers_are_structured_fields_that_add_up() {
    let (_ollama, sidecar) = limited(&[
        "{ name: few, per: [Client], requests: 6/m, burst: { requests: 3 } }",
        "{ name: many, per: [Global], requests: 6000/m, concurrency: 7 }",
    ])
    .await;
    let client = sidecar.client();
    let answer = ask(&client).await;
    let standing = items(&answer, "ratelimit");
    let policy = items(&answer, "ratelimit-policy");
    let names = |items: &[Item]| items.iter().map(|item| item.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&standing)[0], "few.requests", "scarcest first: {standing:?}");
    let (mut shown, mut known) = (names(&standing), names(&policy));
    shown.sort();
    known.sort();
    assert_eq!(shown, known);
    assert_eq!(known, ["few.requests", "many.concurrency", "many.requests"]);
    let few = policy.iter().find(|item| item.name == "few.requests").unwrap();
    assert_eq!((few.integer("q"), few.integer("w")), (Some(6), Some(60)));
    assert_eq!(standing[0].integer("r"), Some(2));
    assert!((1..=10).contains(&standing[0].integer("t").unwrap()));
    let slots = policy.iter().find(|item| item.name == "many.concurrency").unwrap();
    assert_eq!((slots.integer("q"), slots.integer("w")), (Some(7), None));
    ask(&client).await;
    ask(&client).await;
    let refused = ask(&client).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    let spent = items(&refused, "ratelimit");
    let few = spent.iter().find(|item| item.name == "few.requests").unwrap();
    assert_eq!(few.integer("r"), Some(0));
    let wait: i64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=wait).contains(&few.integer("t").unwrap()), "Retry-After {wait}, {few:?}");
}

#[tokio::test]
async fn a_client_can_look_at_its_limits_without_paying() {
    let (ollama, sidecar) =
        limited(&["{ name: few, per: [Client], requests: 6/m, burst: { requests: 3 } }"]).await;
    let client = sidecar.client();
    ask(&client).await;
    let mut shown = Value::Null;
    for _ in 0..5 {
        let answer = client.get("/corral/v1/limits").await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.header("content-type"), "application/json");
        shown = answer.json();
    }
    let text = shown.to_string();
    assert!(text.contains("few") && text.contains("fair-use") && text.contains("requests"), "{text}");
    assert_eq!(ask(&client).await.status, StatusCode::OK);
    assert_eq!(ask(&client).await.status, StatusCode::OK);
    assert_eq!(ask(&client).await.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(ollama.record().inferences().len(), 3);
}

#[tokio::test]
async fn a_refused_request_that_is_shared_between_clients_waits_with_jitter_but_never_less() {
    let (_ollama, sidecar) =
        limited(&["{ name: all, per: [Global], requests: 2/s, burst: { requests: 1 } }"]).await;
    let client = sidecar.client();
    ask(&client).await;
    let refused = ask(&client).await;
    let heard = Instant::now();
    assert!(retry_after(&refused) <= Duration::from_millis(551), "{:?}", retry_after(&refused));
    sleep_until(heard + retry_after(&refused)).await;
    assert_eq!(ask(&client).await.status, StatusCode::OK);
}

#[tokio::test]
async fn metadata_takes_no_slot_and_has_a_cap_of_its_own() {
    let (_ollama, sidecar) =
        limited(&["{ name: one, per: [Client], requests: 1/h, burst: { requests: 1 } }"]).await;
    let client = sidecar.client();
    let looks = futures::future::join_all((0..60).map(|_| client.get("/api/version"))).await;
    let admitted = looks.iter().filter(|answer| answer.as_ref().unwrap().status == StatusCode::OK).count();
    assert!((3..=40).contains(&admitted), "{admitted}");
    let refused =
        looks.iter().map(|answer| answer.as_ref().unwrap()).find(|answer| answer.status != StatusCode::OK);
    assert_eq!(refused.unwrap().status, StatusCode::TOO_MANY_REQUESTS);
    assert!(!refused.unwrap().header("retry-after").is_empty());
    assert_eq!(ask(&client).await.status, StatusCode::OK);
}

#[tokio::test]
async fn concurrency_counts_what_waits_and_runs_and_says_that_its_wait_is_a_guess() {
    let pace = Pace { token: Duration::from_millis(20), ..Pace::default() };
    let ollama =
        ScriptedOllama::start(Settings { num_parallel: 8, max_queue: 512, pace, ..Settings::default() })
            .await
            .unwrap();
    let policy = PolicyFile::limits(&["{ name: two, per: [Client], concurrency: 2 }"]).slots(8);
    let sidecar = Sidecar::start(&ollama, &policy).await.unwrap();
    let client = sidecar.client();
    let long = json!({ "model": "tiny", "prompt": "hi", "options": { "num_predict": 15 } });
    let mut first = client.stream("/api/generate", &long).await.unwrap();
    let mut second = client.stream("/api/generate", &long).await.unwrap();
    let third = ask(&client).await;
    assert_eq!(third.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(third.header("x-corral-retry"), "estimate");
    assert!(third.header("retry-after").parse::<u32>().unwrap() >= 1);
    first.chunks().await.unwrap();
    second.chunks().await.unwrap();
    sleep(Duration::from_millis(20)).await;
    assert_eq!(ask(&client).await.status, StatusCode::OK);
    assert_eq!(ollama.record().load().max_running, 2);
}

#[tokio::test]
async fn our_400_is_charged_where_the_head_decides_and_404_nowhere() {
    let (_ollama, sidecar) =
        limited(&["{ name: few, per: [Client], requests: 3/h, burst: { requests: 3 } }"]).await;
    let client = sidecar.client();
    for target in ["/api/nope", "/api/pull"] {
        client.send(Method::POST, target, "{}").await.unwrap();
    }
    client.send(Method::PUT, "/api/generate", "{}").await.unwrap();
    let bad = client.send(Method::POST, "/api/generate", "{").await.unwrap();
    assert_eq!(bad.status, StatusCode::BAD_REQUEST);
    assert_eq!(ask(&client).await.status, StatusCode::OK);
    assert_eq!(ask(&client).await.status, StatusCode::OK);
    assert_eq!(ask(&client).await.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn an_unknown_model_is_charged_though_ollama_refuses_it() {
    let (ollama, sidecar) =
        limited(&["{ name: one, per: [Client], requests: 1/h, burst: { requests: 1 } }"]).await;
    let client = sidecar.client();
    let answer = client.post("/api/chat", &chat("nope")).await.unwrap();
    assert_eq!(
        (answer.status, answer.text()),
        (StatusCode::NOT_FOUND, r#"{"error":"model 'nope' not found"}"#.into())
    );
    assert_eq!(ask(&client).await.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(ollama.record().inferences().len(), 1);
}

#[tokio::test]
async fn matches_narrow_a_limit_to_endpoints_and_models() {
    let (_ollama, sidecar) = limited(&[
        "{ name: chats, match: { endpoints: [Chat] }, per: [Client], requests: 1/h, burst: { requests: 1 } }",
        "{ name: tinyz, match: { models: [TINYZ] }, per: [Client], requests: 1/h, burst: { requests: 1 } }",
    ])
    .await;
    let client = sidecar.client();
    for _ in 0..3 {
        assert_eq!(ask(&client).await.status, StatusCode::OK);
    }
    assert_eq!(client.post("/api/chat", &chat("library/tinyz")).await.unwrap().status, StatusCode::OK);
    let again = client.post("/v1/chat/completions", &chat("tiny")).await.unwrap();
    assert_eq!(again.status, StatusCode::TOO_MANY_REQUESTS);
    let mut other = generate();
    other["model"] = "tinyz:latest".into();
    let answer = client.post("/api/generate", &other).await.unwrap();
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn shadow_limits_refuse_nobody_and_show_in_no_header() {
    let limit = "{ name: one, per: [Client], requests: 1/h, burst: { requests: 1 } }";
    let (ollama, sidecar) = world(&PolicyFile::limits(&[limit]).slots(8).shadow()).await;
    let client = sidecar.client();
    for _ in 0..5 {
        let answer = ask(&client).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(!answer.header("ratelimit").contains("one"));
    }
    assert_eq!(ollama.record().inferences().len(), 5);
    let metrics = sidecar.metrics().await.unwrap();
    assert!(metrics.lines().any(|line| line.contains("one") && line.contains("would")), "{metrics}");
}

#[tokio::test]
async fn ollama_down_is_503_and_a_refused_limit_is_429() {
    let limit = "{ name: one, per: [Client], requests: 1/h, burst: { requests: 1 } }";
    let (mut ollama, sidecar) = world(&PolicyFile::limits(&[limit])).await;
    ollama.kill().await;
    sidecar.readyz(StatusCode::SERVICE_UNAVAILABLE).await.unwrap();
    let down = ask(&sidecar.client()).await;
    assert_eq!(down.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!down.header("retry-after").is_empty());
    ollama.revive().await.unwrap();
    sidecar.ready().await.unwrap();
    assert_eq!(ask(&sidecar.client()).await.status, StatusCode::OK, "the 503 cost nothing");
    assert_eq!(ask(&sidecar.client()).await.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn a_client_that_goes_one_at_a_time_is_never_refused_by_a_concurrency_of_one() {
    let (_ollama, sidecar) = limited(&["{ name: one, per: [Client], concurrency: 1 }"]).await;
    let client = sidecar.client();
    let mut body = generate();
    for number in 0..100 {
        body["stream"] = (number % 2 == 0).into();
        let answer = client.post("/api/generate", &body).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "request {number}: {}", answer.text());
    }
}

/// Labels come from policies alone: no number of clients, models or paths adds a series.
#[tokio::test]
async fn metrics_do_not_grow_with_what_clients_send() {
    let limit = "{ name: wide, per: [Client, Model], requests: 100000/s }";
    let policy = PolicyFile::limits(&[limit]).slots(8).trusting(&["127.0.0.0/8"]);
    let (_ollama, sidecar) = world(&policy).await;
    let send = async |number: u32| {
        let client = sidecar.client().with("x-forwarded-for", &format!("10.0.0.{number}"));
        let client = client.with("user-agent", &format!("agent-{number}"));
        ask(&client).await;
        client.post("/api/chat", &chat(&format!("model-{number}"))).await.unwrap();
        client.get(&format!("/path-{number}")).await.unwrap();
        client.send(Method::POST, "/api/generate", "{").await.unwrap();
    };
    send(0).await;
    let series = async || {
        let text = sidecar.metrics().await.unwrap();
        text.lines().filter(|line| !line.starts_with('#')).count()
    };
    let before = series().await;
    for number in 1..60 {
        send(number).await;
    }
    // A scrape may be as old as this.
    sleep(Duration::from_millis(100)).await;
    assert_eq!(series().await, before);
    let text = sidecar.metrics().await.unwrap();
    for word in ["model-", "agent-", "path-", "10.0.0."] {
        assert!(!text.contains(word), "{word}");
    }
}
