//! What a request will probably cost, reckoned from its body before it is admitted.

use corral_limiter::{ModelName, Nanos, Usage};
use corral_wire::{CostModel, TokensDoc};

use super::dialect::Dialect;
use super::edit::{self, Edits};
use super::learned::{Habits, Learned, Pace, Whose, to_f64, to_u64};
use crate::proxy::inspect::{Asked, Size};
use crate::proxy::route::Endpoint;

/// What is known of a request's tokens before Ollama has seen it.
#[derive(Debug)]
pub(crate) struct Reckoning {
    pub(super) dialect: Dialect,
    model: ModelName,
    /// A stream was asked for.
    pub(super) streams: bool,
    /// What there is to read.
    pub(super) size: Size,
    /// Tokens of context that the model runs with, where that is known.
    pub(super) context: Option<u64>,
    /// The most tokens of the answer.
    pub(super) cap: Option<u64>,
    /// The counts are asked for in the client's place, and have to be taken out again.
    pub(super) hides_usage: bool,
    /// What a token counts that Ollama had in its cache, in thousandths.
    pub(super) cached_weight_milli: u32,
    edits: Edits,
    estimate: Usage,
    /// How many tokens its answer has, on the average: what the queue goes by.
    mean_output: u64,
    /// How much of it is sent first.
    first: (usize, usize),
    /// How long a token of its model takes.
    pace: Pace,
    /// Whose request it is.
    pub(super) whose: Whose,
}

impl Reckoning {
    /// Of a scanned body; none where nothing is inferred.
    pub(crate) fn of(
        asked: &Asked<'_>,
        endpoint: &Endpoint,
        tokens: &TokensDoc,
        (learned, whose): (&Learned, Whose),
    ) -> Option<Self> {
        let dialect = Dialect::of(endpoint)?;
        let streams = asked.stream.unwrap_or(endpoint.streams_by_default) && !dialect.embeds();
        let edit::Plan { edits, cap, hides_usage } =
            edit::plan(dialect, streams, &asked.knobs, tokens.output_cap.map(u64::from));
        let size = asked.prompt.total(dialect.reads());
        let own = asked.tuning.value("num_ctx").filter(|_| dialect.sets_context());
        let own = own.and_then(|raw| raw.parse().ok()).filter(|context| *context > 0);
        let context = own.or(tokens.context_length.map(u64::from));
        let habits = learned.of(&asked.model);
        let mut this = Self {
            dialect,
            model: asked.model.clone(),
            streams,
            size,
            context,
            cap,
            hides_usage,
            cached_weight_milli: tokens.cached_weight_milli,
            edits,
            estimate: Usage::default(),
            mean_output: 0,
            first: (1, 1),
            pace: habits.pace,
            whose,
        };
        this.estimate = this.estimate_by(&habits);
        let mean = learned.mean_answer(&asked.model, whose);
        this.mean_output = this.output(mean, this.estimate.input);
        Some(this)
    }

    /// What it asks for.
    pub(crate) fn model(&self) -> &ModelName {
        &self.model
    }

    /// What to reserve.
    pub(crate) fn estimate(&self) -> Usage {
        self.estimate
    }

    /// What it will probably cost the queue.
    pub(crate) fn cost(&self, model: CostModel) -> u64 {
        let (inputs, of) = self.first;
        self.cost_of(inputs, of, model)
    }

    /// What some of its inputs will probably cost the queue.
    pub(super) fn cost_of(&self, inputs: usize, of: usize, model: CostModel) -> u64 {
        share(self.whole_cost(model), inputs, of).max(1)
    }

    /// It is sent in parts, and this is the first one.
    pub(crate) fn in_parts(&mut self, inputs: usize, of: usize) {
        self.first = (inputs, of);
    }

    fn whole_cost(&self, model: CostModel) -> u64 {
        match model {
            CostModel::SlotTime => self.slot_time().0.max(1),
            CostModel::Tokens => tokens_cost(self.estimate.input, self.mean_output),
        }
    }

    /// For how long it will probably hold its slot.
    pub(crate) fn slot_time(&self) -> Nanos {
        self.pace.whole(self.estimate.input, self.mean_output)
    }

    /// For how long it will probably hold its slot until its answer is of use: a stream until its first token.
    pub(crate) fn needs(&self) -> Nanos {
        if self.streams { self.pace.reading(self.estimate.input) } else { self.slot_time() }
    }

    /// What is to be changed in the body.
    pub(crate) fn edits(&self) -> &[super::Edit] {
        &self.edits
    }

    fn estimate_by(&self, habits: &Habits) -> Usage {
        let input = self.input(habits);
        Usage { input, output: self.output(habits.long_answer, input), slot: habits.slot }
    }

    fn input(&self, habits: &Habits) -> u64 {
        let Size { text, images, numbers, strings } = self.size;
        let numbers = if self.dialect.reads_tokens() { numbers } else { 0 };
        // A list of tokens is counted, not estimated; where there is nothing to read, there is no template either.
        if strings == 0 && images == 0 {
            return numbers;
        }
        let words = to_f64(text) / habits.bytes_per_token;
        let pictures = to_f64(images) * habits.tokens_per_image;
        let around = habits.template * to_f64(self.prompts());
        let most = self.context.map_or(u64::MAX, |context| context.saturating_mul(self.prompts()));
        to_u64(words + pictures + around).saturating_add(numbers).min(most)
    }

    /// How many prompts it is: each text of a list to embed has a context of its own.
    pub(super) fn prompts(&self) -> u64 {
        if self.dialect.embeds() { self.size.strings } else { 1 }
    }

    /// Tokens of an answer that usually has so many, as far as it may have them.
    fn output(&self, usual: u64, input: u64) -> u64 {
        if self.dialect.embeds() {
            return 0;
        }
        // Ollama cuts a prompt that fills the context to half of it, so that an answer has room.
        let room = self.context.map_or(u64::MAX, |context| match context.saturating_sub(input) {
            0 => context / 2,
            left => left,
        });
        usual.min(self.cap.unwrap_or(u64::MAX)).min(room)
    }
}

/// A part of an amount, rounded down.
pub(super) fn share(amount: u64, part: usize, of: usize) -> u64 {
    let exact = u128::from(amount) * part as u128 / (of as u128).max(1);
    u64::try_from(exact).unwrap_or(u64::MAX)
}

/// What tokens cost the queue where the pool's cost model goes by them: one of an answer as much as two of a prompt.
///
/// In [`TOKEN`]s, so that it is about as much as the time of a slot would be: a pool may change its cost model while
/// requests wait and run, and none of them is put off for what it was charged by the other one.
pub(crate) fn tokens_cost(input: u64, output: u64) -> u64 {
    input.saturating_add(output.saturating_mul(2)).saturating_mul(TOKEN).max(1)
}

/// What a token of a prompt costs where the cost model goes by tokens.
pub(crate) const TOKEN: u64 = 10_000_000;

#[cfg(test)]
#[path = "reckon_tests.rs"]
mod tests;
