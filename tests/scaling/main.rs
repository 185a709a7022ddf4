//! A pool that grows and shrinks, in virtual time: the real autoscaler, and beside it what others do with the same load.
//!
//! Each scenario has a goal that gates, and prints a line of a table: the goal, ours, and every baseline. To see it:
//! `cargo test --profile bench --package corral-scaling -- --nocapture`. `cargo verify` sorts it.
//!
//! ```text
//! load (when requests come) ─▶ service (load balancers that hear late) ─▶ pod (slots, line) ─▶ outcome ─▶ table
//!                                                                          │ counters, gauges
//!                 cluster (Deployment, ReplicaSet with its `order`, kubelets) ◀── orders ── autoscaler:
//!                                                                            ours (`corral_scaler`) | baselines
//! ```
//!
//! All seeds are fixed. Without optimization there are fewer. Slots do not slow each other down.
#![cfg(test)]

mod agenda;
mod autoscaler;
mod baselines;
mod cluster;
mod holder;
mod load;
mod order;
mod ours;
mod outcome;
mod pod;
#[path = "../fairness/random.rs"]
mod random;
mod scenarios;
mod service;
mod table;
mod world;
