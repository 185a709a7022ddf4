//! A thousand clients a second leave, most while they wait and some while they are served: afterwards every slot is there,
//! and Ollama has not kept a single connection of theirs.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::json;

use super::apis::APIS;
use super::pool::{ADMIN_PORT, OLLAMA_PORT, PoolPod};
use super::scene::Scene;
use super::traffic::{Attempt, reading};
use crate::cluster::http::inside;
use crate::machine::clock::{Deadline, Stopwatch};

const POOL: &str = "chat";
const SLOTS: usize = 2;
const A_SECOND: u32 = 1000;
const TIME: Duration = Duration::from_secs(5);
/// Clients that leave when it is time, whatever they have by then: each has its turn after all the others.
const HASTY: u32 = 48;
/// The longest that one of them stays; less than it takes until its next turn.
const LONGEST_STAY_MS: u32 = 40;
/// Clients that leave with the first word of their answer.
const SERVED: u32 = 6;
/// More than any of them waits for.
const TOKENS: usize = 400;
const PATIENCE: Duration = Duration::from_secs(2);
/// In the kernel's table: the other side has closed, and whoever holds this one has not.
const CLOSE_WAIT: &str = "08";

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let pods = pool(scene)?;
    let pod = pods.first().context("the pool has a pod")?;
    let gone_before = gone(scene, pod)?;
    let storm = Storm::begin(&scene.cluster.instance.network_namespace(0), pod.client_port()?)?;
    let mut most = 0;
    while storm.watch.elapsed() < TIME {
        thread::sleep(Duration::from_millis(200));
        most = most.max(half_closed(scene, pod)?);
    }
    let (left, begun) = storm.end()?;
    scene.at_rest(&pods, &[])?;
    let kept = half_closed(scene, pod)?;
    scene.tell(&format!(
        "{left} clients left in {} s, {begun} of them with the first word of their answer, {} counted by the sidecar; \
         sockets of Ollama in CLOSE-WAIT: at most {most} meanwhile, {kept} afterwards",
        TIME.as_secs(),
        gone(scene, pod)?.saturating_sub(gone_before)
    ));
    let due = u64::from(A_SECOND) * TIME.as_secs();
    ensure!(left * 4 >= due * 3, "{left} of {due} are no such storm");
    ensure!(begun > 0, "nobody left while he was served");
    stays_zero(scene, pod)?;
    every_slot_is_given_out_again(scene, pod)
}

/// Each of so many streams has its slot at once. Ollama itself may run them one after the other: that was seen after such
/// storms, with every slot of its runner idle and nobody waiting in the sidecar.
fn every_slot_is_given_out_again(scene: &Scene, pod: &PoolPod) -> Result<()> {
    let streams = scene.volley(pod.client_port()?, &APIS[0].request("slow", 300), SLOTS)?;
    ensure!(streams.iter().all(Attempt::served), "{} does not serve: {streams:?}", pod.name);
    let waited: Vec<_> = streams.iter().map(|stream| stream.answer.header("x-corral-queue-time")).collect();
    ensure!(waited.iter().all(|millis| *millis == Some("0")), "they waited {waited:?} ms for free slots");
    let begins = streams.iter().filter_map(|stream| Some(stream.began + stream.answer.pieces.first()?.at));
    let ends = streams.iter().map(|stream| stream.ended);
    let together = begins.max() < ends.min();
    let how = if together { "at once" } else { "one after the other, though none waits for a slot" };
    scene.tell(&format!("{SLOTS} streams after it: Ollama runs them {how}"));
    Ok(())
}

/// Room for everybody to wait: none is refused.
fn pool(scene: &Scene) -> Result<Vec<PoolPod>> {
    let queue = json!({ "maxDepth": 512, "maxDepthPerClient": 512, "maxWaitSeconds": 300 });
    let pods = scene.serving(&scene.pool_with(POOL, 1, &json!({ "capacity": { "queue": queue } }))?)?;
    scene.warm_up_slow(&pods)?;
    Ok(pods)
}

fn gone(scene: &Scene, pod: &PoolPod) -> Result<u64> {
    reading(&scene.metrics(pod.port(ADMIN_PORT)?)?, "corral_clients_gone_total")
}

/// Sockets of Ollama that their other side has closed.
fn half_closed(scene: &Scene, pod: &PoolPod) -> Result<usize> {
    let pid = scene.pid_of(pod, "ollama")?;
    let tables = ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/{pid}/net/{table}")));
    tables.into_iter().map(|table| Ok(count_half_closed(&table?))).sum()
}

