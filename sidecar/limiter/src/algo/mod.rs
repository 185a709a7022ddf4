//! The algorithms, one a file: pure arithmetic on one bucket, without keys, plans or limits.

pub mod concurrency;
pub mod gcra;
