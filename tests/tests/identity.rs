//! Who is charged, seen from a client: by API key, by address, by what trusted headers say; and who is turned away.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::time::Duration;

use corral_tests::client::{Answer, Client};
use corral_tests::ollama::{ScriptedOllama, Settings};
use corral_tests::sidecar::{PolicyFile, Sidecar};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

const OK: StatusCode = StatusCode::OK;
const TOO_MANY: StatusCode = StatusCode::TOO_MANY_REQUESTS;
const UNAUTHORIZED: StatusCode = StatusCode::UNAUTHORIZED;

const ANN: &str = "key-of-ann-1";
const ANN_TOO: &str = "key-of-ann-2";
const BOB: &str = "key-of-bob-1";
const NOBODY: &str = "key-of-nobody";

async fn world(policy: &PolicyFile) -> (ScriptedOllama, Sidecar) {
    let ollama = ScriptedOllama::start(Settings { num_parallel: 8, ..Settings::default() }).await.unwrap();
    let sidecar = Sidecar::start(&ollama, policy).await.unwrap();
    (ollama, sidecar)
}

/// Ann has two keys and Bob has one; each client has so many requests an hour.
fn keyed(requests: u32, unauthenticated: &str) -> PolicyFile {
    let limit =
        format!("{{ name: each, per: [Client], requests: {requests}/h, burst: {{ requests: {requests} }} }}");
    PolicyFile::limits(&[&limit])
        .slots(8)
        .identity(&format!("apiKeys: [{{ secretName: team }}], unauthenticated: {unauthenticated}"))
        .keys("team", &[("ann", &format!("{ANN}\n{ANN_TOO}")), ("bob", BOB)])
}

fn bearer(sidecar: &Sidecar, key: &str) -> Client {
    sidecar.client().with("authorization", &format!("Bearer {key}"))
}

fn body() -> Value {
    let message = json!({ "role": "user", "content": "hi" });
    json!({ "model": "tiny", "messages": [message], "stream": false, "max_tokens": 1, "options": { "num_predict": 1 } })
}

async fn ask(client: &Client) -> Answer {
    client.post("/api/chat", &body()).await.unwrap()
}

async fn status(client: &Client) -> StatusCode {
    ask(client).await.status
}

#[tokio::test]
async fn two_live_keys_of_one_client_share_a_bucket_and_another_client_has_its_own() {
    let (_ollama, sidecar) = world(&keyed(2, "Allow")).await;
    let (ann, ann_too, bob) = (bearer(&sidecar, ANN), bearer(&sidecar, ANN_TOO), bearer(&sidecar, BOB));
    assert_eq!(status(&ann).await, OK);
    assert_eq!(status(&ann_too).await, OK);
    assert_eq!(status(&ann).await, TOO_MANY);
    assert_eq!(status(&ann_too).await, TOO_MANY);
    assert_eq!(status(&bob).await, OK);
    assert_eq!(status(&sidecar.client()).await, OK, "whoever has no key is charged by address");
}

#[tokio::test]
async fn a_key_counts_in_either_header_for_every_api() {
    let (_ollama, sidecar) = world(&keyed(3, "Reject")).await;
    let anthropic = sidecar.client().with("x-api-key", ANN).with("anthropic-version", "2023-06-01");
    assert_eq!(anthropic.post("/v1/messages", &body()).await.unwrap().status, OK);
    let openai = bearer(&sidecar, ANN_TOO);
    assert_eq!(openai.post("/v1/chat/completions", &body()).await.unwrap().status, OK);
    let both = sidecar.client().with("authorization", &format!("Bearer {NOBODY}")).with("x-api-key", ANN);
    assert_eq!(status(&both).await, OK, "the first known key counts");
    assert_eq!(status(&bearer(&sidecar, ANN)).await, TOO_MANY, "it was one client all along");
}

#[tokio::test]
async fn an_unknown_key_is_charged_to_the_address_where_the_pool_allows_it() {
    let (_ollama, sidecar) = world(&keyed(2, "Allow")).await;
    assert_eq!(status(&bearer(&sidecar, NOBODY)).await, OK);
    assert_eq!(status(&sidecar.client()).await, OK);
    for key in [NOBODY, "another-of-nobody", "and-another-one"] {
        assert_eq!(status(&bearer(&sidecar, key)).await, TOO_MANY, "a new key is no new bucket");
    }
    let metrics = sidecar.metrics().await.unwrap();
    assert!(metrics.contains("corral_unauthenticated_total{key=\"unknown\"} 4"), "{metrics}");
    assert!(metrics.contains("corral_unauthenticated_total{key=\"none\"} 1"), "{metrics}");
}

