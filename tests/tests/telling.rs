//! What clients and the person who runs the pool are told: headers, refusals, `/corral/v1/limits`, explain and top.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may panic as tests do")]

use corral_sidecar::control_socket::{Question, Reply, Top, ask};
use corral_sidecar::explain::{Ask, Explained};
use corral_tests::client::{Answer, Client};
use corral_tests::fields::parse_list;
use corral_tests::ollama::{ScriptedOllama, Settings};
use corral_tests::pod::{self, Pod};
use corral_tests::sidecar::{PolicyFile, Sidecar};
use http::StatusCode;
use serde_json::{Value, json};

const OK: StatusCode = StatusCode::OK;
const TOO_MANY: StatusCode = StatusCode::TOO_MANY_REQUESTS;

async fn world(policy: PolicyFile) -> (ScriptedOllama, Sidecar) {
    let ollama = ScriptedOllama::start(Settings { num_parallel: 8, ..Settings::default() }).await.unwrap();
    let sidecar = Sidecar::start(&ollama, &policy.slots(8)).await.unwrap();
    (ollama, sidecar)
}

/// A chat that asks for at most so many tokens, in every API's words.
fn chat(most: u64) -> Value {
    let message = json!({ "role": "user", "content": "hello there" });
    json!({
        "model": "tiny", "messages": [message], "stream": false,
        "max_tokens": most, "options": { "num_predict": most },
    })
}

async fn refused(client: &Client, target: &str) -> Answer {
    for _ in 0..100 {
        let answer = client.post(target, &chat(4)).await.unwrap();
        if answer.status == TOO_MANY {
            return answer;
        }
        assert_eq!(answer.status, OK, "{}", answer.text());
    }
    panic!("never refused");
}

fn number(answer: &Answer, name: &str) -> u64 {
    answer.header(name).parse().unwrap_or_else(|_| panic!("{name}: {:?}", answer.headers))
}

const TOKENS: &str = "{ name: chat-tokens, per: [Client], tokens: 60/h }";

#[tokio::test]
async fn a_limit_of_tokens_is_told_in_tokens_with_every_answer() {
    let (_ollama, sidecar) = world(PolicyFile::limits(&[TOKENS])).await;
    let client = sidecar.client();
    let first = client.post("/v1/chat/completions", &chat(4)).await.unwrap();
    assert_eq!(first.status, OK);
    let policy = parse_list(first.header("ratelimit-policy")).unwrap();
    let item = policy.iter().find(|item| item.name == "chat-tokens.tokens").unwrap();
    assert_eq!((item.integer("q"), item.integer("w")), (Some(60), Some(3600)));
    assert!(first.header("ratelimit-policy").contains("qu=\"tokens\""), "{:?}", first.headers);
    assert_eq!(number(&first, "x-ratelimit-limit-tokens"), 60);
    let second = client.post("/v1/chat/completions", &chat(4)).await.unwrap();
    assert!(
        number(&second, "x-ratelimit-remaining-tokens") < number(&first, "x-ratelimit-remaining-tokens"),
        "{:?}",
        second.headers
    );
    assert!(second.header("x-ratelimit-reset-tokens").ends_with('s'), "{:?}", second.headers);
    assert!(second.header("anthropic-ratelimit-tokens-limit").is_empty(), "only on /v1/messages");
}

#[tokio::test]
async fn a_refusal_by_tokens_says_how_much_was_asked_for_and_is_not_retried_for_a_long_wait() {
    let (_ollama, sidecar) = world(PolicyFile::limits(&[TOKENS])).await;
    let answer = refused(&sidecar.client(), "/v1/chat/completions").await;
    let error = &answer.json()["error"];
    assert_eq!((&error["type"], &error["code"]), (&json!("tokens"), &json!("rate_limit_exceeded")));
    let message = error["message"].as_str().unwrap();
    let begins = "Rate limit \"standalone/fair-use/chat-tokens\" reached: limit 60 tokens per 1h, used ";
    assert!(message.starts_with(begins) && message.contains(", requested "), "{message}");
    assert!(number(&answer, "retry-after") > 120, "{:?}", answer.headers);
    assert_eq!(answer.header("x-should-retry"), "false");
    assert_eq!(answer.header("x-corral-limit"), "standalone/fair-use/chat-tokens");
    let reset = parse_list(answer.header("ratelimit")).unwrap();
    let reset = reset.iter().find(|item| item.name == "chat-tokens.tokens").unwrap().integer("t").unwrap();
    assert!(reset <= i64::try_from(number(&answer, "retry-after")).unwrap());
}

