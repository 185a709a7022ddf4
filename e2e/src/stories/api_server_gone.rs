//! The API server is gone, then etcd stands still: no client notices, limits hold, a sidecar that dies meanwhile comes
//! back with its plan, and afterwards all heals by itself.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::pool::{PoolPod, policy};
use super::scene::Scene;
use crate::cluster::http::Request;
use crate::machine::clock::{Deadline, Stopwatch, seconds};

const POOL: &str = "chat";
/// Longer than the 10 s for which an operator may lead without a renewal; minutes in life.
const OUTAGE: Duration = Duration::from_secs(12);
/// The Lease, 10 s without grants, and what a busy machine adds.
const HEALED: Duration = Duration::from_secs(45);
const CLIENTS: usize = 2;

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let held = outages(scene);
    // Whatever became of it, the next story finds a whole cluster.
    scene.mend_the_control_plane()?;
    held
}

fn outages(scene: &Scene) -> Result<()> {
    let pods = scene.serving_pool(POOL, 2)?;
    scene.warm_up(&pods)?;
    scene.enforced_policy(&few(6))?;
    let [first, second] = pods.as_slice() else { bail!("two pods, not {}", pods.len()) };
    let service = scene.service(POOL, 11434)?;
    let gone = clients_notice_nothing(scene, "the API server gone", first.client_port()?, || {
        without_the_api_server(scene, first, second)
    });
    scene.api_server_runs()?;
    gone?;
    clients_notice_nothing(scene, "etcd stopped", service, || without_etcd(scene, first, second))?;
    scene.api_server_runs()?;
    it_heals_by_itself(scene, &pods)
}

/// What is limited is chats alone: those who only generate must never be refused.
fn few(burst: u32) -> Value {
    let limit = json!({
        "name": "few", "match": { "endpoints": ["Chat"] }, "per": ["Global"],
        "requests": "6/h", "burst": { "requests": burst },
    });
    policy("few", POOL, &json!([limit]))
}

fn chat() -> Request {
    let says = json!([{ "role": "user", "content": "a" }]);
    let body = json!({ "model": "tiny", "messages": says, "stream": false, "options": { "num_predict": 1 } });
    Request::post("/api/chat", &body)
}

/// Clients that ask all the time while something happens: each is served.
fn clients_notice_nothing(
    scene: &Scene,
    what: &str,
    to: SocketAddr,
    happens: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let (watch, over) = (Stopwatch::start(), AtomicBool::new(false));
    let attempts = thread::scope(|scope| {
        let clients = scope.spawn(|| scene.hammer(watch, to, CLIENTS, &|| over.load(Ordering::Relaxed)));
        let happened = happens();
        over.store(true, Ordering::Relaxed);
        let attempts = clients.join().unwrap_or_else(|_| bail!("the clients panicked"));
        happened.and(attempts).with_context(|| format!("with {what}"))
    })?;
    let unserved = attempts.iter().find(|attempt| !attempt.served());
    if let Some(attempt) = unserved {
        bail!("with {what}, a client got {} {}", attempt.answer.status, attempt.answer.text());
    }
    ensure!(attempts.len() >= 20, "{} requests prove nothing", attempts.len());
    let longest = attempts.iter().map(|a| a.ended.saturating_sub(a.began)).max().unwrap_or_default();
    scene.tell(&format!(
        "{} requests in {} with {what}: 0 lost, the longest took {} ms",
        attempts.len(),
        seconds(watch.elapsed()),
        longest.as_millis()
    ));
    Ok(())
}

fn without_the_api_server(scene: &Scene, first: &PoolPod, second: &PoolPod) -> Result<()> {
    let sidecar = scene.container_id(second, "limiter")?;
    scene.cluster.stop("kube-apiserver")?;
    let outage = Deadline::after(OUTAGE);
    ensure!(scene.cluster.get(&["nodes"]).is_err(), "the API server still answers");
    scene.admits_three(first, &chat(), 6)?;
    scene.admits_three(second, &chat(), 6)?;
    scene.kill_task(second.node_number(), &sidecar)?;
    let watch = Stopwatch::start();
    scene.serves_again(second)?;
    scene.tell(&format!(
        "a killed sidecar serves again {} later, without an API server",
        seconds(watch.elapsed())
    ));
    // A sidecar that starts begins with a full bucket, and with its share of it.
    scene.admits_three(second, &chat(), 6).context("by a sidecar that started in the outage")?;
    thread::sleep(outage.left());
    scene.refuses(first, &chat())
}

fn without_etcd(scene: &Scene, first: &PoolPod, second: &PoolPod) -> Result<()> {
    let stopped = scene.cluster.freeze("etcd")?;
    let outage = Deadline::after(OUTAGE);
    let write = ["create", "configmap", "unwritten", "--request-timeout=2s", "--namespace", &scene.namespace];
    ensure!(!scene.cluster.kubectl(write).attempt()?.status.success(), "the API server still writes");
    scene.refuses(first, &chat())?;
    scene.refuses(second, &chat())?;
    thread::sleep(outage.left());
    drop(stopped);
    Ok(())
}

/// Nobody mends anything: an operator leads again, a new policy holds, and no pod was replaced.
fn it_heals_by_itself(scene: &Scene, before: &[PoolPod]) -> Result<()> {
    let watch = Stopwatch::start();
    scene.enforced_policy(&few(12))?;
    let healed = watch.elapsed();
    scene.tell(&format!("a new policy holds {} after etcd runs again", seconds(healed)));
    ensure!(healed <= HEALED, "it took {} to heal", seconds(healed));
    let now = scene.pool_serves(POOL, before.len())?;
    for (index, (before, now)) in before.iter().zip(&now).enumerate() {
        ensure!(before.uid == now.uid, "{} was replaced by {}", before.name, now.name);
        let restarts = now.restarts_of("limiter") - before.restarts_of("limiter");
        // The second one's sidecar was killed by this story.
        ensure!(
            restarts == u64::from(index == 1),
            "{}: its sidecar was restarted {restarts} times",
            now.name
        );
        ensure!(
            now.restarts_of("ollama") == before.restarts_of("ollama"),
            "{}: Ollama was restarted",
            now.name
        );
    }
    let operators = scene.operators()?;
    let restarts: u64 = operators.iter().map(|pod| pod.restarts_of("operator")).sum();
    scene.tell(&format!(
        "the operator, which ends when it cannot renew its Lease, was started again {restarts} times"
    ));
    Ok(())
}
