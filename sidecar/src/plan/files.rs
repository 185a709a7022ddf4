//! The policy files of a standalone sidecar: the same documents that a cluster takes, merged and compiled the same way.
//!
//! Of an `OllamaPool` only `identity`, `capacity` and `ollama.numParallel` count; there may be one or none. Without one,
//! every policy applies, whichever pool it targets. With one, a policy that targets another pool is an error: a limit
//! that silently applies to nobody is the mistake that files like these are prone to.
//!
//! All three are followed: with a changed `ollama.numParallel` goes the number of slots, unless a flag gives it. Ollama
//! itself must have at least as many, or it keeps a queue of its own.
//!
//! A changed file is taken when two looks in a row find the same content, so that half a file is not taken while an
//! editor is still writing it. Files that are bad in any way leave the last good plan in force.

use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use corral_crds::manifest::{self, DEFAULT_NAMESPACE, MAX_FILE_BYTES, Metadata, ReadError, ReadErrors, Spec};
use corral_crds::merge::{Merged, PolicyInput, PoolInputs, merge};
use corral_crds::valid::Problem;
use corral_crds::{OllamaPoolSpec, RateLimitPolicySpec};
use corral_wire::{PlanDoc, PoolRef};
use tracing::error;

use super::mount::read_bounded;
use super::read::PlanError;
use super::store::{Offered, PlanStore};
use crate::config::SlotSettings;
use crate::metrics::PlanSource;

/// How often the files are looked at; a change is taken at the second look after it.
const LOOK_INTERVAL: Duration = Duration::from_millis(400);

const FIRST_SEQUENCE: u64 = 1;
/// How many problems of merging are told: each is looked up in its file, and whoever reads the first ones reads no more.
const MOST_PROBLEMS: usize = 20;

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
    /// The same policy stands in two files.
    #[error("{path}, document {document}: policy {policy} stands in another file too")]
    Repeated {
        /// In which file the second one is.
        path: PathBuf,
        /// In which document of it.
        document: usize,
        /// Its namespace and name.
        policy: String,
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
    /// What was offered last, good or bad.
    offered: Vec<Vec<u8>>,
    /// What the last look found, if it was not that.
    changing: Option<Vec<Vec<u8>>>,
    sequence: u64,
}

impl PolicyFiles {
    /// Reads the files for the first time. Here an error is final: there is no last good plan yet.
    pub fn open(paths: Vec<PathBuf>, slots: SlotSettings) -> Result<(Self, Standalone), FileError> {
        let contents = contents(&paths)?;
        let standalone = parse(&paths, &contents, FIRST_SEQUENCE)?;
        let files = Self { paths, slots, offered: contents, changing: None, sequence: FIRST_SEQUENCE };
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
        match parse(&self.paths, contents, self.sequence + 1) {
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

/// Reads policies that stand in no file.
pub fn from_text(text: &str) -> Result<Standalone, FileError> {
    parse(&[PathBuf::from("the policies")], &[text.as_bytes().to_vec()], FIRST_SEQUENCE)
}

/// A document, and where it stands.
struct Found<'a, S> {
    metadata: Metadata,
    spec: S,
    path: &'a Path,
    text: &'a str,
    document: usize,
}

impl<S> Found<'_, S> {
    /// What merging found wrong with it, as a person finds it in the file.
    fn told(&self, problem: &Problem) -> String {
        let error = ReadError::of_problem(self.text, self.document, problem);
        format!("{}: {error}", self.path.display())
    }
}

#[derive(Default)]
struct Gathered<'a> {
    pool: Option<Found<'a, Box<OllamaPoolSpec>>>,
    policies: Vec<Found<'a, RateLimitPolicySpec>>,
}

fn parse(paths: &[PathBuf], contents: &[Vec<u8>], sequence: u64) -> Result<Standalone, FileError> {
    let mut gathered = Gathered::default();
    for (path, content) in paths.iter().zip(contents) {
        let text = std::str::from_utf8(content).map_err(|_| FileError::Text { path: path.clone() })?;
        gathered.read(path, text)?;
    }
    gathered.check_targets()?;
    gathered.merge(sequence)
}

impl<'a> Gathered<'a> {
    fn read(&mut self, path: &'a Path, text: &'a str) -> Result<(), FileError> {
        let owned = || path.to_owned();
        let documents =
            manifest::read(text).map_err(|errors| FileError::Documents { path: owned(), errors })?;
        for manifest::Manifest { document, metadata, spec } in documents {
            match spec {
                Spec::Pool(_) if self.pool.is_some() => {
                    return Err(FileError::SecondPool { path: owned(), document });
                }
                Spec::Pool(spec) => self.pool = Some(Found { metadata, spec, path, text, document }),
                Spec::Policy(_) if self.policies.iter().any(|known| known.metadata == metadata) => {
                    let policy = identity(&metadata);
                    return Err(FileError::Repeated { path: owned(), document, policy });
                }
                Spec::Policy(spec) => self.policies.push(Found { metadata, spec, path, text, document }),
            }
        }
        Ok(())
    }

    fn check_targets(&self) -> Result<(), FileError> {
        let Some(Found { metadata: pool, .. }) = &self.pool else { return Ok(()) };
        let targets = |policy: &&Found<'_, RateLimitPolicySpec>| {
            policy.metadata.namespace == pool.namespace && policy.spec.targets(&pool.name)
        };
        match self.policies.iter().find(|policy| !targets(policy)) {
            Some(policy) => {
                Err(FileError::OtherTarget { policy: identity(&policy.metadata), pool: identity(pool) })
            }
            None => Ok(()),
        }
    }

    fn merge(&self, sequence: u64) -> Result<Standalone, FileError> {
        let (default, pool_ref) = (OllamaPoolSpec::default(), own_pool());
        let spec = self.pool.as_ref().map_or(&default, |pool| &pool.spec);
        let inputs = PoolInputs {
            namespace: &pool_ref.namespace,
            name: &pool_ref.name,
            identity: &spec.identity,
            capacity: &spec.capacity,
        };
        let policies = self.policies.iter().map(|Found { metadata, spec, .. }| PolicyInput {
            namespace: &metadata.namespace,
            name: &metadata.name,
            spec,
        });
        let merged = merge(&inputs, &policies.collect::<Vec<_>>(), sequence);
        if !merged.is_clean() {
            return Err(FileError::Merge(self.problems(&merged)));
        }
        let slots = self.pool.as_ref().map(|pool| pool.spec.ollama.num_parallel);
        Ok(Standalone { doc: merged.doc, slots_per_model: slots.and_then(NonZeroU32::new) })
    }

    fn problems(&self, merged: &Merged) -> String {
        let of_plan = merged.problems.iter().map(|problem| match &self.pool {
            Some(pool) if problem.path.starts_with("spec.") => pool.told(problem),
            _ => problem.to_string(),
        });
        let outcomes = self.policies.iter().zip(&merged.policies);
        let of_policies = outcomes
            .flat_map(|(policy, outcome)| outcome.problems.iter().map(|problem| policy.told(problem)));
        of_plan.chain(of_policies).take(MOST_PROBLEMS).collect::<Vec<_>>().join("; ")
    }
}

/// The pool that a standalone sidecar is. Not the one in the file, whose name may change while it runs.
pub fn own_pool() -> PoolRef {
    PoolRef { namespace: DEFAULT_NAMESPACE.to_owned(), name: "standalone".to_owned() }
}

fn identity(metadata: &Metadata) -> String {
    format!("{}/{}", metadata.namespace, metadata.name)
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
