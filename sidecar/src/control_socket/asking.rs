//! The other end of the socket: a command that runs beside the sidecar, in its container.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{DRAIN, DRAINING, MAX_QUESTION_BYTES, MAX_REPLY_BYTES, Question, Reply, socket};

/// Longer than the sidecar's own, so that it is the one to say what went wrong.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody is there.
    #[error(
        "no sidecar answers at {socket}: {error}; this command belongs into the container of a running one (or name its --state-dir)"
    )]
    Nobody {
        /// Where one was looked for.
        socket: PathBuf,
        /// Why it was not found.
        error: io::Error,
    },
    /// It broke off.
    #[error("the sidecar broke off: {0}")]
    Broken(#[from] io::Error),
    /// What is asked is too long.
    #[error(
        "the question has {0} bytes; at most {MAX_QUESTION_BYTES} can be asked: shorten the body, or say model=NAME in its place"
    )]
    TooLong(usize),
    /// What it says cannot be read.
    #[error("the sidecar's answer is not understood: is it another version?")]
    Unclear,
    /// It says why not.
    #[error("{0}")]
    Refused(String),
}

/// Asks the sidecar whose state folder this is.
pub fn ask(state_dir: &Path, question: &Question) -> Result<Reply, AskError> {
    let mut line = serde_json::to_vec(question).map_err(|_| AskError::Unclear)?;
    line.push(b'\n');
    if line.len() > MAX_QUESTION_BYTES {
        return Err(AskError::TooLong(line.len()));
    }
    let mut stream = connect(state_dir)?;
    stream.write_all(&line)?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(MAX_REPLY_BYTES as u64 + 1)).read_until(b'\n', &mut answer)?;
    match serde_json::from_slice(&answer) {
        Ok(Reply::Error(why)) => Err(AskError::Refused(why)),
        Ok(reply) => Ok(reply),
        Err(_) => Err(AskError::Unclear),
    }
}

/// Tells the sidecar of this pod to drain; returns when it has begun.
pub fn drain(state_dir: &Path) -> Result<(), AskError> {
    let mut stream = connect(state_dir)?;
    stream.write_all(DRAIN)?;
    let mut answer = [0; DRAINING.len()];
    stream.read_exact(&mut answer)?;
    if answer == DRAINING { Ok(()) } else { Err(AskError::Unclear) }
}

fn connect(state_dir: &Path) -> Result<UnixStream, AskError> {
    let socket = socket(state_dir);
    let stream = UnixStream::connect(&socket).map_err(|error| AskError::Nobody { socket, error })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}