#[tokio::test]
async fn whoever_has_no_known_key_is_told_401_in_the_words_of_its_api() {
    let (ollama, sidecar) = world(&keyed(100, "Reject")).await;
    for client in [sidecar.client(), bearer(&sidecar, NOBODY)] {
        for (target, told) in [
            ("/api/chat", "/error"),
            ("/v1/chat/completions", "/error/message"),
            ("/v1/messages", "/error/message"),
        ] {
            let answer = client.post(target, &body()).await.unwrap();
            assert_eq!(
                (answer.status, answer.header("www-authenticate")),
                (UNAUTHORIZED, "Bearer"),
                "{target}"
            );
            let text = answer.json().pointer(told).and_then(Value::as_str).unwrap_or_default().to_owned();
            assert!(text.contains("API key") && !text.contains(NOBODY), "{target}: {text}");
        }
        for target in ["/api/tags", "/v1/models", "/", "/corral/v1/limits"] {
            assert_eq!(client.get(target).await.unwrap().status, UNAUTHORIZED, "{target}");
        }
    }
    let openai = sidecar.client().post("/v1/chat/completions", &body()).await.unwrap().json();
    assert_eq!(openai["error"]["code"], "invalid_api_key");
    assert_eq!(openai["error"]["type"], "invalid_request_error");
    let anthropic = sidecar.client().post("/v1/messages", &body()).await.unwrap().json();
    assert_eq!(anthropic["error"]["type"], "authentication_error");
    assert_eq!(ollama.record().inferences().len(), 0);
    let page = sidecar
        .client()
        .with("origin", "http://localhost:3000")
        .with("access-control-request-method", "POST");
    let preflight = page.send(Method::OPTIONS, "/api/chat", "").await.unwrap();
    assert_eq!(preflight.status, StatusCode::NO_CONTENT, "a browser cannot send a key with a preflight");
}

#[tokio::test]
async fn strangers_pay_with_their_address_and_with_nothing_that_clients_share() {
    let policy = PolicyFile::limits(&[
        "{ name: address, per: [ClientIP], requests: 3/h, burst: { requests: 3 } }",
        "{ name: all, per: [Global], requests: 2/h, burst: { requests: 2 } }",
    ])
    .slots(8)
    .trusting(&["127.0.0.0/8"])
    .identity("apiKeys: [{ secretName: team }], unauthenticated: Reject")
    .keys("team", &[("ann", ANN)]);
    let (_ollama, sidecar) = world(&policy).await;
    let stranger = sidecar.client().with("x-forwarded-for", "192.0.2.1");
    for _ in 0..3 {
        assert_eq!(status(&stranger).await, UNAUTHORIZED);
    }
    assert_eq!(status(&stranger).await, TOO_MANY, "guessing keys is limited like anything else");
    let ann = bearer(&sidecar, ANN).with("x-forwarded-for", "192.0.2.2");
    assert_eq!(status(&ann).await, OK);
    assert_eq!(status(&ann).await, OK, "strangers took nothing of what all share");
    assert_eq!(status(&ann).await, TOO_MANY);
}

