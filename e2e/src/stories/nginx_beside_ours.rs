//! What people run today beside what they would run here: the same clients meet nginx, configured as it commonly is, and
//! a pool with the policy that replaces it.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::pool::PoolPod;
use super::scene::Scene;
use super::traffic::{Attempt, one_token, sort, wait_of};
use crate::cluster::http::Request;
use crate::cluster::namespaces::in_network_of;
use crate::cluster::processes;
use crate::machine::command::Cmd;

const POOL: &str = "chat";
const NGINX: &str = "nginx";
/// Requests of one client at one instant.
const RAPID: usize = 15;
const PER_IP: &str = include_str!("../../../examples/nginx-per-ip.yaml");
const PER_KEY: &str = include_str!("../../../examples/nginx-per-api-key.yaml");
/// Clients of the second row: who they are, what they send, and what of 15 at one instant is let through here.
const CLIENTS: [(&str, Option<&str>, usize); 4] = [
    ("without a key", None, 1),
    ("with an unknown key", Some("nobodys-key"), 0),
    ("premium", Some("change-me-to-alices-key"), 6),
    ("batch", Some("change-me-to-the-reports-key"), 12),
];

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    scene.models()?;
    scene.gpus(0, 2)?;
    for secret in documents(PER_KEY, "Secret")? {
        scene.apply(&secret.to_string())?;
    }
    // Without a policy of its own: what nginx stands in front of.
    scene.apply(&scene.pool("bare", 1).to_string())?;
    scene.apply(&with_keys(scene)?.to_string())?;
    let bare = first(scene.pool_serves("bare", 1)?)?;
    let ours = first(scene.pool_serves(POOL, 1)?)?;
    scene.warm_up(&[bare.clone(), ours.clone()])?;
    let nginx = Nginx::start(scene, bare.client_port()?)?;
    per_address(scene, &nginx, &ours)?;
    per_api_key(scene, &nginx, &ours)
}

fn first(pods: Vec<PoolPod>) -> Result<PoolPod> {
    pods.into_iter().next().context("the pool has a pod")
}

/// The documents of a kind in one of the examples.
fn documents(example: &str, kind: &str) -> Result<Vec<Value>> {
    let all = example.split("\n---\n").map(|text| Ok(serde_yaml::from_str::<Value>(text)?));
    let all: Vec<Value> = all.collect::<Result<_>>()?;
    let of_kind = |document: &Value| document.get("kind").and_then(Value::as_str) == Some(kind);
    Ok(all.into_iter().filter(of_kind).collect())
}

/// The story's pool with the keys of the example's.
fn with_keys(scene: &Scene) -> Result<Value> {
    let pools = documents(PER_KEY, "OllamaPool")?;
    let identity =
        pools.iter().find_map(|pool| pool.pointer("/spec/identity")).context("the example has keys")?;
    let mut pool = scene.pool(POOL, 1);
    let spec = pool.pointer_mut("/spec").and_then(Value::as_object_mut).context("a pool has a spec")?;
    spec.insert("identity".into(), identity.clone());
    Ok(pool)
}

fn enforce(scene: &Scene, example: &str) -> Result<()> {
    for policy in documents(example, "RateLimitPolicy")? {
        scene.enforced_policy(&policy)?;
    }
    Ok(())
}

/// 15 rapid requests of one address: the burst and one more pass, the rest are refused, by both.
fn per_address(scene: &Scene, nginx: &Nginx, ours: &PoolPod) -> Result<()> {
    enforce(scene, PER_IP)?;
    let (their_served, their_refused) = sort(scene.volley(nginx.per_address, &one_token(), RAPID)?)?;
    let (served, refused) = sort(scene.volley(ours.client_port()?, &one_token(), RAPID)?)?;
    ensure!(their_served.len() == 4, "nginx lets {} of {RAPID} through", their_served.len());
    ensure!(served.len() == 4, "we let {} of {RAPID} through", served.len());
    ensure!(
        their_refused.iter().all(|attempt| attempt.answer.header("retry-after").is_none()),
        "nginx has learned"
    );
    all_say_when(&refused, Duration::from_secs(6))?;
    scene.tell(&format!(
        "of {RAPID} at one instant nginx lets {} through and so do we; each of our {} refusals says when to come back, \
         of nginx's {} none",
        their_served.len(),
        refused.len(),
        their_refused.len()
    ));
    let object = "ratelimitpolicy/per-ip";
    scene.cluster.kubectl(["delete", object, "--namespace", &scene.namespace]).run().map(drop)
}

