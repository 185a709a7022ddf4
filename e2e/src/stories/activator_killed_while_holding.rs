//! Nobody that holds requests, or that has a pod made for them, is the only one. The operator is killed at zero, and one
//! of two activators while both hold requests: those of the other one wait on, and whoever lost its connection asks again
//! and is answered.

use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::in_flight::answer_of;
use super::pool::{ADMIN_PORT, CLIENT_PORT, PoolPod};
use super::scene::Scene;
use super::traffic::reading;
use crate::cluster::http::{Exchange, Request};
use crate::machine::clock::{Deadline, Stopwatch, seconds};

const POOL: &str = "chat";
/// What each activator holds.
const EACH: usize = 3;
const TOKENS: usize = 5;
/// As long as a client waits for one answer.
const PATIENCE: Duration = Duration::from_mins(2);
/// From one attempt of a client to the next.
const PAUSE: Duration = Duration::from_millis(300);
/// The Lease, and what a busy machine adds.
const TAKEOVER: Duration = Duration::from_secs(40);
/// A request that was sent is held by then, and what is held has asked for a pod.
const SOON: Duration = Duration::from_secs(10);

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let activators = sleeps_without_a_gpu(scene)?;
    let (doomed, other) = activators.split_first().context("there are two activators")?;
    let other = other.first().context("there are two activators")?;
    let watch = Stopwatch::start();
    let leader = scene.leader()?;
    scene.kill_the_operator()?;
    let lost = ask(scene, doomed)?;
    let kept = ask(scene, other)?;
    holds(scene, doomed, EACH as u64)?;
    holds(scene, other, EACH as u64)?;
    another_leads_and_wakes_it(scene, &leader, watch)?;
    let again = one_is_killed(scene, doomed, lost)?;
    ensure!(
        kept.iter().all(|one| !one.is_finished()),
        "those of the other activator were answered by nobody"
    );
    let waiting = waits_again(scene, &activators)?;
    scene.tell(&format!("{waiting} are held again after an activator was killed"));
    all_are_answered(scene, &activators, kept, again)
}

/// At zero from the beginning. Its pod finds no place before it gets one, so that what is held stays held.
fn sleeps_without_a_gpu(scene: &Scene) -> Result<Vec<PoolPod>> {
    scene.models()?;
    scene.gpus(0, 0)?;
    scene.apply(&scene.sleepy_pool(POOL, 0)?.to_string())?;
    let activators = scene.activators(POOL)?;
    scene.until_reason(&format!("ollamapool/{POOL}"), "Ready", "True", "ScaledToZero")?;
    scene.service(POOL, CLIENT_PORT)?;
    Ok(activators)
}

fn request() -> Request {
    answer_of(TOKENS)
}

fn ask(scene: &Scene, activator: &PoolPod) -> Result<Vec<JoinHandle<Exchange>>> {
    let to = activator.client_port()?;
    let one = |_| {
        let scene = scene.clone();
        thread::spawn(move || scene.cluster.line(0, to, PATIENCE).exchange(&request(), true, PATIENCE))
    };
    Ok((0..EACH).map(one).collect())
}

fn holds(scene: &Scene, activator: &PoolPod, count: u64) -> Result<()> {
    Deadline::after(SOON).wait(&format!("{} holds {count}", activator.name), PAUSE, || {
        let held = scene.held(activator)?;
        Ok(if held == count { Ok(()) } else { Err(format!("{held} are")) })
    })
}

/// What is held has waited for an operator, and asks this one for a pod.
fn another_leads_and_wakes_it(scene: &Scene, first: &str, killed: Stopwatch) -> Result<()> {
    Deadline::after(TAKEOVER).wait("another operator leads", PAUSE, || {
        let leader = scene.leader().unwrap_or_default();
        let other = !leader.is_empty() && leader != first;
        Ok(if other { Ok(()) } else { Err(format!("`{leader}` leads")) })
    })?;
    let leads = killed.elapsed();
    Deadline::after(SOON).wait("a pod is asked for", PAUSE, || {
        let size = scene.size(POOL)?;
        Ok(if size.asked == 1 { Ok(()) } else { Err(size.to_string()) })
    })?;
    scene.tell(&format!(
        "another operator leads {} after all were killed, and a pod is asked for after {}",
        seconds(leads),
        seconds(killed.elapsed())
    ));
    Ok(())
}

