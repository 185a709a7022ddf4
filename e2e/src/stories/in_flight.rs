//! Requests that are under way while something breaks, and what becomes of each.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use serde_json::json;

use super::apis::Api;
use super::pool::{ADMIN_PORT, PoolPod};
use super::scene::Scene;
use super::traffic::{Attempt, reading};
use crate::cluster::http::{Exchange, Request};
use crate::machine::clock::{Deadline, Stopwatch};

/// More tokens than are waited for, and so a request that runs until something ends it.
const ENDLESS: usize = 1500;
/// A request that nothing ends is given up after this.
const LIMIT: Duration = Duration::from_secs(40);

/// Counts answers of which Ollama has sent a first byte.
const BEGUN: &str = "corral_upstream_first_byte_seconds_count";

/// A request that is over.
#[derive(Debug)]
pub struct Over {
    /// What it was, for people.
    pub what: &'static str,
    /// When it ended, on the watch of whoever asked.
    pub ended: Duration,
    /// What came of it.
    pub exchange: Exchange,
}

impl Over {
    /// What came of it, in one line.
    pub fn describe(&self) -> String {
        let fault = self.exchange.fault.as_ref().map(|fault| format!("{fault:#}")).unwrap_or_default();
        let answer = self.exchange.answer.as_ref().map(|answer| {
            let text = answer.text();
            let end: String = text.chars().skip(text.chars().count().saturating_sub(120)).collect();
            format!("{} …{}", answer.status, end.trim())
        });
        format!("{}: {} {fault}", self.what, answer.unwrap_or_default())
    }
}

/// Requests to one pod, each asked by a thread of its own.
#[derive(Debug)]
pub struct InFlight {
    scene: Scene,
    pod: PoolPod,
    watch: Stopwatch,
    begun_before: u64,
    asking: Vec<JoinHandle<Over>>,
}

impl InFlight {
    /// Nothing yet.
    pub fn new(scene: &Scene, pod: &PoolPod) -> Result<Self> {
        let begun_before = reading(&scene.metrics(pod.port(ADMIN_PORT)?)?, BEGUN)?;
        let (scene, pod) = (scene.clone(), pod.clone());
        Ok(Self { scene, pod, watch: Stopwatch::start(), begun_before, asking: Vec::new() })
    }

    /// The time on the watch.
    pub fn elapsed(&self) -> Duration {
        self.watch.elapsed()
    }

    /// Asks one more.
    pub fn ask(&mut self, what: &'static str, request: Request) -> Result<()> {
        let (scene, watch, to) = (self.scene.clone(), self.watch, self.pod.client_port()?);
        self.asking.push(thread::spawn(move || {
            let exchange = scene.cluster.line(0, to, LIMIT).exchange(&request, true, LIMIT);
            Over { what, ended: watch.elapsed(), exchange }
        }));
        Ok(())
    }

    /// Waits until this many run and this many wait for their turn.
    pub fn until(&self, running: u64, waiting: u64) -> Result<()> {
        self.metrics_say(&format!("{running} run and {waiting} wait"), |metrics| {
            let now = (reading(metrics, "corral_in_flight")?, reading(metrics, "corral_queue_depth")?);
            Ok((now == (running, waiting), format!("{now:?} do")))
        })
    }

    /// Waits until the first byte of this many answers is there.
    pub fn begun(&self, answers: u64) -> Result<()> {
        self.metrics_say(&format!("{answers} answers have begun"), |metrics| {
            let now = reading(metrics, BEGUN)? - self.begun_before;
            Ok((now >= answers, format!("{now} have")))
        })
    }

    fn metrics_say(&self, what: &str, ask: impl Fn(&str) -> Result<(bool, String)>) -> Result<()> {
        let (from, pause) = (self.pod.port(ADMIN_PORT)?, Duration::from_millis(50));
        let what = format!("{what} in {}", self.pod.name);
        Deadline::after(self.scene.deadline.left().min(LIMIT)).wait(&what, pause, || {
            let (so, now) = ask(&self.scene.metrics(from)?)?;
            Ok(if so { Ok(()) } else { Err(now) })
        })
    }

    /// Waits for the end of all of them.
    pub fn over(self) -> Result<Vec<Over>> {
        let all = self.asking.into_iter().map(|one| one.join().map_err(|_| anyhow!("a client panicked")));
        all.collect()
    }
}

/// An answer that comes all at once, and not for a long time.
pub fn long_answer() -> Request {
    answer_of(ENDLESS)
}

/// One token of the slow model.
pub fn one_slow_token() -> Request {
    answer_of(1)
}

/// So many tokens of the slow model, all at once.
pub fn answer_of(tokens: usize) -> Request {
    let body =
        json!({ "model": "slow", "prompt": "a", "stream": false, "options": { "num_predict": tokens } });
    Request::post("/api/generate", &body)
}

/// A stream that lasts until something ends it.
pub fn long_stream(api: &Api) -> Request {
    api.request("slow", ENDLESS)
}

/// A stream whose first token is long in coming.
pub fn long_prompt() -> Request {
    let prompt = "abcdefghijklmnopqrstuvwxyz ".repeat(60);
    let body = json!({ "model": "slow", "prompt": prompt, "stream": true, "options": { "num_predict": 10 } });
    Request::post("/api/generate", &body)
}

impl Scene {
    /// Holds that a pod runs so many streams at the same time: each has begun before the first one ends.
    pub fn runs_at_once(&self, pod: &PoolPod, count: usize, request: &Request) -> Result<()> {
        let to = pod.client_port()?;
        let streams = self.volley(to, request, count)?;
        let begins =
            streams.iter().filter_map(|stream| Some(stream.began + stream.answer.pieces.first()?.at));
        let last_begin = begins.max().unwrap_or_default();
        let first_end = streams.iter().map(|stream| stream.ended).min().unwrap_or_default();
        ensure!(streams.iter().all(Attempt::served), "{} does not serve: {streams:?}", pod.name);
        let apart = || format!("the last began after {last_begin:?}, the first ended after {first_end:?}");
        ensure!(last_begin < first_end, "{} does not run {count} streams at once: {}", pod.name, apart());
        Ok(())
    }

    /// Loads the slow model into pods, so that what comes is no loading.
    pub fn warm_up_slow(&self, pods: &[PoolPod]) -> Result<()> {
        pods.iter().try_for_each(|pod| {
            let answer = self.http(pod.client_port()?, &one_slow_token())?;
            ensure!(answer.status == 200, "{} says {}: {}", pod.name, answer.status, answer.text());
            Ok(())
        })
    }
}
