//! Scenario 10: a thousand clients a second leave, some while they wait and some while they are served. Nothing of them
//! stays, and who shares the machine with them does not lose a slot for a moment.

use std::collections::HashMap;
use std::time::Duration;

use corral_tests::client::Client;
use corral_tests::load::{End, Heard, Leaves, Shot, Spread, fire, in_millis};
use corral_tests::ollama::{Outcome, Pace, Record};
use corral_tests::sidecar::PolicyFile;
use http::StatusCode;
use proptest::prelude::Rng as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use tokio::time::Instant;

use super::table::line;
use super::{TOKEN, World, tokens};

const SLOTS: usize = 4;
/// Clients of the other model, who stay: always more than there are slots.
const WITNESSES: usize = 6;
const WITNESSED: u32 = 20;
/// The longest that a client of the storm stays.
const PATIENCE_MS: u32 = 60;
const ADMITTED: &str =
    "corral_limit_decisions_total{policy=\"standalone/fair-use\",limit=\"wide\",decision=\"admitted\"}";
/// Every other outcome of a request at Ollama is one of these too.
const OUTCOMES: [Outcome; 7] = [
    Outcome::Finished,
    Outcome::Faulted,
    Outcome::Busy,
    Outcome::LoadFailed,
    Outcome::Leaked,
    Outcome::LeftWaiting,
    Outcome::Cancelled,
];

#[tokio::test]
// Unoptimised, a thousand a second would be more than the sidecar can read.
async fn a_storm_of_cancels_leaves_nothing_behind() {
    scenario(250, 4).await;
}

#[tokio::test]
#[ignore = "measures, which is worth something in an optimised build only"]
async fn a_storm_of_cancels_leaves_nothing_behind_in_full_size() {
    scenario(1000, 15).await;
}

async fn scenario(per_second: u32, seconds: u32) {
    let pace = Pace { token: TOKEN, prompt: TOKEN, ..Pace::default() };
    let world = World::start(pace, SLOTS, PolicyFile::open().queue(1000, 60)).await;
    let until = Instant::now() + Duration::from_secs(seconds.into());
    let staying = (0..WITNESSES).map(|number| stays(world.sidecar.client(), number, until));
    let (storm, witnesses) =
        tokio::join!(fire(leaving(&world, per_second, seconds)), futures::future::join_all(staying));
    let (storm, ends) = (storm.unwrap(), witnesses.concat());
    world.comes_to_rest().await;
    each_has_one_outcome(&world, &storm, ends.len()).await;
    print(per_second, &storm, world.ollama.record(), ends);
    let processor = world.sidecar.processor_time().unwrap() / (per_second * seconds);
    line("processor time, for each cancel", "-", &format!("{} us", processor.as_micros()));
    all_slots_are_there(&world).await;
}

fn leaving(world: &World, per_second: u32, seconds: u32) -> Vec<Shot> {
    let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let body = tokens("tiny", "will not hear the end", 400);
    let shot = |number: u32| {
        let at = Duration::from_secs(1) * number / per_second;
        let patience = Duration::from_millis((random.next_u32() % PATIENCE_MS).into());
        Shot::post(at, world.sidecar.address(), "/api/generate", &body).leaving(Leaves::After(patience))
    };
    (0..per_second * seconds).map(shot).collect()
}

/// Asks again and again. Gives of each answer which it was, and for how long Ollama had it.
async fn stays(client: Client, number: usize, until: Instant) -> Vec<(String, Duration)> {
    let mut ends = Vec::new();
    while Instant::now() < until {
        let name = format!("witness {number} {}", ends.len());
        let answer = client.post("/api/generate", &tokens("slow", &name, WITNESSED)).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        let last = answer.text().trim_end().rsplit('\n').next().unwrap_or_default().to_owned();
        let told: serde_json::Value = serde_json::from_str(&last).unwrap();
        ends.push((name, Duration::from_nanos(told["total_duration"].as_u64().unwrap())));
    }
    ends
}

