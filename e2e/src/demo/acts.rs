//! The acts of the demo. Each says what it does, does it, and holds what it says.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Demo, NAMESPACE, POLICY, POOL};
use crate::cluster::http::{Answer, Request};
use crate::machine::clock::{Deadline, Stopwatch, seconds};
use crate::machine::console::{say, step};
use crate::stories::pool::{PoolPod, describe};
use crate::stories::traffic::{one_token, wait_of};

const PORT: u16 = 11434;
const TOKENS: usize = 40;
/// Far more than the first policy serves, within one pod's share of the second.
const IN_A_ROW: usize = 20;
/// In a minute, and at one instant; with two pods each has half of it.
const FIRST: (&str, u32) = ("20/m", 4);
const SECOND: (&str, u32) = ("600/m", 60);

impl Demo {
    pub(super) fn a_pool(&mut self) -> Result<Vec<PoolPod>> {
        self.scene.models()?;
        let watch = Stopwatch::start();
        self.apply("pool.yaml", include_str!("../../manifests/demo/pool.yaml"))?;
        let pods = step("until both replicas serve", || self.scene.pool_serves(POOL, 2))?;
        self.numbers.pool = watch.elapsed();
        self.numbers.pods = pods.len();
        say(format!("  {}", describe(&pods)));
        Ok(pods)
    }

    pub(super) fn a_policy(&mut self, pods: &[PoolPod]) -> Result<()> {
        step("both replicas load their models", || {
            self.scene.warm_up(pods)?;
            pods.iter().try_for_each(|pod| self.chat(pod.client_port()?, "slow", 1).map(drop))
        })?;
        self.numbers.policy = self.apply_policy(FIRST, pods)?;
        let policy = self.scene.get(&format!("ratelimitpolicy/{POLICY}"))?;
        say(format!("  Programmed: {}", self.scene.stated_bound(&policy)));
        Ok(())
    }

    /// Applies the policy with these numbers; the time until every pod enforces it.
    fn apply_policy(&self, (rate, burst): (&str, u32), pods: &[PoolPod]) -> Result<Duration> {
        let manifest = include_str!("../../manifests/demo/fair-use.yaml");
        let manifest = manifest.replace("${rate}", rate).replace("${burst}", &burst.to_string());
        let watch = Stopwatch::start();
        self.apply("fair-use.yaml", &manifest)?;
        let shown = format!("{} per 1m", rate.trim_end_matches("/m"));
        for pod in pods {
            let to = pod.client_port()?;
            Deadline::after(Duration::from_secs(10)).wait(
                "the limit holds",
                Duration::from_millis(60),
                || {
                    let limits = self.scene.http(to, &Request::get("/corral/v1/limits"))?.text();
                    Ok(if limits.contains(&shown) { Ok(()) } else { Err(limits) })
                },
            )?;
        }
        let enforced = watch.elapsed();
        self.scene.until_condition(&format!("ratelimitpolicy/{POLICY}"), "Programmed", "True")?;
        say(format!("  in force on all {} pods {} after kubectl apply", pods.len(), seconds(enforced)));
        Ok(enforced)
    }

    pub(super) fn streams(&mut self) -> Result<()> {
        let service = self.scene.service(POOL, PORT)?;
        let answer = self.chat(service, "slow", TOKENS)?;
        let lines = answer.json_lines()?;
        let text: String =
            lines.iter().filter_map(|line| line.pointer("/message/content")?.as_str()).collect();
        ensure!(text.starts_with("abcdefghijklmnopqrstuvwxyz"), "the model says {text:?}");
        say(format!("  POST /api/chat: \"{text}\""));
        say("  (This tiny model knows nothing but the alphabet. Each token came when it was ready.)");
        self.numbers.streamed(&answer);
        Ok(())
    }

    fn chat(&self, to: SocketAddr, model: &str, tokens: usize) -> Result<Answer> {
        let body = json!({
            "model": model,
            "messages": [{ "role": "user", "content": "Say the alphabet." }],
            "options": { "num_predict": tokens },
        });
        let answer = self.scene.http(to, &Request::post("/api/chat", &body))?;
        ensure!(answer.status == 200, "Ollama says {}: {}", answer.status, answer.text());
        Ok(answer)
    }

    pub(super) fn a_greedy_client(&mut self) -> Result<()> {
        let service = self.scene.service(POOL, PORT)?;
        let refused = self.until_refused(service)?;
        let message = refused.json()?.get("error").and_then(Value::as_str).unwrap_or_default().to_owned();
        say(format!("  429 Too Many Requests: {message}"));
        for name in ["retry-after", "retry-after-ms", "ratelimit-policy", "ratelimit"] {
            say(format!("      {name}: {}", refused.header(name).unwrap_or_default()));
        }
        let wait = wait_of(&refused)?;
        step(&format!("it stays away for exactly {} ms", wait.as_millis()), || {
            thread::sleep(wait);
            Ok(())
        })?;
        let answer = self.scene.http(service, &one_token())?;
        ensure!(answer.status == 200, "came back as told and got {}: {}", answer.status, answer.text());
        say("  200 OK: it came back when told, and is served");
        self.numbers.served += 1;
        self.numbers.waited = wait;
        Ok(())
    }

    fn until_refused(&mut self, service: SocketAddr) -> Result<Answer> {
        for _ in 0..50 {
            let answer = self.scene.http(service, &one_token())?;
            match answer.status {
                200 => self.numbers.served += 1,
                429 => {
                    self.numbers.refused += 1;
                    return Ok(answer);
                }
                other => ensure!(false, "Ollama says {other}: {}", answer.text()),
            }
        }
        Err(anyhow::anyhow!("50 requests passed a limit of {}", FIRST.0))
    }

    pub(super) fn a_change(&mut self, pods: &[PoolPod]) -> Result<()> {
        let service = self.scene.service(POOL, PORT)?;
        self.numbers.change = self.apply_policy(SECOND, pods)?;
        // One after the other: several at one instant may meet in one pod, and its share of `concurrency` is 2.
        for nth in 1..=IN_A_ROW {
            let answer = self.scene.http(service, &one_token())?;
            ensure!(answer.status == 200, "request {nth} with {}: {}", SECOND.0, answer.text());
        }
        say(format!("  the same client: {IN_A_ROW} of {IN_A_ROW} requests in a row are served now"));
        self.numbers.served += IN_A_ROW;
        Ok(())
    }

    pub(super) fn what_kubectl_shows(&self) -> Result<()> {
        for what in ["ollamapools", "ratelimitpolicies", "pods"] {
            let shown = self.scene.cluster.kubectl(["get", what, "--namespace", NAMESPACE]).run()?;
            say(format!("  $ kubectl -n {NAMESPACE} get {what}"));
            shown.out.lines().for_each(|line| say(format!("    {line}")));
        }
        for object in [format!("ollamapool/{POOL}"), format!("ratelimitpolicy/{POLICY}")] {
            let conditions = self.scene.get(&object)?;
            let conditions = conditions.pointer("/status/conditions").and_then(Value::as_array).cloned();
            for condition in conditions.context("it has conditions")? {
                let text = |key: &str| condition.get(key).and_then(Value::as_str).unwrap_or_default();
                say(format!(
                    "    {object}: {}={} ({}) {}",
                    text("type"),
                    text("status"),
                    text("reason"),
                    text("message")
                ));
            }
        }
        Ok(())
    }
}
