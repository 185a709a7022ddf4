//! The queue by examples; its laws are in `tests/laws`.

use super::*;

/// A queue of one model with so many slots, and what is known of those in it.
struct Scene {
    queue: FairQueue,
    runner: Runner,
    now: Nanos,
    last: u64,
}

fn runner(name: &str) -> Runner {
    Runner::of(&ModelName::parse(name).unwrap())
}

fn secs(seconds: u64) -> u64 {
    seconds * 1_000_000_000
}

impl Scene {
    fn new(per_model: u32, models: u32) -> Self {
        let mut queue = FairQueue::new(Slots { per_model, models });
        let (max_wait, batch_max_wait) = (Nanos::from_secs(60), Nanos::from_secs(300));
        queue.set_bounds(QueueBounds { max_depth: 64, max_depth_per_client: 32, max_wait, batch_max_wait });
        Self { queue, runner: runner("m"), now: Nanos::ZERO, last: 0 }
    }

    fn come(&mut self, change: impl FnOnce(&mut Wish<'_>)) -> Result<(WaiterId, Arrived), Shed> {
        self.last += 1;
        let (id, runner) = (WaiterId(self.last), self.runner.clone());
        let mut wish = Wish::slot(&runner);
        change(&mut wish);
        self.queue.arrive(id, wish, self.now).map(|arrived| (id, arrived))
    }

    /// Whoever comes for a client, at a priority, and is let in.
    fn of(&mut self, client: u128, priority: Priority) -> WaiterId {
        let come = |wish: &mut Wish<'_>| (wish.flow, wish.priority) = (FlowKey(client), priority);
        self.come(come).unwrap().0
    }

    fn starts(&mut self) -> Vec<WaiterId> {
        self.queue.dispatch(self.now, |_| true).started.to_vec()
    }

    /// It is done after so long, having cost just that; then whoever is next starts.
    fn done(&mut self, id: WaiterId, seconds: u64) -> Vec<WaiterId> {
        let runner = self.runner.clone();
        self.queue.loaded(&runner, self.now);
        self.now = self.now.plus(Nanos::from_secs(seconds));
        self.queue.release(id, secs(seconds), self.now);
        self.starts()
    }
}

#[test]
fn clients_of_one_band_take_turns_however_many_requests_each_has() {
    let mut scene = Scene::new(1, 1);
    let first = scene.of(1, Priority::Medium);
    let ones: Vec<_> = (0..5).map(|_| scene.of(1, Priority::Medium)).collect();
    let twos: Vec<_> = (0..2).map(|_| scene.of(2, Priority::Medium)).collect();
    let mut order = vec![first];
    for _ in 0..7 {
        let running = *order.last().unwrap();
        order.extend(scene.done(running, 1));
    }
    assert_eq!(order, [first, twos[0], ones[0], twos[1], ones[1], ones[2], ones[3], ones[4]]);
    let last = *order.last().unwrap();
    assert!(scene.done(last, 1).is_empty());
    let rest = QueueGauges { flows: 0, ..QueueGauges::default() };
    assert_eq!(scene.queue.gauges(scene.now), rest);
}

#[test]
fn bands_share_by_their_weights_and_batch_is_never_at_zero() {
    let mut scene = Scene::new(1, 1);
    let mut running = scene.of(9, Priority::Medium);
    let mut served = [0; 3];
    let mut band_of = std::collections::HashMap::new();
    let bands = [Priority::High, Priority::Medium, Priority::Low];
    let come = |scene: &mut Scene, band: usize, band_of: &mut std::collections::HashMap<_, _>| {
        band_of.insert(scene.of(band as u128, bands[band]), band);
    };
    for band in 0..3 {
        come(&mut scene, band, &mut band_of);
        come(&mut scene, band, &mut band_of);
    }
    for _ in 0..2106 {
        let started = scene.done(running, 1);
        running = started[0];
        let band = band_of[&running];
        served[band] += 1;
        come(&mut scene, band, &mut band_of);
    }
    let share = |band: usize| f64::from(served[band]) / 2106.0;
    assert!((share(0) - 16.0 / 21.053).abs() < 0.01, "{served:?}");
    assert!((share(1) - 4.0 / 21.053).abs() < 0.01, "{served:?}");
    assert!((share(2) - 0.05).abs() < 0.005, "{served:?}");
}

#[test]
fn what_is_to_spare_goes_to_spare_requests_only() {
    let mut scene = Scene::new(1, 1);
    let running = scene.of(1, Priority::Medium);
    let spare = scene.of(2, Priority::Spare);
    let low = scene.of(3, Priority::Low);
    assert_eq!(scene.done(running, 1), [low]);
    assert_eq!(scene.done(low, 1), [spare]);
}

#[test]
fn a_full_queue_pushes_out_the_newest_of_who_has_the_most_waiting_with_the_least_claim() {
    let mut scene = Scene::new(1, 1);
    scene.queue.set_bounds(QueueBounds {
        max_depth: 4,
        max_depth_per_client: 3,
        max_wait: Nanos::from_secs(60),
        batch_max_wait: Nanos::from_secs(60),
    });
    scene.of(1, Priority::Medium);
    let greedy: Vec<_> = (0..3).map(|_| scene.of(1, Priority::Medium)).collect();
    let refused = scene.come(|wish| wish.flow = FlowKey(1)).unwrap_err();
    assert_eq!(refused.reason, ShedReason::ClientFull);
    scene.of(2, Priority::Medium);
    let (_, arrived) = scene.come(|wish| wish.flow = FlowKey(3)).unwrap();
    assert_eq!(arrived.pushed_out[0].0, greedy[2]);
    assert_eq!(arrived.pushed_out[0].1.reason, ShedReason::PushedOut);
    let refused = scene.come(|wish| (wish.flow, wish.priority) = (FlowKey(4), Priority::Low)).unwrap_err();
    assert_eq!(refused.reason, ShedReason::QueueFull, "who has less claim than all others goes itself");
}

#[test]
fn models_are_loaded_one_at_a_time_and_an_idle_one_makes_way() {
    let mut scene = Scene::new(2, 2);
    let a = scene.of(1, Priority::Medium);
    scene.runner = runner("b");
    let b = scene.of(1, Priority::Medium);
    assert!(scene.starts().is_empty(), "a is being loaded");
    scene.queue.loaded(&runner("m"), scene.now);
    assert_eq!(scene.starts(), [b]);
    scene.queue.loaded(&runner("b"), scene.now);
    scene.runner = runner("c");
    let c = scene.of(2, Priority::Medium);
    assert!(scene.starts().is_empty(), "both places are in use");
    scene.now = Nanos::from_secs(1);
    scene.queue.release(a, secs(1), scene.now);
    scene.queue.release(b, secs(1), scene.now);
    let look = |scene: &Scene| scene.queue.next_look(scene.now);
    while scene.starts().is_empty() {
        scene.now = look(&scene).expect("a time to look again");
        assert!(scene.now < Nanos::from_secs(5));
    }
    assert_eq!(scene.queue.in_flight(), 1, "{c:?}");
}

#[test]
fn a_model_that_is_in_use_all_the_time_makes_way_in_the_end() {
    let mut scene = Scene::new(1, 1);
    let mut running = scene.of(1, Priority::Medium);
    scene.queue.loaded(&runner("m"), scene.now);
    scene.runner = runner("other");
    let waits = scene.of(2, Priority::Medium);
    scene.runner = runner("m");
    for _ in 0..200 {
        scene.of(1, Priority::Medium);
        let started = scene.done(running, 1);
        match started.as_slice() {
            [next] if *next == waits => return assert!(scene.now <= Nanos::from_secs(18), "{:?}", scene.now),
            [next] => running = *next,
            _ => assert!(scene.queue.next_look(scene.now).is_some() || scene.queue.in_flight() == 0),
        }
    }
    panic!("never served");
}

#[test]
fn a_clients_deadline_bounds_its_wait_and_it_is_told_when_it_has_passed() {
    let mut scene = Scene::new(1, 1);
    let running = scene.of(1, Priority::Medium);
    let at = Nanos::from_secs(8);
    let due = Some(Due { at, needs: Nanos::from_secs(4) });
    let (id, arrived) = scene.come(|wish| wish.due = due).unwrap();
    assert_eq!(arrived.arrival, Arrival::Wait { deadline: Nanos::from_secs(4) });
    scene.now = Nanos::from_secs(5);
    scene.queue.release(running, secs(5), scene.now);
    let late = scene.queue.dispatch(scene.now, |_| true).late;
    assert_eq!((late[0].0, late[0].1.reason), (id, ShedReason::DeadlineMissed));
}

#[test]
fn one_that_comes_again_goes_before_the_others_of_its_client_and_not_before_other_clients() {
    let mut scene = Scene::new(1, 1);
    let running = scene.of(1, Priority::Medium);
    let behind = scene.of(1, Priority::Medium);
    let other = scene.of(2, Priority::Medium);
    scene.queue.loaded(&runner("m"), scene.now);
    scene.now = Nanos::from_secs(1);
    scene.queue.again(running, secs(1), secs(1), scene.now);
    assert_eq!(scene.starts(), [other]);
    assert_eq!(scene.done(other, 1), [running]);
    assert_eq!(scene.done(running, 1), [behind]);
}

#[test]
fn the_reserve_is_for_critical_requests_while_there_are_any() {
    let mut scene = Scene::new(4, 1);
    let critical = scene.of(1, Priority::Critical);
    for client in 2..6 {
        scene.of(client, Priority::High);
    }
    scene.queue.loaded(&runner("m"), scene.now);
    scene.starts();
    assert_eq!(scene.queue.in_flight(), 4, "the critical one and three others");
    scene.queue.release(critical, 0, scene.now);
    assert!(scene.starts().is_empty(), "the fourth slot is kept");
    let next = scene.of(1, Priority::Critical);
    assert_eq!(scene.starts(), [next]);
    assert_eq!(scene.queue.next_look(scene.now), Some(Nanos::from_secs(60)));
}

#[test]
fn a_model_that_only_held_back_requests_wait_for_makes_way_at_its_time() {
    let mut scene = Scene::new(1, 1);
    let first = scene.of(1, Priority::Medium);
    scene.done(first, 1);
    let held_back = scene.come(|wish| wish.is_pending = true).unwrap().0;
    let dispatch = |scene: &mut Scene| scene.queue.dispatch(scene.now, |id| id != held_back).started.to_vec();
    scene.runner = runner("other");
    let waits = scene.of(2, Priority::Medium);
    for _ in 0..20 {
        let started = dispatch(&mut scene);
        if !started.is_empty() {
            assert_eq!(started, [waits]);
            return assert!(scene.now <= Nanos::from_secs(5), "{:?}", scene.now);
        }
        scene.now = scene.queue.next_look(scene.now).expect("a time to look again");
    }
    panic!("never served");
}

#[test]
fn who_comes_to_a_free_slot_is_not_refused_for_those_whom_their_limits_hold_back() {
    let mut scene = Scene::new(1, 1);
    let first = scene.of(1, Priority::Medium);
    scene.done(first, 20);
    for _ in 0..3 {
        scene.come(|wish| (wish.flow, wish.is_pending) = (FlowKey(1), true)).unwrap();
    }
    assert!(scene.queue.dispatch(scene.now, |_| false).started.is_empty());
    let due = Some(Due { at: scene.now.plus(Nanos::from_secs(25)), needs: Nanos::from_secs(1) });
    let (next, _) = scene.come(|wish| (wish.flow, wish.due) = (FlowKey(2), due)).unwrap();
    assert_eq!(scene.queue.dispatch(scene.now, |id| id == next).started.to_vec(), [next]);
}

#[test]
fn a_queue_does_not_stand_because_limits_hold_back_who_waits_in_it() {
    let mut scene = Scene::new(1, 1);
    for _ in 0..30 {
        scene.come(|wish| wish.is_pending = true).unwrap();
    }
    // Two at a time, every ten seconds; what they take of their slots is nothing.
    for _ in 0..10 {
        assert!(scene.queue.dispatch(scene.now, |_| false).started.is_empty());
        scene.now = scene.now.plus(Nanos::from_secs(10));
        for _ in 0..2 {
            let started = scene.starts();
            scene.queue.loaded(&runner("m"), scene.now);
            scene.queue.release(started[0], 0, scene.now);
        }
    }
    assert!(!scene.queue.bands().iter().any(|band| band.stands));
}

#[test]
fn nothing_is_learned_from_requests_that_came_to_nothing() {
    let mut scene = Scene::new(1, 1);
    let first = scene.of(1, Priority::Medium);
    scene.done(first, 20);
    for _ in 0..20 {
        let failed = scene.of(1, Priority::Medium);
        scene.queue.fail(failed, 7, scene.now);
    }
    assert_eq!(scene.queue.bands()[Band::Standard as usize].served, secs(20) + 140);
    scene.of(1, Priority::Medium);
    let wish = scene.runner.clone();
    assert_eq!(scene.queue.estimate(&Wish::slot(&wish)), Some(Nanos::from_secs(20)));
}
