//! A limit admits exactly its share on a pod, never more than its bound over the pool, and every client that obeys
//! Retry-After is served, whichever pod it meets.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::pool::{PoolPod, policy};
use super::scene::Scene;
use super::traffic::{Attempt, names_limit, one_token, sort, wait_of, worst_window};
use crate::machine::clock::{Deadline, Stopwatch};

const POOL: &str = "chat";
const CLIENTS: usize = 6;

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let pods = scene.serving_pool(POOL, 2)?;
    scene.warm_up(&pods)?;
    exactly_the_share_of_a_pod_is_admitted(scene, &pods)?;
    whoever_obeys_is_served(scene, &pods)?;
    no_window_exceeds_the_bound(scene)
}

/// 60 an hour and 12 at once for two pods: each has 6 at once, and one more every two minutes.
fn exactly_the_share_of_a_pod_is_admitted(scene: &Scene, pods: &[PoolPod]) -> Result<()> {
    let limits = json!([
        { "name": "scarce", "per": ["ClientIP"], "requests": "60/h", "burst": { "requests": 12 } },
        { "name": "ample", "per": ["ClientIP"], "requests": "600/h", "burst": { "requests": 200 } },
    ]);
    scene.enforced_policy(&policy("exact", POOL, &limits))?;
    let scarce = format!("{}/exact/scarce", scene.namespace);
    for pod in pods {
        let to = pod.client_port()?;
        let (served, refused) = sort(scene.volley(to, &one_token(), 20)?)?;
        ensure!(served.len() == 6, "{} admits {} of 20 at once, not its share of 6", pod.name, served.len());
        refused.iter().try_for_each(|attempt| names_limit(&attempt.answer, &scarce))?;
        refused_requests_cost_nothing(scene, to)?;
        a_spoofed_address_changes_nothing(scene, to, &scarce)?;
    }
    scene.tell("60/h, burst 12, two pods: 6 of 20 at one instant on each, again and again the same");
    Ok(())
}

/// The ample limit was charged by the 6 that were served, and by none of those that the scarce one refused.
fn refused_requests_cost_nothing(scene: &Scene, to: SocketAddr) -> Result<()> {
    let left = scene.remaining(to, "ample")?;
    ensure!(left == 100 - 6, "of 100 of the ample limit 6 are used, but {left} are left");
    Ok(())
}

fn a_spoofed_address_changes_nothing(scene: &Scene, to: SocketAddr, scarce: &str) -> Result<()> {
    for spoof in ["203.0.113.7", "10.0.0.1, 203.0.113.8", "unknown"] {
        let request = one_token().header("X-Forwarded-For", spoof).header("X-Real-IP", "203.0.113.9");
        let answer = scene.http(to, &request.header("Forwarded", "for=203.0.113.10"))?;
        names_limit(&answer, scarce).with_context(|| format!("with X-Forwarded-For: {spoof}"))?;
    }
    Ok(())
}

/// 120 a minute and 2 at once for two pods: one each second on each. Every refusal is obeyed to the millisecond.
fn whoever_obeys_is_served(scene: &Scene, pods: &[PoolPod]) -> Result<()> {
    let limits =
        json!([{ "name": "paced", "per": ["ClientIP"], "requests": "120/m", "burst": { "requests": 2 } }]);
    scene.enforced_policy(&policy("exact", POOL, &limits))?;
    let service = scene.service(POOL, 11434)?;
    let (mut obeyed, mut asked) = (0, 0);
    let before = served_by(scene, pods)?;
    while obeyed < 10 {
        let first = scene.http(service, &one_token())?;
        asked += 1;
        ensure!(asked < 200, "the limit refuses nothing");
        if first.status != 429 {
            continue;
        }
        thread::sleep(wait_of(&first)?);
        let second = scene.http(service, &one_token())?;
        ensure!(second.status == 200, "came back as told and got {}: {}", second.status, second.text());
        obeyed += 1;
    }
    let after = served_by(scene, pods)?;
    let each: Vec<u64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
    ensure!(each.iter().all(|served| *served > 0), "one pod served all of them: {each:?}");
    scene.tell(&format!(
        "{obeyed} of {obeyed} who came back when told were served through the Service, by both pods: {each:?}"
    ));
    Ok(())
}

/// What each pod has admitted under the limit so far.
fn served_by(scene: &Scene, pods: &[PoolPod]) -> Result<Vec<u64>> {
    pods.iter().map(|pod| scene.decisions(pod, "paced", "admitted")).collect()
}

/// While clients take all they can get, the pool grows from 2 pods to 4. 180 a minute, 4 at once.
fn no_window_exceeds_the_bound(scene: &Scene) -> Result<()> {
    let limits =
        json!([{ "name": "bound", "per": ["Global"], "requests": "180/m", "burst": { "requests": 4 } }]);
    let policy = scene.enforced_policy(&policy("exact", POOL, &limits))?;
    let service = scene.service(POOL, 11434)?;
    let attempts = while_growing(scene, service)?;
    let (served, refused) = sort(attempts)?;
    let stated = scene.stated_bound(&policy);
    // Each share's burst is part of what a minute can hold: 180 + 2 × 2.
    ensure!(stated.contains("184/min"), "the status states another bound: {stated}");
    let share = served.len() >= 20 && refused.len() >= 20;
    ensure!(share, "{} served and {} refused prove nothing", served.len(), refused.len());
    // The burst of 4 divides among 2 and among 4 pods without rest; D rises once, which may admit one more burst.
    if let Some((count, length)) = worst_window(&served, 4.0 + 4.0, 3.0) {
        bail!("{count} were served within {length:.2} s, and 3/s with a burst of 4 allow fewer");
    }
    scene.tell(&format!(
        "{} served, {} refused while 2 pods became 4: no window above 3/s and its bursts. Status said: {stated}",
        served.len(),
        refused.len(),
    ));
    the_bound_holds_at_rest(scene, service)
}

fn while_growing(scene: &Scene, service: SocketAddr) -> Result<Vec<Attempt>> {
    let (watch, over) = (Stopwatch::start(), AtomicBool::new(false));
    thread::scope(|scope| {
        let clients = scope.spawn(|| scene.hammer(watch, service, CLIENTS, &|| over.load(Ordering::Relaxed)));
        let grown = grow(scene);
        over.store(true, Ordering::Relaxed);
        let attempts = clients.join().unwrap_or_else(|_| bail!("the clients panicked"))?;
        grown.map(|()| attempts)
    })
}

fn grow(scene: &Scene) -> Result<()> {
    thread::sleep(Duration::from_secs(5));
    scene.gpus(1, 2)?;
    scene.scale(POOL, 4)?;
    scene.pool_serves(POOL, 4)?;
    thread::sleep(Duration::from_secs(5));
    Ok(())
}

/// With four pods, and no change under way, the bound is the one that the status says.
fn the_bound_holds_at_rest(scene: &Scene, service: SocketAddr) -> Result<()> {
    let (watch, deadline) = (Stopwatch::start(), Deadline::after(Duration::from_secs(6)));
    let (served, _) = sort(scene.hammer(watch, service, CLIENTS, &|| deadline.passed())?)?;
    if let Some((count, length)) = worst_window(&served, 4.0, 3.0) {
        bail!("with four pods {count} were served within {length:.2} s, above 3/s and 4 at once");
    }
    let policy = scene.get("ratelimitpolicy/exact")?;
    scene.tell(&format!(
        "with 4 pods at rest {} served in 6 s. Status says: {}",
        served.len(),
        scene.stated_bound(&policy)
    ));
    Ok(())
}
