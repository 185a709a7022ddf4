//! Clients that measure: of an open loop, where each request is sent when it is due, whatever became of those before it,
//! and of a closed one, where each client asks again as soon as it was answered.
//!
//! Only the open loop tells how an overloaded server treats people: whoever waits for an answer before the next question
//! asks less often the slower it comes.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use super::in_flight::answer_of;
use super::pool::{ADMIN_PORT, OLLAMA_PORT, PoolPod};
use super::scene::Scene;
use super::traffic::reading;
use crate::cluster::http::{Exchange, Line, Request};
use crate::machine::clock::{Deadline, Stopwatch};

/// A client of the closed loop that was not served stays away for this long.
const PAUSE: Duration = Duration::from_millis(200);
/// Tokens of an answer from which the pace of a pod is taken.
const SAMPLE: usize = 20;
/// The longest answer that is made to last.
const MOST_TOKENS: usize = 1000;

/// Where clients ask from, and whom.
#[derive(Debug, Clone)]
pub struct Way {
    network: PathBuf,
    to: SocketAddr,
}

/// One request of an open loop.
#[derive(Debug, Clone)]
pub struct Call {
    /// When it is due, from the begin of the loop.
    pub at: Duration,
    /// Whose it is.
    pub client: usize,
    /// What is asked.
    pub request: Request,
}

/// What became of a request.
#[derive(Debug)]
pub struct Outcome {
    /// Whose it was.
    pub client: usize,
    /// When it was due: in a closed loop, when it was sent.
    pub at: Duration,
    /// When it was over.
    pub ended: Duration,
    /// What was answered.
    pub exchange: Exchange,
}

impl Outcome {
    /// Whether the answer is whole.
    pub fn served(&self) -> bool {
        self.exchange.fault.is_none() && self.status() == Some(200)
    }

    /// The status, if there was an answer.
    pub fn status(&self) -> Option<u16> {
        self.exchange.answer.as_ref().map(|answer| answer.status)
    }

    /// A header of the answer.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.exchange.answer.as_ref()?.header(name)
    }

    /// How long it waited for a slot, as the sidecar says.
    pub fn waited(&self) -> Result<Duration> {
        let header = self.header("x-corral-queue-time");
        let millis = header.with_context(|| format!("no x-corral-queue-time in {:?}", self.exchange))?;
        Ok(Duration::from_millis(millis.parse()?))
    }

    /// How long Ollama worked on it, as Ollama says.
    pub fn worked(&self) -> Result<Duration> {
        let answer = self.exchange.answer.as_ref().context("there is no answer")?;
        let nanos = answer.json()?.get("total_duration").and_then(Value::as_u64);
        Ok(Duration::from_nanos(nanos.context("an answer says how long it took")?))
    }

    /// What it was, in a few words: of whoever was not served the status and the reason.
    pub fn word(&self) -> String {
        let Some(status) = self.status() else { return "left without an answer".to_owned() };
        let reason = self.header("x-corral-shed-reason").unwrap_or_default();
        if self.served() { "served".to_owned() } else { format!("{status} {reason}") }
    }
}

impl Way {
    /// From inside a network namespace, which is named by a file.
    pub fn new(network: PathBuf, to: SocketAddr) -> Self {
        Self { network, to }
    }

    /// One request over a connection of its own.
    pub fn ask(&self, request: &Request, patience: Duration) -> Exchange {
        Line::from_inside(&self.network, self.to, patience).exchange(request, true, patience)
    }
}

impl Scene {
    /// From the first node.
    pub fn way(&self, to: SocketAddr) -> Way {
        Way::new(self.cluster.instance.network_namespace(0), to)
    }

