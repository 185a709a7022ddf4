//! Nothing reaches Ollama but through the sidecar: no port, no management endpoint, no spelling of one, no podTemplate.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::pool::{ADMIN_PORT, CLIENT_PORT, OLLAMA_PORT, PoolPod};
use super::scene::Scene;
use crate::cluster::http::Request;

const POOL: &str = "chat";

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let pods = scene.serving_pool(POOL, 1)?;
    scene.warm_up(&pods)?;
    let pod = pods.first().context("the pool has a pod")?;
    no_other_port_is_open(scene, pod)?;
    management_is_closed(scene, pod)?;
    no_spelling_opens_it(scene, pod)?;
    the_admin_port_obeys_nobody(scene, pod)?;
    no_pod_template_opens_a_way(scene, pod)
}

/// With a model loaded, so that its engine listens too.
fn no_other_port_is_open(scene: &Scene, pod: &PoolPod) -> Result<()> {
    let listening = listening_ports(scene, pod)?;
    ensure!(listening.contains(&OLLAMA_PORT), "Ollama does not even listen: {listening:?}");
    ensure!(listening.len() >= 4, "the model's engine does not listen: {listening:?}");
    let reachable = |port: &&u16| {
        let to = pod.port(**port);
        to.is_ok_and(|to| scene.cluster.connect(1, to, Duration::from_millis(500)).is_ok())
    };
    let open: Vec<u16> = listening.iter().filter(reachable).copied().collect();
    ensure!(open == [CLIENT_PORT, ADMIN_PORT], "of {listening:?} these are reachable: {open:?}");
    scene.tell(&format!("of the ports {listening:?} on which the pod listens, {open:?} are reachable"));
    Ok(())
}

/// Every TCP port on which anything in the pod listens, on whichever address, as the kernel has it.
fn listening_ports(scene: &Scene, pod: &PoolPod) -> Result<BTreeSet<u16>> {
    let pid = scene.pid_of(pod, "ollama")?;
    let mut ports = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}"))?;
        // `sl local_address rem_address st …`, addresses in hex, state 0A is LISTEN.
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if let [_, local, _, "0A", ..] = fields.as_slice() {
                let (_, port) = local.rsplit_once(':').context("an address has a port")?;
                ports.insert(u16::from_str_radix(port, 16)?);
            }
        }
    }
    Ok(ports)
}

fn management_is_closed(scene: &Scene, pod: &PoolPod) -> Result<()> {
    let model =
        json!({ "model": "tiny", "name": "tiny", "source": "tiny", "destination": "copy", "from": "tiny" });
    let blob = format!("/api/blobs/sha256:{}", "0".repeat(64));
    let calls = [
        ("POST", "/api/pull"),
        ("POST", "/api/push"),
        ("POST", "/api/create"),
        ("POST", "/api/copy"),
        ("DELETE", "/api/delete"),
        ("POST", "/api/delete"),
        ("HEAD", blob.as_str()),
        ("POST", blob.as_str()),
    ];
    let before = models(scene, pod)?;
    for (method, path) in calls {
        let answer = scene.http(pod.client_port()?, &Request::post(path, &model).method(method))?;
        let refused = matches!(answer.status, 403..=405);
        ensure!(refused, "{method} {path} is answered by {}: {}", answer.status, answer.text());
    }
    ensure!(models(scene, pod)? == before, "the models have changed");
    Ok(())
}

fn models(scene: &Scene, pod: &PoolPod) -> Result<Value> {
    scene.http(pod.client_port()?, &Request::get("/api/tags"))?.json()
}

/// Raw paths: none of them is cleaned up on the way and taken for the one that it resembles.
fn no_spelling_opens_it(scene: &Scene, pod: &PoolPod) -> Result<()> {
    let spellings = [
        "//api/pull",
        "/api//pull",
        "/api/pull/",
        "/API/PULL",
        "/api/%70ull",
        "/api%2fpull",
        "/./api/pull",
        "/api/tags/../pull",
        "/api/pull?x=/api/tags",
        "/api/pull;a=b",
        "/api/pull%00",
        "/v1/../api/delete",
    ];
    for path in spellings {
        let answer = scene.http(pod.client_port()?, &Request::post(path, &json!({ "model": "tiny" })))?;
        let refused = matches!(answer.status, 400 | 403 | 404 | 405);
        ensure!(refused, "{path} is answered by {}: {}", answer.status, answer.text());
    }
    Ok(())
}

fn the_admin_port_obeys_nobody(scene: &Scene, pod: &PoolPod) -> Result<()> {
    let admin = pod.port(ADMIN_PORT)?;
    let order = json!({ "drain": true });
    let answer = scene.http(admin, &Request::post("/exchange", &order))?;
    ensure!(matches!(answer.status, 400..=403), "an unsigned order is answered by {}", answer.status);
    let generate = scene.http(admin, &super::traffic::one_token())?;
    ensure!(
        matches!(generate.status, 404 | 405),
        "the admin port answers /api/generate by {}",
        generate.status
    );
    Ok(())
}

/// Each of these would open a way, or is a slip of the pen; each is refused by name, and the pod goes on as it was.
fn no_pod_template_opens_a_way(scene: &Scene, pod: &PoolPod) -> Result<()> {
    let ollama =
        |extra: Value| json!({ "spec": { "containers": [merged(json!({ "name": "ollama" }), extra)] } });
    let templates = [
        ("hostNetwork", json!({ "spec": { "hostNetwork": true } })),
        ("shareProcessNamespace", json!({ "spec": { "shareProcessNamespace": true } })),
        ("OLLAMA_HOST", ollama(json!({ "env": [{ "name": "OLLAMA_HOST", "value": "0.0.0.0:11435" }] }))),
        ("command", ollama(json!({ "command": ["/bin/ollama", "serve"] }))),
        ("11435", ollama(json!({ "ports": [{ "containerPort": 11435 }] }))),
        ("nodeselector", json!({ "spec": { "nodeselector": { "disk": "fast" } } })),
        ("corral-keys", ollama(json!({ "volumeMounts": [{ "name": "corral-keys", "mountPath": "/keys" }] }))),
    ];
    for (word, template) in templates {
        let mut pool = scene.pool(POOL, 1);
        let spec = pool.pointer_mut("/spec").and_then(Value::as_object_mut).context("a pool has a spec")?;
        spec.insert("podTemplate".to_owned(), template);
        scene.apply(&pool.to_string())?;
        let object = format!("ollamapool/{POOL}");
        let said = scene.until_reason(&object, "Ready", "False", "TemplateInvalid")?;
        ensure!(said.message.contains(word), "the refusal does not name {word}: {}", said.message);
        let now = scene.pods_of(POOL)?;
        ensure!(now.iter().map(|pod| &pod.uid).eq([&pod.uid]), "{word}: the pod was replaced: {now:?}");
    }
    scene.apply(&scene.pool(POOL, 1).to_string())?;
    scene.pool_serves(POOL, 1).map(drop)
}

fn merged(mut into: Value, extra: Value) -> Value {
    if let (Some(into), Value::Object(extra)) = (into.as_object_mut(), extra) {
        into.extend(extra);
    }
    into
}
