//! The ports of a pool pod: one list, read by the builder of the pod and by the sidecar in it.

/// Clients: the Ollama, `OpenAI` and Anthropic APIs.
pub const CLIENT: u16 = 11434;
/// Ollama itself, on loopback only: nothing but the sidecar reaches it.
pub const OLLAMA: u16 = 11435;
/// Kubelet probes, Prometheus, and the operator's exchange.
pub const ADMIN: u16 = 11436;
