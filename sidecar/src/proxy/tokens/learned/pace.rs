//! How long a model takes for a token: of a prompt, and of an answer; that is what its slots are held for.
//!
//! Ollama's own API says for how long it read and for how long it wrote. Its compatibility APIs, and embeddings, say
//! neither: a model that is only used through those is learned from how long its requests held their slots, with the
//! ratio of the two as it was guessed.

use corral_limiter::Nanos;

use super::{moved, to_f64, to_u64};

/// A prompt of so many new tokens, or an answer of so many, counts as one sample; a shorter one as a part of one.
const WHOLE_SAMPLE: f64 = 64.0;
/// How much one sample moves what is known, once there were a few.
const STEP: f64 = 1.0 / 8.0;
/// The fastest and the slowest that is believed, in nanoseconds a token.
const BELIEVED: (f64, f64) = (100.0, 10e9);
/// By how much one held slot may be off what was expected of it: a load is in it, if it was the first.
const OFF_BY: f64 = 8.0;

/// Nanoseconds of a slot that a token takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::proxy::tokens) struct Pace {
    /// One of a prompt.
    prefill: f64,
    /// One of an answer.
    decode: f64,
}

impl Pace {
    /// Of a model that has not answered yet: 2,000 tokens of a prompt a second, and 50 of an answer.
    pub(super) const UNKNOWN: Self = Self { prefill: 500_000.0, decode: 20_000_000.0 };

    /// For how long a prompt is read.
    pub(in crate::proxy::tokens) fn reading(&self, input: u64) -> Nanos {
        Nanos(to_u64(self.prefill * to_f64(input)))
    }

    /// For how long a slot is held in all.
    pub(in crate::proxy::tokens) fn whole(&self, input: u64, output: u64) -> Nanos {
        Nanos(to_u64(self.prefill * to_f64(input) + self.decode * to_f64(output)))
    }
}

/// What one answer shows of its model's pace.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::proxy::tokens) struct Spell {
    /// For how long Ollama says it read, and how many tokens that it had not read before.
    pub(in crate::proxy::tokens) read: Option<(Nanos, u64)>,
    /// For how long it says it wrote, and how many tokens.
    pub(in crate::proxy::tokens) wrote: Option<(Nanos, u64)>,
}

/// The pace of one model, as it comes to be known.
#[derive(Debug)]
pub(super) struct Paces {
    pace: Pace,
    /// How many samples there were of each; of the last, of held slots.
    read: f64,
    wrote: f64,
    held: f64,
}

impl Paces {
    pub(super) fn nothing() -> Self {
        Self { pace: Pace::UNKNOWN, read: 0.0, wrote: 0.0, held: 0.0 }
    }

    pub(super) fn pace(&self) -> Pace {
        self.pace
    }

    /// An answer to so many tokens, of so many, held its slot for so long.
    pub(super) fn learn(&mut self, spell: &Spell, (input, output): (u64, u64), held: Nanos) {
        if let Some(read) = spell.read {
            follow(&mut self.pace.prefill, &mut self.read, read);
        }
        if let Some(wrote) = spell.wrote {
            follow(&mut self.pace.decode, &mut self.wrote, wrote);
        }
        if self.read + self.wrote <= 0.0 {
            self.learn_from_held(input, output, held);
        }
    }

    fn learn_from_held(&mut self, input: u64, output: u64, held: Nanos) {
        let expected = to_f64(self.pace.whole(input, output).0);
        if expected <= 0.0 {
            return;
        }
        let off = (to_f64(held.0) / expected).clamp(1.0 / OFF_BY, OFF_BY);
        self.held += 1.0;
        let scale = moved(1.0, off, STEP.max(1.0 / self.held));
        for pace in [&mut self.pace.prefill, &mut self.pace.decode] {
            *pace = (*pace * scale).clamp(BELIEVED.0, BELIEVED.1);
        }
    }
}

