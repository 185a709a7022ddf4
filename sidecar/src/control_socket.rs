//! The sidecar's own commands: a Unix socket in the state folder, which no other container mounts.
//!
//! A drain must not be begun, nor another's limits be looked at, by whoever can reach the pod's network, so none of this
//! is on the admin port. One line comes in, one line goes out: `drain`, or a [`Question`] as JSON. A question changes
//! nothing. Both lines are bounded, and so are the time that an exchange takes and how many there are at one time.

mod asking;
mod words;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

pub use self::asking::{AskError, ask, drain};
pub use self::words::{Question, Reply, Top};
use crate::core::Core;
use crate::explain;

const DRAIN: &[u8] = b"drain\n";
const DRAINING: &[u8] = b"draining\n";
/// The longest line that comes in, its end counted.
const MAX_QUESTION_BYTES: usize = 64 * 1024;
/// The longest line that goes out.
const MAX_REPLY_BYTES: usize = 1024 * 1024;
/// Exchanges at one time; whoever comes then waits for one of them to end.
const MAX_EXCHANGES: usize = 8;
/// For a whole exchange.
const PATIENCE: Duration = Duration::from_secs(2);

fn socket(state_dir: &Path) -> PathBuf {
    state_dir.join("control.sock")
}

/// Serves until it is dropped. Without the socket the sidecar works on, and drains at SIGTERM.
pub async fn serve(state_dir: &Path, core: Arc<Core>) {
    let listener = match listen(state_dir) {
        Ok(listener) => listener,
        Err(error) => return warn!(%error, "no control socket; a drain begins at SIGTERM only"),
    };
    let mut exchanges = JoinSet::new();
    loop {
        while exchanges.len() >= MAX_EXCHANGES {
            exchanges.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                let core = Arc::clone(&core);
                // Whoever leaves early, or says nothing, is not waited for.
                exchanges.spawn(async move { timeout(PATIENCE, answer(stream, &core)).await.is_ok() });
            }
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
        while exchanges.try_join_next().is_some() {}
    }
}

fn listen(state_dir: &Path) -> io::Result<UnixListener> {
    std::fs::create_dir_all(state_dir)?;
    let path = socket(state_dir);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        // An earlier life's.
        _ => UnixListener::bind(path),
    }
}

async fn answer(mut stream: UnixStream, core: &Core) -> io::Result<()> {
    let mut line = Vec::new();
    let (reading, mut writing) = stream.split();
    BufReader::new(reading.take(MAX_QUESTION_BYTES as u64)).read_until(b'\n', &mut line).await?;
    if line == DRAIN {
        info!("told to drain");
        core.health.begin_drain();
        return writing.write_all(DRAINING).await;
    }
    writing.write_all(&reply(&line, core)).await
}

/// The line that answers a question. What was asked may hold a key, so nothing of it is said again.
fn reply(line: &[u8], core: &Core) -> Vec<u8> {
    let reply = if line.ends_with(b"\n") {
        match serde_json::from_slice(line) {
            Ok(Question::Explain(ask)) => {
                explain::explain(core, &ask).map_or_else(Reply::Error, Reply::Explain)
            }
            Ok(Question::Top { most }) => Reply::Top(Top::of(core, most)),
            Err(_) => {
                Reply::Error("this sidecar does not understand the question: is it another version?".into())
            }
        }
    } else {
        Reply::Error(format!("a question is one line of at most {MAX_QUESTION_BYTES} bytes"))
    };
    written(&reply)
}

fn written(reply: &Reply) -> Vec<u8> {
    let mut line = serde_json::to_vec(reply).unwrap_or_default();
    if line.len() >= MAX_REPLY_BYTES {
        let error = Reply::Error(format!("the answer is longer than {MAX_REPLY_BYTES} bytes"));
        line = serde_json::to_vec(&error).unwrap_or_default();
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
#[path = "control_socket/tests.rs"]
mod tests;
