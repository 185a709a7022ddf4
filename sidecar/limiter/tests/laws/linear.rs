//! Whether overlapping calls could have been made one after the other: a search for such an order, after Wing and Gong.

/// One call, and what came of it. It took effect at some instant between its two stamps.
#[derive(Debug)]
pub(crate) struct Call<T> {
    pub(crate) began: u64,
    pub(crate) ended: u64,
    pub(crate) what: T,
}

/// So many calls are tried at most, replays apart; what is found in order takes one for each call.
const MOST_TRIES: usize = 100_000;

/// What a single thread would have seen.
pub(crate) trait Alone<T> {
    /// Makes the call, and says whether the same came of it.
    fn agrees(&mut self, what: &T) -> bool;
}

/// An order of the calls in which each agrees with `fresh`, and none stands before one that had ended when it began.
/// `fresh` makes the state before the first call. For histories in which few calls overlap, and most orders that are
/// wrong are found to be so at once; panics where the search grows beyond [`MOST_TRIES`].
pub(crate) fn order<T, S: Alone<T>>(calls: &[Call<T>], fresh: impl Fn() -> S) -> Option<Vec<usize>> {
    let mut search = Search { calls, fresh: &fresh, placed: Vec::new(), tries: 0 };
    search.goes_on(fresh()).then_some(search.placed)
}

struct Search<'a, T, S> {
    calls: &'a [Call<T>],
    fresh: &'a dyn Fn() -> S,
    placed: Vec<usize>,
    tries: usize,
}

impl<T, S: Alone<T>> Search<'_, T, S> {
    /// Finds a place for all that are left; `state` is the one after those that are placed.
    fn goes_on(&mut self, state: S) -> bool {
        if self.placed.len() == self.calls.len() {
            return true;
        }
        let mut state = Some(state);
        for place in self.next() {
            self.tries += 1;
            assert!(self.tries <= MOST_TRIES, "too many orders");
            // One that was tried has changed the state.
            let mut state = state.take().unwrap_or_else(|| self.replayed());
            if state.agrees(&self.calls[place].what) {
                self.placed.push(place);
                if self.goes_on(state) {
                    return true;
                }
                self.placed.pop();
            }
        }
        false
    }

    /// Those that are left and began before any of them had ended, in the order of their ends.
    fn next(&self) -> Vec<usize> {
        let mut left: Vec<_> = (0..self.calls.len()).filter(|place| !self.placed.contains(place)).collect();
        left.sort_by_key(|place| self.calls[*place].ended);
        let first_end = self.calls[left[0]].ended;
        left.retain(|place| self.calls[*place].began < first_end);
        left
    }

    fn replayed(&self) -> S {
        let mut state = (self.fresh)();
        for place in &self.placed {
            assert!(state.agrees(&self.calls[*place].what), "a replay came out otherwise");
        }
        state
    }
}