/// Of a rate of 10 a minute one comes back after 6 s at the latest.
fn all_say_when(refused: &[Attempt], longest: Duration) -> Result<()> {
    for attempt in refused {
        let wait = wait_of(&attempt.answer)?;
        ensure!(wait <= longest, "one comes back after {longest:?}, and we say {wait:?}");
    }
    Ok(())
}

/// Keys of three classes: both know them apart, and take who is unknown for basic.
fn per_api_key(scene: &Scene, nginx: &Nginx, ours: &PoolPod) -> Result<()> {
    enforce(scene, PER_KEY)?;
    let mut told = Vec::new();
    for (who, key, expected) in CLIENTS {
        let request = with_key(key);
        let (theirs, _) = sort(scene.volley(nginx.per_key, &request, RAPID)?)?;
        let (served, refused) = sort(scene.volley(ours.client_port()?, &request, RAPID)?)?;
        ensure!(
            served.len() == expected,
            "{who}: we let {} of {RAPID} through, not {expected}",
            served.len()
        );
        all_say_when(&refused, Duration::from_secs(12))?;
        told.push(format!("{who} {} and {}", theirs.len(), served.len()));
    }
    // The unknown key and no key are one address, and so one basic client: it had used up its burst.
    scene.tell(&format!("of {RAPID} at one instant nginx and we let through: {}", told.join(", ")));
    Ok(())
}

fn with_key(key: Option<&str>) -> Request {
    let request = one_token();
    key.map_or(request.clone(), |key| request.header("Authorization", &format!("Bearer {key}")))
}

/// nginx on the first node, for as long as this lives.
struct Nginx<'a> {
    scene: &'a Scene,
    per_address: SocketAddr,
    per_key: SocketAddr,
}

impl<'a> Nginx<'a> {
    fn start(scene: &'a Scene, upstream: SocketAddr) -> Result<Self> {
        let instance = &scene.cluster.instance;
        let folder = instance.path(NGINX);
        fs::create_dir_all(&folder)?;
        let (per_address, per_key) =
            (SocketAddr::from(([127, 0, 0, 1], 18_080)), SocketAddr::from(([127, 0, 0, 1], 18_081)));
        let configuration = include_str!("../../manifests/nginx.conf")
            .replace("${folder}", &folder.display().to_string())
            .replace("${per_address}", &per_address.to_string())
            .replace("${per_key}", &per_key.to_string())
            .replace("${upstream}", &upstream.to_string());
        let file = folder.join("nginx.conf");
        fs::write(&file, configuration)?;
        let command = Cmd::new("/usr/sbin/nginx").arg("-c").arg(&file).arg("-p").arg(&folder);
        processes::start(instance, NGINX, &command.behind(in_network_of(instance, 0)))?;
        let nginx = Self { scene, per_address, per_key };
        scene.until("nginx listens", || {
            let connected = scene.cluster.connect(0, per_key, Duration::from_secs(1));
            Ok(connected.map(drop).map_err(|error| format!("{error:#}")))
        })?;
        Ok(nginx)
    }
}

impl Drop for Nginx<'_> {
    fn drop(&mut self) {
        // A cluster that is taken down ends it too.
        let instance = &self.scene.cluster.instance;
        let _ = processes::stop(instance, NGINX, Duration::from_secs(5));
        let _ = fs::remove_file(instance.path("run").join(format!("{NGINX}.json")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_hold_what_the_story_takes_from_them() {
        assert_eq!(documents(PER_KEY, "Secret").unwrap().len(), 2);
        assert_eq!(documents(PER_KEY, "RateLimitPolicy").unwrap().len(), 1);
        assert_eq!(documents(PER_IP, "RateLimitPolicy").unwrap().len(), 1);
        let keys = documents(PER_KEY, "Secret").unwrap();
        for key in CLIENTS.iter().filter_map(|(.., key, served)| key.filter(|_| *served > 0)) {
            assert!(keys.iter().any(|secret| secret.to_string().contains(key)), "{key}");
        }
    }
}
