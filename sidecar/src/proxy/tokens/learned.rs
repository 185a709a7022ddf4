//! What is learned of each model from its answers: how long a token is, how long an answer, and how long both take; and
//! how long the answers of each client are.
//!
//! A limit reserves what nine answers in ten do not exceed, so that it holds; the queue goes by the mean, so that nobody
//! is put off for what others ask for.
//!
//! Samples are bounded, so that no client can teach much by odd requests: whatever it does, an estimate is wrong by a
//! factor of a few, and settled in the end.

mod lengths;
mod pace;

use std::collections::VecDeque;

use corral_limiter::{ModelName, Nanos};
use hashbrown::HashMap;

pub(crate) use self::lengths::Whose;
pub(super) use self::pace::{Pace, Spell};
use self::{lengths::Lengths, pace::Paces};
use crate::proxy::inspect::Size;

/// How many models are remembered. Only those that Ollama has answered with are.
const MOST_MODELS: usize = 256;
/// How many answers of a model are remembered.
const ANSWERS: usize = 64;
/// From how many on they are believed.
const FEW_ANSWERS: usize = 10;
/// A prompt of fewer bytes says more about its model's template than about the length of a token.
const SHORT_PROMPT: u64 = 256;
/// A text of so many tokens or more counts as one sample; a shorter one as a part of one.
const LONG_PROMPT: f64 = 256.0;
/// How much one sample moves what is known.
const STEP: f64 = 1.0 / 8.0;

/// What to expect of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Habits {
    /// Bytes of text a token.
    pub(super) bytes_per_token: f64,
    /// Tokens that the model's template, and a system prompt of its own, put around a prompt.
    pub(super) template: f64,
    /// Tokens an image.
    pub(super) tokens_per_image: f64,
    /// Nine answers in ten have no more tokens.
    pub(super) long_answer: u64,
    /// How many tokens an answer has, on the average.
    pub(super) mean_answer: u64,
    /// How long a token takes.
    pub(super) pace: Pace,
    /// For how long a request holds its slot, on the average.
    pub(super) slot: Nanos,
}

impl Habits {
    /// Of a model that has not answered yet.
    const UNKNOWN: Self = Self {
        bytes_per_token: 3.5,
        template: 0.0,
        tokens_per_image: 768.0,
        long_answer: 256,
        mean_answer: 256,
        pace: Pace::UNKNOWN,
        slot: Nanos::from_secs(1),
    };
}

/// What one answer shows, by Ollama's own counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lesson {
    /// What there was to read.
    pub(super) size: Size,
    /// In how many prompts: 1, but for lists to embed.
    pub(super) prompts: u64,
    /// The context it had to fit into, if that is known.
    pub(super) context: Option<u64>,
    /// Tokens of the prompt.
    pub(super) input: u64,
    /// Tokens of the answer; none for embeddings.
    pub(super) output: Option<u64>,
    /// The most tokens that the answer could have.
    pub(super) cap: Option<u64>,
    /// How long it held its slot.
    pub(super) slot: Nanos,
    /// How long Ollama says it took.
    pub(super) spell: Spell,
    /// Whose answer it was.
    pub(super) whose: Whose,
}

impl Lesson {
    /// Its cap ended the answer: it would have been longer than it is.
    fn is_cut(&self, output: u64) -> bool {
        self.cap.is_some_and(|cap| output >= cap)
    }
}

/// The habits of the models that answered last, and of their clients.
#[derive(Debug, Default)]
pub(crate) struct Learned {
    models: HashMap<ModelName, Known>,
    lengths: Lengths,
    lessons: u64,
}

#[derive(Debug)]
struct Known {
    habits: Habits,
    /// Lengths of answers, oldest first.
    answers: VecDeque<u64>,
    /// The mean of all of them, and how many there were.
    mean_answer: f64,
    counted: u32,
    paces: Paces,
    /// Something is known of the template, and of the time in a slot: what the first sample replaced was a guess.
    knows_template: bool,
    knows_slot: bool,
    /// The number of the latest lesson.
    latest: u64,
}

