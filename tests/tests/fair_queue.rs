//! The fair queue, as its clients meet it: who goes first, who has to go, and what each of them is told.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may panic as tests do")]

use std::time::Duration;

use corral_tests::client::{Answer, Client, Reply};
use corral_tests::ollama::{Arrival, Pace, ScriptedOllama, Settings};
use corral_tests::sidecar::{PolicyFile, Sidecar};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

const TOO_MANY: StatusCode = StatusCode::TOO_MANY_REQUESTS;

struct World {
    ollama: ScriptedOllama,
    sidecar: Sidecar,
}

impl World {
    /// With one slot.
    async fn new(policy: PolicyFile) -> Self {
        let pace = Pace { token: Duration::from_millis(10), ..Pace::default() };
        let settings = Settings { num_parallel: 1, max_queue: 512, pace, ..Settings::default() };
        let ollama = ScriptedOllama::start(settings).await.unwrap();
        let sidecar = Sidecar::start(&ollama, &policy.trusting(&["127.0.0.0/8"])).await.unwrap();
        Self { ollama, sidecar }
    }

    /// A client of its own.
    fn client(&self, number: u8) -> Client {
        self.sidecar.client().with("x-forwarded-for", &format!("192.0.2.{number}"))
    }

    /// A stream that has the slot.
    async fn holder(&self, tokens: u32) -> Reply {
        let mut reply = self.client(200).stream("/api/generate", &ask("holder", tokens)).await.unwrap();
        assert!(reply.chunk().await.unwrap().is_some());
        reply
    }

    async fn metrics(&self) -> String {
        self.sidecar.metrics().await.unwrap()
    }

    /// Waits until so many wait.
    async fn queued(&self, count: usize) {
        let line = format!("corral_queue_depth {count}");
        self.metrics_say(&line).await;
    }

