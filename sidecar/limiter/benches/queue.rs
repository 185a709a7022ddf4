//! What each step of the queue takes while ten thousand clients have a hundred thousand requests waiting.
//!
//! The time that is told of a step is the one that 99 in 100 keep to; the steps that undo it, so that the next finds the
//! same queue, are not in it. Reading the clock is, and what a busy machine does in between.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use corral_limiter::{
    ModelName, Nanos,
    queue::{Arrival, FairQueue, FlowKey, Priority, QueueBounds, Runner, Slots, WaiterId, Wish},
};
use criterion::{Criterion, criterion_group, criterion_main};

const CLIENTS: u64 = 10_000;
const WAITERS: u32 = 100_000;
const MODELS: u32 = 4;
const SLOTS: u32 = 8;
/// Steps of which the slowest of 99 in 100 is told.
const SAMPLE: usize = 1000;
const NOW: Nanos = Nanos(1);
const PRIORITIES: [Priority; 3] = [Priority::High, Priority::Medium, Priority::Low];

/// The queue, and whom to name next.
struct Scene {
    queue: FairQueue,
    runners: Vec<Runner>,
    last: u64,
    running: Vec<WaiterId>,
    random: u64,
}

impl Scene {
    /// All models are loaded and all slots taken.
    fn new() -> Self {
        let names = (0..MODELS).filter_map(|number| ModelName::parse(&format!("m{number}")).ok());
        let runners = names.map(|name| Runner::of(&name)).collect();
        let queue = FairQueue::new(Slots { per_model: SLOTS, models: MODELS });
        let mut scene = Self { queue, runners, last: 0, running: Vec::new(), random: 1 };
        scene.bound(2 * WAITERS);
        for _ in 0..WAITERS + MODELS * SLOTS {
            scene.come();
        }
        scene
    }

    fn bound(&mut self, max_depth: u32) {
        let max_wait = Nanos::from_secs(86_400);
        let max_depth_per_client = 2 * WAITERS;
        self.queue.set_bounds(QueueBounds {
            max_depth,
            max_depth_per_client,
            max_wait,
            batch_max_wait: max_wait,
        });
    }

    /// A linear congruential step is far below what is measured.
    fn random(&mut self, among: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % among.max(1)
    }

    /// Any of so many places.
    fn place(&mut self, among: usize) -> usize {
        let among = u64::try_from(among).unwrap_or(u64::MAX);
        usize::try_from(self.random(among)).unwrap_or_default()
    }

    /// Somebody comes: any client, for any model, at any cost and priority. Returns how long it took to decide.
    fn come(&mut self) -> (WaiterId, Duration) {
        self.last += 1;
        let (id, place) = (WaiterId(self.last), self.place(self.runners.len()));
        let (client, cost) = (self.random(CLIENTS), 1 + self.random(1_000_000));
        let priority =
            PRIORITIES.get(usize::try_from(client % 3).unwrap_or_default()).copied().unwrap_or_default();
        let Some(runner) = self.runners.get(place) else { return (id, Duration::ZERO) };
        let wish = Wish { flow: FlowKey(client.into()), cost, priority, ..Wish::slot(runner) };
        let (arrived, time) = timed(|| self.queue.arrive(id, wish, NOW));
        if arrived.is_ok_and(|arrived| arrived.arrival == Arrival::Start) {
            self.queue.loaded(runner, NOW);
            self.running.push(id);
        }
        (id, time)
    }

    fn dispatch(&mut self) -> Duration {
        let (done, time) = timed(|| self.queue.dispatch(NOW, |_| true));
        self.running.extend(done.started);
        time
    }

    /// Any of those who run ends; another takes its slot only at the next dispatch.
    fn release(&mut self) -> Duration {
        let place = self.place(self.running.len());
        let id = self.running.swap_remove(place);
        let cost = self.random(2_000_000);
        timed(|| self.queue.release(id, cost, NOW)).1
    }
}

#[expect(clippy::disallowed_methods, reason = "what a bench is for is to read the time")]
fn timed<T>(step: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    let done = black_box(step());
    (done, begun.elapsed())
}

fn arrive(scene: &mut Scene) -> Duration {
    let (id, time) = scene.come();
    scene.queue.leave(id, NOW);
    time
}

fn leave(scene: &mut Scene) -> Duration {
    let (id, _) = scene.come();
    timed(|| scene.queue.leave(id, NOW)).1
}

/// The queue is full: one who comes is refused, or somebody goes for it.
fn push_out(scene: &mut Scene) -> Duration {
    scene.bound(WAITERS);
    let time = scene.come().1;
    scene.bound(2 * WAITERS);
    time
}

fn release(scene: &mut Scene) -> Duration {
    let time = scene.release();
    scene.dispatch();
    scene.come();
    time
}

fn dispatch(scene: &mut Scene) -> Duration {
    scene.release();
    let time = scene.dispatch();
    scene.come();
    time
}

fn progress(scene: &mut Scene) -> Duration {
    let place = scene.place(scene.running.len());
    let cost = scene.random(2_000_000);
    let Some(id) = scene.running.get(place).copied() else { return Duration::ZERO };
    timed(|| scene.queue.progress(id, cost)).1
}

/// What 99 in 100 keep to.
fn slowest(scene: &mut Scene, step: impl Fn(&mut Scene) -> Duration) -> Duration {
    let mut times: Vec<_> = (0..SAMPLE).map(|_| step(scene)).collect();
    times.sort_unstable();
    times.get(SAMPLE * 99 / 100).copied().unwrap_or_default()
}

/// One step of the queue, and how long it took.
type Step = fn(&mut Scene) -> Duration;

fn steps(criterion: &mut Criterion) {
    let mut scene = Scene::new();
    let steps: [(&str, Step); 7] = [
        ("nothing, but for the clock", |_| timed(|| ()).1),
        ("an arrival", arrive),
        ("an arrival at the full queue", push_out),
        ("leaving the line", leave),
        ("a release", release),
        ("a dispatch", dispatch),
        ("a token", progress),
    ];
    for (name, step) in steps {
        criterion.bench_function(&format!("100k waiters, 99 in 100: {name}"), |bencher| {
            bencher.iter_custom(|count| (0..count).map(|_| slowest(&mut scene, step)).sum());
        });
    }
}

criterion_group! {
    name = benches;
    // Each of these is a thousand steps.
    config = Criterion::default().sample_size(20);
    targets = steps
}
criterion_main!(benches);
