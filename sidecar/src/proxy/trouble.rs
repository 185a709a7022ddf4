//! Signs that Ollama is in trouble, for limits that adapt themselves: what its answers say of how they were made.
//!
//! A long answer is no sign, whatever it took: only what is slow beside the same model's own past is. Times are Ollama's
//! own, from the last line of its answers, so that neither a slow client nor our queue is in them.

use std::collections::VecDeque;
use std::time::Duration;

use corral_limiter::ModelName;
use hashbrown::HashMap;
use memchr::memmem;

/// Models that are remembered; of more the one seen longest ago is forgotten.
const MOST_MODELS: usize = 64;
/// Answers whose pace is remembered, for each number of requests that ran beside them.
const REMEMBERED: usize = 32;
/// Fewer tell nothing of what is usual.
const ENOUGH: usize = 8;
/// So many of the latest answers must be slow together: one alone may have been unlucky.
const LATEST: usize = 4;
/// Requests beside it beyond which all count alike.
const MOST_BESIDE: u32 = 64;
/// How much slower than usual is a sign.
const FACTOR: u32 = 2;
/// How much longer than its prompt should take an answer may take to begin.
const PATIENCE: Duration = Duration::from_secs(10);

/// What Ollama and its engines say when a GPU's memory is full.
const OUT_OF_MEMORY: [&[u8]; 6] = [
    b"out of memory",
    b"cudaMalloc failed",
    b"hipMalloc failed",
    b"failed to allocate",
    b"unable to allocate",
    b"insufficient memory",
];

/// Where an error of Ollama's begins: at the start of an answer, a line, or an event. Deeper in, a model says it.
const ERRORS: [&[u8]; 2] = [b"\n{\"error\":", b"data: {\"error\":"];

/// Whether a piece of an answer is an error of Ollama's that says that memory is full.
pub(crate) fn tells_of_full_memory(piece: &[u8]) -> bool {
    let within = || ERRORS.iter().find_map(|mark| memmem::find(piece, mark));
    let Some(at) = piece.starts_with(b"{\"error\":").then_some(0).or_else(within) else { return false };
    let error = piece.get(at..).unwrap_or_default();
    OUT_OF_MEMORY.iter().any(|words| memmem::find(error, words).is_some())
}

/// What is usual for each model.
#[derive(Debug, Default)]
pub(crate) struct Signs {
    models: HashMap<ModelName, Usual>,
    seen: u64,
}

#[derive(Debug, Default)]
struct Usual {
    /// Time of one token of an answer, by the number of requests that ran beside it.
    paces: HashMap<u32, VecDeque<Duration>>,
    /// Time of one token of a prompt, smoothed.
    prompt: Option<Duration>,
    latest: u64,
}

impl Signs {
    /// An answer took so long a token, with so many others beside it. Whether the latest are much slower than usual.
    pub(crate) fn answered(&mut self, model: &ModelName, beside: u32, per_token: Duration) -> bool {
        let paces = self.usual(model).paces.entry(beside.min(MOST_BESIDE)).or_default();
        if paces.len() == REMEMBERED {
            paces.pop_front();
        }
        paces.push_back(per_token);
        if paces.len() < ENOUGH + LATEST {
            return false;
        }
        let before = median(paces.iter().copied().take(paces.len() - LATEST));
        let now = median(paces.iter().copied().skip(paces.len() - LATEST));
        now > before * FACTOR
    }

    /// A prompt took so long a token.
    pub(crate) fn read(&mut self, model: &ModelName, per_token: Duration) {
        let prompt = &mut self.usual(model).prompt;
        *prompt = Some(prompt.map_or(per_token, |before| (before * 7 + per_token) / 8));
    }

    /// By when an answer should have begun to a prompt of so many tokens; none where nothing is known of the model.
    pub(crate) fn should_begin_within(&self, model: &ModelName, tokens: u64) -> Option<Duration> {
        let per_token = self.models.get(model)?.prompt?;
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        Some(per_token.saturating_mul(tokens).saturating_mul(3).saturating_add(PATIENCE))
    }