impl Learned {
    /// What to expect of a model.
    pub(super) fn of(&self, model: &ModelName) -> Habits {
        self.models.get(model).map_or(Habits::UNKNOWN, |known| known.habits)
    }

    /// How many tokens the answer to such a request of this client has, on the average; of a client of whom nothing is
    /// known, as of any other of the model.
    pub(super) fn mean_answer(&self, model: &ModelName, whose: Whose) -> u64 {
        self.lengths.of(whose).unwrap_or_else(|| self.of(model).mean_answer)
    }

    pub(super) fn learn(&mut self, model: &ModelName, lesson: &Lesson) {
        if !self.models.contains_key(model) && self.models.len() >= MOST_MODELS {
            self.forget_oldest();
        }
        self.lessons = self.lessons.saturating_add(1);
        let known = self.models.entry(model.clone()).or_insert_with(Known::nothing);
        known.latest = self.lessons;
        known.learn(lesson);
        let usual = known.habits.mean_answer;
        if let Some(output) = lesson.output {
            let expected = self.lengths.of(lesson.whose).unwrap_or(usual);
            if !lesson.is_cut(output) || output > expected {
                self.lengths.learn(lesson.whose, output, usual);
            }
        }
    }

    fn forget_oldest(&mut self) {
        let oldest = self.models.iter().min_by_key(|(_, known)| known.latest);
        if let Some(model) = oldest.map(|(model, _)| model.clone()) {
            self.models.remove(&model);
        }
    }
}

impl Known {
    fn nothing() -> Self {
        let habits = Habits::UNKNOWN;
        Self {
            mean_answer: to_f64(habits.mean_answer),
            habits,
            answers: VecDeque::new(),
            counted: 0,
            paces: Paces::nothing(),
            knows_template: false,
            knows_slot: false,
            latest: 0,
        }
    }

    fn learn(&mut self, lesson: &Lesson) {
        self.learn_tokens(lesson);
        if let Some(output) = lesson.output {
            self.learn_answer(output, lesson);
            self.learn_mean(output, lesson);
        }
        self.paces.learn(&lesson.spell, (lesson.input, lesson.output.unwrap_or(0)), lesson.slot);
        self.habits.pace = self.paces.pace();
        let step = if std::mem::replace(&mut self.knows_slot, true) { STEP } else { 1.0 };
        let slot = moved(to_f64(self.habits.slot.0), to_f64(lesson.slot.0), step);
        self.habits.slot = Nanos(to_u64(slot));
    }

    /// A prompt of a few words teaches about the template, a long one about the length of a token.
    fn learn_tokens(&mut self, lesson: &Lesson) {
        let Lesson { size, input, prompts, .. } = *lesson;
        let (text, real) = (to_f64(size.text), to_f64(input));
        let (words, around) = (text / self.habits.bytes_per_token, self.habits.template * to_f64(prompts));
        // Ollama cuts a prompt that does not fit, and says how much it kept.
        let cut = lesson.context.is_some_and(|context| (words + around) * 2.0 > to_f64(context));
        if cut || size.numbers > 0 || prompts == 0 {
            return;
        }
        if size.images > 0 {
            let each = (real - words - around) / to_f64(size.images);
            let image = &mut self.habits.tokens_per_image;
            *image = moved(*image, each.clamp(16.0, 16_384.0), STEP);
        } else if size.text < SHORT_PROMPT {
            let step = if std::mem::replace(&mut self.knows_template, true) { STEP } else { 1.0 };
            let seen = ((real - words) / to_f64(prompts)).clamp(0.0, 4096.0);
            self.habits.template = moved(self.habits.template, seen, step);
        } else {
            let seen = (real - around).max(1.0);
            let step = STEP * (seen / LONG_PROMPT).min(1.0);
            let ratio = &mut self.habits.bytes_per_token;
            *ratio = moved(*ratio, (text / seen).clamp(1.0, 8.0), step);
        }
    }