    async fn metrics_say(&self, line: &str) {
        for _ in 0..300 {
            if self.metrics().await.lines().any(|found| found == line) {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("never {line}:\n{}", self.metrics().await);
    }

    /// Has one wait that says so, and waits until it does, behind so many.
    async fn waits(&self, client: Client, ask: (&'static str, Value), behind: usize) -> JoinHandle<Answer> {
        let task = tokio::spawn(async move { client.post(ask.0, &ask.1).await.unwrap() });
        self.queued(behind + 1).await;
        task
    }

    /// What Ollama was asked, after the holder, by the words of the prompts.
    fn order(&self) -> Vec<String> {
        self.ollama.record().inferences().iter().skip(1).map(Arrival::text).collect()
    }
}

fn ask(words: &str, tokens: u32) -> Value {
    json!({ "model": "tiny", "prompt": words, "stream": true, "options": { "num_predict": tokens } })
}

fn generate(words: &str) -> (&'static str, Value) {
    ("/api/generate", ask(words, 1))
}

fn chat(words: &str) -> (&'static str, Value) {
    let messages = json!([{ "role": "user", "content": words }]);
    ("/api/chat", json!({ "model": "tiny", "messages": messages, "options": { "num_predict": 1 } }))
}

/// The places in an order at which these words are.
fn places(order: &[String], words: &str) -> Vec<usize> {
    order.iter().enumerate().filter(|(_, line)| line.contains(words)).map(|(place, _)| place).collect()
}

async fn all_served(tasks: Vec<JoinHandle<Answer>>) {
    for task in tasks {
        let answer = task.await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    }
}

#[tokio::test]
async fn chats_go_before_jobs_where_a_policy_says_so() {
    let policy = PolicyFile::open().policy(
        "endpointPriorities: [{ endpoint: Chat, priority: high }, { endpoint: Generate, priority: low }]",
    );
    let world = World::new(policy).await;
    let holder = world.holder(300).await;
    let mut tasks = Vec::new();
    for number in 0..6 {
        tasks.push(world.waits(world.client(1), generate("job"), number).await);
    }
    for number in 6..9 {
        tasks.push(world.waits(world.client(2), chat("talk"), number).await);
    }
    let metrics = world.metrics().await;
    for line in ["corral_queue_requests{band=\"batch\"} 6", "corral_queue_requests{band=\"interactive\"} 3"] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
    drop(holder);
    all_served(tasks).await;
    let order = world.order();
    assert!(places(&order, "talk").iter().all(|place| *place <= 4), "{order:?}");
    assert_eq!(places(&order, "job").len(), 6);
}

#[tokio::test]
async fn a_client_with_much_waiting_does_not_keep_another_one_waiting() {
    let world = World::new(PolicyFile::open()).await;
    let holder = world.holder(300).await;
    let mut tasks = Vec::new();
    for number in 0..12 {
        tasks.push(world.waits(world.client(1), generate("much"), number).await);
    }
    for number in 12..15 {
        tasks.push(world.waits(world.client(2), generate("little"), number).await);
    }
    drop(holder);
    all_served(tasks).await;
    let order = world.order();
    assert!(places(&order, "little").iter().all(|place| *place <= 6), "by turns: {order:?}");
}

#[tokio::test]
async fn who_has_to_go_is_told_at_once_why_and_when_to_come_back() {
    let limit = "{ name: few, per: [Client], requests: 3/h, burst: { requests: 3 } }";
    let world = World::new(PolicyFile::limits(&[limit]).queue(2, 30)).await;
    let holder = world.holder(400).await;
    let first = world.waits(world.client(1), generate("first"), 0).await;
    let second = world.waits(world.client(1), generate("second"), 1).await;
    let other = world.client(2);
    let modest = tokio::spawn(async move { other.post("/api/generate", &ask("modest", 1)).await.unwrap() });
    let told = timeout(Duration::from_secs(1), second).await.expect("the holder still runs").unwrap();
    assert_eq!(told.status, TOO_MANY, "{}", told.text());
    assert_eq!(told.header("x-corral-shed-reason"), "pushed_out");
    assert_eq!(told.header("x-corral-retry"), "estimate");
    assert!(told.header("retry-after").parse::<u32>().unwrap() >= 1);
    assert!(told.header("x-corral-queue-position").parse::<u32>().is_ok(), "{:?}", told.headers);
    let estimate: f64 = told.header("x-corral-estimated-wait").parse().unwrap();
    assert!(estimate > 0.0 && told.header("x-corral-estimated-wait").contains('.'));
    assert!(told.text().contains("spec.capacity.queue.maxDepth"), "{}", told.text());
    drop(holder);
    assert_eq!(modest.await.unwrap().status, StatusCode::OK);
    assert_eq!(first.await.unwrap().status, StatusCode::OK);
    let again = world.client(1).post("/api/generate", &ask("again", 1)).await.unwrap();
    assert_eq!(again.status, StatusCode::OK);
    assert_eq!(again.header("x-ratelimit-remaining-requests"), "1", "what was pushed out cost nothing");
    world.metrics_say("corral_refusals_total{reason=\"pushed_out\"} 1").await;
}

#[tokio::test]
async fn one_client_may_have_only_so_many_waiting() {
    let world = World::new(PolicyFile::open().queue_field("maxDepthPerClient: 1")).await;
    let holder = world.holder(300).await;
    let first = world.waits(world.client(1), generate("first"), 0).await;
    let refused = world.client(1).post("/v1/chat/completions", &chat("more").1).await.unwrap();
    assert_eq!((refused.status, refused.header("x-corral-shed-reason")), (TOO_MANY, "client_queue_full"));
    assert_eq!(refused.json()["error"]["code"], "overloaded");
    assert!(refused.text().contains("spec.capacity.queue.maxDepthPerClient"), "{}", refused.text());
    let other = world.waits(world.client(2), generate("other"), 1).await;
    drop(holder);
    all_served(vec![first, other]).await;
}

#[tokio::test]
async fn a_clients_own_timeout_bounds_its_wait_and_nothing_is_begun_in_vain() {
    let world = World::new(PolicyFile::open()).await;
    let holder = world.holder(300).await;
    let hasty = world.client(1).with("x-request-timeout-ms", "600");
    let began = Instant::now();
    let told = hasty.post("/api/generate", &ask("hasty", 1)).await.unwrap();
    let waited = began.elapsed();
    assert!((Duration::from_millis(250)..Duration::from_millis(600)).contains(&waited), "{waited:?}");
    assert_eq!((told.status, told.header("x-corral-shed-reason")), (TOO_MANY, "queue_timeout"));
    assert!(told.text().contains("half of the timeout it came with"), "{}", told.text());
    // A whole answer of 256 tokens takes about 5 s, as far as is known: not worth beginning for one who waits for 3 s.
    let whole = json!({ "model": "tiny", "prompt": "whole", "stream": false });
    let client = world.client(2).with("x-stainless-read-timeout", "3.0");
    let late = world.waits(client, ("/api/generate", whole), 0).await;
    // Nonsense says nothing.
    let patient = world.client(3).with("x-request-timeout-ms", "1e3");
    let patient = world.waits(patient, generate("patient"), 1).await;
    drop(holder);
    let late = late.await.unwrap();
    assert_eq!((late.status, late.header("x-corral-shed-reason")), (TOO_MANY, "deadline"), "{}", late.text());
    all_served(vec![patient]).await;
    assert_eq!(places(&world.order(), "patient").len(), world.order().len(), "{:?}", world.order());
}

/// Both have two waiting, and the second says that it is urgent.
async fn urgent(policy: PolicyFile, priority: &str) -> Vec<String> {
    let world = World::new(policy).await;
    let holder = world.holder(300).await;
    let mut tasks = Vec::new();
    for number in 0..2 {
        tasks.push(world.waits(world.client(1), generate("plain"), number).await);
    }
    for number in 2..4 {
        let client = world.client(2).with("x-priority", priority);
        tasks.push(world.waits(client, generate("urgent"), number).await);
    }
    drop(holder);
    all_served(tasks).await;
    world.order()
}

#[tokio::test]
async fn a_forged_priority_changes_nothing_and_a_trusted_one_does() {
    let trusting = || PolicyFile::open().identity("priorityHeader: x-priority");
    let order = urgent(trusting(), "high").await;
    assert_eq!(places(&order, "urgent"), [0, 1], "{order:?}");
    for (policy, word) in [(PolicyFile::open(), "critical"), (trusting(), "urgent"), (trusting(), "0")] {
        let order = urgent(policy, word).await;
        assert!(order[0].contains("plain"), "{word}: {order:?}");
    }
}

#[tokio::test]
async fn an_answer_tells_how_long_it_was_waited_for() {
    let world = World::new(PolicyFile::open()).await;
    let at_once = world.client(1).post("/api/generate", &ask("one", 1)).await.unwrap();
    assert!(at_once.header("x-corral-queue-time").parse::<u64>().unwrap() < 50, "{:?}", at_once.headers);
    let holder = world.holder(300).await;
    let waiting = world.waits(world.client(1), generate("two"), 0).await;
    sleep(Duration::from_millis(100)).await;
    drop(holder);
    let waited: u64 = waiting.await.unwrap().header("x-corral-queue-time").parse().unwrap();
    assert!((100..3000).contains(&waited), "{waited}");
    let tags = world.client(1).get("/api/tags").await.unwrap();
    assert_eq!(tags.header("x-corral-queue-time"), "", "what needs no slot does not queue");
}

#[tokio::test]
async fn a_client_that_leaves_the_queue_is_counted_apart_from_those_who_were_refused() {
    let world = World::new(PolicyFile::open()).await;
    let holder = world.holder(300).await;
    let leaver = world.waits(world.client(1), generate("leaver"), 0).await;
    let next = world.waits(world.client(2), generate("next"), 1).await;
    leaver.abort();
    world.queued(1).await;
    drop(holder);
    all_served(vec![next]).await;
    world.metrics_say("corral_requests_total{endpoint=\"generate\",outcome=\"cancelled\"} 1").await;
    world.metrics_say("corral_model_slots{model=\"tiny:latest\",state=\"busy\"} 0").await;
    let metrics = world.metrics().await;
    let of = "corral_queue_wait_seconds_count{band=\"standard\",outcome=";
    for line in [format!("{of}\"cancelled\"}} 1"), format!("{of}\"started\"}} 2")] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
    assert!(!metrics.contains("corral_refusals_total{"), "{metrics}");
    assert!(places(&world.order(), "leaver").is_empty());
}