#[tokio::test]
async fn the_anthropic_api_tells_of_each_kind_of_token_in_its_own_headers() {
    let limits = [
        "{ name: in, per: [Client], inputTokens: 1000/h }",
        "{ name: out, per: [Client], outputTokens: 12/h }",
        "{ name: asks, per: [Client], requests: 100/m }",
    ];
    let (_ollama, sidecar) = world(PolicyFile::limits(&limits)).await;
    let first = sidecar.client().post("/v1/messages", &chat(4)).await.unwrap();
    assert_eq!(first.status, OK, "{}", first.text());
    for (unit, limit) in [("requests", 100), ("input-tokens", 1000), ("output-tokens", 12), ("tokens", 12)] {
        assert_eq!(number(&first, &format!("anthropic-ratelimit-{unit}-limit")), limit, "{unit}");
        assert!(number(&first, &format!("anthropic-ratelimit-{unit}-remaining")) < limit, "{unit}");
        let reset = first.header(&format!("anthropic-ratelimit-{unit}-reset")).to_owned();
        assert!(reset.parse::<jiff::Timestamp>().is_ok(), "{unit}: {reset}");
    }
    let refused = refused(&sidecar.client(), "/v1/messages").await;
    assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
    assert_eq!(number(&refused, "anthropic-ratelimit-output-tokens-limit"), 12);
}

#[tokio::test]
async fn what_can_never_be_admitted_is_a_400_that_costs_nothing() {
    let limit = "{ name: small, per: [Client], outputTokens: 20/h, onExceed: { oversize: Reject } }";
    let (ollama, sidecar) = world(PolicyFile::limits(&[limit])).await;
    let client = sidecar.client();
    for _ in 0..3 {
        let answer = client.post("/v1/chat/completions", &chat(100)).await.unwrap();
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text());
        assert_eq!(answer.header("x-should-retry"), "false");
        assert!(answer.header("retry-after").is_empty());
        assert!(answer.text().contains("at most 20 output tokens"), "{}", answer.text());
    }
    assert_eq!(ollama.record().inferences().len(), 0);
    assert_eq!(client.post("/v1/chat/completions", &chat(20)).await.unwrap().status, OK, "nothing was used");
}

/// One limit as `/corral/v1/limits` shows it.
fn limit_of<'a>(shown: &'a Value, name: &str) -> Option<&'a Value> {
    shown["limits"].as_array().unwrap().iter().find(|limit| limit["limit"] == name)
}

#[tokio::test]
async fn a_client_sees_its_own_limits_with_what_is_used_and_left_and_no_others() {
    let policy = PolicyFile::limits(&[
        "{ name: each, per: [Client], tokens: 1000/h, requests: 100/h, burst: { requests: 100 } }",
        "{ name: window, per: [Client], requests: 50/h, algorithm: SlidingWindow }",
        "{ name: trial, per: [Client], requests: 1/h, mode: Shadow }",
        "{ name: free-only, per: [Client], match: { tiers: [free] }, requests: 5/h }",
        "{ name: one-model, per: [Client, Model], match: { models: [\"llama3*\"] }, concurrency: 2 }",
        "{ name: moving, per: [Global], requests: 1000/m, adaptive: { minPercent: 10 } }",
    ])
    .policy("tiers: [{ name: free }, { name: pro, scale: \"2\" }]")
    .policy("defaultTier: free")
    .identity("apiKeys: [{ secretName: team, tier: pro }]")
    .keys("team", &[("ann", "key-of-ann")]);
    let (_ollama, sidecar) = world(policy).await;
    let ann = sidecar.client().with("authorization", "Bearer key-of-ann");
    assert_eq!(ann.post("/api/chat", &chat(4)).await.unwrap().status, OK);
    let shown = ann.get("/corral/v1/limits").await.unwrap().json();
    assert_eq!((&shown["client"], &shown["tier"], &shown["pods"]), (&json!("ann"), &json!("pro"), &json!(1)));
    let each = limit_of(&shown, "each").unwrap();
    assert_eq!((&each["tokens"], &each["requests"]), (&json!("1000 per 1h"), &json!("100 per 1h")), "{each}");
    assert_eq!((&each["algorithm"], &each["action"]), (&json!("TokenBucket"), &json!("Reject")));
    let of = |unit: &str| each["thisPod"].as_array().unwrap().iter().find(|one| one["unit"] == unit).unwrap();
    assert_eq!(of("requests")["quota"], 200, "twice as much for this tier: {each}");
    assert_eq!((&of("requests")["used"], &of("requests")["remaining"]), (&json!(1), &json!(199)), "{each}");
    assert!(
        of("tokens")["used"].as_u64().unwrap() >= 4 && of("tokens")["fullMs"].as_u64().unwrap() > 0,
        "{each}"
    );
    assert_eq!(of("requests")["usedPercent"], 0, "{each}");
    let window = limit_of(&shown, "window").unwrap();
    assert!(window["algorithm"] == "SlidingWindow" && window["burst"].is_null(), "{window}");
    assert_eq!(limit_of(&shown, "moving").unwrap()["adaptivePercent"], 100.0, "{shown}");
    assert_eq!(limit_of(&shown, "one-model").unwrap()["thisPod"], json!([]), "that hangs on the model");
    assert!(limit_of(&shown, "trial").is_none() && limit_of(&shown, "free-only").is_none(), "{shown}");
    let stranger = sidecar.client().get("/corral/v1/limits").await.unwrap().json();
    assert_eq!((&stranger["client"], &stranger["tier"]), (&json!("127.0.0.1"), &json!("free")));
    let left = limit_of(&stranger, "free-only").unwrap();
    assert_eq!(left["thisPod"][0]["remaining"], left["thisPod"][0]["capacity"], "{left}");
}

