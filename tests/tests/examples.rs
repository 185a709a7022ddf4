//! Every example does what its first lines say, seen from a client.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may panic as tests do")]

use std::path::PathBuf;
use std::time::Duration;

use corral_crds::manifest::{self, Spec};
use corral_crds::pool::{Day, OllamaPoolSpec};
use corral_operator::scaling::settings;
use corral_scaler::{Heard, Holder, Observation, Phase, PodSeen, Scaler};
use corral_tests::client::{Answer, Client};
use corral_tests::ollama::{Arrival, Pace, ScriptedOllama, Settings};
use corral_tests::sidecar::{Running, Sidecar};
use futures::future::join_all;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::Instant;

struct World {
    ollama: ScriptedOllama,
    sidecar: Running,
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples")).join(name)
}

async fn example(name: &str) -> World {
    let settings = Settings { num_parallel: 64, max_queue: 512, ..Settings::default() };
    let ollama = ScriptedOllama::start(settings).await.unwrap();
    let file = path(name);
    let sidecar = Sidecar::with_file(&ollama, &file).await.unwrap();
    sidecar.readyz(StatusCode::OK).await.unwrap();
    World { ollama, sidecar }
}

impl World {
    fn client(&self) -> Client {
        self.sidecar.client()
    }

    fn with_key(&self, key: &str) -> Client {
        self.client().with("authorization", &format!("Bearer {key}"))
    }

    /// The names of the limits that the caller is shown, `policy/limit`.
    async fn limits(&self) -> Vec<String> {
        let shown = self.client().get("/corral/v1/limits").await.unwrap().json();
        let limits = shown.get("limits").and_then(Value::as_array).unwrap();
        let text = |limit: &Value, key: &str| limit.get(key).and_then(Value::as_str).unwrap().to_owned();
        let name = |limit: &Value| format!("{}/{}", text(limit, "policy"), text(limit, "limit"));
        limits.iter().map(name).collect()
    }
}

async fn generate(client: &Client) -> Answer {
    let body = json!({ "model": "tiny", "prompt": "a", "stream": false, "options": { "num_predict": 1 } });
    client.post("/api/generate", &body).await.unwrap()
}

async fn chat(client: &Client) -> Answer {
    let messages = [json!({ "role": "user", "content": "a" })];
    let body =
        json!({ "model": "tiny", "messages": messages, "stream": false, "options": { "num_predict": 1 } });
    client.post("/api/chat", &body).await.unwrap()
}

async fn embed(client: &Client) -> Answer {
    client.post("/api/embed", &json!({ "model": "tinybert", "input": "a" })).await.unwrap()
}

async fn tags(client: &Client) -> Answer {
    client.get("/api/tags").await.unwrap()
}

/// Sends so many requests, one after the other, and holds that this many are served, and one more for each `period` that
/// it took, in which one comes back; all others are refused.
async fn serves<F: Future<Output = Answer>>(
    count: usize,
    (expected, period): (usize, Duration),
    mut ask: impl FnMut() -> F,
) {
    let began = Instant::now();
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(ask().await.status);
    }
    let back = usize::try_from(began.elapsed().as_nanos() / period.as_nanos()).unwrap();
    let served = statuses.iter().filter(|status| **status == StatusCode::OK).count();
    let refused = statuses.iter().filter(|status| **status == StatusCode::TOO_MANY_REQUESTS).count();
    assert_eq!(served + refused, count, "{statuses:?}");
    assert!((expected..=expected + back).contains(&served), "{served} of {count} in {:?}", began.elapsed());
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

fn wait(answer: &Answer) -> Duration {
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{}", answer.text());
    Duration::from_millis(answer.header("retry-after-ms").parse().unwrap())
}

#[tokio::test]
async fn fair_use_is_ten_at_once_and_then_one_a_second() {
    let world = example("fair-use.yaml").await;
    let client = world.client();
    serves(12, (10, SECOND), || generate(&client)).await;
}

