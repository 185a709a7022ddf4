//! What every algorithm must hold, as vectors and as properties over random traces, each against an oracle that only
//! scans lists; and the calendars and patterns beside them.
#![cfg(test)]

mod bounds;
mod calendars;
mod oracle;
mod patterns;
mod settling;
mod simulation;
mod subject;
mod swaps;
mod vectors;
mod waits;
