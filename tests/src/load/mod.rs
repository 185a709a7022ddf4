//! An open-loop load: each request is sent when it is due, whatever became of those before it.
//!
//! A client that waits for its answer before it asks again asks less often the slower it is served, and so never sees
//! how slow that was (coordinated omission). Here nobody waits for anybody, and every time counts from when a request was
//! due, not from when it was sent. The load runs on threads of its own, so that nothing of the world under test holds it
//! up but the machine; how late it was is one of its figures.

mod exchange;
mod figures;

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use tokio::sync::oneshot;

pub use exchange::{End, Heard};
pub use figures::{Spread, in_millis};

/// Its connection is made this long before a request is due: what is measured is the request.
const AHEAD: Duration = Duration::from_millis(20);
/// From the call until the first request is due.
const PREPARATION: Duration = Duration::from_millis(100);

/// When a client leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaves {
    /// With its whole answer.
    WhenServed,
    /// This long after its request was due, whatever it has by then.
    After(Duration),
}

/// One request of a load, on a connection of its own.
#[derive(Debug, Clone)]
pub struct Shot {
    /// When it is due, from the begin of the load.
    pub at: Duration,
    /// Whom it asks.
    pub to: SocketAddr,
    /// What it sends: head and body.
    pub request: Bytes,
    /// When it leaves.
    pub leaves: Leaves,
}

impl Shot {
    /// `POST` of a JSON value, by a client that stays until it is served.
    pub fn post(at: Duration, to: SocketAddr, target: &str, body: &serde_json::Value) -> Self {
        let body = body.to_string();
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Self { at, to, request: request.into(), leaves: Leaves::WhenServed }
    }

    /// The same by a client that leaves.
    #[must_use]
    pub fn leaving(self, leaves: Leaves) -> Self {
        Self { leaves, ..self }
    }
}

/// Sends each of these when it is due, which must be in order, and gives what became of each, in the same order.
pub async fn fire(shots: Vec<Shot>) -> anyhow::Result<Vec<Heard>> {
    let (done, over) = oneshot::channel();
    let firing = thread::Builder::new().name("load".to_owned());
    firing.spawn(move || {
        // Nobody may wait for it any more.
        let _ = done.send(all(shots));
    })?;
    over.await.context("the load has ended early")?
}

fn all(shots: Vec<Shot>) -> anyhow::Result<Vec<Heard>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let began = Instant::now() + PREPARATION;
    let dues: Vec<Instant> = shots.iter().map(|shot| began + shot.at).collect();
    let (triggers, released): (Vec<_>, Vec<_>) = shots.iter().map(|_| oneshot::channel()).unzip();
    let times = dues.clone();
    thread::Builder::new().name("load-clock".to_owned()).spawn(move || release(&times, triggers))?;
    runtime.block_on(async {
        let shots = shots.into_iter().zip(dues).zip(released);
        let firing: Vec<_> =
            shots.map(|((shot, due), released)| tokio::spawn(exchange::one(shot, due, released))).collect();
        let mut heard = Vec::with_capacity(firing.len());
        for one in firing {
            heard.push(one.await.context("a client of the load has panicked")?);
        }
        Ok(heard)
    })
}

/// The runtime's timers know milliseconds only; the system's sleep is as good as it can be.
fn release(dues: &[Instant], triggers: Vec<oneshot::Sender<()>>) {
    for (due, trigger) in dues.iter().zip(triggers) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // Its client may have failed to connect.
        let _ = trigger.send(());
    }
}
