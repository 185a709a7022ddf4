//! What is said of a pool whose need goes up and down by chance, about a bound.

use corral_scaler::{Config, Limited};

use crate::world::World;

/// How often what limits a pool changes within an hour.
fn flips(config: Config, pods: u32, rate: f64) -> (usize, Option<Limited>) {
    let mut world = World::new(config, pods);
    world.poisson = true;
    world.run(1200, rate);
    let (mut flips, mut last) = (0, world.decision.limited);
    for _ in 0..3600 {
        world.run(1, rate);
        flips += usize::from(world.decision.limited != last);
        last = world.decision.limited;
    }
    (flips, last)
}

#[test]
fn a_need_about_a_bound_is_no_change_each_minute() {
    // Four slots a pod, answers of 8 s, three quarters of the time: about four and a half pods, and about three.
    for rate in [1.5, 1.65, 1.1] {
        let (above, _) = flips(World::by_work(1, 4), 4, rate);
        assert!(above <= 6, "{above} changes of what holds {rate} a second down");
        let (below, _) = flips(World::by_work(4, 60), 4, rate);
        assert!(below <= 6, "{below} changes of what holds {rate} a second up");
    }
}