    fn usual(&mut self, model: &ModelName) -> &mut Usual {
        if !self.models.contains_key(model) && self.models.len() >= MOST_MODELS {
            self.forget_oldest();
        }
        self.seen += 1;
        let usual = self.models.entry(model.clone()).or_default();
        usual.latest = self.seen;
        usual
    }

    fn forget_oldest(&mut self) {
        let oldest = self.models.iter().min_by_key(|(_, usual)| usual.latest).map(|(model, _)| model.clone());
        if let Some(model) = oldest {
            self.models.remove(&model);
        }
    }
}

/// The middle one; zero of none.
pub(super) fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut sorted: Vec<_> = times.collect();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> ModelName {
        ModelName::parse(name).unwrap()
    }

    /// Whether the last of answers at these paces, in milliseconds, is a sign.
    fn sign(signs: &mut Signs, beside: u32, paces: &[u64]) -> bool {
        let mut last = false;
        for pace in paces {
            last = signs.answered(&model("m"), beside, Duration::from_millis(*pace));
        }
        last
    }

    #[test]
    fn only_several_answers_much_slower_than_usual_are_a_sign() {
        let mut signs = Signs::default();
        assert!(!sign(&mut signs, 1, &[500; 4]), "nothing is usual yet");
        let mut signs = Signs::default();
        assert!(!sign(&mut signs, 1, &[10; 20]));
        assert!(!sign(&mut signs, 1, &[90]), "one alone");
        assert!(!sign(&mut signs, 1, &[19, 19, 19, 19]), "not twice as slow");
        assert!(sign(&mut signs, 1, &[30, 30, 30, 30]));
    }

    #[test]
    fn more_requests_side_by_side_are_slower_without_being_a_sign() {
        let mut signs = Signs::default();
        assert!(!sign(&mut signs, 1, &[10; 20]));
        assert!(!sign(&mut signs, 4, &[40; 20]));
        assert!(sign(&mut signs, 4, &[100; 4]));
    }

    #[test]
    fn what_has_become_usual_is_no_sign_any_more() {
        let mut signs = Signs::default();
        assert!(!sign(&mut signs, 1, &[10; 32]));
        assert!(!sign(&mut signs, 1, &[30; 32]));
    }

    #[test]
    fn an_answer_should_begin_soon_after_its_prompt_could_be_read() {
        let mut signs = Signs::default();
        assert_eq!(signs.should_begin_within(&model("m"), 100), None);
        signs.read(&model("m"), Duration::from_millis(2));
        assert_eq!(signs.should_begin_within(&model("m"), 1000), Some(Duration::from_secs(16)));
        assert!(signs.should_begin_within(&model("m"), u64::MAX).unwrap() > PATIENCE);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut signs = Signs::default();
        for number in 0..1000 {
            signs.read(&model(&format!("m{number}")), Duration::from_millis(1));
        }
        assert_eq!(signs.models.len(), MOST_MODELS);
        assert!(!sign(&mut signs, u32::MAX, &[1; 1000]));
        assert!(
            signs.models.values().all(|usual| usual.paces.values().all(|paces| paces.len() <= REMEMBERED))
        );
    }

    #[test]
    fn a_full_gpu_is_told_apart_from_other_errors() {
        for error in [
            r#"{"error":"llama runner: CUDA error: out of memory"}"#,
            "{\"done\":false}\n{\"error\":\"cudaMalloc failed\"}\n",
            "data: {\"error\":{\"message\":\"failed to allocate buffer\"}}\n\n",
        ] {
            assert!(tells_of_full_memory(error.as_bytes()), "{error}");
        }
        let tool = r#"{"message":{"tool_calls":[{"function":{"arguments":{"error":"out of memory"}}}]}}"#;
        for other in [tool, r#"{"error":"model not found"}"#, r#"{"response":"the heap is out of memory"}"#] {
            assert!(!tells_of_full_memory(other.as_bytes()), "{other}");
        }
    }
}
