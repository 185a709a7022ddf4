//! The queue's bounds, and the priorities of endpoints.

use corral_wire::{EndpointClass, EndpointPriorityDoc, QueueDoc};

use super::errors::Errors;
use crate::{Nanos, QueueBounds, queue::Priority};

/// The most requests that may wait.
const MOST_WAITING: u32 = 100_000;
/// The longest that a request may wait, in milliseconds: one hour.
const LONGEST_WAIT_MS: u64 = 3_600_000;
/// How many of one client may wait where nothing is said, at least.
const LEAST_PER_CLIENT: u32 = 32;
/// Of what may wait in all, the part that one client has where nothing is said.
const PART_PER_CLIENT: u32 = 4;

pub(super) fn read(doc: &QueueDoc, errors: &mut Errors) -> QueueBounds {
    errors.check(doc.max_depth <= MOST_WAITING, "queue.maxDepth", || format!("is at most {MOST_WAITING}"));
    let max_wait = read_wait("queue.maxWaitMs", doc.max_wait_ms, errors);
    let batch_max_wait = read_wait("queue.batchMaxWaitMs", doc.batch_max_wait_ms, errors);
    let default = doc.max_depth.checked_div(PART_PER_CLIENT).unwrap_or(0).max(LEAST_PER_CLIENT);
    let max_depth_per_client = doc.max_depth_per_client.unwrap_or(default);
    errors.check((1..=MOST_WAITING).contains(&max_depth_per_client), "queue.maxDepthPerClient", || {
        format!("is 1 to {MOST_WAITING}; to let nobody wait, say maxDepth 0")
    });
    QueueBounds { max_depth: doc.max_depth, max_depth_per_client, max_wait, batch_max_wait }
}

fn read_wait(path: &str, milliseconds: u64, errors: &mut Errors) -> Nanos {
    errors.check((1..=LONGEST_WAIT_MS).contains(&milliseconds), path, || {
        format!("is 1 to {LONGEST_WAIT_MS}, one hour")
    });
    Nanos::from_millis(milliseconds)
}

pub(super) fn read_endpoints(
    docs: &[EndpointPriorityDoc],
    errors: &mut Errors,
) -> Vec<(EndpointClass, Priority)> {
    let mut read: Vec<(EndpointClass, Priority)> = Vec::new();
    for (place, doc) in docs.iter().enumerate() {
        let path = format!("endpointPriorities[{place}].endpoint");
        errors.check(doc.endpoint != EndpointClass::Metadata, &path, || {
            "Metadata has no priority: it never waits".to_owned()
        });
        if read.iter().any(|(endpoint, _)| *endpoint == doc.endpoint) {
            // A document that says one class over and over is told so once.
            errors.add(path, format!("there is another priority of {:?}", doc.endpoint));
            break;
        }
        read.push((doc.endpoint, doc.priority.into()));
    }
    read
}