    /// An answer that its cap ended would have been longer: it counts only if it is long as it is.
    fn learn_answer(&mut self, output: u64, lesson: &Lesson) {
        if lesson.is_cut(output) && output <= self.habits.long_answer {
            return;
        }
        if self.answers.len() == ANSWERS {
            self.answers.pop_front();
        }
        self.answers.push_back(output);
        if self.answers.len() >= FEW_ANSWERS {
            let mut sorted: Vec<u64> = self.answers.iter().copied().collect();
            let ninth = (sorted.len() * 9).div_ceil(10).saturating_sub(1);
            let (_, long, _) = sorted.select_nth_unstable(ninth);
            self.habits.long_answer = (*long).max(1);
        }
    }

    /// The same goes for the mean.
    fn learn_mean(&mut self, output: u64, lesson: &Lesson) {
        if lesson.is_cut(output) && output <= self.habits.mean_answer {
            return;
        }
        self.counted = self.counted.saturating_add(1);
        self.mean_answer = moved(self.mean_answer, to_f64(output), STEP.max(1.0 / f64::from(self.counted)));
        self.habits.mean_answer = to_u64(self.mean_answer).max(1);
    }
}

/// A step from one value towards another.
pub(super) fn moved(from: f64, to: f64, step: f64) -> f64 {
    from + (to - from) * step
}

#[expect(clippy::cast_precision_loss, reason = "estimates need no more than 53 bits")]
pub(super) fn to_f64(number: u64) -> f64 {
    number as f64
}

