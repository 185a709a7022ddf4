//! How long the answers of each client are, on the average, for each class of endpoint: what the queue goes by.
//!
//! A table of fixed size: whoever comes to a place that another has takes it over, so that any number of clients costs
//! no more memory, and no search. Who has lost its place is taken for an average client of its model again.

use super::{moved, to_f64, to_u64};

/// How many clients and classes are remembered at most: about 96 KiB.
const PLACES: usize = 4096;
/// How much one answer moves what is known, once there were a few.
const STEP: f64 = 1.0 / 8.0;

/// A client together with a class of endpoint: a keyed digest of the two, which nobody outside can aim.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Whose(pub(crate) u64);

/// The mean lengths of answers.
#[derive(Debug, Default)]
pub(super) struct Lengths {
    /// Empty, or of full size.
    places: Vec<Option<Length>>,
}

#[derive(Debug, Clone, Copy)]
struct Length {
    whose: Whose,
    /// In tokens.
    mean: f64,
    answers: u32,
}

impl Lengths {
    /// In tokens; none where nothing is known of the client.
    pub(super) fn of(&self, whose: Whose) -> Option<u64> {
        let place = self.places.get(place(whose))?.filter(|length| length.whose == whose)?;
        Some(to_u64(place.mean).max(1))
    }

    /// An answer had so many tokens, of a model whose answers have `usual` ones.
    pub(super) fn learn(&mut self, whose: Whose, tokens: u64, usual: u64) {
        if self.places.is_empty() {
            self.places = vec![None; PLACES];
        }
        let Some(place) = self.places.get_mut(place(whose)) else { return };
        let known = place.filter(|length| length.whose == whose);
        // What is usual counts as the first answer, so that a single odd one does not say everything.
        let mut length = known.unwrap_or(Length { whose, mean: to_f64(usual), answers: 1 });
        length.answers = length.answers.saturating_add(1);
        length.mean = moved(length.mean, to_f64(tokens), STEP.max(1.0 / f64::from(length.answers)));
        *place = Some(length);
    }
}

fn place(whose: Whose) -> usize {
    usize::try_from(whose.0 % PLACES as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_known_by_its_own_answers_and_an_odd_one_does_not_say_everything() {
        let mut lengths = Lengths::default();
        assert_eq!(lengths.of(Whose(7)), None);
        lengths.learn(Whose(7), 1000, 200);
        assert_eq!(lengths.of(Whose(7)), Some(600), "between what is usual and what it had");
        (0..50).for_each(|_| lengths.learn(Whose(7), 40, 200));
        assert!(
            lengths.of(Whose(7)).is_some_and(|mean| (40..=50).contains(&mean)),
            "{:?}",
            lengths.of(Whose(7))
        );
        assert_eq!(lengths.of(Whose(8)), None);
        (0..50).for_each(|_| lengths.learn(Whose(8), 0, 200));
        assert_eq!(lengths.of(Whose(8)), Some(1), "never nothing");
    }

    #[test]
    fn any_number_of_clients_costs_no_more_and_the_last_ones_are_known() {
        let mut lengths = Lengths::default();
        for client in 0..100_000 {
            lengths.learn(Whose(client), 10, 10);
        }
        assert_eq!(lengths.places.len(), PLACES);
        assert_eq!((lengths.of(Whose(0)), lengths.of(Whose(99_999))), (None, Some(10)));
    }
}
