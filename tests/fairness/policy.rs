//! What decides who is served next: told what happens, asked who starts.

use corral_limiter::Nanos;

use crate::load::{Client, Request};

/// What becomes of a request that comes.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    pub(crate) fate: Fate,
    /// Others, who waited and are refused in its place.
    pub(crate) pushed_out: Vec<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Fate {
    Starts,
    /// At most until then, if there is a limit.
    Waits(Option<Nanos>),
    #[default]
    Refused,
}

/// Who starts now, and who is told that it is too late.
#[derive(Debug, Default)]
pub(crate) struct Dispatched {
    pub(crate) started: Vec<u64>,
    pub(crate) late: Vec<u64>,
}

/// A queue with its slots.
pub(crate) trait Policy {
    fn arrive(&mut self, request: &Request, client: &Client, now: Nanos) -> Arrived;

    /// Asked after whatever happened.
    fn dispatch(&mut self, now: Nanos) -> Dispatched;

    /// One that runs has generated so much in all.
    fn progress(&mut self, request: &Request, generated: u32);

    /// One that ran is done.
    fn finish(&mut self, request: &Request, now: Nanos);

    /// The client of one that waits or runs is gone; a slot it had is free. `generated` is what there was of its answer.
    fn leave(&mut self, request: &Request, waits: bool, generated: u32, now: Nanos);

    /// One waited until its limit. False: it waits no more.
    fn time_out(&mut self, _request: &Request) -> bool {
        false
    }

    /// The first byte of an answer has come, so its model is there.
    fn loaded(&mut self, _request: &Request, _now: Nanos) {}

    /// It wants to be asked again then, though nothing happens.
    fn next_look(&self, _now: Nanos) -> Option<Nanos> {
        None
    }
}
