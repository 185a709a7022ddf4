//! The laws that limits and queue keep, as properties over random traces, each against an oracle that only scans lists.
#![cfg(test)]

mod actions;
mod bounds;
mod capacity;
mod clients;
mod clock;
mod composition;
mod concurrent;
mod linear;
mod oracle;
mod pods;
mod queue;
mod refusals;
mod rivals;
mod settling;
mod simulation;
mod support;
mod swaps;
mod waits;
mod windows;
