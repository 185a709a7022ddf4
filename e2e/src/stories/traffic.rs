//! Clients of a story: what they ask, how often, and what they were told.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::pool::{ADMIN_PORT, PoolPod};
use super::scene::Scene;
use crate::cluster::http::{Answer, Request};
use crate::machine::clock::Stopwatch;

/// One request and its answer.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// When it was begun, on the watch of whoever asked.
    pub began: Duration,
    /// When its answer was there.
    pub ended: Duration,
    /// The answer.
    pub answer: Answer,
}

impl Attempt {
    /// Whether Ollama answered it.
    pub fn served(&self) -> bool {
        self.answer.status == 200
    }

    /// Whether a limit or the queue refused it.
    pub fn refused(&self) -> bool {
        self.answer.status == 429
    }
}

/// One token of the small model.
pub fn one_token() -> Request {
    let body = json!({ "model": "tiny", "prompt": "a", "stream": false, "options": { "num_predict": 1 } });
    Request::post("/api/generate", &body)
}

/// How long a refusal says to stay away, in its own milliseconds, which [`retry_after`] rounds up.
pub fn wait_of(answer: &Answer) -> Result<Duration> {
    let millis: u64 = answer.header("retry-after-ms").context("a refusal without retry-after-ms")?.parse()?;
    let seconds = retry_after(answer)?.as_secs();
    ensure!(seconds * 1000 >= millis, "Retry-After {seconds} s is before retry-after-ms {millis}");
    Ok(Duration::from_millis(millis))
}

/// The `Retry-After` of a refusal.
pub fn retry_after(answer: &Answer) -> Result<Duration> {
    let seconds = answer.header("retry-after").context("a refusal without Retry-After")?;
    Ok(Duration::from_secs(seconds.parse()?))
}

/// Holds that a refusal names this limit, as `namespace/policy/limit`, in its header and in its text.
pub fn names_limit(answer: &Answer, limit: &str) -> Result<()> {
    ensure!(answer.status == 429, "{} is no refusal: {}", answer.status, answer.text());
    let named = answer.header("x-corral-limit").unwrap_or_default();
    ensure!(named.split(", ").any(|name| name == limit), "refused by `{named}`, not by `{limit}`");
    ensure!(answer.text().contains(limit), "the text does not name {limit}: {}", answer.text());
    Ok(())
}

impl Scene {
    /// One request, timed.
    pub fn ask(&self, watch: Stopwatch, to: SocketAddr, request: &Request) -> Result<Attempt> {
        let began = watch.elapsed();
        let answer = self.http(to, request)?;
        Ok(Attempt { began, ended: watch.elapsed(), answer })
    }

    /// So many equal requests at one instant.
    pub fn volley(&self, to: SocketAddr, request: &Request, count: usize) -> Result<Vec<Attempt>> {
        let watch = Stopwatch::start();
        thread::scope(|scope| {
            let asking: Vec<_> =
                (0..count).map(|_| scope.spawn(move || self.ask(watch, to, request))).collect();
            let attempts =
                asking.into_iter().map(|one| one.join().unwrap_or_else(|_| bail!("a client panicked")));
            attempts.collect()
        })
    }

    /// Clients that ask again as soon as they have an answer, whatever it is, until `over` says so.
    pub fn hammer(
        &self,
        watch: Stopwatch,
        to: SocketAddr,
        clients: usize,
        over: &(dyn Fn() -> bool + Sync),
    ) -> Result<Vec<Attempt>> {
        let one = move || -> Result<Vec<Attempt>> {
            let mut attempts = Vec::new();
            while !over() {
                attempts.push(self.ask(watch, to, &one_token())?);
                thread::sleep(Duration::from_millis(20));
            }
            Ok(attempts)
        };
        thread::scope(|scope| {
            let asking: Vec<_> = (0..clients).map(|_| scope.spawn(one)).collect();
            let mut all = Vec::new();
            for client in asking {
                all.extend(client.join().unwrap_or_else(|_| bail!("a client panicked"))?);
            }
            Ok(all)
        })
    }

    /// How many more requests a limit of this name would let through now, as the pod says to whoever asks.
    pub fn remaining(&self, to: SocketAddr, limit: &str) -> Result<u64> {
        remaining_in(&self.http(to, &Request::get("/corral/v1/limits"))?.json()?, limit)
    }

    /// What a pod tells Prometheus.
    pub fn metrics(&self, from: SocketAddr) -> Result<String> {
        let answer = self.http(from, &Request::get("/metrics"))?;
        ensure!(answer.status == 200, "{from} says {}: {}", answer.status, answer.text());
        Ok(answer.text())
    }

