//! Every token is charged once and exactly as Ollama counts it, whichever API asked for it and however it ended.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests may panic as tests do")]

use std::time::Duration;

use corral_tests::client::Client;
use corral_tests::ollama::{Endpoint, Fault, Outcome, ScriptedOllama, Settings};
use corral_tests::pod::{Pod, plan};
use corral_wire::{PlanDoc, Position, ServePermission, TokensDoc};
use futures::StreamExt as _;
use http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(10);
/// What is reserved for an answer of which nothing is known.
const UNKNOWN_ANSWER: u64 = 256;

/// A pod that limits nothing, in front of a scripted Ollama.
struct World {
    ollama: ScriptedOllama,
    pod: Pod,
    last: Mutex<Tokens>,
}

/// What became of tokens since the pod began: input and output of each phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Tokens {
    reserved: (u64, u64),
    settled: (u64, u64),
    refunded: (u64, u64),
    debt: (u64, u64),
    missing: u64,
}

impl World {
    async fn new() -> Self {
        Self::with(TokensDoc::default()).await
    }

    async fn with(tokens: TokensDoc) -> Self {
        let settings = Settings { num_parallel: 8, max_queue: 512, ..Settings::default() };
        let ollama = ScriptedOllama::start(settings).await.unwrap();
        let pod = Pod::serving(&ollama, PlanDoc { tokens, ..plan(1, 1_000_000) }).await.unwrap();
        Self { ollama, pod, last: Mutex::default() }
    }

    fn client(&self) -> Client {
        self.pod.client()
    }

    async fn tokens(&self) -> Tokens {
        // Metrics are up to 100 ms old.
        sleep(Duration::from_millis(110)).await;
        let text = self.pod.admin().get("/metrics").await.unwrap().text();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.map_or(0, |value| value.parse().unwrap())
        };
        let of = |phase: &str| {
            let of = |kind| value(&format!("corral_tokens_total{{kind=\"{kind}\",phase=\"{phase}\"}}"));
            (of("input"), of("output"))
        };
        Tokens {
            reserved: of("reserved"),
            settled: of("settled"),
            refunded: of("refunded"),
            debt: of("debt"),
            missing: value("corral_token_counts_missing_total"),
        }
    }

    /// What had become of tokens when that was last asked.
    fn last(&self) -> Tokens {
        *self.last.lock()
    }

    /// Waits until everything that was reserved is settled, and says what came of it since `before`.
    async fn since(&self, before: Tokens) -> Tokens {
        let until = Instant::now() + PATIENCE;
        loop {
            let now = self.tokens().await;
            let balanced = |phase: fn(&Tokens) -> (u64, u64)| {
                (phase(&now).0 - phase(&before).0, phase(&now).1 - phase(&before).1)
            };
            let since = Tokens {
                reserved: balanced(|tokens| tokens.reserved),
                settled: balanced(|tokens| tokens.settled),
                refunded: balanced(|tokens| tokens.refunded),
                debt: balanced(|tokens| tokens.debt),
                missing: now.missing - before.missing,
            };
            if since.balances() && since != Tokens::default() {
                *self.last.lock() = now;
                return since;
            }
            assert!(Instant::now() < until, "it never settled: {since:?}");
        }
    }

    /// Tokens that were charged until now.
    async fn charged(&self, sequence: u64) -> (u64, u64) {
        let position = Position { term: 1, sequence };
        let report = self.pod.tell(position, None, 1, ServePermission::Granted).await.unwrap();
        (report.counters.tokens_in, report.counters.tokens_out)
    }
}

impl Tokens {
    fn balances(&self) -> bool {
        self.reserved.0 + self.debt.0 == self.settled.0 + self.refunded.0
            && self.reserved.1 + self.debt.1 == self.settled.1 + self.refunded.1
    }
}

fn messages(text: &str) -> Value {
    json!([{ "role": "user", "content": text }])
}

