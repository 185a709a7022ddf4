//! A pool that nobody asks goes to zero and stays Ready. Who asks then is held and answered by a new pod: once each, in
//! order, and charged on the pod to the address of the client. On the way back to zero nobody is refused.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};

use super::crowd::{Call, Outcome, Way, steady, words};
use super::in_flight::answer_of;
use super::pool::{CLIENT_PORT, PoolPod, policy};
use super::scaling::Decision;
use super::scene::Scene;
use crate::machine::clock::{Stopwatch, seconds};

const POOL: &str = "chat";
/// Of one client: more than it asks for, and what comes anew takes longer than the story looks.
const BURST: u64 = 40;
const AN_HOUR: &str = "40/h";
/// The slots of the pod.
const SLOTS: usize = 2;
/// What one activator gets from the first client, one after the other.
const IN_ORDER: u32 = 8;
/// What it gets from the second client meanwhile, and what comes from elsewhere by the Service.
const BESIDE: u32 = 4;
/// What comes when the pool has just gone to zero again, while its pod ends.
const LATE: u32 = 10;
/// From one request of a client to the next.
const APART: Duration = Duration::from_millis(100);
/// Tokens of an answer: long enough that requests wait for each other.
const TOKENS: usize = 10;
/// As long as a client waits.
const PATIENCE: Duration = Duration::from_secs(100);

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    serves_at_first(scene)?;
    let clients = clients(scene)?;
    let activators = scene.activators(POOL)?;
    let near = activators.iter().find(|activator| activator.node_number() == 0);
    let activator = near.context("an activator is on the node of the clients")?;
    let took = scene.falls_asleep(POOL)?;
    scene.tell(&format!("at zero after {}, Ready=True in every look", seconds(took)));
    wakes(scene, &clients, activator)?;
    is_charged_once(scene, &clients, activator)?;
    late_ones_are_answered(scene, &clients)?;
    says_why(scene)
}

fn serves_at_first(scene: &Scene) -> Result<()> {
    scene.models()?;
    scene.gpus(0, 1)?;
    scene.apply(&scene.sleepy_pool(POOL, 1)?.to_string())?;
    scene.pool_serves(POOL, 1)?;
    let burst = json!({ "requests": BURST });
    let limits = json!([{ "name": "each", "per": ["ClientIP"], "requests": AN_HOUR, "burst": burst }]);
    scene.enforced_policy(&policy("few", POOL, &limits)).map(drop)
}

/// Where each of two clients asks from.
fn clients(scene: &Scene) -> Result<[PathBuf; 2]> {
    scene.apply(include_str!("../../manifests/clients.yaml"))?;
    let network = |name: &str| {
        scene.pod_is_ready(name)?;
        let found = scene.pods_with(&scene.namespace, &format!("corral.test/client={name}"))?;
        scene.network_of(found.first().context("a client has a pod")?, "client")
    };
    Ok([network("client-0")?, network("client-1")?])
}

/// Several ask at once, and all are answered.
fn wakes(scene: &Scene, [first, second]: &[PathBuf; 2], activator: &PoolPod) -> Result<()> {
    let (service, direct) = (scene.service(POOL, CLIENT_PORT)?, activator.client_port()?);
    let ways = [
        (Way::new(first.clone(), direct), IN_ORDER),
        (Way::new(second.clone(), direct), BESIDE),
        (scene.way(service), BESIDE),
    ];
    let outcomes = thread::scope(|scope| {
        let asking =
            ways.each_ref().map(|(way, count)| scope.spawn(|| scene.fire(way, &calls(*count), PATIENCE)));
        let told = asking.into_iter().map(|one| one.join().map_err(|_| anyhow!("a client panicked"))?);
        told.collect::<Result<Vec<_>>>()
    })?;
    let all: Vec<&Outcome> = outcomes.iter().flatten().collect();
    let ended = |one: &&Outcome| one.ended;
    scene.tell(&format!(
        "from zero: {}, the first answer after {}, the last after {}",
        words(all.iter().copied()),
        seconds(all.iter().map(ended).min().unwrap_or_default()),
        seconds(all.iter().map(ended).max().unwrap_or_default()),
    ));
    are_served(&all)?;
    are_in_order(outcomes.first().context("somebody asked the activator")?)
}