/// The mean of the first samples, and then a step towards each.
fn follow(pace: &mut f64, samples: &mut f64, (time, tokens): (Nanos, u64)) {
    if tokens == 0 {
        return;
    }
    let weight = (to_f64(tokens) / WHOLE_SAMPLE).min(1.0);
    *samples += weight;
    let seen = (to_f64(time.0) / to_f64(tokens)).clamp(BELIEVED.0, BELIEVED.1);
    *pace = moved(*pace, seen, (STEP * weight).max(weight / *samples));
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn told(read: (u64, u64), wrote: (u64, u64)) -> Spell {
        Spell { read: Some((Nanos(read.0), read.1)), wrote: Some((Nanos(wrote.0), wrote.1)) }
    }

    fn after(spells: impl IntoIterator<Item = Spell>) -> Pace {
        let mut paces = Paces::nothing();
        for spell in spells {
            paces.learn(&spell, (100, 100), Nanos::from_secs(1));
        }
        paces.pace()
    }

    #[test]
    fn the_first_long_answer_replaces_the_guess() {
        let pace = after([told((SECOND, 1000), (4 * SECOND, 100))]);
        assert_eq!(pace, Pace { prefill: 1e6, decode: 4e7 });
        assert_eq!(pace.reading(50), Nanos::from_millis(50));
        assert_eq!(pace.whole(50, 10), Nanos::from_millis(450));
    }

    #[test]
    fn a_change_of_pace_is_followed_and_short_answers_say_little() {
        let fast = vec![told((SECOND, 1000), (SECOND, 100)); 20];
        let slower = vec![told((4 * SECOND, 1000), (4 * SECOND, 100)); 30];
        let pace = after(fast.iter().copied().chain(slower));
        assert!((pace.decode - 4e7).abs() < 1e6, "{pace:?}");
        let odd = after(fast.into_iter().chain([told((SECOND, 1), (SECOND, 1))]));
        assert!(odd.decode < 1.3e7, "one token at 1 s among thousands at 10 ms: {odd:?}");
    }

    #[test]
    fn where_ollama_tells_no_times_the_time_in_the_slot_says_how_slow_it_is() {
        let mut paces = Paces::nothing();
        // Expected are 2.05 s; it takes twice as long.
        for _ in 0..40 {
            paces.learn(&Spell::default(), (100, 100), Nanos::from_millis(4100));
        }
        let whole = paces.pace().whole(100, 100);
        assert!(whole.0.abs_diff(4_100_000_000) < 10_000_000, "{whole:?}");
        let ratio = paces.pace().decode / paces.pace().prefill;
        assert!((ratio - 40.0).abs() < 0.001, "as it was guessed: {ratio}");
    }

    #[test]
    fn once_ollama_has_told_times_the_slot_says_nothing() {
        let mut paces = Paces::nothing();
        paces.learn(&told((SECOND, 1000), (SECOND, 100)), (1000, 100), Nanos::from_secs(2));
        let known = paces.pace();
        paces.learn(&Spell::default(), (1000, 100), Nanos::from_secs(60));
        assert_eq!(paces.pace(), known);
    }

    #[test]
    fn a_load_in_the_first_slot_is_forgotten_soon() {
        let mut paces = Paces::nothing();
        paces.learn(&Spell::default(), (0, 10), Nanos::from_secs(60));
        for _ in 0..20 {
            paces.learn(&Spell::default(), (0, 10), Nanos::from_millis(200));
        }
        let whole = paces.pace().whole(0, 10);
        assert!(whole < Nanos::from_millis(400), "{whole:?}");
    }

    #[test]
    fn no_answer_teaches_nonsense() {
        for spell in
            [told((u64::MAX, 1), (u64::MAX, 1)), told((0, u64::MAX), (0, u64::MAX)), told((1, 0), (1, 0))]
        {
            let pace = after(vec![spell; 100]);
            for one in [pace.prefill, pace.decode] {
                assert!((BELIEVED.0..=BELIEVED.1).contains(&one), "{pace:?}");
            }
        }
        assert_eq!(Pace { prefill: 1e10, decode: 1e10 }.whole(u64::MAX, u64::MAX), Nanos(u64::MAX));
    }
}
