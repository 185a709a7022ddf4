//! The baselines do what others have measured of them: so the world is the right one.

use corral_limiter::Nanos;

use crate::load::{Client, CostModel, Sizes};
use crate::outcome::jain;
use crate::table::{BASELINES, Kind};
use crate::world::Setting;

fn small() -> Sizes {
    Sizes::new(200.0, 40.0)
}

fn large() -> Sizes {
    Sizes::new(1400.0, 280.0)
}

fn two(slots: u32) -> Setting {
    let capacity = f64::from(slots);
    let clients = vec![Client::open(small(), 1.2 * capacity), Client::open(large(), 1.5 * capacity)];
    Setting { cost: CostModel::Tokens, ..Setting::new(slots, 30, clients) }
}

#[test]
fn explore() {
    for slots in [1, 4, 8] {
        for kind in BASELINES {
            let outcome = kind.run(&two(slots));
            let shares = outcome.shares(0, 1);
            println!("{slots} {kind:?} gap {:.2} small:large {:.2} goodput {:.2}", outcome.gap(), shares[0] / shares[1], outcome.goodput());
        }
    }
    for kind in BASELINES {
        let clients = vec![Client::closed(Sizes::new(400.0, 80.0), 16), Client { from: Nanos::from_secs(600), ..Client::closed(Sizes::new(400.0, 80.0), 16) }];
        let setting = Setting { marks: vec![Nanos::from_secs(600), Nanos::from_secs(660)], ..Setting::new(4, 12, clients) };
        println!("newcomer {kind:?} {:.2}", kind.run(&setting).shares(0, 1)[1]);
    }
    for load in [2.0, 10.0] {
        for kind in BASELINES {
            let all: f64 = (1..=20).map(|k| 1.0 / f64::from(k)).sum();
            let clients = (1..=20).map(|k| Client::open(Sizes::new(500.0, 140.0), 4.0 * load / f64::from(k) / all).patient_for(30)).collect();
            let outcome = kind.run(&Setting::new(4, 15, clients));
            println!("{load}x {kind:?} goodput {:.2} waste {:.2} jain {:.2}", outcome.goodput(), outcome.waste(), jain(&outcome.served(0, 1)));
        }
    }
    for kind in BASELINES {
        let sizes = Sizes::new(500.0, 140.0);
        let mut clients = vec![Client::open(sizes, 40.0).patient_for(30)];
        clients.extend((0..9).map(|_| Client::open(sizes, 0.2).patient_for(30)));
        let outcome = kind.run(&Setting::new(4, 15, clients));
        println!("elephant {kind:?} mice {:.3} total {:.2} p99 {:.1} longest {:.1}", outcome.success(1..10), outcome.goodput(), outcome.wait(1..10, 0.99), outcome.longest);
    }
    for kind in BASELINES {
        let batch = Sizes { most: 1e9, ..Sizes::new(1000.0, 390.0) };
        let clients = vec![Client::open(Sizes::new(200.0, 40.0), 0.4), Client::open(batch, 12.0)];
        let outcome = kind.run(&Setting::new(4, 60, clients));
        println!("flood {kind:?} p50 {:.1} p99 {:.1} ", outcome.wait(0..1, 0.5), outcome.wait(0..1, 0.99));
    }
}
