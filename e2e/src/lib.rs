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

pub mod artifacts;
pub mod cli;
pub mod cluster;
pub mod demo;
pub mod machine;
pub mod stories;
pub mod verify;
