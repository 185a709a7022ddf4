//! Limits of tokens, seen from a client: what is reserved, what comes back, what is owed, and for how long.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests may panic as tests do")]

use std::time::Duration;

use corral_tests::client::{Answer, Client};
use corral_tests::ollama::{Outcome, ScriptedOllama, Settings};
use corral_tests::pod::{Pod, plan};
use corral_wire::{Algorithm, KeyPart, LimitDoc, PlanDoc, RateDoc};
use futures::StreamExt as _;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// What is reserved for an answer of which nothing is known.
const UNKNOWN_ANSWER: u64 = 256;

struct World {
    ollama: ScriptedOllama,
    pod: Pod,
}

impl World {
    async fn new(limits: Vec<LimitDoc>) -> Self {
        let settings = Settings { num_parallel: 8, max_queue: 512, ..Settings::default() };
        let ollama = ScriptedOllama::start(settings).await.unwrap();
        let pod = Pod::serving(&ollama, PlanDoc { limits, ..plan(1, 1) }).await.unwrap();
        Self { ollama, pod }
    }

    fn client(&self) -> Client {
        self.pod.client()
    }

    /// How much of a limit is used now.
    async fn used(&self, limit: &str) -> u64 {
        let shown = self.client().get("/corral/v1/limits").await.unwrap().json();
        let limits = shown["limits"].as_array().unwrap();
        let found = limits.iter().find(|shown| shown["limit"] == limit).unwrap();
        found["thisPod"][0]["used"].as_u64().unwrap()
    }

    /// Waits until so much of it is used.
    async fn uses(&self, limit: &str, expected: u64) {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let used = self.used(limit).await;
            if used == expected {
                return;
            }
            assert!(Instant::now() < until, "{used} of {limit} are used, not {expected}");
            // Looking is metadata, of which there are twenty a second.
            sleep(Duration::from_millis(60)).await;
        }
    }
}

fn limit(name: &str) -> LimitDoc {
    let (policy, per) = ("llm/tokens".to_owned(), vec![KeyPart::Client]);
    LimitDoc { policy, name: name.to_owned(), per, ..LimitDoc::default() }
}

/// A window of a month: what is used stays used while a test lasts.
fn month(count: u64) -> RateDoc {
    RateDoc { count_milli: count * 1000, window_seconds: 31 * 86_400, burst: count }
}

/// The three limits of tokens, of which nothing comes back while a test lasts and which nobody reaches.
fn counting() -> Vec<LimitDoc> {
    let of = |name| LimitDoc { algorithm: Algorithm::SlidingWindow, ..limit(name) };
    vec![
        LimitDoc { tokens: Some(month(100_000_000)), ..of("both") },
        LimitDoc { input_tokens: Some(month(100_000_000)), ..of("input") },
        LimitDoc { output_tokens: Some(month(100_000_000)), ..of("output") },
    ]
}

fn generate(model: &str, most: Option<u64>, stream: bool) -> Value {
    let mut body = json!({ "model": model, "prompt": "hi", "stream": stream });
    if let Some(most) = most {
        body["options"] = json!({ "num_predict": most });
    }
    body
}

async fn ask(client: &Client, body: &Value) -> Answer {
    client.post("/api/generate", body).await.unwrap()
}

fn retry_after(answer: &Answer) -> Duration {
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{}", answer.text());
    Duration::from_millis(answer.header("retry-after-ms").parse().unwrap())
}

#[tokio::test]
async fn what_limits_have_used_is_what_ollama_has_counted() {
    let world = World::new(counting()).await;
    let client = world.client();
    let asked = futures::stream::iter(0..300_usize).map(|n| {
        let client = client.clone();
        let (stream, most) = (n.is_multiple_of(2), 1 + (n % 50) as u64);
        async move {
            let messages = json!([{ "role": "user", "content": "word ".repeat(n) }]);
            let (path, body) = match n % 4 {
                0 => ("/api/generate", generate("tinyz", None, stream)),
                1 => (
                    "/v1/chat/completions",
                    json!({ "model": "tiny", "messages": messages, "stream": !stream, "max_tokens": most }),
                ),
                2 => (
                    "/v1/messages",
                    json!({ "model": "tiny", "messages": messages, "stream": stream, "max_tokens": most }),
                ),
                _ => ("/api/embed", json!({ "model": "tinybert", "input": ["a b c", "d"] })),
            };
            client.post(path, &body).await.unwrap().status
        }
    });
    let statuses: Vec<StatusCode> = asked.buffer_unordered(8).collect().await;
    assert!(statuses.iter().all(|status| *status == StatusCode::OK));
    let (input, output) = world.ollama.record().counted();
    assert_eq!((world.used("input").await, world.used("output").await), (input, output));
    assert_eq!(world.used("both").await, input + output);
}