fn count_half_closed(table: &str) -> usize {
    // `sl local_address rem_address st …`, addresses in hex.
    let port = format!(":{OLLAMA_PORT:04X}");
    let lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines
        .filter(|fields| matches!(fields.as_slice(), [_, local, _, CLOSE_WAIT, ..] if local.ends_with(&port)))
        .count()
}

/// What Ollama leaks it keeps for good: a moment later there is still none.
fn stays_zero(scene: &Scene, pod: &PoolPod) -> Result<()> {
    for _ in 0..5 {
        let kept = half_closed(scene, pod)?;
        ensure!(kept == 0, "Ollama keeps {kept} sockets of clients that have left");
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// Clients that leave.
struct Storm {
    watch: Stopwatch,
    clients: Vec<JoinHandle<Result<()>>>,
    left: Arc<AtomicU64>,
    begun: Arc<AtomicU64>,
}

impl Storm {
    fn begin(network: &Path, to: SocketAddr) -> Result<Self> {
        let request: Arc<[u8]> = APIS[0].request("slow", TOKENS).bytes(to, true).into();
        let (left, begun) = (Arc::default(), Arc::default());
        let mut storm = Self { watch: Stopwatch::start(), clients: Vec::new(), left, begun };
        for number in 0..HASTY {
            storm.hasty(network, to, number, Arc::clone(&request))?;
        }
        for _ in 0..SERVED {
            storm.served(network, to, Arc::clone(&request))?;
        }
        Ok(storm)
    }

    /// One of many who take turns, so that together so many a second leave.
    fn hasty(&mut self, network: &Path, to: SocketAddr, number: u32, request: Arc<[u8]>) -> Result<()> {
        let (watch, left) = (self.watch, Arc::clone(&self.left));
        let turns = (number..)
            .step_by(HASTY as usize)
            .map(|turn| (Duration::from_secs(1) * turn / A_SECOND, stay(turn)));
        self.clients.push(inside(network, move || {
            for (due, stay) in turns.take_while(|(due, _)| *due < TIME) {
                thread::sleep(due.saturating_sub(watch.elapsed()));
                // Who finds no connection is not one who leaves.
                let Ok(_open) = ask(to, &request) else { continue };
                thread::sleep((due + stay).saturating_sub(watch.elapsed()));
                left.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        })?);
        Ok(())
    }

    /// One who asks again and again, and leaves each time with the first word.
    fn served(&mut self, network: &Path, to: SocketAddr, request: Arc<[u8]>) -> Result<()> {
        let (left, begun) = (Arc::clone(&self.left), Arc::clone(&self.begun));
        let over = Deadline::after(TIME);
        self.clients.push(inside(network, move || {
            while !over.passed() {
                let Ok(mut open) = ask(to, &request) else { continue };
                let mut first = [0; 12];
                let told = open.read_exact(&mut first).is_ok();
                let served = told && first == *b"HTTP/1.1 200";
                begun.fetch_add(u64::from(served), Ordering::Relaxed);
                left.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        })?);
        Ok(())
    }

    /// How many have left, and how many of them while they were served.
    fn end(self) -> Result<(u64, u64)> {
        for client in self.clients {
            client.join().map_err(|_| anyhow!("a client panicked"))??;
        }
        Ok((self.left.load(Ordering::Relaxed), self.begun.load(Ordering::Relaxed)))
    }
}

/// From 1 ms on, in no order that repeats soon.
fn stay(turn: u32) -> Duration {
    Duration::from_millis((1 + turn.wrapping_mul(2_654_435_761) % LONGEST_STAY_MS).into())
}

fn ask(to: SocketAddr, request: &[u8]) -> Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_of_ollama_that_the_other_side_has_closed_are_counted() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n\
             0: 0100007F:2CAB 0100007F:9C41 08 00000000:00000000 00:00000000 00000000\n\
             1: 0100007F:2CAB 0100007F:9C42 01 00000000:00000000 00:00000000 00000000\n\
             2: 0100007F:9C43 0100007F:2CAB 08 00000000:00000000 00:00000000 00000000\n\
             3: 0100007F:2CAA 0100007F:9C44 08 00000000:00000000 00:00000000 00000000\n";
        assert_eq!(count_half_closed(table), 1);
    }

    #[test]
    fn nobody_stays_beyond_its_next_turn() {
        let turn = Duration::from_secs(1) * HASTY / A_SECOND;
        assert!((0..2000).all(|number| stay(number) < turn && !stay(number).is_zero()));
    }
}
