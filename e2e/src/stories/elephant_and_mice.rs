//! One client asks for ten times its share, nine ask for half of theirs: the nine get all that they ask for.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::crowd::{Call, Outcome, a_second, p99, steady, words};
use super::in_flight::answer_of;
use super::pool::PoolPod;
use super::scene::Scene;
use crate::cluster::http::Request;

const POOL: &str = "chat";
const SLOTS: usize = 2;
const MICE: u32 = 9;
/// Everybody's requests are of this length.
const JOB: Duration = Duration::from_millis(100);
/// A mouse gives up after this, and says so beforehand.
const PATIENCE: Duration = Duration::from_secs(10);
const MEASURED: Duration = Duration::from_secs(5);
const TIME: Duration = Duration::from_secs(20);

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let pod = known_clients(scene)?;
    let way = scene.way(pod.client_port()?);
    let request = answer_of(scene.tokens_lasting(&way, SLOTS, JOB)?);
    let capacity = scene.capacity(&way, SLOTS, &request, MEASURED)?;
    let outcomes = scene.fire(&way, &calls(&request, capacity), PATIENCE)?;
    let (mice, elephant): (Vec<_>, Vec<_>) = outcomes.iter().partition(|outcome| outcome.client > 0);
    scene.tell(&format!(
        "capacity {capacity:.1}/s. Elephant: {}. Mice: {}, their wait p99 {} ms. All together {:.1}/s, {} of {SLOTS} \
         slots in use",
        words(elephant.iter().copied()),
        words(mice.iter().copied()),
        p99(waits(&mice)?).as_millis(),
        a_second(&outcomes, TIME),
        scene.slots_in_use(&pod)?
    ));
    the_mice_are_served(&mice)?;
    let refused = elephant.iter().filter(|outcome| outcome.status() == Some(429)).count();
    ensure!(refused > 0, "nobody was refused, so there was no contention");
    scene.at_rest(&[pod], &[])
}

fn key(client: u32) -> String {
    format!("key-of-client-{client}")
}

/// Client 0 is the elephant.
fn known_clients(scene: &Scene) -> Result<PoolPod> {
    let keys: BTreeMap<String, String> =
        (0..=MICE).map(|number| (format!("client-{number}"), key(number))).collect();
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "clients" }, "stringData": keys });
    scene.apply(&secret.to_string())?;
    let fields = json!({ "identity": { "apiKeys": [{ "secretName": "clients" }] } });
    let pods = scene.serving(&scene.pool_with(POOL, 1, &fields)?)?;
    scene.warm_up_slow(&pods)?;
    pods.into_iter().next().context("the pool has a pod")
}

/// A share is a tenth of the capacity. The mice do not ask all at the same instant.
fn calls(request: &Request, capacity: f64) -> Vec<Call> {
    let share = capacity / f64::from(MICE + 1);
    let of = |client: u32| request.clone().header("Authorization", &format!("Bearer {}", key(client)));
    let mut calls = steady(0, &of(0), share * 10.0, Duration::ZERO, TIME);
    let patience = PATIENCE.as_millis().to_string();
    for mouse in 1..=MICE {
        let request = of(mouse).header("x-request-timeout-ms", &patience);
        let first = Duration::from_secs_f64(2.0 / share) * mouse / (MICE + 1);
        calls.extend(steady(mouse as usize, &request, share / 2.0, first, TIME));
    }
    calls.sort_by_key(|call| call.at);
    calls
}

fn waits(served: &[&Outcome]) -> Result<Vec<Duration>> {
    served.iter().filter(|outcome| outcome.served()).map(|outcome| outcome.waited()).collect()
}

/// At least 99.5 % of what they ask.
fn the_mice_are_served(mice: &[&Outcome]) -> Result<()> {
    let failed: Vec<_> = mice.iter().filter(|outcome| !outcome.served()).collect();
    ensure!(mice.len() >= 50, "{} requests of mice prove little", mice.len());
    ensure!(failed.len() * 200 <= mice.len(), "{} of {} failed: {failed:?}", failed.len(), mice.len());
    Ok(())
}
