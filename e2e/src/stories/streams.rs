//! Clients that stream all the time while something else happens, and a verdict on each of their answers.
//!
//! Each client is a thread of its own that asks again as soon as it was answered, in turns in the words of the three
//! APIs, and reads as the answer comes. The model says the alphabet, so every byte of a whole answer is known
//! beforehand. Half of the clients ask from each node. Half of them keep their connection for the next request, as
//! libraries do, the others make a new one each time.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use parking_lot::Mutex;

use super::apis::{APIS, Api};
use super::scene::Scene;
use super::traffic::wait_of;
use crate::cluster::Cluster;
use crate::cluster::http::{Answer, Exchange, Line};
use crate::machine::clock::{Stopwatch, seconds};

/// Bad answers that are told in full.
const TOLD: usize = 5;
/// Of a bad answer this many of the last characters are told.
const TAIL: usize = 200;
/// A client that was not served stays away for at most this long, whatever it was told.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A client without an answer asks again after this.
const PAUSE: Duration = Duration::from_millis(100);

/// What the clients do.
#[derive(Debug, Clone)]
pub struct Load {
    /// How many ask at the same time.
    pub clients: usize,
    /// The model they ask.
    pub model: &'static str,
    /// The lengths of their answers in tokens.
    pub tokens: RangeInclusive<usize>,
    /// The longest that an answer may take, its time in the queue with it.
    pub limit: Duration,
}

/// What a client thinks of what it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// 200, every byte and the API's own end.
    Complete,
    /// 429 with `Retry-After`.
    Refused,
    /// 503 with `Retry-After`.
    Unavailable,
    /// 200, and then the API's own error event.
    ErrorEvent,
    /// 200, and less than a whole answer.
    Truncated,
    /// No connection, or one that ended before a head came.
    NoConnection,
    /// Any other answer.
    Strange,
}

/// One answer.
#[derive(Debug, Clone)]
pub struct Told {
    /// When it was asked for, since the load began.
    pub began: Duration,
    /// When it ended.
    pub ended: Duration,
    /// How it was.
    pub verdict: Verdict,
    /// What is to be said of it, unless it is complete.
    pub detail: String,
}

/// All answers so far.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// In the order in which they ended.
    pub told: Vec<Told>,
}

impl Tally {
    /// How many answers were like this.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.of(&[verdict]).count()
    }

    /// All answers that were like one of these.
    pub fn of<'a>(&'a self, verdicts: &'a [Verdict]) -> impl Iterator<Item = &'a Told> {
        self.told.iter().filter(move |told| verdicts.contains(&told.verdict))
    }

    /// Answers that no honest server gives: neither whole, nor refused for want of room.
    pub fn bad(&self) -> impl Iterator<Item = &Told> {
        self.told.iter().filter(|told| !matches!(told.verdict, Verdict::Complete | Verdict::Refused))
    }

    /// From the begin of the first bad answer to the end of the last one.
    pub fn disturbance(&self) -> Option<(Duration, Duration)> {
        let from = self.bad().map(|told| told.began).min()?;
        Some((from, self.bad().map(|told| told.ended).max()?))
    }

    /// How long the longest whole answer took.
    pub fn longest(&self) -> Duration {
        let whole = self.of(&[Verdict::Complete]);
        whole.map(|told| told.ended.saturating_sub(told.began)).max().unwrap_or_default()
    }

    /// Holds that nobody got a bad answer, and at least so many a whole one.
    pub fn is_undisturbed(&self, complete: usize) -> Result<()> {
        let served = self.count(Verdict::Complete);
        ensure!(self.bad().next().is_none(), "clients were disturbed: {self}");
        ensure!(served >= complete, "only {served} answers prove little: {self}");
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts = BTreeMap::new();
        self.told.iter().for_each(|told| *counts.entry(told.verdict).or_insert(0) += 1);
        let counts: Vec<_> = counts.iter().map(|(verdict, count)| format!("{count} {verdict:?}")).collect();
        write!(f, "{} answers: {}", self.told.len(), counts.join(", "))?;
        write!(f, "; the longest whole one took {}", seconds(self.longest()))?;
        if let Some((from, to)) = self.disturbance() {
            write!(f, "; disturbed from {} to {}", seconds(from), seconds(to))?;
        }
        self.bad().take(TOLD).try_for_each(|told| write!(f, "\n{told}"))
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (seconds(self.began), seconds(self.ended));
        write!(f, "{:?} from {from} to {to}: {}", self.verdict, self.detail)
    }
}