/// 128 tokens a second, 256 of them at one instant. 256 are reserved and 1280 come: the rest is owed.
#[tokio::test]
async fn an_answer_of_five_times_what_was_reserved_delays_the_next_request_by_the_exact_time() {
    const RATE: f64 = 128.0;
    const REAL: u64 = 5 * UNKNOWN_ANSWER;
    const NEXT: u64 = 10;
    let rate = RateDoc { count_milli: 128_000, window_seconds: 1, burst: UNKNOWN_ANSWER };
    for stream in [false, true] {
        let world = World::new(vec![LimitDoc { output_tokens: Some(rate), ..limit("owed") }]).await;
        let client = world.client();
        let sent = Instant::now();
        assert_eq!(ask(&client, &generate("tiny", Some(REAL), stream)).await.status, StatusCode::OK);
        let came = Instant::now();
        let refused = ask(&client, &generate("tiny", Some(NEXT), stream)).await;
        let told = Instant::now();
        let wait = retry_after(&refused);
        // Charged between the first two moments, refused between the last two; told in whole milliseconds.
        let owed =
            Duration::from_secs_f64(f64::from(u32::try_from(REAL + NEXT - UNKNOWN_ANSWER).unwrap()) / RATE);
        let (least, most) = (owed.saturating_sub(told - sent), owed + Duration::from_millis(1));
        assert!((least..=most).contains(&wait), "{wait:?} is not within {least:?} and {most:?}");
        assert!(told - sent < owed / 2, "too slow to tell: {:?} {:?}", came - sent, told - came);
    }
}

/// Without knowing what an answer costs, its reservation is all that stands between a budget and whoever asks at once.
#[tokio::test]
async fn no_more_is_promised_at_one_instant_than_there_is() {
    let world = World::new(vec![LimitDoc { output_tokens: Some(month(100)), ..limit("few") }]).await;
    let gate = world.ollama.gate();
    let client = world.client();
    let asking: Vec<_> = (0..200)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { ask(&client, &generate("tiny", Some(10), false)).await.status })
        })
        .collect();
    let mut refused = 0;
    world.uses("few", 100).await;
    (0..2000).for_each(|_| gate.step());
    for answer in asking {
        refused += usize::from(answer.await.unwrap() == StatusCode::TOO_MANY_REQUESTS);
    }
    assert_eq!((refused, world.ollama.record().count(Outcome::Finished)), (190, 10));
    assert_eq!(world.used("few").await, 100);
}

#[tokio::test]
async fn what_was_reserved_and_not_needed_comes_back_at_once() {
    let world = World::new(vec![LimitDoc { output_tokens: Some(month(300)), ..limit("few") }]).await;
    let client = world.client();
    for asked in 1..=2 {
        assert_eq!(ask(&client, &generate("tinyz", None, false)).await.status, StatusCode::OK);
        assert_eq!(world.used("few").await, 27 * asked);
    }
    // 54 are used, and 256 would be reserved.
    let refused = ask(&client, &generate("tinyz", None, false)).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(ask(&client, &generate("tinyz", Some(200), false)).await.status, StatusCode::OK);
}

/// A limit does not have to wait for the end of an answer to hear of what goes beyond its reservation.
#[tokio::test]
async fn a_long_stream_is_charged_while_it_runs() {
    let world = World::new(counting()).await;
    let gate = world.ollama.gate();
    let mut reply = {
        gate.step();
        world.client().stream("/api/generate", &generate("tiny", Some(600), true)).await.unwrap()
    };
    reply.chunk().await.unwrap().unwrap();
    assert_eq!(world.used("output").await, UNKNOWN_ANSWER);
    (1..512).for_each(|_| gate.step());
    for _ in 1..512 {
        reply.chunk().await.unwrap().unwrap();
    }
    assert_eq!(world.used("output").await, 512);
    (0..100).for_each(|_| gate.step());
    let (_, whole) = reply.rest().await;
    assert!(whole);
    assert_eq!(world.used("output").await, 600);
}

#[tokio::test]
async fn who_leaves_a_stream_pays_for_what_was_made_and_no_more() {
    let world = World::new(counting()).await;
    let gate = world.ollama.gate();
    (0..9).for_each(|_| gate.step());
    let mut reply = world.client().stream("/api/generate", &generate("tiny", Some(200), true)).await.unwrap();
    for _ in 0..9 {
        reply.chunk().await.unwrap().unwrap();
    }
    assert_eq!(world.used("output").await, 200, "what is reserved is used until it is over");
    drop(reply);
    world.uses("output", 9).await;
    world.uses("input", 1).await;
}

/// Slots are held for as long as it takes, whatever was expected.
#[tokio::test]
async fn the_time_in_a_slot_is_charged_as_it_was() {
    let slots = LimitDoc {
        slot_seconds: Some(month(100_000)),
        algorithm: Algorithm::SlidingWindow,
        ..limit("slots")
    };
    let world = World::new(vec![slots]).await;
    let gate = world.ollama.gate();
    gate.step();
    let sent = Instant::now();
    let mut reply = world.client().stream("/api/generate", &generate("tiny", Some(1), true)).await.unwrap();
    reply.chunk().await.unwrap().unwrap();
    let held = Duration::from_millis(2300);
    sleep(held).await;
    gate.step();
    reply.rest().await;
    let most = Instant::now() - sent;
    let used = world.used("slots").await;
    assert!((3..=most.as_secs() + 1).contains(&used), "{used} s, for {held:?} to {most:?}");
}
