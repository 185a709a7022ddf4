//! What the operator and the sidecar say about themselves, in the forms that people's tools read.
//!
//! ```text
//! log          one JSON object a line, or text for a person; to standard error
//! exposition   metrics as OpenMetrics, or as the older Prometheus text
//! ```
//!
//! Which metrics there are is said where they are counted.

pub mod exposition;
pub mod log;
