//! Load, readiness and the permission of the leader together: real automatons on both sides, virtual time, any network.
#![cfg(test)]

mod safety;
mod waves;
mod world;
