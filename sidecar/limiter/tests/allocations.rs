//! What happens for each token allocates nothing.
#![cfg(test)]

use allocation_counter::measure;
use corral_limiter::{
    ModelName, Nanos,
    queue::{FairQueue, FlowKey, QueueBounds, Runner, Slots, WaiterId, Wish},
};

const RUNNING: u64 = 16;

/// So many run, and hundreds of many clients wait.
fn busy() -> FairQueue {
    let runner = Runner::of(&ModelName::parse("llama3.2:3b").unwrap());
    let mut queue = FairQueue::new(Slots { per_model: u32::try_from(RUNNING).unwrap(), models: 1 });
    let max_wait = Nanos::from_secs(3600);
    queue.set_bounds(QueueBounds {
        max_depth: 1000,
        max_depth_per_client: 50,
        max_wait,
        batch_max_wait: max_wait,
    });
    for number in 0..500 {
        let wish = Wish { flow: FlowKey(u128::from(number % 40)), cost: 1000, ..Wish::slot(&runner) };
        queue.arrive(WaiterId(number), wish, Nanos(number)).unwrap();
        queue.loaded(&runner, Nanos(number));
    }
    assert_eq!(queue.in_flight() as u64, RUNNING);
    queue
}

#[test]
fn a_token_that_streams_allocates_nothing_whether_or_not_it_was_expected() {
    let mut queue = busy();
    let outstanding = |queue: &FairQueue| queue.bands().iter().map(|band| band.outstanding).sum::<u64>();
    let before = outstanding(&queue);
    let tokens = measure(|| {
        for token in 0..10_000 {
            queue.progress(WaiterId(token % RUNNING), token);
        }
    });
    assert_eq!(tokens.count_total, 0, "{tokens:?}");
    assert!(outstanding(&queue) > before, "what goes beyond the estimates is charged");
}

#[test]
fn what_does_allocate_is_counted() {
    assert_eq!(measure(|| drop(vec![1_u64])).count_total, 1);
}
