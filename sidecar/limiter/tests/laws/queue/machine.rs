//! Anything may happen, in any order.

use corral_limiter::{Nanos, queue::QueueBounds};
use proptest::prelude::*;

use super::{events::events, world::World};

const HOUR: Nanos = Nanos::from_secs(3600);

fn bounds(max_depth: u32, own: u32, max_wait: Nanos) -> QueueBounds {
    QueueBounds { max_depth, max_depth_per_client: own, max_wait, batch_max_wait: max_wait.plus(max_wait) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Events a few milliseconds apart, and hours to wait: nothing hangs on what is learned of times, so that the oracle
    /// knows exactly whose turn it is, and who has to go.
    #[test]
    fn whoever_is_furthest_behind_is_next_and_nothing_is_lost_nor_left(
        per_model in 1..6u32, runners in 1..4usize, max_depth in 1..14u32, own in 1..10u32,
        events in events(3, 20_000_000),
    ) {
        let mut world = World::new(per_model, 3, bounds(max_depth, own, HOUR));
        for (after, event) in events {
            world.step(after, event.calm_on(runners));
        }
        world.drain();
    }

    /// Events seconds apart: people run out of patience, queues stand, slots are lost to strain and come back.
    #[test]
    fn in_the_course_of_time_every_request_has_one_outcome_and_none_waits_beside_a_free_slot(
        per_model in 1..6u32, max_depth in 0..14u32, own in 1..10u32, max_wait in 1..40u64,
        events in events(3, 3_000_000_000),
    ) {
        let mut world = World::new(per_model, 3, bounds(max_depth, own, Nanos::from_secs(max_wait)));
        world.time_matters = true;
        for (after, event) in events {
            world.step(after, event);
        }
        world.drain();
    }
}
