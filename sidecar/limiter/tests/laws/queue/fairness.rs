//! Law 11: two flows of one band and one model that ask without pause get the same of the slots over their weights, but for
//! what is in flight, however wrong the estimates are and whoever gives up.

use std::collections::BTreeMap;

use corral_limiter::{
    Nanos,
    queue::{Arrival, FairQueue, FlowKey, QueueBounds, Runner, Slots, WaiterId, Wish},
};
use proptest::prelude::*;

use super::events::COST;
use crate::support::{SECOND, model};

/// What one request of a flow is, at random: its estimate, what it really costs, and after how much of it its client goes
/// away.
#[derive(Debug, Clone, Copy)]
struct Plan {
    estimate: u64,
    real: u64,
    cut: Option<u64>,
}

/// In steps of [`COST`]; estimates from nothing to ten times too much.
fn plan() -> impl Strategy<Value = Plan> {
    (1..40u64, 0..100u64, prop::option::weighted(0.2, 0..40u64)).prop_map(|(real, tenths, cut)| Plan {
        estimate: real * tenths / 10,
        real,
        cut: cut.filter(|cut| *cut < real),
    })
}

struct Running {
    flow: usize,
    plan: Plan,
    done: u64,
}

/// N slots, in each of which one step's worth is done a step.
struct Bench {
    queue: FairQueue,
    slots: usize,
    runner: Runner,
    weights: Vec<u32>,
    plans: Vec<Vec<Plan>>,
    taken: Vec<usize>,
    running: BTreeMap<WaiterId, Running>,
    waiting: BTreeMap<WaiterId, (usize, Plan)>,
    last: u64,
    now: Nanos,
    /// What each flow has had of the slots.
    had: Vec<u64>,
    /// Tells of what is done every so many steps.
    tells: u64,
}

impl Bench {
    fn new(slots: u32, weights: Vec<u32>, plans: Vec<Vec<Plan>>, tells: u64) -> Self {
        let mut queue = FairQueue::new(Slots { per_model: slots, models: 1 });
        let day = Nanos(86_400 * SECOND);
        queue.set_bounds(QueueBounds {
            max_depth: 999,
            max_depth_per_client: 999,
            max_wait: day,
            batch_max_wait: day,
        });
        let (taken, had) = (vec![0; weights.len()], vec![0; weights.len()]);
        let runner = Runner::of(&model(0));
        let (running, waiting) = Default::default();
        let slots = slots as usize;
        Self {
            queue,
            slots,
            runner,
            weights,
            plans,
            taken,
            running,
            waiting,
            last: 0,
            now: Nanos(0),
            had,
            tells,
        }
    }

    /// So that some of each flow still wait when all slots have gone to it.
    fn fill(&mut self) {
        for flow in 0..self.weights.len() {
            while self.waiting.values().filter(|(of, _)| *of == flow).count() <= self.slots {
                let plan = self.plans[flow][self.taken[flow] % self.plans[flow].len()];
                self.taken[flow] += 1;
                self.last += 1;
                let id = WaiterId(self.last);
                let wish = Wish {
                    flow: FlowKey(flow as u128),
                    weight: self.weights[flow],
                    cost: plan.estimate * COST,
                    is_pending: true,
                    ..Wish::slot(&self.runner)
                };
                let arrived = self.queue.arrive(id, wish, self.now).unwrap();
                assert!(matches!(arrived.arrival, Arrival::Wait { .. }));
                self.waiting.insert(id, (flow, plan));
            }
        }
    }

    fn step(&mut self) {
        self.fill();
        for id in self.queue.dispatch(self.now, |_| true).started {
            let (flow, plan) = self.waiting.remove(&id).unwrap();
            self.running.insert(id, Running { flow, plan, done: 0 });
            self.queue.loaded(&self.runner, self.now);
        }
        self.now = self.now.plus(Nanos(COST));
        let Self { running, had, queue, now, tells, .. } = self;
        running.retain(|id, one| {
            one.done += 1;
            had[one.flow] += 1;
            if one.done % *tells == 0 {
                queue.progress(*id, one.done * COST);
            }
            let is_over = one.done >= one.plan.cut.unwrap_or(u64::MAX).min(one.plan.real).max(1);
            if is_over {
                queue.release(*id, one.done * COST, *now);
            }
            !is_over
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn backlogged_flows_get_the_same_over_their_weights_but_for_what_is_in_flight(
        slots in 1..9u32, weights in prop::collection::vec(prop_oneof![1..10u32, 1..1000u32], 2..5), tells in 1..50u64,
        plans in prop::collection::vec(prop::collection::vec(plan(), 1..12), 4),
    ) {
        let flows = weights.len();
        let mut bench = Bench::new(slots, weights.clone(), plans[..flows].to_vec(), tells);
        // How far one was ahead of another at most, and at least, in costs times both weights.
        let mut range = vec![vec![(0i128, 0i128); flows]; flows];
        for _ in 0..1500 {
            bench.step();
            for f in 0..flows {
                for g in 0..flows {
                    let ahead = i128::from(bench.had[f]) * i128::from(weights[g]) - i128::from(bench.had[g]) * i128::from(weights[f]);
                    let (least, most) = &mut range[f][g];
                    (*least, *most) = (ahead.min(*least), ahead.max(*most));
                }
            }
        }
        let largest = |flow: usize| plans[flow].iter().map(|plan| plan.estimate.max(plan.real)).max().unwrap();
        for f in 0..flows {
            for g in 0..flows {
                let (of_f, of_g) = (i128::from(largest(f)) * i128::from(weights[g]), i128::from(largest(g)) * i128::from(weights[f]));
                let bound = (i128::from(slots) + 1) * (of_f + of_g);
                let (least, most) = range[f][g];
                prop_assert!(most - least <= bound, "{f} and {g}: {least} to {most}, bound {bound}");
            }
        }
    }

    /// Who has been idle saves nothing up: from when it comes, it gets its share and no more.
    #[test]
    fn a_newcomer_gets_its_share_from_when_it_comes(
        slots in 1..5u32, alone in 100..2000u64, plans in prop::collection::vec(plan(), 1..8),
    ) {
        let mut bench = Bench::new(slots, vec![1], vec![plans.clone(), plans.clone()], 1);
        (0..alone).for_each(|_| bench.step());
        bench.weights.push(1);
        bench.taken.push(0);
        bench.had = vec![0, 0];
        (0..2000).for_each(|_| bench.step());
        let largest = plans.iter().map(|plan| plan.estimate.max(plan.real)).max().unwrap();
        let bound = (u64::from(slots) + 1) * 2 * largest;
        prop_assert!(bench.had[0].abs_diff(bench.had[1]) <= bound, "{:?}, bound {bound}", bench.had);
    }
}
