//! A file of manifests as a plan: what a sidecar on a laptop enforces.
//!
//! A policy's targets play no part here, since there is one pool. Of an `OllamaPool`, `identity`, `capacity` and
//! `ollama.numParallel` are read; without one, their defaults hold.

use corral_limiter::Plan;
use corral_wire::PlanDoc;

use crate::{
    manifest::{self, DEFAULT_NAMESPACE, Manifest, ReadError, ReadErrors, Spec},
    merge::{Merged, PolicyInput, PoolInputs, merge},
    policy::RateLimitPolicySpec,
    pool::OllamaPoolSpec,
};

/// The name of the pool where the file has none.
pub const DEFAULT_POOL: &str = "standalone";

/// What a file asks for.
#[derive(Debug)]
pub struct Standalone {
    /// The plan document.
    pub doc: PlanDoc,
    /// The same, compiled.
    pub plan: Plan,
    /// Slots: how many requests Ollama works on at one time for each model.
    pub num_parallel: u32,
}

/// Reads a file into a plan, or says everything that is wrong with it: then the last good plan stays.
pub fn read(text: &str, sequence: u64) -> Result<Standalone, ReadErrors> {
    let manifests = manifest::read(text)?;
    let pool = only_pool(&manifests)?;
    let spec = pool.map(|(_, spec)| spec.clone()).unwrap_or_default();
    let policies: Vec<_> = manifests.iter().filter_map(policy).collect();
    let asked: Vec<_> = policies.iter().map(|(_, input)| *input).collect();
    let merged = merge(&inputs(pool, &spec), &asked, sequence);
    let errors = errors(text, pool, &policies, &merged);
    match merged.plan {
        Some(plan) if errors.is_empty() => {
            Ok(Standalone { doc: merged.doc, plan, num_parallel: spec.ollama.num_parallel })
        }
        _ => Err(ReadErrors(errors)),
    }
}

type Pool<'a> = Option<(&'a Manifest, &'a OllamaPoolSpec)>;

fn inputs<'a>(pool: Pool<'a>, spec: &'a OllamaPoolSpec) -> PoolInputs<'a> {
    let metadata = pool.map(|(manifest, _)| &manifest.metadata);
    PoolInputs {
        namespace: metadata.map_or(DEFAULT_NAMESPACE, |metadata| &metadata.namespace),
        name: metadata.map_or(DEFAULT_POOL, |metadata| &metadata.name),
        identity: &spec.identity,
        capacity: &spec.capacity,
    }
}

/// What merging found, by document and line.
fn errors(
    text: &str,
    pool: Pool<'_>,
    policies: &[(usize, PolicyInput<'_>)],
    merged: &Merged,
) -> Vec<ReadError> {
    let of_pool =
        merged.problems.iter().map(|problem| (pool.map_or(0, |(manifest, _)| manifest.document), problem));
    let of_policies = policies
        .iter()
        .zip(&merged.policies)
        .flat_map(|((document, _), outcome)| outcome.problems.iter().map(|problem| (*document, problem)));
    let all = of_pool.chain(of_policies);
    all.map(|(document, problem)| ReadError::of_problem(text, document, problem)).collect()
}

fn policy(manifest: &Manifest) -> Option<(usize, PolicyInput<'_>)> {
    let spec: &RateLimitPolicySpec = match &manifest.spec {
        Spec::Policy(spec) => spec,
        Spec::Pool(_) => return None,
    };
    let input = PolicyInput { namespace: &manifest.metadata.namespace, name: &manifest.metadata.name, spec };
    Some((manifest.document, input))
}

/// The pool of the file, if it has one; two are a mistake.
fn only_pool(manifests: &[Manifest]) -> Result<Pool<'_>, ReadErrors> {
    let mut pools = manifests.iter().filter_map(|manifest| match &manifest.spec {
        Spec::Pool(spec) => Some((manifest, spec.as_ref())),
        Spec::Policy(_) => None,
    });
    let first = pools.next();
    match (first, pools.next()) {
        (Some((first, _)), Some((second, _))) => Err(ReadErrors(vec![ReadError {
            document: second.document,
            line: None,
            path: "kind".to_owned(),
            message: format!(
                "document {} is an OllamaPool already: a sidecar stands in front of one",
                first.document
            ),
        }])),
        (first, _) => Ok(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
apiVersion: corral.dev/v1alpha1
kind: OllamaPool
metadata: { name: chat }
spec:
  ollama: { numParallel: 3 }
  capacity: { queue: { maxDepth: 7, maxWaitSeconds: 9 } }
  identity: { trustedProxies: [10.0.0.0/8] }
---
apiVersion: corral.dev/v1alpha1
kind: RateLimitPolicy
metadata: { name: fair-use }
spec:
  targetRefs: [{ kind: OllamaPool, name: elsewhere }]
  limits:
  - name: per-client
    match: { models: [Llama3] }
    per: [Client]
    requests: 60/m
";

    #[test]
    fn a_file_becomes_a_plan_whatever_pool_its_policies_name() {
        let read = read(FILE, 4).unwrap();
        assert_eq!((read.doc.sequence, read.doc.pool.name.as_str(), read.num_parallel), (4, "chat", 3));
        assert_eq!((read.doc.queue.max_depth, read.doc.queue.max_wait_ms), (7, 9000));
        assert_eq!(read.doc.identity.trusted_proxies, ["10.0.0.0/8"]);
        assert_eq!(read.doc.limits[0].policy, "standalone/fair-use");
        assert_eq!(read.doc.limits[0].models, ["llama3:latest"]);
    }

    #[test]
    fn without_a_pool_its_defaults_hold() {
        let policy = FILE.split("---").nth(1).unwrap();
        let read = read(policy, 1).unwrap();
        assert_eq!(
            (read.doc.queue.max_depth, read.doc.queue.max_wait_ms, read.num_parallel),
            (64, 60_000, 1)
        );
        assert_eq!(read.doc.pool.name, DEFAULT_POOL);
    }

    #[test]
    fn what_only_merging_finds_has_its_document_and_line_too() {
        let errors = read(&FILE.replace("[Llama3]", "[\"tiny:\"]"), 1).unwrap_err();
        assert!(
            errors.to_string().starts_with("document 2, line 16: spec.limits[0].match.models[0]: "),
            "{errors}"
        );
    }

    #[test]
    fn two_pools_are_refused() {
        let pool = FILE.split("---").next().unwrap();
        let errors = read(&format!("{FILE}---\n{}", pool.replace("chat", "other")), 1).unwrap_err();
        assert!(errors.to_string().starts_with("document 3: kind: document 1 is an OllamaPool"), "{errors}");
    }
}
