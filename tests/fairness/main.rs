//! A pool under load in virtual time: the sidecar's own queue, and beside it what others do with the same requests.
//!
//! Each scenario has a goal that gates, and prints a line of a table: the goal, ours, and every baseline. To see it:
//! `cargo test --profile bench --package corral-fairness -- --nocapture`. `cargo verify` sorts it.
//!
//! ```text
//! load (who asks for what) ─▶ world (slots, tokens, clients that give up) ─▶ outcome ─▶ table
//!                               ▲ arrive, dispatch, progress, finish, leave
//!                             policy: ours (`FairQueue`) | baselines
//! ```
//!
//! Ours goes by slot time, LAS and VTC by tokens as they were published; line 1e has all of them by tokens.
//!
//! Slots do not slow each other down, and nobody retries. All seeds are fixed. Without optimization runs are shorter, and
//! fewer. How pods leave their Service under load is simulated where the real automatons are: `tests/tests/relief`.
#![cfg(test)]

mod baselines;
mod gap;
mod load;
mod memory;
mod ours;
mod outcome;
mod pods;
mod policy;
mod random;
mod scenarios;
mod table;
mod world;