#[tokio::test]
async fn nginx_per_ip_lets_the_burst_and_one_more_through_on_each_location() {
    let world = example("nginx-per-ip.yaml").await;
    let client = world.client();
    serves(15, (4, MINUTE / 10), || generate(&client)).await;
    serves(15, (6, MINUTE / 10), || chat(&client)).await;
    serves(25, (21, MINUTE / 10), || embed(&client)).await;
    serves(15, (11, MINUTE / 10), || tags(&client)).await;
}

#[tokio::test]
async fn nginx_per_ip_takes_five_at_one_time() {
    let world = example("nginx-per-ip.yaml").await;
    world.ollama.set_pace(Pace { prompt: Duration::from_millis(300), ..Pace::default() });
    let client = world.client();
    let answers = join_all((0..6).map(|_| chat(&client))).await;
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status != StatusCode::OK).collect();
    assert_eq!(refused.len(), 1);
    assert!(refused[0].header("x-corral-limit").ends_with("/connections"), "{}", refused[0].text());
}

#[tokio::test]
async fn nginx_per_api_key_knows_three_classes_and_takes_the_unknown_for_the_first() {
    let world = example("nginx-per-api-key.yaml").await;
    let (nobody, unknown) = (world.client(), world.with_key("nobodys-key"));
    serves(3, (1, MINUTE / 5), || generate(&nobody)).await;
    serves(1, (0, MINUTE / 5), || generate(&unknown)).await;
    let alice = world.with_key("change-me-to-alices-key");
    serves(8, (6, 2 * SECOND), || generate(&alice)).await;
    let report = world.with_key("change-me-to-the-reports-key");
    serves(15, (12, SECOND), || generate(&report)).await;
    let (bob, bobs_next) =
        (world.with_key("change-me-to-bobs-key"), world.with_key("change-me-to-bobs-next-key"));
    serves(4, (4, 2 * SECOND), || generate(&bob)).await;
    serves(4, (2, 2 * SECOND), || generate(&bobs_next)).await;
}

