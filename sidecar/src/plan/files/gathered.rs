//! The documents of all policy files together, and the plan that they come to.

use std::num::NonZeroU32;
use std::path::Path;

use corral_crds::api_keys::{self, KeyRing};
use corral_crds::manifest::{self, Manifest, Metadata, ReadError, Secret, Spec};
use corral_crds::merge::{Merged, PolicyInput, PoolInputs, merge};
use corral_crds::valid::Problem;
use corral_crds::{OllamaPoolSpec, RateLimitPolicySpec};
use corral_wire::KeyDigester;

use super::{FileError, Standalone, own_pool};

/// How many problems of merging are told: each is looked up in its file, and whoever reads the first ones reads no more.
const MOST_PROBLEMS: usize = 20;

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

/// What stands in the files.
#[derive(Default)]
pub(super) struct Gathered<'a> {
    pool: Option<Found<'a, Box<OllamaPoolSpec>>>,
    policies: Vec<Found<'a, Box<RateLimitPolicySpec>>>,
    secrets: Vec<Found<'a, Secret>>,
}

impl<'a> Gathered<'a> {
    /// Adds a file.
    pub(super) fn read(&mut self, path: &'a Path, text: &'a str) -> Result<(), FileError> {
        let documents =
            manifest::read(text).map_err(|errors| FileError::Documents { path: path.to_owned(), errors })?;
        for Manifest { document, metadata, spec } in documents {
            match spec {
                Spec::Pool(_) if self.pool.is_some() => {
                    return Err(FileError::SecondPool { path: path.to_owned(), document });
                }
                Spec::Pool(spec) => self.pool = Some(Found { metadata, spec, path, text, document }),
                Spec::Policy(spec) => {
                    add(&mut self.policies, "policy", Found { metadata, spec, path, text, document })?;
                }
                Spec::Secret(spec) => {
                    add(&mut self.secrets, "Secret", Found { metadata, spec, path, text, document })?;
                }
            }
        }
        Ok(())
    }

    /// Refuses what is for nobody: policies of other pools, and Secrets that the pool does not name.
    pub(super) fn check(&self) -> Result<(), FileError> {
        if let Some(secret) = self.secrets.iter().find(|secret| !self.names(secret)) {
            return Err(FileError::Unnamed {
                path: secret.path.to_owned(),
                document: secret.document,
                secret: identity(&secret.metadata),
            });
        }
        let Some(Found { metadata: pool, .. }) = &self.pool else { return Ok(()) };
        let targets = |policy: &&Found<'_, Box<RateLimitPolicySpec>>| {
            policy.metadata.namespace == pool.namespace && policy.spec.targets(&pool.name, &pool.labels)
        };
        match self.policies.iter().find(|policy| !targets(policy)) {
            Some(policy) => {
                Err(FileError::OtherTarget { policy: identity(&policy.metadata), pool: identity(pool) })
            }
            None => Ok(()),
        }
    }

    fn names(&self, secret: &Found<'_, Secret>) -> bool {
        let Some(pool) = &self.pool else { return false };
        let mut named = pool.spec.identity.api_keys.iter();
        secret.metadata.namespace == pool.metadata.namespace
            && named.any(|named| named.secret_name == secret.metadata.name)
    }

    /// The plan of it all.
    pub(super) fn merge(&self, sequence: u64, digester: &KeyDigester) -> Result<Standalone, FileError> {
        let (default, pool_ref) = (OllamaPoolSpec::default(), own_pool());
        let spec = self.pool.as_ref().map_or(&default, |pool| &pool.spec);
        let keys = self.keys(spec, digester);
        let inputs = PoolInputs { namespace: &pool_ref.namespace, name: &pool_ref.name, spec, keys: &keys };
        let policies = self.policies.iter().map(|Found { metadata, spec, .. }| PolicyInput {
            namespace: &metadata.namespace,
            name: &metadata.name,
            created: 0,
            spec,
        });
        let merged = merge(&inputs, &policies.collect::<Vec<_>>(), sequence);
        if !merged.is_clean() {
            return Err(FileError::Merge(self.problems(&merged)));
        }
        let slots = self.pool.as_ref().map(|pool| pool.spec.ollama.num_parallel);
        Ok(Standalone { doc: merged.doc, slots_per_model: slots.and_then(NonZeroU32::new) })
    }

    fn keys(&self, spec: &OllamaPoolSpec, digester: &KeyDigester) -> KeyRing {
        let content = |name: &str| {
            let found = self.secrets.iter().find(|secret| secret.metadata.name == name);
            found.map(|secret| &secret.spec.0)
        };
        api_keys::read(&spec.identity.api_keys, content, digester)
    }

    fn problems(&self, merged: &Merged) -> String {
        let of_plan = merged.problems.iter().chain(&merged.unresolved).map(|problem| match &self.pool {
            Some(pool) if problem.path.starts_with("spec.") => pool.told(problem),
            _ => problem.to_string(),
        });
        let outcomes = self.policies.iter().zip(&merged.policies);
        let of_policies = outcomes
            .flat_map(|(policy, outcome)| outcome.problems.iter().map(|problem| policy.told(problem)));
        of_plan.chain(of_policies).take(MOST_PROBLEMS).collect::<Vec<_>>().join("; ")
    }
}

fn add<'a, S>(all: &mut Vec<Found<'a, S>>, kind: &'static str, found: Found<'a, S>) -> Result<(), FileError> {
    if all.iter().any(|known| known.metadata.names_the_same(&found.metadata)) {
        let (path, document) = (found.path.to_owned(), found.document);
        return Err(FileError::Repeated { path, document, kind, name: identity(&found.metadata) });
    }
    all.push(found);
    Ok(())
}

fn identity(metadata: &Metadata) -> String {
    format!("{}/{}", metadata.namespace, metadata.name)
}
