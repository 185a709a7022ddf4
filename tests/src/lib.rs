//! In-process worlds for tests: what surrounds Corral's rooms, played on loopback and by script, with nothing but Rust.

pub mod activator;
pub mod alone;
pub mod canned;
pub mod client;
pub mod corpus;
pub mod fake_api;
pub mod fields;
pub mod load;
pub mod ollama;
pub mod pod;
pub mod scratch;
pub mod sidecar;
