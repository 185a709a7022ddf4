//! The leading operator is stopped for longer than its Lease and runs on: another has taken over, and what the first
//! one still has to say changes nothing.

use std::fs;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::pool::{ADMIN_PORT, PoolPod, live_on, policy};
use super::scene::Scene;
use super::traffic::{one_token, reading, sort};
use crate::cluster::audit::Write;
use crate::cluster::processes::{Frozen, Process};
use crate::machine::clock::{Deadline, Stopwatch, seconds};

const POOL: &str = "chat";
/// The longest that another may need to take over: the Lease, a try, and what a busy machine adds.
const TAKEOVER: Duration = Duration::from_secs(24);
/// How long the first one is watched after it runs on.
const AFTERMATH: Duration = Duration::from_secs(6);
/// What a pod counts when a Directive comes that is not above what it has obeyed.
const BEHIND: &str = "corral_directives_total{result=\"behind\"}";

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let pods = scene.serving_pool(POOL, 2)?;
    scene.warm_up(&pods)?;
    scene.enforced_policy(&few(4))?;
    scene.cluster.scale_corral(2)?;
    let told = the_leader_is_stopped_and_runs_on(scene, &pods);
    // Whatever became of it, the next story finds one operator.
    scene.cluster.install_corral()?;
    told?;
    live_on(&pods, &scene.pool_serves(POOL, pods.len())?)
}

fn few(burst: u32) -> Value {
    let limit =
        json!({ "name": "few", "per": ["ClientIP"], "requests": "1/h", "burst": { "requests": burst } });
    policy("few", POOL, &json!([limit]))
}

fn the_leader_is_stopped_and_runs_on(scene: &Scene, pods: &[PoolPod]) -> Result<()> {
    let (first, second) = scene.leader_and_standby()?;
    let refused = behind(scene, pods)?;
    let process = scene.operator_process(&first)?;
    let lost = scene.cluster.lose(first.ip.context("the leader has an address")?, ADMIN_PORT)?;
    let (frozen, called) = frozen_while_it_calls(scene, process)?;
    scene.apply(&few(8).to_string())?;
    the_other_takes_over(scene, &second)?;
    let (version, written) = (versions(scene)?, scene.cluster.operator_writes()?.len());
    drop(lost);
    // Its kernel goes on sending while it stands still. Once it runs on it gives the call up, and what then arrives together
    // with the end of the connection is not read.
    scene.until("the word of the first one reaches a pod", || {
        let now = behind(scene, pods)?;
        Ok(if now > refused { Ok(()) } else { Err(format!("{called:?} were called, {now} refusals")) })
    })?;
    drop(frozen);
    thread::sleep(AFTERMATH);
    scene.tell(&format!("Directives of the first one refused by pods: {}", behind(scene, pods)? - refused));
    it_wrote_nothing_more(scene, &first, &second, written)?;
    ensure!(versions(scene)? == version, "the policy or the plan was written once more");
    let leads = scene.who_say_they_lead()?;
    ensure!(leads == [second.name.clone()], "{leads:?} say that they lead, and {} does", second.name);
    the_new_limit_holds(scene, pods)
}

/// Stopped at a moment when something that it has sent to a pod has not arrived: that is still on its way when another
/// leads. Gives the pods as well.
fn frozen_while_it_calls(scene: &Scene, process: Process) -> Result<(Frozen, Vec<IpAddr>)> {
    let pause = Duration::from_millis(20);
    Deadline::after(scene.deadline.left()).wait("it calls a pod", pause, || {
        let called = called_without_answer(&fs::read_to_string(format!("/proc/{}/net/tcp", process.pid))?)?;
        Ok(if called.is_empty() {
            Err("nothing is on its way".to_owned())
        } else {
            Ok((process.freeze(), called))
        })
    })
}