/// Every endpoint that answers in tokens, with a body that asks it for at most so many.
fn generating(model: &str, text: &str, most: u64, stream: bool) -> [(&'static str, Endpoint, Value); 6] {
    let options = json!({ "num_predict": most });
    [
        (
            "/api/generate",
            Endpoint::Generate,
            json!({ "model": model, "prompt": text, "options": options, "stream": stream }),
        ),
        (
            "/api/chat",
            Endpoint::Chat,
            json!({ "model": model, "messages": messages(text), "options": options, "stream": stream }),
        ),
        (
            "/v1/chat/completions",
            Endpoint::ChatCompletions,
            json!({ "model": model, "messages": messages(text), "stream": stream, "max_tokens": most }),
        ),
        (
            "/v1/completions",
            Endpoint::Completions,
            json!({ "model": model, "prompt": text, "stream": stream, "max_tokens": most }),
        ),
        (
            "/v1/messages",
            Endpoint::Messages,
            json!({ "model": model, "messages": messages(text), "stream": stream, "max_tokens": most }),
        ),
        (
            "/v1/responses",
            Endpoint::Responses,
            json!({ "model": model, "input": text, "stream": stream, "max_output_tokens": most }),
        ),
    ]
}

/// The `n`th of many different requests.
fn mixed(n: usize) -> (&'static str, Value) {
    let text = "word ".repeat(1 + n * 37 % 200);
    let most = 1 + (n * 13 % 60) as u64;
    let model = if n.is_multiple_of(3) { "tinyz" } else { "tiny" };
    if n % 8 < 6 {
        let all = generating(model, &text, most, (n / 8).is_multiple_of(2));
        let (path, _, mut body) = all[n % 8].clone();
        if n.is_multiple_of(5) {
            body["stream_options"] = json!({ "include_usage": n.is_multiple_of(2) });
        }
        return (path, body);
    }
    let input = if n % 16 < 8 { json!(text) } else { json!([text, "another"]) };
    let path = if n % 8 == 6 { "/api/embed" } else { "/v1/embeddings" };
    (path, json!({ "model": "tinybert", "input": input }))
}

#[tokio::test]
async fn a_thousand_mixed_requests_are_charged_exactly_as_ollama_counts() {
    let world = World::new().await;
    let client = world.client();
    let answers = futures::stream::iter(0..1000).map(|n| {
        let client = client.clone();
        async move {
            let (path, body) = mixed(n);
            client.post(path, &body).await.unwrap().status
        }
    });
    let statuses: Vec<StatusCode> = answers.buffer_unordered(8).collect().await;
    assert!(statuses.iter().all(|status| *status == StatusCode::OK));
    // At once: when a client has the end of its answer, its account is settled.
    assert_eq!(world.charged(10).await, world.ollama.record().counted());
    let tokens = world.tokens().await;
    assert!(tokens.balances(), "{tokens:?}");
    assert_eq!(tokens.settled, world.ollama.record().counted());
    assert_eq!((tokens.missing, world.ollama.record().count(Outcome::Finished)), (0, 1000));
}

/// Without what differs from one answer to the next: the digits of ids and times.
fn shape(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let without_ids =
        text.split("\"msg_").map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_hexdigit()));
    without_ids.collect::<String>().chars().filter(|c| !c.is_ascii_digit()).collect()
}

#[tokio::test]
async fn a_client_sees_the_bytes_that_it_would_see_without_us() {
    let world = World::new().await;
    let direct = Client::new(world.ollama.address());
    for usage in [Value::Null, json!({}), json!({ "include_usage": false }), json!({ "include_usage": true })]
    {
        for stream in [false, true] {
            for (path, _, mut body) in generating("tiny", "hi", 5, stream) {
                body["stream_options"] = usage.clone();
                let said = direct.post(path, &body).await.unwrap();
                let heard = world.client().post(path, &body).await.unwrap();
                assert_eq!(shape(&heard.body), shape(&said.body), "{path} {body}");
            }
        }
    }
    let tokens = world.tokens().await;
    assert_eq!((tokens.missing, tokens.settled.1), (0, 4 * 2 * 6 * 5));
}

