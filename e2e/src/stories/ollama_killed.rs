//! Ollama is killed in a pod: streams end with the error event of their API, whoever waits is served later or told when
//! to come back, the pod leaves its Service and returns to it, and the others go on.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::apis::APIS;
use super::in_flight::{InFlight, Over, long_answer, long_stream, one_slow_token};
use super::pool::PoolPod;
use super::scene::Scene;
use super::streams::Load;
use super::traffic::{one_token, retry_after};
use crate::cluster::http::Answer;
use crate::machine::clock::{Stopwatch, seconds};

const POOL: &str = "chat";
const PARALLEL: u32 = 4;
const AT_ONCE: &str = "an answer that comes at once";
const WAITS: &str = "an answer that waits";
/// A client whose answer was cut off learns of it within this.
const NOTICED: Duration = Duration::from_secs(2);

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let ollama = json!({ "numParallel": PARALLEL, "contextLength": 2048, "keepAlive": "-1" });
    let pods = scene.serving(&scene.pool_with(POOL, 2, &json!({ "ollama": ollama }))?)?;
    let [killed, other] = pods.as_slice() else { bail!("two pods, not {}", pods.len()) };
    scene.warm_up(&pods)?;
    scene.warm_up_slow(&pods)?;
    let service = scene.service(POOL, 11434)?;
    let load = Load { clients: 1, model: "tiny", tokens: 20..=80, limit: Duration::from_secs(30) };
    let streams = scene.streams(other.client_port()?, &load);
    it_is_killed_with_requests_in_flight(scene, killed)?;
    it_leaves_and_returns(scene, killed, service)?;
    let others = streams.stop()?;
    others.is_undisturbed(10)?;
    scene.tell(&format!("the other pod meanwhile: {others}"));
    scene.at_rest(&pods, &[])
}

/// Once, as it is started again at once: what becomes of each request.
fn it_is_killed_with_requests_in_flight(scene: &Scene, pod: &PoolPod) -> Result<()> {
    let mut requests = InFlight::new(scene, pod)?;
    for api in &APIS {
        requests.ask(api.path, long_stream(api))?;
    }
    requests.ask(AT_ONCE, long_answer())?;
    requests.until(4, 0)?;
    requests.begun(3)?;
    requests.ask(WAITS, one_slow_token())?;
    requests.ask(WAITS, one_slow_token())?;
    requests.until(4, 2)?;
    let task = scene.container_id(pod, "ollama")?;
    let killed = requests.elapsed();
    scene.kill_task(pod.node_number(), &task)?;
    let over = requests.over()?;
    over.iter().try_for_each(|one| judge(one, killed))?;
    let back = Stopwatch::start();
    scene.until("the pod answers again", || answers(scene, pod))?;
    let lost = over.iter().filter(|one| !one.exchange.answer.as_ref().is_some_and(is_whole)).count();
    let noticed = over.iter().filter(|one| one.what != WAITS).map(|one| one.ended).max().unwrap_or_default();
    scene.tell(&format!(
        "SIGKILL of Ollama: 4 running requests lost, noticed after {} ms at most; {} of 2 that waited lost; it answers {} later",
        noticed.saturating_sub(killed).as_millis(),
        lost - 4,
        seconds(back.elapsed())
    ));
    Ok(())
}

/// What must have become of a request when Ollama was killed under it.
fn judge(one: &Over, killed: Duration) -> Result<()> {
    ensure!(one.exchange.fault.is_none(), "its connection broke: {}", one.describe());
    let answer = one.exchange.answer.as_ref().with_context(|| one.describe())?;
    let after = one.ended.saturating_sub(killed);
    if one.what == WAITS {
        let honest = is_whole(answer) || (answer.status == 503 && retry_after(answer).is_ok());
        ensure!(honest, "neither served nor told when to come back: {}", one.describe());
        return Ok(());
    }
    ensure!(after <= NOTICED, "its client learned of it after {}: {}", seconds(after), one.describe());
    let Some(api) = APIS.iter().find(|api| api.path == one.what) else {
        ensure!([502, 503].contains(&answer.status), "it is no failure: {}", one.describe());
        ensure!(answer.json()?.get("error").is_some(), "it does not say why: {}", one.describe());
        return Ok(());
    };
    ensure!(answer.status == 200 && answer.pieces.len() > 1, "it had not begun: {}", one.describe());
    let said = api.error(&answer.text());
    ensure!(said.is_some(), "no error event of its own API: {}", one.describe());
    Ok(())
}