    /// Past the sidecar, on the pod's own loopback: what nobody outside can do.
    pub fn bare_way(&self, pod: &PoolPod) -> Result<Way> {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, OLLAMA_PORT));
        Ok(Way::new(self.network_of(pod, "ollama")?, loopback))
    }

    /// The open loop. Calls are in order; a client gives up `patience` after it has asked, and closes its connection.
    pub fn fire(&self, way: &Way, calls: &[Call], patience: Duration) -> Result<Vec<Outcome>> {
        let watch = Stopwatch::start();
        thread::scope(|scope| {
            let mut asking = Vec::new();
            for call in calls {
                ensure!(!self.deadline.passed(), "the story's time is over");
                thread::sleep(call.at.saturating_sub(watch.elapsed()));
                asking.push(scope.spawn(move || one(way, watch, call, patience)));
            }
            asking.into_iter().map(joined).collect()
        })
    }

    /// The closed loop: as many clients as there are requests, each with its own, until `time` is over. What is under way
    /// then is awaited.
    pub fn keep_busy(&self, way: &Way, requests: &[Request], time: Duration) -> Result<Vec<Outcome>> {
        let (watch, over) = (Stopwatch::start(), Deadline::after(time));
        let patience = self.deadline.left();
        let again = |client: usize, request: &Request| {
            let mut outcomes = Vec::new();
            while !over.passed() {
                let call = Call { at: watch.elapsed(), client, request: request.clone() };
                let outcome = one(way, watch, &call, patience);
                thread::sleep(if outcome.served() { Duration::ZERO } else { PAUSE });
                outcomes.push(outcome);
            }
            outcomes
        };
        thread::scope(|scope| {
            let again = &again;
            let clients: Vec<_> = requests
                .iter()
                .enumerate()
                .map(|(client, request)| scope.spawn(move || again(client, request)))
                .collect();
            let outcomes: Result<Vec<_>> = clients.into_iter().map(joined).collect();
            Ok(outcomes?.into_iter().flatten().collect())
        })
    }

    /// How many slots of the slow model are in use, as the pod says: fewer than it has while Ollama shows that it has too
    /// much to do.
    pub fn slots_in_use(&self, pod: &PoolPod) -> Result<u64> {
        let metrics = self.metrics(pod.port(ADMIN_PORT)?)?;
        reading(&metrics, "corral_model_slot_limit{model=\"slow:latest\"}")
    }

    /// How many tokens of the slow model take this long while so many slots are busy: this machine's pace, taken now.
    pub fn tokens_lasting(&self, way: &Way, slots: usize, time: Duration) -> Result<usize> {
        let sample = Call { at: Duration::ZERO, client: 0, request: answer_of(SAMPLE) };
        let once = self.fire(way, &vec![sample; slots], self.deadline.left())?;
        let worked: Duration = once.iter().map(Outcome::worked).sum::<Result<_>>()?;
        let token = worked.as_micros() / (SAMPLE * once.len()).max(1) as u128;
        let count = time.as_micros() / token.max(1);
        self.tell(&format!("a token takes {token} µs while {slots} are made at once"));
        Ok(usize::try_from(count)?.clamp(1, MOST_TOKENS))
    }

    /// How many such requests a second are served at most: twice as many clients as slots ask all the time.
    pub fn capacity(&self, way: &Way, slots: usize, request: &Request, time: Duration) -> Result<f64> {
        let busy = self.keep_busy(way, &vec![request.clone(); slots * 2], time)?;
        if let Some(outcome) = busy.iter().find(|outcome| !outcome.served()) {
            return Err(anyhow!("no overload, and not served: {:?}", outcome.exchange));
        }
        Ok(a_second(&busy, Duration::ZERO))
    }
}

fn joined<T>(one: ScopedJoinHandle<'_, T>) -> Result<T> {
    one.join().map_err(|_| anyhow!("a client panicked"))
}

fn one(way: &Way, watch: Stopwatch, call: &Call, patience: Duration) -> Outcome {
    let exchange = way.ask(&call.request, patience);
    Outcome { client: call.client, at: call.at, ended: watch.elapsed(), exchange }
}

/// How many of these were served a second, until the last one was, and for at least so long.
pub fn a_second<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>, at_least: Duration) -> f64 {
    let ends: Vec<Duration> =
        outcomes.into_iter().filter(|outcome| outcome.served()).map(|outcome| outcome.ended).collect();
    let last = ends.iter().max().copied().unwrap_or_default().max(at_least).max(Duration::from_millis(1));
    f64::from(u32::try_from(ends.len()).unwrap_or(u32::MAX)) / last.as_secs_f64()
}

/// The same request so many times a second, from `first` on.
pub fn steady(
    client: usize,
    request: &Request,
    per_second: f64,
    first: Duration,
    time: Duration,
) -> Vec<Call> {
    let apart = Duration::from_secs_f64(1.0 / per_second);
    let due = (0..).map(|number: u32| first + apart * number).take_while(|at| *at < time);
    due.map(|at| Call { at, client, request: request.clone() }).collect()
}

/// The longest of the shortest 99 of 100; of fewer the longest.
pub fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get((times.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default()
}

/// How many there were of each kind, most frequent first.
pub fn words<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> String {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for word in outcomes.into_iter().map(Outcome::word) {
        match counts.iter_mut().find(|(known, _)| *known == word) {
            Some((_, count)) => *count += 1,
            None => counts.push((word, 1)),
        }
    }
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.iter().map(|(word, count)| format!("{count} {}", word.trim())).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::http::Answer;

    fn outcome(status: u16, ended: u64) -> Outcome {
        let headers = vec![("x-corral-queue-time".to_owned(), "1500".to_owned())];
        let answer = Some(Answer { status, headers, pieces: Vec::new() });
        let exchange = Exchange { connected: true, answer, fault: None };
        Outcome { client: 0, at: Duration::ZERO, ended: Duration::from_secs(ended), exchange }
    }

    #[test]
    fn only_what_was_served_counts_for_the_rate() {
        let outcomes = [outcome(200, 1), outcome(429, 9), outcome(200, 4)];
        assert!((a_second(&outcomes, Duration::ZERO) - 0.5).abs() < 1e-9);
        assert!((a_second(&outcomes, Duration::from_secs(20)) - 0.1).abs() < 1e-9);
        assert!(a_second(&[], Duration::ZERO).abs() < 1e-9);
        assert_eq!(words(&outcomes), "2 served, 1 429");
        assert_eq!(outcomes[0].waited().unwrap(), Duration::from_millis(1500));
    }

    #[test]
    fn steady_calls_come_at_their_rate_from_the_first_on() {
        let calls = steady(3, &answer_of(1), 4.0, Duration::from_millis(100), Duration::from_secs(1));
        let at: Vec<_> = calls.iter().map(|call| call.at.as_millis()).collect();
        assert_eq!(at, [100, 350, 600, 850]);
    }

    #[test]
    fn the_99th_percentile_of_few_is_the_longest() {
        let times = |count: u64| (1..=count).map(Duration::from_millis).collect();
        assert_eq!(p99(times(40)).as_millis(), 40);
        assert_eq!(p99(times(200)).as_millis(), 198);
        assert_eq!(p99(Vec::new()), Duration::ZERO);
    }
}