/// Ends an activator. Its clients see that, and ask the Service again. Gives them.
fn one_is_killed(
    scene: &Scene,
    doomed: &PoolPod,
    lost: Vec<JoinHandle<Exchange>>,
) -> Result<Vec<JoinHandle<Result<usize>>>> {
    let service = scene.service(POOL, CLIENT_PORT)?;
    scene.kill_container(doomed, "activator")?;
    let broken = joined(lost)?;
    for exchange in &broken {
        let status = exchange.answer.as_ref().map(|answer| answer.status);
        ensure!(status.is_none_or(|status| status == 503), "of a killed activator: {exchange:?}");
    }
    let retry = |_: &Exchange| {
        let scene = scene.clone();
        thread::spawn(move || until_served(&scene, service))
    };
    Ok(broken.iter().map(retry).collect())
}

/// Asks until there is an answer, as a client's library does. Gives how often it asked.
fn until_served(scene: &Scene, to: SocketAddr) -> Result<usize> {
    for attempt in 1.. {
        let exchange = scene.cluster.line(0, to, PAUSE).exchange(&request(), true, PATIENCE);
        match exchange.answer.as_ref().map(|answer| answer.status) {
            Some(200) if exchange.fault.is_none() => return Ok(attempt),
            None | Some(503) => thread::sleep(PAUSE),
            Some(_) => bail!("neither 200 nor 503: {exchange:?}"),
        }
        ensure!(!scene.deadline.passed(), "the story's time is over");
    }
    bail!("nobody asked")
}

/// Until all that were asked are held, by whichever activator. Gives how many that are.
fn waits_again(scene: &Scene, activators: &[PoolPod]) -> Result<u64> {
    let wanted = 2 * EACH as u64;
    scene.until("all are held again", || {
        let held = activators.iter().map(|activator| scene.held(activator).unwrap_or_default()).sum();
        Ok(if held == wanted { Ok(held) } else { Err(format!("{held} are")) })
    })
}

fn all_are_answered(
    scene: &Scene,
    activators: &[PoolPod],
    kept: Vec<JoinHandle<Exchange>>,
    again: Vec<JoinHandle<Result<usize>>>,
) -> Result<()> {
    let watch = Stopwatch::start();
    scene.gpus(0, 1)?;
    for exchange in joined(kept)? {
        let status = exchange.answer.as_ref().map(|answer| answer.status);
        ensure!(status == Some(200) && exchange.fault.is_none(), "of the other activator: {exchange:?}");
    }
    let attempts = joined(again)?.into_iter().collect::<Result<Vec<_>>>()?;
    scene.tell(&format!(
        "all {} are answered {} after there was a GPU; those of the killed activator asked {attempts:?} times more",
        2 * EACH,
        seconds(watch.elapsed())
    ));
    let pods = scene.pool_serves(POOL, 1)?;
    let pod = pods.first().context("a pod has come")?;
    let begun = reading(&scene.metrics(pod.port(ADMIN_PORT)?)?, "corral_upstream_first_byte_seconds_count")?;
    ensure!(begun == 2 * EACH as u64, "{} were asked, and Ollama has answered {begun}", 2 * EACH);
    activators.iter().try_for_each(|activator| holds(scene, activator, 0))
}

fn joined<T>(asking: Vec<JoinHandle<T>>) -> Result<Vec<T>> {
    asking.into_iter().map(|one| one.join().map_err(|_| anyhow!("a client panicked"))).collect()
}