#[tokio::test]
async fn a_key_that_is_rotated_out_is_nobodys_within_two_seconds() {
    let (_ollama, sidecar) = world(&keyed(3, "Reject")).await;
    assert_eq!(status(&bearer(&sidecar, ANN)).await, OK);
    let rotated =
        PolicyFile::limits(&["{ name: each, per: [Client], requests: 3/h, burst: { requests: 3 } }"])
            .slots(8)
            .identity("apiKeys: [{ secretName: team }], unauthenticated: Reject")
            .keys("team", &[("ann", &format!("{ANN_TOO}\nkey-of-ann-3"))]);
    sidecar.rewrite(&rotated).unwrap();
    let changed = Instant::now();
    while status(&bearer(&sidecar, ANN)).await != UNAUTHORIZED {
        assert!(Instant::now() < changed + Duration::from_secs(2), "the old key still counts");
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(status(&bearer(&sidecar, BOB)).await, UNAUTHORIZED);
    // What Ann had used is used under her new key too: at least one of three is gone.
    let mut left = 0;
    while status(&bearer(&sidecar, "key-of-ann-3")).await == OK {
        left += 1;
    }
    assert!(left <= 2, "{left}");
}

#[tokio::test]
async fn a_key_never_reaches_ollama() {
    let (ollama, sidecar) = world(&keyed(100, "Reject")).await;
    assert_eq!(status(&bearer(&sidecar, ANN)).await, OK);
    let twice = sidecar.client().with("x-api-key", BOB).with("authorization", "Bearer whatever");
    assert_eq!(twice.post("/v1/messages", &body()).await.unwrap().status, OK);
    for arrival in ollama.record().arrivals() {
        let shown = format!("{:?}", arrival.headers);
        assert!(!shown.contains("key-of") && !shown.contains("whatever"), "{shown}");
        assert!(!arrival.headers.contains_key("authorization") && !arrival.headers.contains_key("x-api-key"));
    }
}

#[tokio::test]
async fn tiers_come_with_keys_and_scale_their_limits() {
    let limit = "{ name: each, per: [Client], requests: 1/h, burst: { requests: 1 } }";
    let policy = PolicyFile::limits(&[limit])
        .slots(8)
        .policy("tiers: [{ name: free }, { name: pro, scale: \"3\" }]")
        .policy("defaultTier: free")
        .identity("apiKeys: [{ secretName: pros, tier: pro }, { secretName: others }]")
        .keys("pros", &[("ann", ANN)])
        .keys("others", &[("bob", BOB)]);
    let (_ollama, sidecar) = world(&policy).await;
    for (client, admitted) in [(bearer(&sidecar, ANN), 3), (bearer(&sidecar, BOB), 1), (sidecar.client(), 1)]
    {
        for _ in 0..admitted {
            assert_eq!(status(&client).await, OK);
        }
        assert_eq!(status(&client).await, TOO_MANY);
    }
}

#[tokio::test]
async fn a_trusted_header_tells_requests_apart_and_any_other_does_not() {
    let policy = PolicyFile::limits(&[
        "{ name: team, per: [\"Header:x-team\"], requests: 1/h, burst: { requests: 1 } }",
    ])
    .slots(8)
    .identity("trustedHeaders: [x-team]");
    let (_ollama, sidecar) = world(&policy).await;
    let team = |value: &str| sidecar.client().with("x-team", value);
    assert_eq!(status(&team("red")).await, OK);
    assert_eq!(status(&team("red")).await, TOO_MANY);
    assert_eq!(status(&team("blue")).await, OK);
    let spoofing = team("green").with("x-team", "red");
    assert_eq!(status(&spoofing).await, TOO_MANY, "what a proxy adds stands behind what the client wrote");
    assert_eq!(status(&team("red").with("x-user", "green")).await, TOO_MANY);
    assert_eq!(status(&sidecar.client()).await, OK, "whoever has none");
    assert_eq!(
        status(&team(&"x".repeat(257))).await,
        TOO_MANY,
        "shares one bucket with whoever has too much"
    );
}

#[tokio::test]
async fn a_header_that_the_pool_does_not_trust_is_refused_in_a_limit() {
    let ollama = ScriptedOllama::start(Settings::default()).await.unwrap();
    let limit = "{ name: team, per: [\"Header:x-team\"], requests: 1/h }";
    let started = Sidecar::start(&ollama, &PolicyFile::limits(&[limit])).await;
    let error = format!("{:#}", started.err().unwrap());
    assert!(error.contains("x-team") && error.contains("trustedHeaders"), "{error}");
}

#[tokio::test]
async fn an_ipv6_client_is_its_network_whoever_it_says_it_is() {
    let limit = "{ name: each, per: [Client], requests: 1/h, burst: { requests: 1 } }";
    let (_ollama, sidecar) = world(&PolicyFile::limits(&[limit]).slots(8).trusting(&["127.0.0.0/8"])).await;
    let from = |chain: &str| sidecar.client().with("x-forwarded-for", chain);
    assert_eq!(status(&from("2001:db8:0:1::1")).await, OK);
    assert_eq!(status(&from("2001:db8:0:1:ffff::2")).await, TOO_MANY, "the same /64");
    assert_eq!(
        status(&from("9.9.9.9, 2001:db8:0:1::3")).await,
        TOO_MANY,
        "what stands to the left is hearsay"
    );
    assert_eq!(status(&from("2001:db8:0:2::1")).await, OK, "another /64");
}

#[tokio::test]
async fn nobody_without_a_trusted_proxy_is_who_it_says_it_is() {
    let limit = "{ name: each, per: [Client], requests: 1/h, burst: { requests: 1 } }";
    let (_ollama, sidecar) = world(&PolicyFile::limits(&[limit]).slots(8)).await;
    assert_eq!(status(&sidecar.client()).await, OK);
    for name in ["x-forwarded-for", "x-real-ip", "forwarded", "x-user-id"] {
        assert_eq!(status(&sidecar.client().with(name, "192.0.2.9")).await, TOO_MANY, "{name}");
    }
}