/// Pods to which bytes were sent on an open connection that have not arrived, in a kernel's table of connections.
fn called_without_answer(table: &str) -> Result<Vec<IpAddr>> {
    // `sl local_address rem_address st tx_queue:rx_queue …`, all in hex; 01 is an open connection.
    let lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let pending = lines.filter_map(|fields| match fields.as_slice() {
        [_, _, remote, "01", queues, ..] if !queues.starts_with("00000000:") => remote.split_once(':'),
        _ => None,
    });
    let pods = pending.filter(|(_, port)| u16::from_str_radix(port, 16) == Ok(ADMIN_PORT));
    pods.map(|(ip, _)| Ok(IpAddr::from(u32::from_str_radix(ip, 16)?.to_ne_bytes()))).collect()
}

fn the_other_takes_over(scene: &Scene, second: &PoolPod) -> Result<()> {
    let watch = Stopwatch::start();
    let what = "the other one leads";
    Deadline::after(TAKEOVER).wait(what, Duration::from_millis(100), || {
        let leader = scene.leader()?;
        Ok(if leader.starts_with(&format!("{}_", second.name)) { Ok(()) } else { Err(leader) })
    })?;
    let took = watch.elapsed();
    scene.until_condition("ratelimitpolicy/few", "Programmed", "True")?;
    scene.tell(&format!(
        "the other one leads {} after the first was stopped; a policy that was changed meanwhile holds after {}",
        seconds(took),
        seconds(watch.elapsed())
    ));
    Ok(())
}

fn behind(scene: &Scene, pods: &[PoolPod]) -> Result<u64> {
    let mut sum = 0;
    for pod in pods {
        let metrics = scene.metrics(pod.port(ADMIN_PORT)?)?;
        // A series appears with its first event.
        sum += reading(&metrics, BEHIND).unwrap_or(0);
    }
    Ok(sum)
}

/// What every write changes.
fn versions(scene: &Scene) -> Result<Vec<String>> {
    let objects = ["ratelimitpolicy/few".to_owned(), format!("secret/{POOL}-plan")];
    objects.iter().map(|object| scene.field(object, "/metadata/resourceVersion")).collect()
}

fn it_wrote_nothing_more(scene: &Scene, first: &PoolPod, second: &PoolPod, already: usize) -> Result<()> {
    let all = scene.cluster.operator_writes()?;
    let by = |pod: &PoolPod| all.iter().any(|write| write.pod == pod.name && write.succeeded());
    ensure!(by(first) && by(second), "the API server did not note the writes of both");
    let later: Vec<&Write> = all.iter().skip(already).filter(|write| write.pod == first.name).collect();
    let done = later.iter().filter(|write| write.succeeded()).count();
    scene.tell(&format!(
        "writes of the first one after it ran on: {done} done, {} refused",
        later.len() - done
    ));
    // What it had sent already may still be done; that is one request.
    ensure!(done <= 1, "the first one went on writing: {later:?}");
    Ok(())
}

fn the_new_limit_holds(scene: &Scene, pods: &[PoolPod]) -> Result<()> {
    for pod in pods {
        let (served, _) = sort(scene.volley(pod.client_port()?, &one_token(), 8)?)?;
        ensure!(served.len() == 4, "{} admits {} of 8, not its share of 4", pod.name, served.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_on_its_way_to_a_pod_is_found() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n\
             0: 0A00000A:9C40 0501810A:2CAC 01 00000123:00000000 01:00000014 00000000\n\
             1: 0A00000A:9C41 0601810A:2CAC 01 00000000:00000000 00:00000000 00000000\n\
             2: 0A00000A:9C42 0701810A:01BB 01 00000123:00000000 01:00000014 00000000\n\
             3: 0A00000A:9C43 0801810A:2CAC 02 00000001:00000000 01:00000014 00000000\n";
        let found = called_without_answer(table).unwrap();
        assert_eq!(found, ["10.129.1.5".parse::<IpAddr>().unwrap()]);
    }
}