#[tokio::test]
async fn a_stream_whose_client_leaves_is_charged_for_the_tokens_it_had() {
    const HEARD: u64 = 7;
    let world = World::new().await;
    for (count, (path, _, body)) in generating("tiny", "hi", 1000, true).into_iter().enumerate() {
        let before = world.last();
        let gate = world.ollama.gate();
        let mut reply = {
            (0..HEARD).for_each(|_| gate.step());
            world.client().stream(path, &body).await.unwrap()
        };
        for _ in 0..HEARD {
            reply.chunk().await.unwrap().unwrap();
        }
        drop(reply);
        let tokens = world.since(before).await;
        assert_eq!(tokens.settled, (tokens.reserved.0, HEARD), "{path}: {tokens:?}");
        assert_eq!(world.ollama.record().count(Outcome::Cancelled), count + 1, "{path}");
    }
}

/// How much of it was made nobody can know, so what was reserved stands: a retreat is not free.
#[tokio::test]
async fn a_whole_answer_whose_client_leaves_is_charged_as_it_was_estimated() {
    let world = World::new().await;
    for (path, _, body) in generating("tiny", "hi", 40, false) {
        let before = world.last();
        let gate = world.ollama.gate();
        gate.step();
        let client = world.client();
        let asking = tokio::spawn(async move { client.post(path, &body).await });
        let until = Instant::now() + PATIENCE;
        while world.ollama.record().load().running == 0 {
            assert!(Instant::now() < until);
            sleep(Duration::from_millis(1)).await;
        }
        asking.abort();
        // It is held until it is certain that Ollama lets go of it; here, until its answer is there.
        (0..50).for_each(|_| gate.step());
        let tokens = world.since(before).await;
        assert_eq!((tokens.settled, tokens.reserved.1), (tokens.reserved, 40), "{path}");
    }
}

