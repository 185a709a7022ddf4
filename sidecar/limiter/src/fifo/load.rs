//! How near the queue is to refusing, as one number.

use super::{Group, SlotQueue};
use crate::Nanos;

/// The load of a queue in which nobody waits is at most this, in thousandths: whoever comes next is let in, whatever
/// the estimate says.
const NOBODY_WAITS: u32 = 400;

/// How the queue stands to its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLoad {
    /// How long one more request would wait, for the model that is waited for longest of those without a free slot; zero
    /// while each has one, or nothing is known of those that have none. An estimate.
    pub predicted_wait: Nanos,
    /// How full the queue is, in thousandths: 1000 where as many wait as may, 0 where nobody may wait.
    pub filled_permille: u32,
    /// In thousandths: 0 while a slot is free for each model that runs; at 1000 the next one waits as long as any may,
    /// or is refused. Where nobody may wait it says nothing: only refusals do.
    pub load_permille: u32,
}

impl SlotQueue {
    /// How the queue stands to its bounds.
    pub fn load(&self) -> QueueLoad {
        let predicted_wait = self.predicted_wait();
        // Who is held back by a limit would wait in front of any number of free slots.
        let waiting = self.waiting.len().saturating_sub(self.held_back);
        let filled_permille = share(waiting as u64, u64::from(self.bounds.max_depth));
        let load_permille = match (self.bounds.max_depth, waiting) {
            (0, _) => 0,
            (_, 0) => share(predicted_wait.0, self.bounds.max_wait.0).min(NOBODY_WAITS),
            _ => share(predicted_wait.0, self.bounds.max_wait.0).max(filled_permille),
        };
        QueueLoad { predicted_wait, filled_permille, load_permille }
    }

    /// The longest estimate of those models that have no slot free.
    fn predicted_wait(&self) -> Nanos {
        let open = self.has_any_slot();
        let full = |group: &Group| !open || !group.has_slot(self.slots);
        let waited_for = self.groups.iter().filter(|(_, group)| full(group));
        waited_for.filter_map(|(model, _)| self.estimate(model)).max().unwrap_or(Nanos::ZERO)
    }
}

/// How much of a bound is used, in thousandths; of no bound at all, nothing is.
fn share(used: u64, bound: u64) -> u32 {
    let permille = used.saturating_mul(1000).checked_div(bound).unwrap_or(0);
    u32::try_from(permille).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::{QueueBounds, SlotBounds, WaiterId, Wish};
    use super::*;
    use crate::ModelName;

    struct Scene {
        queue: SlotQueue,
        model: ModelName,
        last: u64,
    }

    impl Scene {
        /// One slot a model and two in all; each request has taken 4 s so far.
        fn new(max_depth: u32, max_wait_secs: u64) -> Self {
            let mut queue = SlotQueue::new(SlotBounds { per_model: 1, total: 2 });
            queue.set_bounds(QueueBounds { max_depth, max_wait: Nanos::from_secs(max_wait_secs) });
            let mut scene = Self { queue, model: ModelName::parse("m").unwrap(), last: 0 };
            scene.come();
            scene.queue.release(WaiterId(1), Nanos::from_secs(4));
            scene
        }

        fn come(&mut self) {
            self.last += 1;
            let _ = self.queue.arrive(WaiterId(self.last), Wish::slot(&self.model), Nanos::ZERO);
        }

        fn after(&mut self, arrivals: u64) -> QueueLoad {
            (0..arrivals).for_each(|_| self.come());
            self.queue.load()
        }
    }

    #[test]
    fn a_free_slot_is_no_load() {
        let idle = QueueLoad { predicted_wait: Nanos::ZERO, filled_permille: 0, load_permille: 0 };
        assert_eq!(Scene::new(10, 20).after(0), idle);
    }

    #[test]
    fn whoever_waits_and_would_wait_is_measured_against_both_bounds() {
        let told = |max_depth, max_wait, arrivals| Scene::new(max_depth, max_wait).after(arrivals);
        let busy = told(10, 20, 1);
        assert_eq!((busy.predicted_wait, busy.load_permille), (Nanos::from_secs(4), 200));
        let by_wait = told(10, 20, 4);
        let of = |load: QueueLoad| (load.predicted_wait, load.load_permille, load.filled_permille);
        assert_eq!(of(by_wait), (Nanos::from_secs(16), 800, 300));
        assert_eq!(told(4, 80, 4).load_permille, 750, "by depth");
        assert_eq!(told(2, 80, 9).load_permille, 1000, "full");
    }

    #[test]
    fn as_long_as_nobody_waits_the_next_one_is_let_in_whatever_is_expected() {
        let long = Scene::new(10, 1).after(1);
        assert_eq!((long.predicted_wait, long.load_permille), (Nanos::from_secs(4), NOBODY_WAITS));
    }

    #[test]
    fn where_nobody_may_wait_only_refusals_tell_the_load() {
        for (max_depth, max_wait) in [(0, 30), (0, 0)] {
            let load = Scene::new(max_depth, max_wait).after(5);
            let of = (load.load_permille, load.filled_permille, load.predicted_wait);
            assert_eq!(of, (0, 0, Nanos::from_secs(4)));
        }
        assert_eq!(Scene::new(4, 0).after(3).load_permille, 250, "one waits, and the others were refused");
    }

    #[test]
    fn a_model_with_a_slot_is_not_waited_for() {
        let mut scene = Scene::new(10, 20);
        scene.come();
        scene.model = ModelName::parse("other").unwrap();
        let load = scene.after(0);
        assert_eq!(load.predicted_wait, Nanos::from_secs(4), "the full model's");
        scene.come();
        scene.model = ModelName::parse("m").unwrap();
        scene.queue.release(WaiterId(2), Nanos::from_secs(4));
        scene.queue.release(WaiterId(3), Nanos::from_secs(4));
        assert_eq!(scene.queue.load().load_permille, 0);
    }
}
