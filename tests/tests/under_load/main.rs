//! The sidecar as a process of its own, in front of a scripted Ollama that is ten times as fast as a real one, under a
//! load that waits for nobody.
//!
//! What must hold is asserted: one outcome each, nothing left behind, memory within its bound. How long things take is a
//! matter of the machine and of how this was compiled: it is printed, goal and ours, and where there is one, what the same
//! requests take without us, in the same run.
//!
//! ```sh
//! cargo test --package corral-tests --test under_load -- --nocapture
//! # in full size, as the sidecar is shipped
//! cargo test --profile=bench --package corral-tests --test under_load -- --nocapture --ignored
//! ```
#![cfg(test)]

mod calm;
mod shed;
mod storm;
mod table;

use std::time::Duration;

use corral_tests::alone::Alone;
use corral_tests::load::Heard;
use corral_tests::ollama::{Pace, ScriptedOllama, Settings};
use corral_tests::sidecar::PolicyFile;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep};

/// What is measured has the machine for itself.
static MACHINE: Mutex<()> = Mutex::const_new(());

/// Ten times as fast as 50 tokens a second.
const TOKEN: Duration = Duration::from_millis(2);

struct World {
    ollama: ScriptedOllama,
    sidecar: Alone,
    _machine: MutexGuard<'static, ()>,
}

impl World {
    async fn start(pace: Pace, slots: usize, policy: PolicyFile) -> Self {
        let machine = MACHINE.lock().await;
        let settings = Settings { num_parallel: slots, max_queue: 512, pace, ..Settings::default() };
        let ollama = ScriptedOllama::start(settings).await.unwrap();
        let policy = policy.slots(u32::try_from(slots).unwrap());
        let binary = env!("CARGO_BIN_EXE_lone_sidecar");
        let sidecar = Alone::start(binary, ollama.address(), &policy).await.unwrap();
        Self { ollama, sidecar, _machine: machine }
    }

    /// Waits until something holds.
    async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !holds().await {
            assert!(Instant::now() < deadline, "never: {what}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Nothing runs, waits or is connected, here and at Ollama.
    async fn comes_to_rest(&self) {
        for gauge in ["corral_in_flight ", "corral_queue_depth ", "corral_connections "] {
            self.until(gauge, async || self.sidecar.sum(gauge).await.unwrap() == 0).await;
        }
        self.until("Ollama runs nothing", async || {
            let load = self.ollama.record().load();
            (load.running, load.waiting) == (0, 0)
        })
        .await;
    }
}

/// Everybody is answered in full with this status.
fn all_are(heard: &[Heard], status: u16) {
    let other = heard.iter().find(|one| !one.is(status));
    assert!(
        other.is_none(),
        "{:?} {}",
        other.map(|one| one.end),
        other.map_or_else(String::new, |one| String::from_utf8_lossy(&one.raw).into_owned())
    );
}

fn tokens(model: &str, prompt: &str, count: u32) -> Value {
    json!({ "model": model, "prompt": prompt, "stream": true, "options": { "num_predict": count } })
}