/// At Ollama, which leaks nothing and hardly ever has one wait; and here.
async fn each_has_one_outcome(world: &World, storm: &[Heard], served: usize) {
    let record = world.ollama.record();
    let outcomes: usize = OUTCOMES.iter().map(|outcome| record.count(*outcome)).sum();
    assert_eq!(outcomes, record.inferences().len());
    assert_eq!((record.leaked(), record.count(Outcome::Finished)), (0, served));
    for model in ["tiny:latest", "slow:latest"] {
        assert!(record.model(model).max_running <= SLOTS);
    }
    let whole = storm.iter().filter(|one| one.end == End::Whole).count();
    let left = storm.iter().filter(|one| one.end == End::Left).count();
    assert_eq!(whole + left, storm.len(), "no connection broke");
    let sum = async |begin| world.sidecar.sum(begin).await.unwrap();
    let counted = sum("corral_requests_total{endpoint=\"generate\"").await;
    assert_eq!(counted, sum("corral_request_duration_seconds_count{endpoint=\"generate\"}").await);
    let admitted = sum(ADMITTED).await;
    // Who has left when the sidecar comes to read what he sent has asked nothing.
    let (reached, sent) = (record.inferences().len(), storm.len() + served);
    let in_order = reached <= admitted && admitted <= counted && counted <= sent;
    assert!(
        in_order,
        "{reached} reached Ollama, {admitted} were admitted, {counted} have an outcome, {sent} were sent"
    );
}

/// As many as ever run at one time, again.
async fn all_slots_are_there(world: &World) {
    let gate = world.ollama.gate();
    let asking: Vec<_> = (0..SLOTS)
        .map(|_| {
            let client = world.sidecar.client();
            tokio::spawn(async move { client.post("/api/generate", &tokens("tiny", "again", 1)).await })
        })
        .collect();
    world
        .until("all slots are taken", async || world.ollama.record().model("tiny:latest").running == SLOTS)
        .await;
    (0..SLOTS * 3).for_each(|_| gate.step());
    for one in asking {
        assert_eq!(one.await.unwrap().unwrap().status, StatusCode::OK);
    }
    world.comes_to_rest().await;
}

/// How long each slot of the witnesses' model lay idle, as Ollama saw it: from the end of the k-th answer to the arrival
/// of the request that took its slot.
fn idle_slots(record: &Record, ends: Vec<(String, Duration)>) -> Spread {
    let lasted: HashMap<String, Duration> = ends.into_iter().collect();
    let mut begun = Vec::new();
    let mut ended = Vec::new();
    for arrival in record.inferences() {
        let body: serde_json::Value = serde_json::from_slice(&arrival.body).unwrap();
        let name = body["prompt"].as_str().unwrap_or_default();
        if let Some(time) = lasted.get(name) {
            begun.push(arrival.at);
            ended.push(arrival.at + *time);
        }
    }
    ended.sort();
    begun.iter().skip(SLOTS).zip(&ended).map(|(next, end)| next.saturating_duration_since(*end)).collect()
}

fn print(per_second: u32, storm: &[Heard], record: &Record, ends: Vec<(String, Duration)>) {
    let late: Spread = storm.iter().map(|one| one.sent).collect();
    let refused = storm.iter().filter(|one| one.end == End::Whole).count();
    let reached = record.inferences().len() - ends.len();
    let load = record.load();
    line(
        &format!("slots leaked by {} cancels, {per_second} a second", storm.len() - refused),
        "0",
        &format!(
            "0; {reached} had reached Ollama, {refused} were refused, the load was late by p99 {}; longest wait in Ollama {}",
            in_millis(late.p99()),
            in_millis(load.longest_wait)
        ),
    );
    let idle = idle_slots(record, ends);
    line(
        "next dispatch after a release, meanwhile, p50, as Ollama sees it",
        "<= 1 ms",
        &format!("{}, p99 {}, of {}", in_millis(idle.p50()), in_millis(idle.p99()), idle.count()),
    );
}