/// Rounded; what is no number or negative is 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, which is what is meant"
)]
pub(super) fn to_u64(number: f64) -> u64 {
    number.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> ModelName {
        ModelName::parse(name).unwrap()
    }

    fn lesson(text: u64, input: u64, output: u64) -> Lesson {
        let size = Size { text, ..Size::default() };
        let (slot, spell, whose) = (Nanos::from_secs(2), Spell::default(), Whose(1));
        Lesson { size, prompts: 1, context: None, input, output: Some(output), cap: None, slot, spell, whose }
    }

    fn after(lessons: impl IntoIterator<Item = Lesson>) -> Habits {
        let mut learned = Learned::default();
        for lesson in lessons {
            learned.learn(&model("m"), &lesson);
        }
        learned.of(&model("m"))
    }

    #[test]
    fn nothing_is_known_of_a_new_model() {
        assert_eq!(Learned::default().of(&model("m")), Habits::UNKNOWN);
    }

    #[test]
    fn the_length_of_a_token_is_learned_from_prompts_that_are_long_enough() {
        let ratio = after(vec![lesson(2000, 1000, 10); 50]).bytes_per_token;
        assert!((ratio - 2.0).abs() < 0.01, "{ratio}");
        let still = after(vec![lesson(2, 29, 10); 50]).bytes_per_token;
        assert!((still - 3.5).abs() < f64::EPSILON, "{still}");
        let short = after([lesson(256, 128, 10)]).bytes_per_token;
        let long = after([lesson(512, 256, 10)]).bytes_per_token;
        assert!(long < short && short < 3.5, "{long} {short}");
    }

    #[test]
    fn what_the_template_adds_is_learned_from_a_few_words() {
        let template = after([lesson(7, 30, 10)]).template;
        assert!((template - 28.0).abs() < f64::EPSILON, "{template}");
        let habits = after([lesson(7, 30, 10), lesson(2000, 1028, 10)]);
        assert!(habits.bytes_per_token < 3.5 && (habits.template - 28.0).abs() < f64::EPSILON, "{habits:?}");
        let list = Lesson { prompts: 4, ..lesson(14, 12, 0) };
        assert!((after([list]).template - 2.0).abs() < f64::EPSILON);
    }

    #[test]
    fn no_request_teaches_nonsense() {
        let junk = after(vec![lesson(1_000_000_000, 100, 10); 1000]).bytes_per_token;
        assert!((1.0..=8.0).contains(&junk), "{junk}");
        let dense = after(vec![lesson(300, 100_000, 10); 1000]).bytes_per_token;
        assert!((1.0..=8.0).contains(&dense), "{dense}");
        let around = after(vec![lesson(1, 100_000, 10); 1000]).template;
        assert!((0.0..=4096.0).contains(&around), "{around}");
    }

    #[test]
    fn a_prompt_that_was_cut_to_the_context_teaches_nothing() {
        let cut = Lesson { context: Some(2048), ..lesson(50_000, 1026, 10) };
        let still = after(vec![cut; 50]).bytes_per_token;
        assert!((still - 3.5).abs() < f64::EPSILON, "{still}");
    }

    #[test]
    fn what_an_image_costs_is_learned() {
        let size = Size { text: 350, images: 2, ..Size::default() };
        let seen = Lesson { size, ..lesson(0, 100 + 2 * 256, 10) };
        let image = after(vec![seen; 60]).tokens_per_image;
        assert!((image - 256.0).abs() < 1.0, "{image}");
    }

    #[test]
    fn nine_answers_in_ten_are_no_longer_than_what_is_reserved() {
        assert_eq!(after((1..=9).map(|n| lesson(0, 1, n))).long_answer, 256, "too few to tell");
        assert_eq!(after((1..=10).map(|n| lesson(0, 1, n * 10))).long_answer, 90);
        assert_eq!(after((1..=1000).map(|_| lesson(0, 1, 7))).long_answer, 7);
        assert_eq!(after((1..=100).map(|_| lesson(0, 1, 0))).long_answer, 1, "never nothing");
    }

    #[test]
    fn an_answer_that_its_cap_ended_does_not_shorten_what_is_expected() {
        let capped = |output| Lesson { cap: Some(output), ..lesson(0, 1, output) };
        assert_eq!(after(vec![capped(10); 100]).long_answer, 256);
        assert_eq!(after(vec![capped(1000); 100]).long_answer, 1000);
    }

    #[test]
    fn the_queue_goes_by_the_mean_of_the_client_and_else_by_that_of_the_model() {
        let mut learned = Learned::default();
        assert_eq!(learned.mean_answer(&model("m"), Whose(1)), 256, "nothing is known");
        for _ in 0..40 {
            learned.learn(&model("m"), &lesson(0, 1, 10));
        }
        learned.learn(&model("m"), &Lesson { whose: Whose(2), ..lesson(0, 1, 1000) });
        let of = |client| learned.mean_answer(&model("m"), Whose(client));
        assert!((10..15).contains(&of(1)), "{}", of(1));
        assert!(of(2) > 500, "{}", of(2));
        assert!((100..200).contains(&of(3)), "an eighth of a long one beside short ones: {}", of(3));
    }

    #[test]
    fn an_answer_that_its_cap_ended_does_not_shorten_the_mean() {
        let mut learned = Learned::default();
        for _ in 0..40 {
            learned.learn(&model("m"), &Lesson { cap: Some(10), ..lesson(0, 1, 10) });
        }
        assert_eq!(learned.mean_answer(&model("m"), Whose(1)), 256);
        learned.learn(&model("m"), &Lesson { cap: Some(1000), ..lesson(0, 1, 1000) });
        assert!(learned.mean_answer(&model("m"), Whose(1)) > 256);
    }

    #[test]
    fn the_time_in_a_slot_is_learned() {
        assert_eq!(after([lesson(0, 1, 1)]).slot, Nanos::from_secs(2));
        let slower = Lesson { slot: Nanos::from_secs(10), ..lesson(0, 1, 1) };
        let slot = after([lesson(0, 1, 1), slower]).slot;
        assert_eq!(slot, Nanos::from_secs(3));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut learned = Learned::default();
        for n in 0..1000 {
            learned.learn(&model(&format!("m{n}")), &lesson(0, 1, 1));
        }
        assert_eq!(learned.models.len(), MOST_MODELS);
        assert_ne!(learned.of(&model("m999")), Habits::UNKNOWN);
        assert_eq!(learned.of(&model("m0")), Habits::UNKNOWN);
    }
}
