//! Batch jobs without end keep every slot busy. Who chats waits no longer than one of those jobs takes on the average,
//! and the jobs go on.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};

use super::crowd::{Call, Outcome, Way, a_second, p99, steady, words};
use super::in_flight::answer_of;
use super::pool::{PoolPod, policy};
use super::scene::Scene;
use crate::cluster::http::Request;
use crate::machine::clock::seconds;

const POOL: &str = "chat";
const SLOTS: usize = 4;
/// Clients of the flood: each asks for its next job as soon as it has the last.
const FLOOD: usize = 12;
/// The mean of their jobs, of which the shortest is half as long and the longest one and a half times.
const JOB: Duration = Duration::from_secs(1);
/// Who chats asks for so little, so often: a tenth of all slots' time.
const CHAT: Duration = Duration::from_millis(200);
const CHATS_A_SECOND: f64 = 2.0;
const TIME: Duration = Duration::from_secs(20);
/// In each window as long as this some batch job ends.
const WINDOW: Duration = Duration::from_secs(4);

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let pod = tiers(scene)?;
    let way = scene.way(pod.client_port()?);
    let job = scene.tokens_lasting(&way, SLOTS, JOB)?;
    let (flood, chats) = side_by_side(scene, &way, job)?;
    let served: Vec<&Outcome> = flood.iter().filter(|outcome| outcome.served()).collect();
    ensure!(served.len() >= SLOTS * 5, "only {} batch jobs: {}", served.len(), words(&flood));
    let worked: Duration = served.iter().map(|outcome| outcome.worked()).sum::<Result<_>>()?;
    let mean = worked / u32::try_from(served.len())?;
    ensure!(chats.iter().all(Outcome::served), "not every chat was served: {}", words(&chats));
    let waits = chats.iter().map(Outcome::waited).collect::<Result<Vec<_>>>()?;
    let (wait, least) = (p99(waits), least_of_any_window(&served));
    scene.tell(&format!(
        "{} chats wait p99 {} while the mean batch job takes {}; batch: {}, {:.1}/s, in any {} at least \
         {least}; {} of {SLOTS} slots in use",
        chats.len(),
        seconds(wait),
        seconds(mean),
        words(&flood),
        a_second(&flood, TIME),
        seconds(WINDOW),
        scene.slots_in_use(&pod)?
    ));
    ensure!(wait <= mean, "who chats waits {} behind batch jobs of {}", seconds(wait), seconds(mean));
    ensure!(least > 0, "for {} no batch job ended", seconds(WINDOW));
    scene.at_rest(&[pod], &[])
}

fn tiers(scene: &Scene) -> Result<PoolPod> {
    for tier in ["chat", "batch"] {
        let keys = json!({ tier: key(tier) });
        let secret =
            json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": tier }, "stringData": keys });
        scene.apply(&secret.to_string())?;
    }
    let keys = json!([{ "secretName": "chat", "tier": "chat" }, { "secretName": "batch", "tier": "batch" }]);
    let fields = json!({
        "ollama": { "numParallel": SLOTS, "contextLength": 2048, "keepAlive": "-1" },
        "identity": { "apiKeys": keys },
    });
    let pods = scene.serving(&scene.pool_with(POOL, 1, &fields)?)?;
    let shown = scene.enforced_policy(&priorities())?.pointer("/status/priorities").cloned();
    let shown = shown.as_ref().and_then(Value::as_str).unwrap_or_default();
    let both = shown.split(',').count() == 2 && shown.contains("chat=high") && shown.contains("batch=low");
    ensure!(both, "the policy shows its priorities as `{shown}`");
    scene.warm_up_slow(&pods)?;
    pods.into_iter().next().context("the pool has a pod")
}

fn key(tier: &str) -> String {
    format!("key-of-{tier}")
}

fn with(tier: &str, request: Request) -> Request {
    request.header("Authorization", &format!("Bearer {}", key(tier)))
}

fn priorities() -> Value {
    let limits = json!([{ "name": "wide", "per": ["Client"], "requests": "100000/m" }]);
    let mut policy = policy("priorities", POOL, &limits);
    if let Some(spec) = policy.pointer_mut("/spec").and_then(Value::as_object_mut) {
        let tiers = json!([{ "name": "chat", "priority": "high" }, { "name": "batch", "priority": "low" }]);
        spec.insert("tiers".into(), tiers);
    }
    policy
}

/// The flood, and who chats when it is there.
fn side_by_side(scene: &Scene, way: &Way, job: usize) -> Result<(Vec<Outcome>, Vec<Outcome>)> {
    let flood: Vec<Request> =
        (0..FLOOD).map(|client| with("batch", answer_of(length(job, client)))).collect();
    let chats = chats(job);
    thread::scope(|scope| {
        let flooding = scope.spawn(|| scene.keep_busy(way, &flood, TIME));
        let chats = scene.fire(way, &chats, TIME);
        let flood = flooding.join().map_err(|_| anyhow!("the flood panicked"))?;
        Ok((flood?, chats?))
    })
}

/// Evenly from half of it to one and a half times.
fn length(job: usize, client: usize) -> usize {
    (job / 2 + job * client / (FLOOD - 1)).max(1)
}

fn chats(job: usize) -> Vec<Call> {
    let tokens =
        job * usize::try_from(CHAT.as_millis()).unwrap_or(1) / usize::try_from(JOB.as_millis()).unwrap_or(1);
    let first = Duration::from_secs(2);
    steady(0, &with("chat", answer_of(tokens.max(1))), CHATS_A_SECOND, first, TIME)
}

/// The fewest that ended in any window of the time in which all slots were wanted.
fn least_of_any_window(served: &[&Outcome]) -> usize {
    let windows =
        (0_u32..).map(|step| Duration::from_millis(500) * step).take_while(|from| *from + WINDOW <= TIME);
    let ended =
        |from: Duration| served.iter().filter(|one| (from..from + WINDOW).contains(&one.ended)).count();
    windows.map(ended).min().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_of_the_mean_length_on_the_average() {
        let lengths: Vec<usize> = (0..FLOOD).map(|client| length(100, client)).collect();
        assert_eq!((lengths[0], lengths[FLOOD - 1]), (50, 150));
        assert!((lengths.iter().sum::<usize>() / FLOOD).abs_diff(100) <= 1);
    }
}
