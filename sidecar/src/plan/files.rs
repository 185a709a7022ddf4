//! The policy files of a standalone sidecar: the same documents that a cluster takes, merged and compiled the same way.
//!
//! Of an `OllamaPool` only `identity`, `tokens`, `capacity`, `ollama.numParallel` and `ollama.contextLength` count; there may be
//! one or none. Without one, every policy applies, whichever pool it targets. With one, a policy that targets another
//! pool is an error: a limit that silently applies to nobody is the mistake that files like these are prone to. The
//! Secrets that the pool names for its API keys stand in the files too, and each must be named.
//!
//! All of these are followed: with a changed `ollama.numParallel` goes the number of slots, unless a flag gives it. Ollama
//! itself must have at least as many, or it keeps a queue of its own.
//!
//! A changed file is taken when two looks in a row find the same content, so that half a file is not taken while an
//! editor is still writing it. Files that are bad in any way leave the last good plan in force.

mod gathered;

use std::io;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use corral_crds::manifest::{DEFAULT_NAMESPACE, MAX_FILE_BYTES, ReadErrors};
use corral_wire::{KeyDigester, PlanDoc, PoolRef};
use tracing::error;

use self::gathered::Gathered;
use super::mount::read_bounded;
use super::read::PlanError;
use super::store::{Offered, PlanStore};
use crate::config::SlotSettings;
use crate::metrics::PlanSource;

/// How often the files are looked at; a change is taken at the second look after it.
const LOOK_INTERVAL: Duration = Duration::from_millis(400);

const FIRST_SEQUENCE: u64 = 1;

/// What is wrong with policy files.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// One of them cannot be read.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// One of them is not UTF-8.
    #[error("{path} is not UTF-8 text")]
    Text {
        /// Which.
        path: PathBuf,
    },
    /// Documents in one of them are wrong.
    #[error("{path}: {errors}")]
    Documents {
        /// Which.
        path: PathBuf,
        /// Everything that is wrong with them.
        errors: ReadErrors,
    },
    /// There is more than one pool.
    #[error("{path}, document {document}: there may be only one OllamaPool")]
    SecondPool {
        /// In which file the second one is.
        path: PathBuf,
        /// In which document of it.
        document: usize,
    },
    /// The same policy or Secret stands in two files.
    #[error("{path}, document {document}: {kind} {name} stands in another file too")]
    Repeated {
        /// In which file the second one is.
        path: PathBuf,
        /// In which document of it.
        document: usize,
        /// What it is.
        kind: &'static str,
        /// Its namespace and name.
        name: String,
    },
    /// A Secret that the pool does not name: its keys would let nobody in.
    #[error(
        "{path}, document {document}: no OllamaPool in these files names Secret {secret} in spec.identity.apiKeys"
    )]
    Unnamed {
        /// In which file it is.
        path: PathBuf,
        /// In which document of it.
        document: usize,
        /// Its namespace and name.
        secret: String,
    },
    /// A policy targets another pool than the one in the files.
    #[error("policy {policy} does not target the pool {pool} in these files, so it would limit nobody")]
    OtherTarget {
        /// Its namespace and name.
        policy: String,
        /// The namespace and name of the pool.
        pool: String,
    },
    /// The policies cannot be enforced, alone or together: why, each by its file, document, line and field.
    #[error("{0}")]
    Merge(String),
}

/// What policy files say.
#[derive(Debug)]
pub struct Standalone {
    /// The plan.
    pub doc: PlanDoc,
    /// Slots per model, if there is a pool that says so.
    pub slots_per_model: Option<NonZeroU32>,
}

/// Policy files, and what they looked like.
#[derive(Debug)]
pub struct PolicyFiles {
    paths: Vec<PathBuf>,
    slots: SlotSettings,
    digester: KeyDigester,
    /// What was offered last, good or bad.
    offered: Vec<Vec<u8>>,
    /// What the last look found, if it was not that.
    changing: Option<Vec<Vec<u8>>>,
    sequence: u64,
}

impl PolicyFiles {
    /// Reads the files for the first time. Here an error is final: there is no last good plan yet.
    /// API keys are recognised by `digester` from then on.
    pub fn open(
        paths: Vec<PathBuf>,
        slots: SlotSettings,
        digester: KeyDigester,
    ) -> Result<(Self, Standalone), FileError> {
        let contents = contents(&paths)?;
        let standalone = parse(&paths, &contents, FIRST_SEQUENCE, &digester)?;
        let files =
            Self { paths, slots, digester, offered: contents, changing: None, sequence: FIRST_SEQUENCE };
        Ok((files, standalone))
    }

    /// Offers what the files say now, if it has changed and has stopped changing.
    pub fn look(&mut self, store: &PlanStore) {
        let found = match contents(&self.paths) {
            Ok(found) => found,
            Err(error) => return complain(store, &error),
        };
        if found == self.offered {
            self.changing = None;
        } else if self.changing.as_ref() == Some(&found) {
            self.changing = None;
            self.offer(&found, store);
            self.offered = found;
        } else {
            self.changing = Some(found);
        }
    }

    fn offer(&mut self, contents: &[Vec<u8>], store: &PlanStore) {
        match parse(&self.paths, contents, self.sequence + 1, &self.digester) {
            Ok(standalone) => {
                let slots = self.slots.bounds(standalone.slots_per_model);
                if store.offer_with_slots(standalone.doc, slots) == Offered::Taken {
                    self.sequence += 1;
                }
            }
            Err(error) => complain(store, &error),
        }
    }
}

fn complain(store: &PlanStore, error: &FileError) {
    store.note_error(&PlanError::Unreadable(error.to_string()), PlanSource::File);
}

/// Follows the files until it is dropped.
pub async fn watch(mut files: PolicyFiles, store: Arc<PlanStore>) {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let store = Arc::clone(&store);
        let looked = tokio::task::spawn_blocking(move || {
            files.look(&store);
            files
        });
        match looked.await {
            Ok(again) => files = again,
            Err(cause) => {
                error!(%cause, "the policy files are no longer watched");
                return;
            }
        }
    }
}

fn contents(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, FileError> {
    let read = |path: &PathBuf| {
        read_bounded(path, MAX_FILE_BYTES).map_err(|error| FileError::Io { path: path.clone(), error })
    };
    paths.iter().map(read).collect()
}

/// Reads policies that stand in no file. API keys are recognised by `digester`.
pub fn from_text(text: &str, digester: &KeyDigester) -> Result<Standalone, FileError> {
    parse(&[PathBuf::from("the policies")], &[text.as_bytes().to_vec()], FIRST_SEQUENCE, digester)
}

fn parse(
    paths: &[PathBuf],
    contents: &[Vec<u8>],
    sequence: u64,
    digester: &KeyDigester,
) -> Result<Standalone, FileError> {
    let mut gathered = Gathered::default();
    for (path, content) in paths.iter().zip(contents) {
        let text = std::str::from_utf8(content).map_err(|_| FileError::Text { path: path.clone() })?;
        gathered.read(path, text)?;
    }
    gathered.check()?;
    gathered.merge(sequence, digester)
}

/// The pool that a standalone sidecar is. Not the one in the file, whose name may change while it runs.
pub fn own_pool() -> PoolRef {
    PoolRef { namespace: DEFAULT_NAMESPACE.to_owned(), name: "standalone".to_owned() }
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
