//! What the demo counted and timed.

use std::fmt;
use std::time::Duration;

use crate::cluster::http::Answer;
use crate::machine::clock::seconds;

/// All figures of one demo.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// From `kubectl apply` of the pool until all its pods served.
    pub(super) pool: Duration,
    pub(super) pods: usize,
    /// From `kubectl apply` of the policy until every pod enforced it.
    pub(super) policy: Duration,
    /// The same for its change.
    pub(super) change: Duration,
    pub(super) served: usize,
    pub(super) refused: usize,
    /// How long the refused client was told to stay away.
    pub(super) waited: Duration,
    pub(super) pieces: usize,
    pub(super) first_piece: Duration,
    pub(super) middle_gap: Duration,
}

impl Numbers {
    /// Takes note of a streamed answer.
    pub(super) fn streamed(&mut self, answer: &Answer) {
        self.served += 1;
        let times: Vec<Duration> = answer.pieces.iter().map(|piece| piece.at).collect();
        let mut gaps: Vec<Duration> =
            times.iter().zip(times.iter().skip(1)).map(|(a, b)| b.saturating_sub(*a)).collect();
        gaps.sort();
        self.pieces = times.len();
        self.first_piece = times.first().copied().unwrap_or_default();
        self.middle_gap = gaps.get(gaps.len() / 2).copied().unwrap_or_default();
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pods, served, refused, pieces, .. } = self;
        writeln!(
            f,
            "  {} from kubectl apply until {pods} Ollamas on {pods} GPUs served",
            seconds(self.pool)
        )?;
        writeln!(
            f,
            "  {} ms until the policy held on all pods, {} ms until its change did",
            self.policy.as_millis(),
            self.change.as_millis()
        )?;
        writeln!(
            f,
            "  {pieces} pieces of one answer: the first after {} ms, then one every {} ms",
            self.first_piece.as_millis(),
            self.middle_gap.as_millis()
        )?;
        write!(
            f,
            "  {served} requests served, {refused} refused: told to wait {} ms, and served then",
            self.waited.as_millis()
        )
    }
}