#[tokio::test]
async fn what_fails_before_its_first_token_is_given_back_whole() {
    let world = World::new().await;
    for stream in [false, true] {
        for (path, endpoint, body) in generating("tiny", "hi", 5, stream) {
            for fault in [Fault::Crash { after: 0 }, Fault::Close, Fault::Busy] {
                let before = world.last();
                // Where Ollama is busy, it is asked once more.
                let times = if fault == Fault::Busy { 2 } else { 1 };
                (0..times).for_each(|_| world.ollama.fault_at(endpoint, fault.clone()));
                let answer = world.client().post(path, &body).await.unwrap();
                assert!(answer.status.is_server_error(), "{path} {fault:?}: {}", answer.status);
                let tokens = world.since(before).await;
                assert_eq!((tokens.settled, tokens.refunded), ((0, 0), tokens.reserved), "{path} {fault:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_charged_for_the_tokens_it_had() {
    const SAID: usize = 4;
    let world = World::new().await;
    for fault in [Fault::Crash { after: SAID }, Fault::Cut { after: SAID }, Fault::NoEnd { after: SAID }] {
        for (path, endpoint, body) in generating("tiny", "hi", 50, true) {
            let before = world.last();
            world.ollama.fault_at(endpoint, fault.clone());
            let mut reply = world.client().stream(path, &body).await.unwrap();
            reply.rest().await;
            let tokens = world.since(before).await;
            assert_eq!(tokens.settled, (tokens.reserved.0, SAID as u64), "{path} {fault:?}");
        }
    }
}

#[tokio::test]
async fn what_ollama_refuses_costs_no_token() {
    let world = World::new().await;
    for (path, _, body) in generating("missing", "hi", 5, true) {
        let before = world.last();
        assert_eq!(world.client().post(path, &body).await.unwrap().status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(world.since(before).await.settled, (0, 0), "{path}");
    }
    let before = world.last();
    for body in [json!({ "model": "tiny" }), json!({ "model": "tiny", "keep_alive": 0 })] {
        let loaded = world.client().post("/api/generate", &body).await.unwrap();
        assert_eq!(loaded.status, StatusCode::OK);
    }
    let tokens = world.since(before).await;
    assert_eq!((tokens.settled, tokens.missing), ((0, 0), 0), "a load is no generation");
}

#[tokio::test]
async fn a_prompt_that_was_not_counted_is_charged_as_estimated() {
    let world = World::new().await;
    for stream in [false, true] {
        for (path, endpoint, body) in generating("tiny", "hi", 9, stream) {
            let before = world.last();
            world.ollama.fault_at(endpoint, Fault::NoPromptCount);
            let answer = world.client().post(path, &body).await.unwrap();
            assert_eq!(answer.status, StatusCode::OK);
            let tokens = world.since(before).await;
            assert_eq!((tokens.settled, tokens.missing), ((tokens.reserved.0, 9), 1), "{path} {stream}");
        }
    }
    let before = world.last();
    let body = json!({ "model": "tinybert", "prompt": "1234567" });
    assert_eq!(world.client().post("/api/embeddings", &body).await.unwrap().status, StatusCode::OK);
    let tokens = world.since(before).await;
    assert_eq!((tokens.settled, tokens.missing), ((2, 0), 1), "the legacy endpoint never tells");
}

#[tokio::test]
async fn an_answer_of_five_times_what_was_reserved_is_charged_in_full() {
    let world = World::new().await;
    for (path, _, body) in generating("tiny", "hi", 5 * UNKNOWN_ANSWER, true) {
        let before = world.last();
        let answer = world.client().post(path, &body).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        let tokens = world.since(before).await;
        assert_eq!(tokens.settled.1, 5 * UNKNOWN_ANSWER, "{path}");
        assert_eq!(tokens.reserved.1 + tokens.debt.1, 5 * UNKNOWN_ANSWER, "{path}");
    }
}

#[tokio::test]
async fn estimates_come_closer_with_each_answer() {
    let world = World::new().await;
    let text = "word ".repeat(400);
    let ask = async || {
        let before = world.last();
        let body = json!({ "model": "tinyz", "prompt": text, "stream": false });
        world.client().post("/api/generate", &body).await.unwrap();
        world.since(before).await
    };
    let error = |tokens: Tokens| tokens.reserved.0.abs_diff(tokens.settled.0);
    let first = ask().await;
    for _ in 0..40 {
        ask().await;
    }
    let last = ask().await;
    assert!(error(last) * 20 < error(first), "{first:?} {last:?}");
    assert_eq!((first.reserved.1, last.reserved.1, last.settled.1), (UNKNOWN_ANSWER, 27, 27));
}

#[tokio::test]
async fn no_answer_is_longer_than_the_cap_of_the_pool() {
    let world = World::with(TokensDoc { output_cap: Some(6), ..TokensDoc::default() }).await;
    for stream in [false, true] {
        for (path, _, mut body) in generating("tiny", "hi", 50, stream) {
            let before = world.last();
            world.client().post(path, &body).await.unwrap();
            assert_eq!(world.since(before).await.settled.1, 6, "{path} {stream}");
            for key in ["options", "max_tokens", "max_output_tokens"] {
                if path != "/v1/messages" {
                    body.as_object_mut().unwrap().remove(key);
                }
            }
            let before = world.last();
            world.client().post(path, &body).await.unwrap();
            let tokens = world.since(before).await;
            assert_eq!(
                (tokens.reserved.1, tokens.settled.1),
                (6, 6),
                "{path} {stream}: without a cap of its own"
            );
        }
    }
    let before = world.last();
    let body = json!({ "model": "tiny", "prompt": "hi", "stream": false, "options": { "num_predict": 2 } });
    world.client().post("/api/generate", &body).await.unwrap();
    assert_eq!(world.since(before).await.settled.1, 2);
}

#[tokio::test]
async fn a_client_that_does_not_ask_for_counts_has_them_asked_for() {
    let world = World::new().await;
    for path in ["/v1/chat/completions", "/v1/completions"] {
        let body = format!(
            "{{ \"model\" : \"tiny\", \"prompt\":\"hi\",\"messages\":{}, \"max_tokens\":2,\t\"stream\" : true\n}}",
            messages("hi")
        );
        world.client().send(http::Method::POST, path, body.clone()).await.unwrap();
        let sent = world.ollama.record().inferences().pop().unwrap().text();
        let added = ",\"stream_options\":{\"include_usage\":true}";
        assert_eq!(sent.replacen(added, "", 1), body, "nothing else was touched");
        assert!(sent.contains(added), "{sent}");
    }
}
