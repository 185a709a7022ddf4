//! How many slots each model really has, as far as Ollama has told.
//!
//! Some models have one slot whatever Ollama was set to. Which, it tells on request, in milliseconds; until it has, a model
//! counts as one of those: one request too few for that long costs nothing, and one too many would wait inside Ollama. If
//! it does not answer, or not in words that are understood, the model counts as any other after all. What it has told
//! holds for ten minutes and is kept while it is asked again, or until another model goes by the same name.
//!
//! No clock here, and no I/O: times are handed in.

use std::time::Duration;

use corral_limiter::ModelName;
use hashbrown::HashMap;
use tokio::time::Instant;

/// Models that are remembered; of more the one that was used longest ago is forgotten. Fewer than the queue remembers.
const MOST_MODELS: usize = 128;
/// How long what Ollama has told holds.
const HOLDS: Duration = Duration::from_mins(10);
/// When it is asked again after an answer that was none.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// What Ollama says of a model when it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// It has one slot, whatever Ollama was set to.
    OneSlot,
    /// It has as many as Ollama was set to.
    AllSlots,
    /// There is no such model.
    Unknown,
    /// Nothing that is understood, or nothing in time.
    Nothing,
}

/// What follows from the use of a model.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    /// Nothing is known of it: it has one slot for now.
    pub(super) is_new: bool,
    /// Ollama is to be asked about it: see [`Kinds::next`].
    pub(super) is_wanted: bool,
    /// Another one is forgotten for it.
    pub(super) forgotten: Option<ModelName>,
}

/// What is known of models.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    models: HashMap<ModelName, Kind>,
    /// Counts uses: the lower was earlier.
    uses: u64,
}

#[derive(Debug)]
struct Kind {
    state: State,
    /// Of what was last loaded by this name.
    digest: Option<Box<str>>,
    used: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is to be asked about.
    Wanted,
    /// It is being asked about.
    Asked,
    /// Until then it need not be asked about.
    Known(Instant),
}

impl Kinds {
    /// A request for a model is about to queue.
    pub(super) fn used(&mut self, model: &ModelName, now: Instant) -> Used {
        self.uses += 1;
        if let Some(kind) = self.models.get_mut(model) {
            kind.used = self.uses;
            let is_wanted = matches!(kind.state, State::Known(until) if now >= until);
            if is_wanted {
                kind.state = State::Wanted;
            }
            return Used { is_wanted, ..Used::default() };
        }
        let forgotten = if self.models.len() < MOST_MODELS { None } else { self.forget_oldest() };
        self.models.insert(model.clone(), Kind { state: State::Wanted, digest: None, used: self.uses });
        Used { is_new: true, is_wanted: true, forgotten }
    }

    /// A model that Ollama is to be asked about now.
    pub(super) fn next(&mut self) -> Option<ModelName> {
        let wanted = |(_, kind): &(&ModelName, &mut Kind)| kind.state == State::Wanted;
        let (model, kind) = self.models.iter_mut().find(wanted)?;
        kind.state = State::Asked;
        Some(model.clone())
    }

    /// It has said this. Returns how many slots the model has if they are fewer than others have.
    pub(super) fn shown(&mut self, model: &ModelName, shown: Shown, now: Instant) -> Option<u32> {
        if shown == Shown::Unknown {
            self.models.remove(model);
            return None;
        }
        let kind = self.models.get_mut(model)?;
        kind.state = State::Known(now + if shown == Shown::Nothing { ASK_AGAIN } else { HOLDS });
        (shown == Shown::OneSlot).then_some(1)
    }

    /// A model is loaded that has this digest. If another one was loaded by its name before, it is asked about when it is
    /// next used.
    pub(super) fn loaded(&mut self, model: &ModelName, digest: &str, now: Instant) {
        let Some(kind) = self.models.get_mut(model) else { return };
        let is_another = kind.digest.as_deref().is_some_and(|before| before != digest);
        if is_another && matches!(kind.state, State::Known(_)) {
            kind.state = State::Known(now);
        }
        kind.digest = Some(digest.into());
    }

