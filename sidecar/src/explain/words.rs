//! What limits say, in words.

use corral_limiter::queue::Priority;
use corral_limiter::{Mismatch, Unit, Usage, Would};

use crate::proxy::seconds;

/// Why a limit does not apply.
pub(crate) fn not_for(mismatch: Mismatch) -> &'static str {
    match mismatch {
        Mismatch::Endpoint => "it is for other endpoints",
        Mismatch::Path => "it is for other paths",
        Mismatch::Model => "it is for other models",
        Mismatch::Tier => "it is for other tiers",
        Mismatch::Header => "it is for requests with a header that this one lacks",
        Mismatch::Address => "it is for other addresses",
        Mismatch::Exempt => "this client is exempt from it",
    }
}

/// What a limit would do.
pub(crate) fn says(would: Would) -> String {
    match would {
        Would::Admit => "admits".to_owned(),
        Would::Deprioritize => "lets it run when nobody else wants the slot".to_owned(),
        Would::Queue(wait) => format!("keeps it in the queue for {} at least", seconds(wait)),
        Would::Delay(wait) => format!("lets it start in {}", seconds(wait)),
        Would::Reject(wait) => format!("refuses for {}", seconds(wait)),
        Would::Never => "refuses for good: it costs more than one request may".to_owned(),
        Would::CountRefusal => "would refuse".to_owned(),
    }
}

/// How urgent a request is, in the word that policies have for it.
pub(crate) fn urgency(priority: Priority) -> &'static str {
    match priority {
        Priority::Critical => "critical",
        Priority::High => "high",
        Priority::Medium => "medium",
        Priority::Low => "low",
        Priority::Spare => "spare",
    }
}

/// What a request of this estimate takes of a unit; seconds of slots are rounded up.
pub(crate) fn requested(unit: Unit, estimate: Usage) -> u64 {
    match unit {
        Unit::Requests | Unit::Concurrency | Unit::Queued => 1,
        Unit::Tokens => estimate.input.saturating_add(estimate.output),
        Unit::InputTokens | Unit::QueuedTokens => estimate.input,
        Unit::OutputTokens => estimate.output,
        Unit::SlotSeconds => estimate.slot.secs_ceil(),
    }
}