#[tokio::test]
async fn what_limits_decide_is_counted_by_limit_and_unit() {
    let policy = PolicyFile::limits(&[TOKENS, "{ name: trial, per: [Client], requests: 1/h, mode: Shadow }"])
        .policy("exempt: { cidrs: [192.0.2.0/24] }")
        .trusting(&["127.0.0.0/8"]);
    let (_ollama, sidecar) = world(policy).await;
    refused(&sidecar.client(), "/api/chat").await;
    let exempt = sidecar.client().with("x-forwarded-for", "192.0.2.1");
    assert_eq!(exempt.post("/api/chat", &chat(4)).await.unwrap().status, OK);
    let metrics = sidecar.metrics().await.unwrap();
    let of = |limit: &str| format!("policy=\"standalone/fair-use\",limit=\"{limit}\"");
    for line in [
        format!("corral_limit_decisions_total{{{},decision=\"refused\"}} 1", of("chat-tokens")),
        format!("corral_limit_decisions_total{{{},decision=\"exempt\"}} 1", of("chat-tokens")),
        format!("corral_limit_decisions_total{{{},decision=\"refused\"}} 0", of("trial")),
        format!("corral_limit_refusals_total{{{},unit=\"tokens\"}} 1", of("chat-tokens")),
        format!("corral_limit_adaptive_ratio{{{}}} 1", of("trial")),
    ] {
        assert!(metrics.lines().any(|found| found.trim_end_matches(".0") == line), "{line}\n{metrics}");
    }
}

/// Asks a pod's sidecar over its socket, as a command in its container does.
async fn beside(pod: &Pod, question: Question) -> Reply {
    let state_dir = pod.state_dir().to_owned();
    tokio::task::spawn_blocking(move || ask(&state_dir, &question)).await.unwrap().unwrap()
}

async fn explained(pod: &Pod, request: &str) -> Explained {
    let question = Ask::parse(request, [127, 0, 0, 1].into()).unwrap();
    match beside(pod, Question::Explain(Box::new(question))).await {
        Reply::Explain(explained) => explained,
        other => panic!("{other:?}"),
    }
}

async fn top(pod: &Pod) -> Top {
    match beside(pod, Question::Top { most: 10 }).await {
        Reply::Top(top) => top,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn explain_says_what_then_happens_and_consumes_nothing() {
    let ollama = ScriptedOllama::start(Settings::default()).await.unwrap();
    let pod = Pod::serving(&ollama, pod::plan(1, 2)).await.unwrap();
    let request = "POST /api/chat model=tiny";
    for used in 0..3 {
        for _ in 0..4 {
            let explained = explained(&pod, request).await;
            let limit = &explained.limits[0];
            assert_eq!(
                (limit.limit.as_str(), limit.buckets[0].used),
                ("llm/fair-use/burst", used),
                "{explained}"
            );
            assert_eq!(explained.outcome.status, (used == 2).then_some(429), "{explained}");
            assert_eq!(limit.decides, used == 2, "{explained}");
        }
        let answer = pod.client().post("/api/chat", &chat(2)).await.unwrap();
        assert_eq!(answer.status, if used == 2 { TOO_MANY } else { OK });
    }
    assert_eq!(ollama.record().inferences().len(), 2);
    let other = explained(&pod, "GET /api/tags").await;
    assert_eq!(other.outcome.status, None, "{other}");
    let not_for = other.limits.iter().find(|limit| limit.limit.ends_with("/burst")).unwrap();
    assert_eq!(not_for.not_for.as_deref(), Some("it is for other endpoints"));
}

#[tokio::test]
async fn top_shows_who_takes_most_and_no_address() {
    let ollama = ScriptedOllama::start(Settings::default()).await.unwrap();
    let pod = Pod::serving(&ollama, pod::plan(1, 2)).await.unwrap();
    for _ in 0..3 {
        pod.client().post("/api/chat", &chat(5)).await.unwrap();
    }
    let shown = top(&pod).await;
    let [client] = &shown.clients[..] else { panic!("{shown}") };
    assert!(!client.named && client.client.len() == 8, "{shown}");
    assert_eq!((client.had.requests, client.had.refused), (3, 1), "{shown}");
    assert!(client.had.output_tokens == 10 && client.had.input_tokens > 0, "{shown}");
    assert!(!shown.to_string().contains("127.0.0.1"), "{shown}");
}