    fn forget_oldest(&mut self) -> Option<ModelName> {
        let oldest = self.models.iter().min_by_key(|(_, kind)| kind.used).map(|(model, _)| model.clone())?;
        self.models.remove(&oldest);
        Some(oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> ModelName {
        ModelName::parse(name).unwrap()
    }

    /// A model that was used, asked about, and told of.
    fn told(shown: Shown, now: Instant) -> (Kinds, Option<u32>) {
        let mut kinds = Kinds::default();
        kinds.used(&model("m"), now);
        assert_eq!(kinds.next(), Some(model("m")));
        let slots = kinds.shown(&model("m"), shown, now);
        (kinds, slots)
    }

    #[tokio::test(start_paused = true)]
    async fn a_model_is_asked_about_once_when_it_is_first_used() {
        let now = Instant::now();
        let mut kinds = Kinds::default();
        let first = kinds.used(&model("m"), now);
        assert_eq!(first, Used { is_new: true, is_wanted: true, forgotten: None });
        assert_eq!(kinds.used(&model("m"), now), Used::default(), "while it is to be asked about");
        assert_eq!((kinds.next(), kinds.next()), (Some(model("m")), None));
        assert_eq!(kinds.used(&model("m"), now), Used::default(), "while it is asked about");
        assert_eq!(kinds.shown(&model("m"), Shown::OneSlot, now), Some(1));
        assert_eq!(kinds.used(&model("m"), now), Used::default());
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_is_known_to_have_one_slot_keeps_one() {
        let now = Instant::now();
        assert_eq!(told(Shown::OneSlot, now).1, Some(1));
        assert_eq!(told(Shown::AllSlots, now).1, None);
        assert_eq!(told(Shown::Nothing, now).1, None, "it counts as any other after all");
        let (mut kinds, slots) = told(Shown::Unknown, now);
        assert_eq!((slots, kinds.models.len()), (None, 0));
        assert!(kinds.used(&model("m"), now).is_new, "it may be pulled at any time");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_told_holds_for_a_while_and_is_kept_while_it_is_asked_again() {
        let now = Instant::now();
        for (shown, holds) in [(Shown::OneSlot, HOLDS), (Shown::Nothing, ASK_AGAIN)] {
            let (mut kinds, _) = told(shown, now);
            let just_before = now + holds - Duration::from_millis(1);
            assert_eq!(kinds.used(&model("m"), just_before), Used::default());
            let again = kinds.used(&model("m"), now + holds);
            assert_eq!(again, Used { is_wanted: true, ..Used::default() });
            assert_eq!(kinds.next(), Some(model("m")));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_model_by_the_same_name_is_asked_about() {
        let now = Instant::now();
        let (mut kinds, _) = told(Shown::AllSlots, now);
        kinds.loaded(&model("m"), "one", now);
        kinds.loaded(&model("m"), "one", now);
        assert_eq!(kinds.used(&model("m"), now), Used::default());
        kinds.loaded(&model("m"), "other", now);
        assert!(kinds.used(&model("m"), now).is_wanted);
        kinds.loaded(&model("never-used"), "x", now);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded_and_what_is_forgotten_is_told() {
        let now = Instant::now();
        let mut kinds = Kinds::default();
        for n in 0..MOST_MODELS {
            assert_eq!(kinds.used(&model(&format!("m{n}")), now).forgotten, None);
        }
        kinds.used(&model("m0"), now);
        assert_eq!(kinds.used(&model("one-more"), now).forgotten, Some(model("m1")));
        assert_eq!(kinds.models.len(), MOST_MODELS);
        assert_eq!(
            kinds.shown(&model("m1"), Shown::OneSlot, now),
            None,
            "it is asked about when it comes again"
        );
    }
}
