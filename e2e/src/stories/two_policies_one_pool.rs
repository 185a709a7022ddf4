//! Two policies name one pool: a request passes when all limits of both admit it, and each refuses by its own name.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::pool::policy;
use super::scene::Scene;
use super::traffic::{names_limit, one_token, sort};
use crate::cluster::http::Request;

const POOL: &str = "chat";

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let pods = scene.serving_pool(POOL, 1)?;
    scene.warm_up(&pods)?;
    let to = pods.first().context("the pool has a pod")?.client_port()?;
    // Both call their limit by the same name: they are two limits all the same.
    scene.enforced_policy(&policy("house", POOL, &limits("Global", 5)))?;
    scene.enforced_policy(&policy("team", POOL, &limits("ClientIP", 3)))?;
    the_narrower_one_refuses_first(scene, to)?;
    without_it_the_other_goes_on_counting(scene, to)
}

fn limits(per: &str, burst: u32) -> Value {
    json!([{ "name": "rate", "per": [per], "requests": "1/h", "burst": { "requests": burst } }])
}

fn the_narrower_one_refuses_first(scene: &Scene, to: SocketAddr) -> Result<()> {
    let both = scene.http(to, &Request::get("/corral/v1/limits"))?.text();
    for name in ["house", "team"] {
        ensure!(both.contains(&format!("{}/{name}", scene.namespace)), "{name} does not apply: {both}");
    }
    let (served, refused) = sort(scene.volley(to, &one_token(), 8)?)?;
    ensure!(served.len() == 3, "3 of 8 pass both, not {}", served.len());
    for attempt in &refused {
        names_limit(&attempt.answer, &format!("{}/team/rate", scene.namespace))?;
        let named = attempt.answer.header("x-corral-limit").unwrap_or_default();
        ensure!(!named.contains("/house/"), "the house still has room, but is named: {named}");
    }
    Ok(())
}

/// Three are used of the house's five, none by those that the team's limit refused.
fn without_it_the_other_goes_on_counting(scene: &Scene, to: SocketAddr) -> Result<()> {
    scene.cluster.kubectl(["delete", "ratelimitpolicy", "team", "--namespace", &scene.namespace]).run()?;
    scene.until("only the house's limit applies", || {
        let shown = scene.http(to, &Request::get("/corral/v1/limits"))?.text();
        Ok(if shown.contains("/team") { Err(shown) } else { Ok(()) })
    })?;
    let (served, refused) = sort(scene.volley(to, &one_token(), 8)?)?;
    ensure!(served.len() == 2, "2 of the house's 5 are left, and {} of 8 pass", served.len());
    refused
        .iter()
        .try_for_each(|attempt| names_limit(&attempt.answer, &format!("{}/house/rate", scene.namespace)))
}