#[tokio::test]
async fn a_team_has_five_at_once_each_and_lets_nobody_else_in() {
    let world = example("team.yaml").await;
    let ada = world.with_key("change-me-to-adas-key");
    serves(7, (5, 3 * SECOND), || chat(&ada)).await;
    let brian = world.with_key("change-me-to-brians-key");
    serves(7, (5, 3 * SECOND), || chat(&brian)).await;
    assert_eq!(chat(&world.client()).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_gateways_users_have_sixty_in_a_window_and_a_refusal_costs_the_others_nothing() {
    let world = example("llm-gateway.yaml").await;
    let client = world.client();
    serves(70, (60, SECOND), || generate(&client)).await;
    let refused = generate(&client).await;
    assert!(refused.header("x-corral-limit").ends_with("/per-user"), "{}", refused.text());
    let shown = world.client().get("/corral/v1/limits").await.unwrap().text();
    assert!(shown.contains("at-one-time"), "{shown}");
}

#[tokio::test]
async fn a_clients_defaults_begin_at_their_fastest() {
    let world = example("llm-client.yaml").await;
    let client = world.client();
    serves(12, (10, SECOND / 10), || generate(&client)).await;
    let metrics = world.sidecar.admin().get("/metrics").await.unwrap().text();
    let ratio = metrics.lines().find(|line| line.starts_with("corral_limit_adaptive_ratio{"));
    assert!(ratio.is_some_and(|line| line.ends_with(" 1") || line.ends_with(" 1.0")), "{ratio:?}");
}

#[tokio::test]
async fn an_exchanges_buckets_let_requests_wait_and_refuse_none() {
    let world = example("exchange-endpoints.yaml").await;
    let client = world.client();
    let began = Instant::now();
    let answers = join_all((0..14).map(|_| generate(&client))).await;
    assert!(answers.iter().all(|answer| answer.status == StatusCode::OK));
    assert!(
        began.elapsed() >= Duration::from_millis(380),
        "four came too early, one each 100 ms: {:?}",
        began.elapsed()
    );
    let shown = world.client().get("/corral/v1/limits").await.unwrap().text();
    assert!(shown.contains("ercent"), "{shown}");
}

#[tokio::test]
async fn a_quota_counts_every_request_of_an_hour() {
    let world = example("quota-by-day.yaml").await;
    let client = world.client();
    serves(203, (200, 60 * MINUTE), || generate(&client)).await;
    let refused = generate(&client).await;
    assert!(refused.header("x-corral-limit").ends_with("/any-hour"), "{}", refused.text());
    assert!(wait(&refused) > 55 * MINUTE && wait(&refused) <= 60 * MINUTE);
}

#[tokio::test]
async fn waiting_instead_spaces_embeddings_evenly() {
    let world = example("wait-instead.yaml").await;
    let client = world.client();
    let began = Instant::now();
    let answers = join_all((0..4).map(|_| embed(&client))).await;
    assert!(answers.iter().all(|answer| answer.status == StatusCode::OK));
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(590), "one each 200 ms, and four took {took:?}");
}

#[tokio::test]
async fn a_trial_refuses_nobody_and_counts_what_it_would() {
    let world = example("trial.yaml").await;
    let client = world.client();
    serves(20, (20, SECOND), || generate(&client)).await;
    let metrics = world.sidecar.admin().get("/metrics").await.unwrap().text();
    let counted = metrics.lines().any(|line| {
        line.starts_with("corral_limit_decisions_total{")
            && line.contains("tomorrow")
            && line.contains("would_refuse")
            && line
                .rsplit(' ')
                .next()
                .is_some_and(|count| count.parse::<u64>().is_ok_and(|count| count >= 10))
    });
    assert!(counted, "{metrics}");
    assert!(!world.limits().await.iter().any(|name| name.ends_with("/tomorrow")));
}

#[tokio::test]
async fn environments_replace_the_default_and_keep_the_ceiling() {
    let world = example("environments.yaml").await;
    let limits = world.limits().await;
    let has = |name: &str| limits.iter().any(|limit| limit.ends_with(name));
    assert!(has("production/per-client") && has("ceiling/everybody"), "{limits:?}");
    assert!(!has("everywhere/per-client"), "{limits:?}");
}

/// Whose requests wait, and how they are told apart: what their prompts begin with.
type Line<'a> = (&'a str, Client);

