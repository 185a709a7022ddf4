//! Models take turns where fewer fit than are asked for: no more loaded than places, one load at a time, nobody waits for
//! ever for a model that is not loaded, and loads do not eat up the time.
//!
//! The other side is a toy of Ollama: a request for a model that is not there throws out one that nobody uses, and a load
//! takes its time.

use std::collections::{BTreeMap, BTreeSet};

use corral_limiter::{
    Nanos,
    queue::{Arrival, FairQueue, FlowKey, Priority, QueueBounds, Runner, Slots, WaiterId, Wish},
};
use proptest::prelude::*;

use crate::support::{SECOND, model};

const DAY: Nanos = Nanos::from_secs(86_400);

/// One sort of requests: what they want, and how urgently. One client each.
#[derive(Debug, Clone)]
struct Sort {
    runner: Runner,
    priority: Priority,
    /// Its limits say no.
    is_held: bool,
    /// Somebody of it waits at every moment.
    is_backlogged: bool,
}

struct Job {
    sort: usize,
    ends: Nanos,
}

struct Scene {
    queue: FairQueue,
    sorts: Vec<Sort>,
    places: usize,
    load: Nanos,
    serve: Nanos,
    now: Nanos,
    last: u64,
    waiting: BTreeMap<WaiterId, (usize, Nanos)>,
    jobs: BTreeMap<WaiterId, Job>,
    /// What Ollama has loaded, and until when what is being loaded is.
    loaded: BTreeSet<Runner>,
    loading: Option<(Runner, Nanos)>,
    loads: u64,
    served: Vec<u64>,
    longest: Vec<Nanos>,
}

impl Scene {
    fn new(sorts: Vec<Sort>, places: u32, load: Nanos, serve: Nanos) -> Self {
        let mut queue = FairQueue::new(Slots { per_model: 2, models: places });
        queue.set_bounds(QueueBounds {
            max_depth: 1000,
            max_depth_per_client: 1000,
            max_wait: DAY,
            batch_max_wait: DAY,
        });
        let (served, longest) = (vec![0; sorts.len()], vec![Nanos::ZERO; sorts.len()]);
        Self {
            queue,
            sorts,
            places: places as usize,
            load,
            serve,
            now: Nanos(1),
            last: 0,
            waiting: BTreeMap::new(),
            jobs: BTreeMap::new(),
            loaded: BTreeSet::new(),
            loading: None,
            loads: 0,
            served,
            longest,
        }
    }

    fn come(&mut self, sort: usize) {
        self.last += 1;
        let id = WaiterId(self.last);
        let Sort { runner, priority, is_held, .. } = self.sorts[sort].clone();
        let wish = Wish {
            flow: FlowKey(sort as u128),
            priority,
            cost: self.serve.0,
            is_pending: is_held,
            ..Wish::slot(&runner)
        };
        self.waiting.insert(id, (sort, self.now));
        if self.queue.arrive(id, wish, self.now).unwrap().arrival == Arrival::Start {
            self.start(id);
        }
    }

    fn dispatch(&mut self) {
        let Self { queue, sorts, waiting, .. } = self;
        let done = queue.dispatch(self.now, |id| !sorts[waiting[&id].0].is_held);
        done.started.into_iter().for_each(|id| self.start(id));
    }

    fn start(&mut self, id: WaiterId) {
        let (sort, since) = self.waiting.remove(&id).unwrap();
        self.longest[sort] = self.longest[sort].max(self.now.since(since));
        let runner = self.sorts[sort].runner.clone();
        if !self.loaded.contains(&runner) {
            self.load(&runner);
        }
        let ready =
            self.loading.as_ref().filter(|(loading, _)| *loading == runner).map_or(self.now, |(_, at)| *at);
        self.jobs.insert(id, Job { sort, ends: ready.plus(self.serve) });
        assert!(self.in_flight(&runner) <= 2, "more than there are slots");
    }

    fn in_flight(&self, runner: &Runner) -> usize {
        self.jobs.values().filter(|job| self.sorts[job.sort].runner == *runner).count()
    }