    /// How often a sidecar's limit has come to this decision.
    pub fn decisions(&self, pod: &PoolPod, limit: &str, decision: &str) -> Result<u64> {
        let metrics = self.metrics(pod.port(ADMIN_PORT)?)?;
        let labels = [format!("limit=\"{limit}\""), format!("decision=\"{decision}\"")];
        let mut lines = metrics.lines().filter(|line| line.starts_with("corral_limit_decisions_total{"));
        let line = lines.find(|line| labels.iter().all(|label| line.contains(label)));
        let count = line
            .and_then(|line| line.rsplit(' ').next())
            .with_context(|| format!("no {labels:?} in:\n{metrics}"))?;
        Ok(count.parse()?)
    }

    /// Has every pod load the small model, so that later answers are quick.
    pub fn warm_up(&self, pods: &[PoolPod]) -> Result<()> {
        for pod in pods {
            let answer = self.http(pod.client_port()?, &one_token())?;
            ensure!(answer.status == 200, "{} says {}: {}", pod.name, answer.status, answer.text());
        }
        Ok(())
    }
}

/// How many more requests a limit of this name would let through, in what the pod shows.
pub fn remaining_in(shown: &Value, limit: &str) -> Result<u64> {
    let limits = shown.get("limits").and_then(Value::as_array);
    let found = limits.into_iter().flatten().find(|l| l.get("limit").and_then(Value::as_str) == Some(limit));
    let left = found.and_then(|l| l.pointer("/thisPod/0/remaining")?.as_u64());
    left.with_context(|| format!("{limit} is not shown: {shown}"))
}

/// The value, a whole number, of the series with exactly this name and labels in what a pod tells Prometheus.
pub fn reading(metrics: &str, series: &str) -> Result<u64> {
    let value = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let value = value.with_context(|| format!("no {series} in:\n{metrics}"))?;
    Ok(value.split(' ').next().unwrap_or_default().parse()?)
}

/// Splits attempts into served and refused ones; any other answer is an error.
pub fn sort(attempts: Vec<Attempt>) -> Result<(Vec<Attempt>, Vec<Attempt>)> {
    let strange = attempts.iter().find(|attempt| !attempt.served() && !attempt.refused());
    if let Some(strange) = strange {
        bail!("neither served nor refused: {} {}", strange.answer.status, strange.answer.text());
    }
    Ok(attempts.into_iter().partition(Attempt::served))
}

/// The window in which most more was served than its bound allows, if there is one: `(served, seconds)`.
///
/// An attempt passed its limit somewhere between its begin and its end. A window from the begin of one to the end of
/// another therefore holds all that are inside it for certain, and is never shorter than the one that counted.
pub fn worst_window(served: &[Attempt], burst: f64, per_second: f64) -> Option<(usize, f64)> {
    let mut worst: Option<(usize, f64)> = None;
    for first in served {
        for last in served.iter().filter(|last| last.ended >= first.ended) {
            let inside = served.iter().filter(|a| a.began >= first.began && a.ended <= last.ended).count();
            let length = last.ended.saturating_sub(first.began).as_secs_f64();
            #[expect(clippy::cast_precision_loss, reason = "a story counts some hundreds")]
            let over = inside as f64 > burst + per_second * length;
            if over && worst.is_none_or(|(most, _)| inside > most) {
                worst = Some((inside, length));
            }
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(times: &[u64]) -> Vec<Attempt> {
        let answer = Answer { status: 200, headers: Vec::new(), pieces: Vec::new() };
        let at = |ms: &u64| Attempt {
            began: Duration::from_millis(*ms),
            ended: Duration::from_millis(*ms + 10),
            answer: answer.clone(),
        };
        times.iter().map(at).collect()
    }

    #[test]
    fn one_too_many_in_any_window_is_found() {
        // A burst of 2 and one a second.
        assert_eq!(worst_window(&served(&[0, 0, 1000, 2000]), 2.0, 1.0), None);
        let (count, length) = worst_window(&served(&[0, 5000, 5000, 5000, 9000]), 2.0, 1.0).unwrap();
        assert_eq!(count, 3);
        assert!(length < 0.1);
    }

    #[test]
    fn a_reading_is_of_the_series_with_exactly_this_name() {
        let metrics = "# TYPE a gauge\na_total 3\na{x=\"y\"} 2\na 1\n# EOF";
        assert_eq!(reading(metrics, "a").unwrap(), 1);
        assert_eq!(reading(metrics, "a{x=\"y\"}").unwrap(), 2);
        assert!(reading(metrics, "b").is_err());
    }

    #[test]
    fn a_refusal_never_says_to_come_back_before_it_means() {
        let answer = |ms: &str, seconds: &str| Answer {
            status: 429,
            headers: vec![("retry-after-ms".into(), ms.into()), ("retry-after".into(), seconds.into())],
            pieces: Vec::new(),
        };
        assert_eq!(wait_of(&answer("1970", "2")).unwrap(), Duration::from_millis(1970));
        assert!(wait_of(&answer("2001", "2")).is_err());
    }
}