/// A load that is under way. It ends when it is dropped.
#[derive(Debug)]
pub struct Streams {
    watch: Stopwatch,
    over: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    clients: Vec<JoinHandle<()>>,
}

impl Streams {
    /// The time since the load began.
    pub fn elapsed(&self) -> Duration {
        self.watch.elapsed()
    }

    /// What was answered so far.
    pub fn so_far(&self) -> Tally {
        self.tally.lock().clone()
    }

    /// Nobody asks any more; what is under way is read to its end.
    pub fn stop(mut self) -> Result<Tally> {
        self.over.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            client.join().map_err(|_| anyhow!("a client panicked"))?;
        }
        Ok(self.so_far())
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

impl Scene {
    /// Begins a load on an address: a Service's or a pod's.
    pub fn streams(&self, to: SocketAddr, load: &Load) -> Streams {
        let (watch, over, tally) = (Stopwatch::start(), Arc::default(), Arc::default());
        let clients = (0..load.clients).map(|number| {
            let client = Client {
                number,
                cluster: self.cluster.clone(),
                to,
                load: load.clone(),
                watch,
                over: Arc::clone(&over),
                tally: Arc::clone(&tally),
            };
            thread::spawn(move || client.run())
        });
        let clients = clients.collect();
        Streams { watch, over, tally, clients }
    }
}

struct Client {
    number: usize,
    cluster: Cluster,
    to: SocketAddr,
    load: Load,
    watch: Stopwatch,
    over: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
}

impl Client {
    fn run(&self) {
        let mut line = self.cluster.line(self.number % 2, self.to);
        for turn in 0.. {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            thread::sleep(self.ask(&mut line, turn));
        }
    }

    /// One answer, and how long to stay away after it.
    fn ask(&self, line: &mut Line, turn: usize) -> Duration {
        let api = APIS.get((self.number + turn) % APIS.len()).unwrap_or(&APIS[0]);
        let tokens = self.tokens(turn);
        let began = self.watch.elapsed();
        let request = api.request(self.load.model, tokens);
        let keeps = self.number % 4 >= 2;
        let exchange = line.exchange(&request, !keeps, self.load.limit);
        let (verdict, detail) = judge(api, tokens, &exchange);
        let ended = self.watch.elapsed();
        self.tally.lock().told.push(Told { began, ended, verdict, detail });
        pause(verdict, &exchange)
    }

