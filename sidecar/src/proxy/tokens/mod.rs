//! Tokens: what a request will probably cost, what it has cost so far, and what it did cost.
//!
//! Before admission the prompt is measured and its cost reckoned ([`Reckoning`]), by what was learned of the model
//! ([`Learned`]). While the answer goes by, Ollama's own counts are read from it ([`meter`]); at its end the reservation
//! is settled to them ([`Account`]), and the model's habits are learned from them. No client is believed: what it asks for
//! only bounds an estimate.
//!
//! | answer | input | output |
//! | --- | --- | --- |
//! | complete, with counts | as Ollama counted | as Ollama counted |
//! | complete, without counts | the estimate | one a chunk with content |
//! | its client left, while it streamed | the estimate | one a chunk with content |
//! | its client left, while it was made as a whole | the estimate | the estimate |
//! | broken, drained or stalled after the first token | the estimate | one a chunk with content |
//! | failed before the first token, or 5xx | nothing, and the request itself is given back | nothing |
//! | in parts, and failed, broken or left before the last | as Ollama counted what was done; of a part that its client left, the estimate | nothing |
//! | refused by Ollama (4xx), or only a load | nothing | nothing |
//!
//! Bodies are passed on byte for byte, but for two members of requests ([`edit`]) and what the first of them adds to a
//! stream ([`strip`]).

mod account;
mod dialect;
mod edit;
mod learned;
mod meter;
mod reckon;
mod strip;
mod walk;

pub(crate) use account::{Account, How, Spent};
pub(crate) use edit::Edit;
pub(crate) use learned::{Learned, Whose};
pub(crate) use reckon::{Reckoning, tokens_cost as cost};