fn is_whole(answer: &Answer) -> bool {
    answer.status == 200 && answer.json().is_ok_and(|json| json.get("done") == Some(&Value::Bool(true)))
}

fn it_leaves_and_returns(scene: &Scene, pod: &PoolPod, service: SocketAddr) -> Result<()> {
    let watch = Stopwatch::start();
    let unavailable = it_leaves_the_service(scene, pod)?;
    scene.tell(&format!(
        "out of the EndpointSlice {} after the first of many kills",
        seconds(watch.elapsed())
    ));
    it_says_when_to_come_back(&unavailable)?;
    the_others_go_on(scene, pod, service)?;
    let watch = Stopwatch::start();
    let back = it_comes_back(scene, pod)?;
    scene.tell(&format!("back {} after the last kill", seconds(watch.elapsed())));
    it_is_the_same_pod(pod, &back)
}

fn answers(scene: &Scene, pod: &PoolPod) -> Result<Result<(), String>> {
    let answer = scene.http(pod.client_port()?, &one_token())?;
    Ok(if answer.status == 200 { Ok(()) } else { Err(format!("{} {}", answer.status, answer.text())) })
}
/// A dead Ollama is started again within a second, so it is killed again until Kubernetes has noticed.
fn it_leaves_the_service(scene: &Scene, pod: &PoolPod) -> Result<Answer> {
    let mut unavailable = None;
    scene.until("the pod is out of the EndpointSlice", || {
        // Between two lives there is nothing to kill.
        let _ = scene.kill_container(pod, "ollama");
        let answer = scene.http(pod.client_port()?, &one_token())?;
        match answer.status {
            503 => unavailable = Some(answer),
            200 => {}
            other => return Ok(Err(format!("the pod says {other}: {}", answer.text()))),
        }
        let ready = ready_endpoints(scene)?;
        let out = !ready.contains(&pod.ip.map(|ip| ip.to_string()).unwrap_or_default());
        Ok(if out && unavailable.is_some() { Ok(()) } else { Err(format!("ready are {ready:?}")) })
    })?;
    unavailable.context("nobody was told 503")
}

/// Each node learns a moment later that the Service has a pod less; until then it is kept dead.
fn the_others_go_on(scene: &Scene, pod: &PoolPod, service: SocketAddr) -> Result<()> {
    scene.until("the Service leads to the other pod alone", || {
        let _ = scene.kill_container(pod, "ollama");
        for _ in 0..10 {
            let answer = scene.http(service, &one_token())?;
            if answer.status != 200 {
                return Ok(Err(format!("{} {}", answer.status, answer.text())));
            }
        }
        Ok(Ok(()))
    })
}

/// Right after a kill Kubernetes may still call the pod Ready: only an answer of its own proves that it is back.
fn it_comes_back(scene: &Scene, pod: &PoolPod) -> Result<Vec<PoolPod>> {
    scene.until("the pod answers again", || answers(scene, pod))?;
    scene.pool_serves(POOL, 2)
}

fn ready_endpoints(scene: &Scene) -> Result<Vec<String>> {
    let label = format!("kubernetes.io/service-name={POOL}");
    let slices =
        scene.cluster.get(&["endpointslices", "--namespace", &scene.namespace, "--selector", &label])?;
    let slices = slices.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    let endpoints = slices.iter().filter_map(|slice| slice.get("endpoints")?.as_array()).flatten();
    let ready = endpoints.filter(|e| e.pointer("/conditions/ready").and_then(Value::as_bool) == Some(true));
    let addresses = ready.filter_map(|e| e.pointer("/addresses/0")?.as_str());
    Ok(addresses.map(str::to_owned).collect())
}

fn it_says_when_to_come_back(answer: &Answer) -> Result<()> {
    let wait = retry_after(answer)?;
    ensure!((1..=30).contains(&wait.as_secs()), "Retry-After is {} s", wait.as_secs());
    ensure!(answer.header("x-corral-retry") == Some("estimate"), "it is a guess and does not say so");
    let error = answer.json()?.get("error").and_then(Value::as_str).unwrap_or_default().to_owned();
    ensure!(error.contains("Ollama"), "it does not say what is wrong: {error}");
    Ok(())
}

fn it_is_the_same_pod(before: &PoolPod, now: &[PoolPod]) -> Result<()> {
    let same = now.iter().find(|pod| pod.uid == before.uid).context("the pod was replaced")?;
    ensure!(same.restarts_of("ollama") >= 1, "Ollama was not started again: {same:?}");
    ensure!(same.restarts_of("limiter") == 0, "the sidecar was restarted with it: {same:?}");
    Ok(())
}
