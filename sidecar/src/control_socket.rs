//! The sidecar's own commands: a Unix socket in the state folder, which no other container mounts.
//!
//! A drain must not be begun by whoever can reach the pod's network, so it is not on the admin port. One line comes in,
//! one line goes out; `drain` is the only one there is.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::health::Health;

const DRAIN: &[u8] = b"drain\n";
const DRAINING: &[u8] = b"draining\n";
const PATIENCE: Duration = Duration::from_secs(5);

fn socket(state_dir: &Path) -> PathBuf {
    state_dir.join("control.sock")
}

/// Serves until it is dropped. Without the socket the sidecar works on, and drains at SIGTERM.
pub async fn serve(state_dir: &Path, health: Arc<Health>) {
    match listen(state_dir) {
        Ok(listener) => loop {
            match listener.accept().await {
                // One at a time: each is over in a moment, and only this pod's own commands come here.
                Ok((stream, _)) => answer(stream, &health).await,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        },
        Err(error) => warn!(%error, "no control socket; a drain begins at SIGTERM only"),
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

async fn answer(mut stream: UnixStream, health: &Health) {
    let mut line = [0; DRAIN.len()];
    let talk = async {
        stream.read_exact(&mut line).await?;
        if line == DRAIN {
            info!("told to drain");
            health.begin_drain();
            stream.write_all(DRAINING).await?;
        }
        Ok::<(), io::Error>(())
    };
    // Whoever leaves early is not waited for.
    let _ = timeout(PATIENCE, talk).await;
}

/// Tells the sidecar of this pod to drain; returns when it has begun.
pub fn drain(state_dir: &Path) -> io::Result<()> {
    let mut stream = StdUnixStream::connect(socket(state_dir))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(DRAIN)?;
    let mut answer = [0; DRAINING.len()];
    stream.read_exact(&mut answer)?;
    if answer == DRAINING { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Drain;

    #[tokio::test]
    async fn the_drain_command_begins_a_drain_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        for _life in 0..2 {
            let (health, path) = (Arc::new(Health::new()), dir.path().to_owned());
            let serving = tokio::spawn({
                let (health, path) = (Arc::clone(&health), path.clone());
                async move { serve(&path, health).await }
            });
            let told = tokio::task::spawn_blocking(move || {
                while drain(&path).is_err() {
                    std::thread::yield_now();
                }
            });
            timeout(PATIENCE, told).await.unwrap().unwrap();
            assert_eq!(health.drain(), Drain::Closing);
            serving.abort();
        }
    }

    #[test]
    fn without_a_sidecar_the_command_fails() {
        let dir = tempfile::tempdir().unwrap();
        assert!(drain(dir.path()).is_err());
    }
}