    /// Ollama loads one at a time, a model once, and throws out only what nobody uses.
    fn load(&mut self, runner: &Runner) {
        assert!(self.loading.is_none(), "two loads at one time");
        let other = self.loaded.iter().find(|other| other.model == runner.model).cloned();
        let goes = match other {
            Some(other) => Some(other),
            None if self.loaded.len() < self.places => None,
            None => self.idle(),
        };
        if let Some(goes) = goes {
            assert_eq!(self.in_flight(&goes), 0, "its requests are in flight");
            self.loaded.remove(&goes);
        }
        self.loaded.insert(runner.clone());
        assert!(self.loaded.len() <= self.places, "more models than places, and all in use");
        self.loading = Some((runner.clone(), self.now.plus(self.load)));
        self.loads += 1;
    }

    /// Who is thrown out, which is one that the queue takes for gone.
    fn idle(&self) -> Option<Runner> {
        let kept = self.queue.models().into_iter().filter(|gauges| gauges.is_loaded || gauges.in_flight > 0);
        let kept: BTreeSet<_> = kept.map(|gauges| gauges.model).collect();
        let mut idle = self.loaded.iter().filter(|loaded| self.in_flight(loaded) == 0);
        let gone = idle.clone().find(|loaded| !kept.contains(&loaded.model));
        gone.or_else(|| idle.next()).cloned()
    }

    /// Keeps somebody waiting of each sort that is to be backlogged.
    fn fill(&mut self) {
        for sort in 0..self.sorts.len() {
            while self.sorts[sort].is_backlogged
                && self.waiting.values().filter(|(of, _)| *of == sort).count() < 3
            {
                self.come(sort);
            }
        }
    }

    /// Until something happens, and no longer than until then.
    fn advance(&mut self, until: Nanos) {
        self.fill();
        self.dispatch();
        let ends = self.jobs.values().map(|job| job.ends).min();
        let load = self.loading.as_ref().map(|(_, at)| *at);
        let look = self.queue.next_look(self.now);
        assert!(look.is_none_or(|at| at > self.now), "it is to be looked at in the past");
        let next = [ends, load, look].into_iter().flatten().min().unwrap_or(until);
        self.now = next.min(until).max(self.now);
        if let Some((runner, at)) = self.loading.clone()
            && at <= self.now
        {
            self.loading = None;
            self.queue.loaded(&runner, self.now);
        }
        let over: Vec<_> =
            self.jobs.iter().filter(|(_, job)| job.ends <= self.now).map(|(id, _)| *id).collect();
        for id in over {
            let job = self.jobs.remove(&id).unwrap();
            self.served[job.sort] += 1;
            self.queue.release(id, self.serve.0, self.now);
        }
    }

    fn run(&mut self, span: Nanos) {
        let until = self.now.plus(span);
        while self.now < until {
            self.advance(until);
        }
        // Who waits still has waited, too.
        for (sort, since) in self.waiting.values() {
            self.longest[*sort] = self.longest[*sort].max(self.now.since(*since));
        }
    }

    /// How long one turn of a model is, at the very most: its stay, what runs then, and the load.
    fn turn(&self) -> u64 {
        (8 * self.load.0).max(5 * SECOND) + self.load.0 + 2 * self.serve.0
    }
}

fn runner(name: u8, shape: u64) -> Runner {
    Runner { shape, ..Runner::of(&model(name)) }
}

fn sort(name: u8, priority: Priority) -> Sort {
    Sort { runner: runner(name, 0), priority, is_held: false, is_backlogged: true }
}