fn calls(count: u32) -> Vec<Call> {
    steady(0, &answer_of(TOKENS), 1.0 / APART.as_secs_f64(), Duration::ZERO, APART * count)
}

/// Each got the whole of one answer.
fn are_served(outcomes: &[&Outcome]) -> Result<()> {
    outcomes.iter().try_for_each(|outcome| {
        ensure!(outcome.served(), "not served: {:?}", outcome.exchange);
        let answer = outcome.exchange.answer.as_ref().context("there is an answer")?.json()?;
        let tokens = answer.get("eval_count").and_then(Value::as_u64);
        ensure!(tokens == Some(TOKENS as u64), "not the whole of one answer: {answer}");
        Ok(())
    })
}

/// Two that run at the same time may end in any order. But nobody ends before one that came two slots earlier.
fn are_in_order(outcomes: &[Outcome]) -> Result<()> {
    let ends: Vec<Duration> = outcomes.iter().map(|outcome| outcome.ended).collect();
    let in_order = ends.iter().zip(ends.iter().skip(SLOTS)).all(|(earlier, later)| earlier < later);
    ensure!(in_order, "one activator was asked one after the other, and answered at {ends:?}");
    Ok(())
}

/// The pod has charged each request once, and to its client: nothing to the activator, from which they came.
fn is_charged_once(scene: &Scene, [first, second]: &[PathBuf; 2], activator: &PoolPod) -> Result<()> {
    let pods = scene.pool_serves(POOL, 1)?;
    let pod = pods.first().context("a pod has come")?;
    let admitted = scene.decisions(pod, "each", "admitted")?;
    let asked = u64::from(IN_ORDER + 2 * BESIDE);
    ensure!(admitted == asked, "{asked} were asked, and the limit of the pod has admitted {admitted}");
    let left = |network: PathBuf| scene.remaining_for(network, pod, "each");
    let left =
        (left(first.clone())?, left(second.clone())?, left(scene.network_of(activator, "activator")?)?);
    let wanted = (BURST - u64::from(IN_ORDER), BURST - u64::from(BESIDE), BURST);
    scene.tell(&format!("of {BURST} of each address {left:?} are left to both clients and an activator"));
    ensure!(left == wanted, "that should be {wanted:?}");
    Ok(())
}

/// They come when the Deployment is asked for no pod any more: some meet the pod that ends, the others nobody but
/// activators.
fn late_ones_are_answered(scene: &Scene, [first, second]: &[PathBuf; 2]) -> Result<()> {
    let watch = Stopwatch::start();
    let service = scene.service(POOL, CLIENT_PORT)?;
    scene.until("no pod is asked for", || {
        let asked =
            scene.get(&format!("deployment/{POOL}"))?.pointer("/spec/replicas").and_then(Value::as_u64);
        Ok(if asked == Some(0) { Ok(()) } else { Err(format!("{asked:?} are")) })
    })?;
    let went = watch.elapsed();
    let ways = [Way::new(first.clone(), service), Way::new(second.clone(), service)];
    let late = thread::scope(|scope| {
        let asking = ways.each_ref().map(|way| scope.spawn(|| scene.fire(way, &calls(LATE), PATIENCE)));
        let told = asking.into_iter().map(|one| one.join().map_err(|_| anyhow!("a client panicked"))?);
        told.collect::<Result<Vec<_>>>()
    })?;
    let late: Vec<&Outcome> = late.iter().flatten().collect();
    let longest = late.iter().map(|one| one.ended.saturating_sub(one.at)).max().unwrap_or_default();
    scene.tell(&format!(
        "to zero again after {}; who asked just then: {}, within {}",
        seconds(went),
        words(late.iter().copied()),
        seconds(longest)
    ));
    are_served(&late)
}

fn says_why(scene: &Scene) -> Result<()> {
    let decisions = scene.explained_decisions(POOL)?;
    let told: Vec<String> = decisions.iter().map(Decision::to_string).collect();
    scene.tell(&told.join("; "));
    let sizes: Vec<u64> = decisions.iter().map(|decision| decision.to).collect();
    ensure!(sizes.ends_with(&[0, 1, 0, 1]), "that is not to zero and back, twice");
    let because = |reason: &str| decisions.iter().filter(|decision| decision.reason == reason).count();
    ensure!(because("IdleToZero") == 2, "two were for want of requests: {told:?}");
    Ok(())
}
