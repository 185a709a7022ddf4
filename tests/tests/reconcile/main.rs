//! The laws of the reconcilers, on a fake API server and scripted pods, on virtual time.
#![cfg(test)]

mod activation;
mod api_keys;
mod bad_input;
mod campaign;
mod disruption;
mod exchange;
mod keda;
mod laws;
mod pods;
mod precedence;
mod priorities;
mod relief;
mod revisions;
mod room;
mod scaling;
mod scaling_cluster;
mod scaling_edits;
mod shape;
mod snapshots;
mod statuses;
mod whole;
mod world;
