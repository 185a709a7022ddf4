//! Laws that hold for every pool, and what a pool does in a small world of its own: a ReplicaSet, pods that take time to
//! start, and requests that take time to answer.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::float_cmp,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "numbers of a small world, which fails a test where they are out of bounds"
)]

mod any;
mod bad;
mod chance;
mod failed;
mod grow;
mod plain;
mod shrink;
mod world;
mod zero;