    /// Some length of the range, in no order that repeats soon, and the same in every run.
    fn tokens(&self, turn: usize) -> usize {
        let (least, most) = (*self.load.tokens.start(), *self.load.tokens.end());
        let mixed = (self.number * 31 + turn * 17 + 1).wrapping_mul(2_654_435_761) >> 7;
        least + mixed % (most.saturating_sub(least) + 1)
    }
}

fn pause(verdict: Verdict, exchange: &Exchange) -> Duration {
    let told = exchange.answer.as_ref().and_then(|answer| wait_of(answer).ok());
    match verdict {
        Verdict::Complete => Duration::ZERO,
        Verdict::Refused => told.unwrap_or(PAUSE).min(LONGEST_PAUSE),
        _ => PAUSE,
    }
}

/// What to think of an exchange that asked for this many tokens.
fn judge(api: &Api, tokens: usize, exchange: &Exchange) -> (Verdict, String) {
    let fault = exchange.fault.as_ref().map(|fault| format!("{fault:#}"));
    let Some(answer) = &exchange.answer else {
        return (Verdict::NoConnection, format!("{}: {}", api.path, fault.unwrap_or_default()));
    };
    let verdict = match answer.status {
        200 => judge_stream(api, tokens, answer, fault.is_some()),
        429 if answer.header("retry-after").is_some() => Verdict::Refused,
        503 if answer.header("retry-after").is_some() => Verdict::Unavailable,
        _ => Verdict::Strange,
    };
    if verdict == Verdict::Complete {
        return (verdict, String::new());
    }
    let text = answer.text();
    let tail: String = text.chars().skip(text.chars().count().saturating_sub(TAIL)).collect();
    let detail = format!("{} {} {} …{}", api.path, answer.status, fault.unwrap_or_default(), tail.trim());
    (verdict, detail)
}

fn judge_stream(api: &Api, tokens: usize, answer: &Answer, broken: bool) -> Verdict {
    let body = answer.text();
    if api.error(&body).is_some() {
        return Verdict::ErrorEvent;
    }
    let said = api.text(&body).is_ok_and(|text| text == alphabet(tokens));
    if said && api.is_whole(&body) && !broken { Verdict::Complete } else { Verdict::Truncated }
}

/// What the tiny models say: the letters and a space, again and again, a token each.
fn alphabet(tokens: usize) -> String {
    ('a'..='z').chain([' ']).cycle().take(tokens).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::http::Piece;

    fn exchange(status: u16, headers: &[(&str, &str)], body: &str) -> Exchange {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let pieces = vec![Piece { at: Duration::ZERO, bytes: body.as_bytes().to_vec() }];
        let answer = Some(Answer { status, headers: headers.collect(), pieces });
        Exchange { connected: true, answer, fault: None }
    }

    fn native(text: &str, end: &str) -> Exchange {
        let body = format!("{{\"message\":{{\"content\":\"{text}\"}},\"done\":false}}\n{end}");
        exchange(200, &[], &body)
    }

    const DONE: &str = "{\"message\":{\"content\":\"\"},\"done\":true}\n";

    #[test]
    fn only_every_byte_with_the_end_behind_it_is_a_whole_answer() {
        let judge = |exchange: &Exchange| judge(&APIS[0], 3, exchange).0;
        assert_eq!(judge(&native("abc", DONE)), Verdict::Complete);
        assert_eq!(judge(&native("abc", "")), Verdict::Truncated);
        assert_eq!(judge(&native("ab", DONE)), Verdict::Truncated);
        assert_eq!(judge(&native("abcd", DONE)), Verdict::Truncated);
        assert_eq!(judge(&native("ab", "{\"error\":\"gone\"}\n")), Verdict::ErrorEvent);
        let broken = Exchange { fault: Some(anyhow!("reset")), ..native("abc", DONE) };
        assert_eq!(judge(&broken), Verdict::Truncated);
    }

    #[test]
    fn a_refusal_without_a_time_to_come_back_is_none() {
        let of = |status: u16, headers: &[(&str, &str)]| judge(&APIS[0], 3, &exchange(status, headers, "")).0;
        assert_eq!(of(429, &[("retry-after", "1")]), Verdict::Refused);
        assert_eq!(of(503, &[("retry-after", "1")]), Verdict::Unavailable);
        for status in [429, 503, 500, 404] {
            assert_eq!(of(status, &[]), Verdict::Strange);
        }
        let silent = Exchange { connected: true, answer: None, fault: Some(anyhow!("closed")) };
        assert_eq!(judge(&APIS[0], 3, &silent).0, Verdict::NoConnection);
    }

    #[test]
    fn a_tally_tells_since_when_and_until_when_it_was_bad() {
        let told = |began: u64, ended: u64, verdict: Verdict| Told {
            began: Duration::from_secs(began),
            ended: Duration::from_secs(ended),
            verdict,
            detail: "why".to_owned(),
        };
        let mut tally = Tally { told: vec![told(0, 9, Verdict::Complete), told(1, 2, Verdict::Refused)] };
        assert_eq!(tally.disturbance(), None);
        assert!(tally.is_undisturbed(1).is_ok() && tally.is_undisturbed(2).is_err());
        tally.told.extend([told(3, 4, Verdict::NoConnection), told(2, 7, Verdict::Truncated)]);
        assert_eq!(tally.disturbance(), Some((Duration::from_secs(2), Duration::from_secs(7))));
        assert_eq!(tally.longest(), Duration::from_secs(9));
        let text = tally.is_undisturbed(0).unwrap_err().to_string();
        assert!(text.contains("1 Complete, 1 Refused") && text.contains("Truncated from 2.0 s"), "{text}");
    }
}
