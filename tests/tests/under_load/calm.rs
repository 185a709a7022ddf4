//! Scenario 9: nobody contends, and the sidecar is hardly felt: neither in the first token nor in the throughput.

use std::net::SocketAddr;
use std::time::Duration;

use corral_tests::load::{Heard, Shot, Spread, fire, in_millis};
use corral_tests::ollama::{Outcome, Pace};
use corral_tests::sidecar::PolicyFile;

use super::table::line;
use super::{TOKEN, World, all_are, tokens};

/// From one request to the next: no two meet.
const APART: Duration = Duration::from_millis(10);
const SLOTS: usize = 4;
/// Of the throughput: rounds of waves of as many requests as there are slots, all of which one client may have waiting,
/// and their length in tokens.
const ROUNDS: usize = 4;
const WAVES: usize = 4;
const LENGTH: u32 = 50;

#[tokio::test]
async fn without_contention_every_token_and_every_job_passes() {
    first_tokens(150).await;
}

#[tokio::test]
async fn a_queue_in_front_of_ollama_costs_no_throughput() {
    throughput().await;
}

#[tokio::test]
#[ignore = "measures, which is worth something in an optimised build only"]
async fn without_contention_every_token_and_every_job_passes_in_full_size() {
    first_tokens(1500).await;
}

#[tokio::test]
#[ignore = "measures, which is worth something in an optimised build only"]
async fn a_queue_in_front_of_ollama_costs_no_throughput_in_full_size() {
    throughput().await;
}

/// Ollama takes no time here, so that what is added stands out. Direct and guarded in turns: both meet the same machine.
async fn first_tokens(pairs: u32) {
    let pace = Pace { schedule: Duration::ZERO, ..Pace::default() };
    let world = World::start(pace, SLOTS, PolicyFile::open()).await;
    let ways = [world.ollama.address(), world.sidecar.address()];
    fire(in_turns(ways, 10)).await.unwrap();
    let heard = fire(in_turns(ways, pairs)).await.unwrap();
    all_are(&heard, 200);
    world.comes_to_rest().await;
    let record = world.ollama.record();
    assert_eq!((record.load().max_running, record.load().max_waiting), (1, 0));
    assert_eq!(record.inferences().len(), record.count(Outcome::Finished));
    let served = world.sidecar.sum("corral_requests_total{endpoint=\"generate\",outcome=\"served\"}").await;
    assert_eq!(served.unwrap(), heard.len() / 2 + 10, "each is counted once");
    print_first(&heard);
}

fn in_turns(ways: [SocketAddr; 2], pairs: u32) -> Vec<Shot> {
    let body = tokens("tiny", "hi", 2);
    let turns = (0..pairs * 2).zip(ways.into_iter().cycle());
    turns.map(|(number, to)| Shot::post(APART * number, to, "/api/generate", &body)).collect()
}

fn print_first(heard: &[Heard]) {
    let of =
        |way: usize| -> Spread { heard.iter().skip(way).step_by(2).filter_map(|one| one.first).collect() };
    let (direct, guarded) = (of(0), of(1));
    for (what, goal, direct, guarded) in
        [("p50", "<= 0.3 ms", direct.p50(), guarded.p50()), ("p99", "<= 1 ms", direct.p99(), guarded.p99())]
    {
        line(
            &format!("time to first token without contention, added, {what}"),
            goal,
            &format!(
                "{}: {} direct, {} through the sidecar, {:.2} times as long",
                in_millis(guarded.saturating_sub(direct)),
                in_millis(direct),
                in_millis(guarded),
                guarded.as_secs_f64() / direct.as_secs_f64()
            ),
        );
    }
}

/// Everything at one instant, through the sidecar, and past it with another model, where Ollama's own queue does the same.
/// In turns; of each the round that was disturbed least.
async fn throughput() {
    let pace = Pace { token: TOKEN, ..Pace::default() };
    let world = World::start(pace, SLOTS, PolicyFile::open()).await;
    let mut best = [Duration::MAX; 2];
    for _ in 0..ROUNDS {
        let ways = [(world.sidecar.address(), "tiny"), (world.ollama.address(), "slow")];
        for ((to, model), best) in ways.into_iter().zip(&mut best) {
            *best = (*best).min(all_at_once(to, model).await);
        }
    }
    world.comes_to_rest().await;
    let guarded = world.ollama.record().model("tiny:latest");
    assert_eq!(
        (guarded.max_running, guarded.max_waiting),
        (SLOTS, 0),
        "all slots, and not Ollama's own queue"
    );
    print_throughput(best);
}

/// How long it takes until the last one is served.
async fn all_at_once(to: SocketAddr, model: &str) -> Duration {
    let body = tokens(model, "work", LENGTH);
    let shots = (0..SLOTS * WAVES).map(|_| Shot::post(Duration::ZERO, to, "/api/generate", &body));
    let heard = fire(shots.collect()).await.unwrap();
    all_are(&heard, 200);
    heard.iter().map(|one| one.ended).max().unwrap_or_default()
}

fn print_throughput([guarded, direct]: [Duration; 2]) {
    let loss = (guarded.as_secs_f64() / direct.as_secs_f64() - 1.0) * 100.0;
    line(
        &format!("throughput lost with {SLOTS} slots always busy, best of {ROUNDS} rounds"),
        "<= 1 %",
        &format!("{loss:.2} %: {} direct, {} through the sidecar", in_millis(direct), in_millis(guarded)),
    );
}
