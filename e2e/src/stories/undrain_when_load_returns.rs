//! Pods that have to go still finish their streams when load comes back: they are kept, and no new pod is made.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::endpoints::{is, out};
use super::pool::{ADMIN_PORT, PoolPod, live_on};
use super::scene::Scene;
use super::streams::{Load, Streams, Verdict};
use crate::cluster::api::Api;
use crate::cluster::http::Request;
use crate::machine::clock::{Deadline, Stopwatch, seconds};

const POOL: &str = "chat";
const PODS: u32 = 3;
/// So many at once that two pods more are wanted as soon as it is known of them.
const CLIENTS: usize = 60;
/// From the first request of the load that comes back.
const ADMITS_WITHIN: Duration = Duration::from_secs(3);
const BACK_WITHIN: Duration = Duration::from_secs(6);
/// A change of the pool is looked at by then.
const NOTICED: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(50);

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let pods = scene.serving_growing(&scene.growing_pool(POOL, PODS, PODS, &json!({}))?)?;
    scene.warm_up_slow(&pods)?;
    let api = Api::open(&scene.cluster)?;
    let kept_busy = one_stream_each(scene, &pods)?;
    scene.set_bounds(POOL, 1, 1)?;
    let victims = two_retire(scene, &api, &pods)?;
    scene.set_bounds(POOL, 1, PODS)?;
    thread::sleep(NOTICED);
    they_retire(scene, &victims).context("nobody needs them yet")?;
    let (streams, (admits, back)) = load_returns(scene, &api, &victims)?;
    scene.tell(&format!(
        "both admit again {} after the load came back, and are in the EndpointSlice after {}",
        seconds(admits),
        seconds(back)
    ));
    ensure!(admits <= ADMITS_WITHIN && back <= BACK_WITHIN, "that is too long");
    live_on(&pods, &scene.pool_serves(POOL, PODS as usize)?)?;
    let tally = streams.stop()?;
    scene.tell(&tally.to_string());
    tally.is_undisturbed(CLIENTS)?;
    kept_busy.into_iter().try_for_each(|one| one.stop()?.is_undisturbed(1))?;
    scene.at_rest(&pods, &[])
}

/// So that those that have to go cannot at once.
fn one_stream_each(scene: &Scene, pods: &[PoolPod]) -> Result<Vec<Streams>> {
    let load = Load { clients: 1, model: "slow", tokens: 200..=300, limit: Duration::from_mins(1) };
    pods.iter().map(|pod| Ok(scene.streams(pod.client_port()?, &load))).collect()
}

fn two_retire(scene: &Scene, api: &Api, pods: &[PoolPod]) -> Result<Vec<PoolPod>> {
    let watch = Stopwatch::start();
    let victims = scene.until("two pods retire and are out of the EndpointSlice", || {
        let out = out(&api.get(&scene.slices_path(POOL))?);
        let victims: Vec<_> =
            pods.iter().filter(|pod| out.iter().any(|address| is(pod, address))).cloned().collect();
        Ok(if victims.len() == 2 { Ok(victims) } else { Err(format!("{out:?} are out")) })
    })?;
    they_retire(scene, &victims)?;
    let names: Vec<_> = victims.iter().map(|pod| pod.name.as_str()).collect();
    scene.tell(&format!("{} retire after {}", names.join(" and "), seconds(watch.elapsed())));
    Ok(victims)
}

fn they_retire(scene: &Scene, victims: &[PoolPod]) -> Result<()> {
    victims.iter().try_for_each(|victim| {
        let said = said(scene, victim.port(ADMIN_PORT)?)?;
        ensure!(said == (503, "Retiring".to_owned()), "{} says {said:?}", victim.name);
        Ok(())
    })
}

/// Gives when all of them admitted, and when new connections were sent to them.
fn load_returns(scene: &Scene, api: &Api, victims: &[PoolPod]) -> Result<(Streams, (Duration, Duration))> {
    let load = Load { clients: CLIENTS, model: "slow", tokens: 3..=6, limit: Duration::from_mins(1) };
    let streams = scene.streams(scene.service(POOL, 11434)?, &load);
    let deadline = Deadline::after(BACK_WITHIN * 3);
    let admits = deadline.wait("all that retired admit again", PAUSE, || {
        for victim in victims {
            let said = said(scene, victim.port(ADMIN_PORT)?)?;
            if said.0 != 200 {
                return Ok(Err(format!("{} says {said:?}", victim.name)));
            }
        }
        Ok(Ok(streams.elapsed()))
    })?;
    let back = deadline.wait("all are back in the EndpointSlice", PAUSE, || {
        let out = out(&api.get(&scene.slices_path(POOL))?);
        Ok(if out.is_empty() { Ok(streams.elapsed()) } else { Err(format!("{out:?} are out")) })
    })?;
    they_serve(scene, &streams)?;
    Ok((streams, (admits, back)))
}

fn they_serve(scene: &Scene, streams: &Streams) -> Result<()> {
    scene.until("the load is served", || {
        let whole = streams.so_far().count(Verdict::Complete);
        Ok(if whole >= CLIENTS { Ok(()) } else { Err(format!("{whole} answers are whole")) })
    })
}

fn said(scene: &Scene, admin: SocketAddr) -> Result<(u16, String)> {
    let answer = scene.http(admin, &Request::get("/readyz"))?;
    Ok((answer.status, answer.text()))
}