/// Milliseconds.
fn time(from: u64, to: u64) -> impl Strategy<Value = Nanos> {
    (from..to).prop_map(Nanos::from_millis)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn models_that_do_not_fit_take_turns_that_are_bounded_and_loads_take_a_small_part_of_the_time(
        count in 2..6u8, shapes in 1..3u8, places in 1..4u32, load in time(50, 12_000), serve in time(100, 4_000),
    ) {
        let runners = (0..count).map(|name| Sort { runner: runner(name / shapes, (name % shapes).into()), ..sort(0, Priority::Medium) });
        let mut scene = Scene::new(runners.collect(), places, load, serve);
        let span = Nanos(scene.turn() * 25);
        scene.run(span);
        // In the worst case all others have their turns before, one after the other.
        let bound = scene.turn() * u64::from(count);
        for (sort, longest) in scene.longest.iter().enumerate() {
            prop_assert!(longest.0 <= bound, "{sort} waited {longest:?} of {bound}");
        }
        let stay = (8 * load.0).max(5 * SECOND);
        let most = (span.0 / stay + 1) * u64::from(places) + u64::from(count);
        prop_assert!(scene.loads <= most, "{} loads where {most} do", scene.loads);
    }

    /// Whatever the priorities, all but spare requests are served again and again.
    #[test]
    fn no_band_starves_for_its_model(
        priorities in prop::collection::vec(prop::sample::select(Priority::ALL[..4].to_vec()), 2..5),
        places in 1..3u32, load in time(50, 5_000), serve in time(100, 4_000),
    ) {
        let sorts = priorities.into_iter().enumerate().map(|(name, priority)| sort(u8::try_from(name).unwrap(), priority));
        let mut scene = Scene::new(sorts.collect(), places, load, serve);
        // The smallest share is 5 %.
        let span = Nanos(scene.turn() * 60);
        scene.run(span);
        prop_assert!(scene.served.iter().all(|served| *served >= 2), "{:?}", scene.served);
    }

    /// Whose limits say no has no claim to a model in the place of one that is at work.
    #[test]
    fn who_is_held_back_by_limits_takes_no_model_from_those_who_are_not(
        load in time(50, 5_000), serve in time(100, 4_000), priority in prop::sample::select(Priority::ALL[..4].to_vec()),
    ) {
        let held = Sort { is_held: true, ..sort(1, priority) };
        let alone = |held: Option<Sort>| {
            let mut scene = Scene::new([sort(0, Priority::Medium)].into_iter().chain(held).collect(), 1, load, serve);
            scene.run(Nanos(600 * SECOND));
            scene.served[0]
        };
        let (undisturbed, beside) = (alone(None), alone(Some(held)));
        prop_assert!(beside * 10 >= undisturbed * 8, "{beside} of {undisturbed}");
    }
}

#[test]
fn a_model_that_is_loaded_serves_on_while_nobody_else_is_next() {
    let mut scene = Scene::new(vec![sort(0, Priority::Medium)], 1, Nanos::from_secs(2), Nanos::from_secs(1));
    scene.run(Nanos::from_secs(100));
    assert_eq!(scene.loads, 1);
    assert!((190..=196).contains(&scene.served[0]), "{:?}", scene.served);
}

#[test]
fn an_urgent_request_now_and_then_gets_its_model_at_once_and_jobs_go_on_in_between() {
    let jobs = sort(0, Priority::Low);
    let chat = Sort { is_backlogged: false, ..sort(1, Priority::High) };
    let mut scene = Scene::new(vec![jobs, chat], 1, Nanos::from_secs(2), Nanos::from_secs(3));
    for _ in 0..20 {
        scene.run(Nanos::from_secs(60));
        scene.come(1);
    }
    scene.run(Nanos::from_secs(60));
    assert_eq!(scene.served[1], 20);
    assert!(scene.longest[1] <= Nanos::from_secs(6), "it waits for what runs: {:?}", scene.longest[1]);
    assert!(scene.served[0] >= 20 * 2 * 15, "jobs got {} done", scene.served[0]);
}

/// Each of the two has one request at a time, and comes again as soon as it is served.
#[test]
fn two_who_take_turns_do_not_load_a_model_for_each_request() {
    let sorts = [0, 1].map(|name| Sort { is_backlogged: false, ..sort(name, Priority::Medium) });
    let mut scene = Scene::new(sorts.to_vec(), 1, Nanos::from_secs(10), Nanos::from_secs(1));
    while scene.now < Nanos::from_secs(1000) {
        for sort in 0..2 {
            let waits = scene.waiting.values().any(|(of, _)| *of == sort);
            if !waits && scene.jobs.values().all(|job| job.sort != sort) {
                scene.come(sort);
            }
        }
        scene.advance(Nanos::from_secs(1000));
    }
    assert!(scene.loads <= 14, "{} loads for {:?} requests", scene.loads, scene.served);
}
