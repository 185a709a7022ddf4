//! Who may be out of the Service for its load, with scripted pods.

use std::time::Duration;

use corral_wire::Relief;
use tokio::time::sleep;

use super::exchange::with_pods;
use super::world::World;

const IPS: [&str; 4] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"];

/// Four ready pods, of a leader that has listened long enough.
async fn four() -> World {
    let mut world = with_pods(4).await;
    for pod in 1..=4 {
        world.call_ready(&format!("chat-{pod}"), true);
    }
    world.settle().await;
    world
}

impl World {
    fn load(&self, ip: &str, loaded: bool) {
        let relief = if loaded { Relief::Wanted } else { Relief::Unneeded };
        self.sidecars.change(ip, |pod| pod.relief = relief);
    }

    /// Lets some seconds pass, looking all the while that never more than one is out.
    async fn watch(&mut self, seconds: u64) -> Vec<&'static str> {
        for _ in 0..seconds * 10 {
            sleep(Duration::from_millis(100)).await;
            assert!(self.out().len() <= 1, "{:?}", self.out());
        }
        self.pass().await;
        self.out()
    }

    fn out(&self) -> Vec<&'static str> {
        IPS.into_iter().filter(|ip| self.sidecars.get(ip).relief == Relief::Taken).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn one_of_four_that_wants_it_gets_it_at_once_and_a_second_waits_for_it() {
    let mut world = four().await;
    assert_eq!(world.watch(5).await, [""; 0]);
    world.load(IPS[2], true);
    assert_eq!(world.watch(3).await, [IPS[2]]);
    world.load(IPS[0], true);
    assert_eq!(world.watch(30).await, [IPS[2]]);
    let standing =
        world.ctx.exchange.standing(&corral_wire::PoolRef { namespace: "llm".into(), name: "chat".into() });
    assert_eq!(standing.unwrap().unready, [("chat-3".to_owned(), "Overloaded".to_owned())]);
    world.load(IPS[2], false);
    assert_eq!(world.watch(5).await, [IPS[0]]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_away_takes_the_place_of_one_that_is_out() {
    let mut world = four().await;
    world.load(IPS[0], true);
    assert_eq!(world.watch(3).await, [IPS[0]]);
    world.sidecars.change(IPS[1], |pod| pod.reason = "OllamaDown".into());
    assert_eq!(world.watch(4).await, [""; 0]);
    world.sidecars.change(IPS[1], |pod| pod.reason = String::new());
    assert_eq!(world.watch(4).await, [IPS[0]]);
    world.sidecars.change(IPS[2], |pod| pod.silent = true);
    assert_eq!(world.watch(15).await, [""; 0], "who is silent is away");
    world.sidecars.change(IPS[2], |pod| pod.silent = false);
    assert_eq!(world.watch(5).await, [IPS[0]]);
    world.call_ready("chat-4", false);
    world.pass().await;
    assert_eq!(world.watch(4).await, [""; 0], "Kubernetes knows of more than the sidecar does");
}

#[tokio::test(start_paused = true)]
async fn when_all_want_it_nobody_gets_it() {
    let mut world = four().await;
    for ip in IPS {
        world.load(ip, true);
    }
    // The first to be heard may have asked before the others had.
    assert!(world.watch(30).await.len() <= 1);
    for ip in IPS {
        world.load(ip, false);
    }
    assert_eq!(world.watch(5).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_permits_nothing_until_it_has_listened() {
    let mut world = four().await;
    world.load(IPS[0], true);
    assert_eq!(world.watch(3).await, [IPS[0]]);
    world.lease.release().await;
    let mut next = World::on(world.api.clone(), world.sidecars.clone(), "two").await;
    next.pass().await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(next.out(), [""; 0], "it says so at once");
    assert_eq!(next.watch(4).await, [""; 0]);
    assert_eq!(next.watch(10).await, [IPS[0]]);
}