/// Keeps so many slots busy until so many requests of each line wait, the first line first, and says in which order Ollama
/// saw them: each by the name of its line.
async fn order(world: &World, slots: usize, lines: &[Line<'_>], each: usize) -> Vec<String> {
    world.ollama.set_pace(Pace { token: Duration::from_millis(10), ..Pace::default() });
    let prompt = |text: String, tokens: u32| json!({ "model": "tiny", "prompt": text, "options": { "num_predict": tokens } });
    let mut busy = Vec::new();
    for _ in 0..slots {
        let mut reply =
            world.client().stream("/api/generate", &prompt("busy".to_owned(), 500)).await.unwrap();
        reply.chunk().await.unwrap().unwrap();
        busy.push(reply);
    }
    let mut waiting = Vec::new();
    for (name, client) in lines {
        for _ in 0..each {
            let (client, body) = (client.clone(), prompt(format!("line {name}."), 8));
            waiting
                .push(tokio::spawn(async move { client.post("/api/generate", &body).await.unwrap().status }));
        }
        wait_for(&world.sidecar, waiting.len()).await;
    }
    drop(busy);
    for status in waiting {
        assert_eq!(status.await.unwrap(), StatusCode::OK);
    }
    let seen = world.ollama.record().inferences();
    let line = |arrival: &Arrival| Some(arrival.text().split_once("line ")?.1.split_once('.')?.0.to_owned());
    seen.iter().filter_map(line).collect()
}

/// Until so many wait.
async fn wait_for(sidecar: &Running, count: usize) {
    for _ in 0..500 {
        let metrics = sidecar.admin().get("/metrics").await.unwrap().text();
        let depth = metrics.lines().find_map(|line| line.strip_prefix("corral_queue_depth ")).unwrap();
        if depth.parse::<f64>().unwrap() >= f64::from(u32::try_from(count).unwrap()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{count} never waited");
}

/// At which place the last of a line was served; the first is 0.
fn last_place(order: &[String], line: &str) -> usize {
    order.iter().rposition(|other| other == line).unwrap()
}

#[tokio::test]
async fn trading_bots_are_served_by_their_priorities_and_analytics_too() {
    let world = example("trading-bots-production.yaml").await;
    let line = |word: &'static str| (word, world.client().with("x-priority", word));
    let lines = ["low", "medium", "high", "critical"].map(line);
    let order = order(&world, 1, &lines, 4).await;
    assert_eq!(order.len(), 16);
    assert!(["critical", "high"].contains(&order[0].as_str()), "{order:?}");
    let last = |line| last_place(&order, line);
    assert!(last("critical").max(last("high")) < last("medium") && last("medium") < last("low"), "{order:?}");
    let first_low = order.iter().position(|line| line == "low").unwrap();
    assert!(first_low < last("medium"), "low waits for all others: {order:?}");
}

#[tokio::test]
async fn trading_bots_have_the_numbers_of_their_environment() {
    let environments = [("development", 100, 17, 5), ("staging", 200, 34, 10), ("production", 500, 84, 20)];
    for (file, per_minute, burst, at_once) in environments {
        let world = example(&format!("trading-bots-{file}.yaml")).await;
        let client = world.client();
        serves(burst + 3, (burst, MINUTE / per_minute), || generate(&client)).await;
        let shown = client.get("/corral/v1/limits").await.unwrap().json();
        let of_bots = |limit: &&Value| limit["limit"] == "per-bot";
        let limit = shown["limits"].as_array().unwrap().iter().find(of_bots).unwrap();
        assert_eq!(limit["concurrency"], at_once, "{shown}");
    }
}

#[tokio::test]
async fn a_priority_queue_with_two_workers_serves_chats_first_and_starves_no_job() {
    let world = example("priority-queue.yaml").await;
    let lines = [
        ("low", world.with_key("change-me-to-the-taggers-key")),
        ("normal", world.client()),
        ("high", world.with_key("change-me-to-the-chats-key")),
    ];
    let order = order(&world, 2, &lines, 6).await;
    assert_eq!(order.len(), 18);
    assert_eq!(world.ollama.record().load().max_running, 2, "two workers");
    assert_eq!(world.ollama.record().load().max_waiting, 0, "the line is in front of Ollama");
    let last = |line| last_place(&order, line);
    assert!(last("high") < last("normal") && last("normal") < last("low"), "{order:?}");
    let first_low = order.iter().position(|line| line == "low").unwrap();
    assert!(first_low < last("normal"), "jobs wait for all others: {order:?}");
}

#[tokio::test]
async fn a_header_that_the_pool_does_not_trust_changes_no_order() {
    let world = example("fair-use.yaml").await;
    let line = |word: &'static str| (word, world.client().with("x-priority", word));
    let order = order(&world, 1, &["low", "medium", "critical"].map(line), 1).await;
    assert_eq!(order, ["low", "medium", "critical"]);
}

#[tokio::test]
async fn while_a_pool_grows_fifty_requests_of_a_client_wait() {
    let world = example("autoscaling.yaml").await;
    world.ollama.set_pace(Pace { token: Duration::from_mins(1), ..Pace::default() });
    let client = world.client();
    let send = |_| {
        let client = client.clone();
        tokio::spawn(async move { generate(&client).await })
    };
    let mut begun: Vec<_> = (0..4).map(send).collect();
    while world.ollama.record().load().max_running < 4 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    begun.extend((0..50).map(send));
    wait_for(&world.sidecar, 50).await;
    assert_eq!(world.ollama.record().load().max_running, 4, "four slots");
    let refused = generate(&client).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "{}", refused.text());
    assert_eq!(refused.header("x-corral-shed-reason"), "client_queue_full", "{}", refused.text());
    begun.iter().for_each(tokio::task::JoinHandle::abort);
}

fn pool(name: &str) -> OllamaPoolSpec {
    let read = manifest::read(&std::fs::read_to_string(path(name)).unwrap()).unwrap();
    let pool = read.into_iter().find_map(|manifest| match manifest.spec {
        Spec::Pool(pool) => Some(*pool),
        Spec::Policy(_) | Spec::Secret(_) => None,
    });
    pool.unwrap()
}

/// A pod to which so many requests of 8 s each came in every minute until `now`, none of them too many for its four slots.
fn busy_pod(per_minute: u64, now: Duration) -> PodSeen {
    let come = now.as_secs() * per_minute / 60;
    let mut heard = Heard { at: now, epoch: 1, ready: true, ..Heard::default() };
    (heard.counters.arrivals, heard.counters.completions) = (come, come);
    (heard.counters.slot_millis, heard.gauges.slots) = (come * 8000, 4);
    PodSeen {
        uid: "a".to_owned(),
        node: Some("n".to_owned()),
        phase: Phase::Running,
        ready: true,
        heard: Some(heard),
        ..PodSeen::default()
    }
}

#[test]
fn three_quarters_of_the_slots_time_are_planned_for() {
    let spec = pool("autoscaling.yaml");
    let autoscaling = spec.autoscaling.as_ref().unwrap();
    let config =
        settings::of_builtin(&spec, autoscaling, autoscaling.bounds(|_| false).unwrap(), Holder::Nobody);
    for (per_minute, pods) in [(1, 1), (10, 1), (30, 2), (90, 4), (600, 4)] {
        let mut scaler = Scaler::new(Duration::ZERO);
        let desired = (0..=300).map(|look| {
            let now = Duration::from_secs(2 * look);
            let seen =
                Observation { replicas: 1, pods: vec![busy_pod(per_minute, now)], ..Observation::default() };
            scaler.decide(&config, &seen, now).desired
        });
        assert_eq!(desired.last(), Some(pods), "{per_minute} a minute");
    }
}

#[test]
fn a_pool_that_sleeps_has_a_pod_in_office_hours() {
    let spec = pool("scale-to-zero.yaml");
    let zero = settings::to_zero(&spec).unwrap();
    assert_eq!(
        (zero.idle_after_seconds, zero.max_held_requests, zero.held_mebibytes()),
        (600, 500, Some(64))
    );
    let pool = spec.autoscaling.unwrap();
    for (day, hour, bounds) in [(Day::Mon, 7, (0, 4)), (Day::Mon, 8, (1, 4)), (Day::Sat, 12, (0, 4))] {
        assert_eq!(pool.bounds(|schedule| schedule.holds(day, hour * 60)), Some(bounds), "{day:?} {hour}");
    }
}

#[test]
fn a_pool_has_other_bounds_in_office_hours_at_night_and_on_weekends() {
    let pool = pool("autoscaling-office-hours.yaml").autoscaling.unwrap();
    assert!(pool.schedules.iter().all(|schedule| schedule.zone() == "Europe/Berlin"));
    for (day, hour, minute, bounds) in [
        (Day::Mon, 7, 44, (1, 4)),
        (Day::Mon, 7, 45, (2, 8)),
        (Day::Fri, 17, 59, (2, 8)),
        (Day::Fri, 18, 0, (1, 4)),
        (Day::Sat, 0, 0, (1, 2)),
        (Day::Sun, 12, 0, (1, 2)),
        (Day::Wed, 1, 0, (4, 6)),
        (Day::Sun, 4, 59, (4, 6)),
        (Day::Sun, 5, 0, (1, 2)),
        (Day::Mon, 5, 0, (1, 4)),
    ] {
        let now = pool.bounds(|schedule| schedule.holds(day, hour * 60 + minute));
        assert_eq!(now, Some(bounds), "{day:?} {hour}:{minute:02}");
    }
}
