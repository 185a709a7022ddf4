//! A real cluster on one machine, and the user stories that run on it.
//!
//! Nothing here is simulated: two kubelets with containerd, a control plane, CoreDNS, and Ollama with its own engine.
//! All of it is built from package registries, kept in a cache, and runs in namespaces that the harness makes.
//!
//! ```text
//! machine     this computer: settings, commands with deadlines, locks, the cache, Debian packages
//! artifacts   what a cluster is made of: Kubernetes, CoreDNS, Ollama, kubectl and helm, tiny models, images
//! cluster     one instance: its addresses, certificates, processes, nodes; up, down, status
//! demo        what Corral does, shown to a person
//! stories     what a user must be able to do, each run on a cluster
//! verify      every check and test there is, as one list of steps
//! ```
//!
//! All of it is Linux's own; other systems get [`elsewhere`] alone, and are told so in one line.

#[cfg(target_os = "linux")]
pub mod artifacts;
#[cfg(target_os = "linux")]
pub mod cli;
#[cfg(target_os = "linux")]
pub mod cluster;
#[cfg(target_os = "linux")]
pub mod demo;
pub mod elsewhere;
#[cfg(target_os = "linux")]
pub mod machine;
#[cfg(target_os = "linux")]
pub mod stories;
#[cfg(target_os = "linux")]
pub mod verify;
