//! What a machine is told on which no cluster of ours can run. The only part of this crate that every system compiles.

/// What to do instead, in one line.
pub const OTHER_WAYS: &str = "Elsewhere: install charts/corral with Helm on a cluster you have, or run `corral-sidecar --policy policy.yaml` in front of an Ollama on this machine.";
