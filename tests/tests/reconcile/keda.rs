//! What KEDA is told of pools is what their pods say, what was decided, or why there is nothing to tell.

use std::sync::Arc;
use std::time::Duration;

use corral_operator::keda::measure::is_active;
use corral_operator::keda::pools::Pools;
use corral_operator::keda::server::serve;
use corral_operator::keda::source::{Desired, NoNumbers, Numbers, PoolNumbers};
use corral_wire::{Counters, Gauges, PoolRef};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use super::world::{NS, World, pool_spec};

const IPS: [&str; 2] = ["10.0.0.1", "10.0.0.2"];

fn chat() -> PoolRef {
    PoolRef { namespace: NS.into(), name: "chat".into() }
}

fn external() -> Value {
    let mut spec = pool_spec(2);
    spec["ollama"] = json!({"numParallel": 4});
    spec["autoscaling"] = json!({"mode": "External", "scaleDown": {"windowSeconds": 60}});
    spec
}

/// Two ready pods of a pool.
async fn two(spec: &Value) -> World {
    let mut world = World::new().await;
    world.put_pool("chat", spec);
    world.pass().await;
    for (place, ip) in IPS.into_iter().enumerate() {
        world.start_pod("chat", &format!("chat-{place}"), ip);
    }
    world.settle().await;
    for place in 0..IPS.len() {
        world.call_ready(&format!("chat-{place}"), true);
    }
    world.complete("chat");
    world.settle().await;
    world
}

impl World {
    fn told(&self) -> Result<Numbers, NoNumbers> {
        Pools::new(vec![Arc::clone(&self.ctx)], Arc::clone(&self.lease)).of(&chat())
    }

    fn numbers(&self) -> Numbers {
        self.told().unwrap()
    }

    fn gauge(&self, ip: &str, in_flight: u32, queued: u32) {
        self.sidecars
            .change(ip, |pod| pod.gauges = Gauges { slots: 4, in_flight, queued, ..Gauges::default() });
    }

    /// Lets so much time pass with so many new requests a second at each pod, each of 8 s, looking every 2 s.
    async fn busy_for(&mut self, seconds: u64, rate: u64) {
        for _ in 0..seconds / 2 {
            for ip in IPS {
                self.sidecars.change(ip, |pod| {
                    let counters = &mut pod.counters;
                    counters.arrivals += 2 * rate;
                    counters.completions += 2 * rate;
                    counters.slot_millis += 2 * rate * 8000;
                });
            }
            sleep(Duration::from_secs(2)).await;
            self.pass().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn load_is_summed_over_the_pods_that_are_heard() {
    let world = two(&external()).await;
    world.gauge(IPS[0], 4, 3);
    world.gauge(IPS[1], 1, 0);
    sleep(Duration::from_secs(3)).await;
    let numbers = world.numbers();
    assert_eq!((numbers.in_flight, numbers.queued, numbers.held), (5, 3, 0));
    assert_eq!((numbers.ready, numbers.silent, numbers.slots_per_pod), (2, 0, 4));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_falls_silent_is_no_longer_summed_and_counts_as_busy() {
    let world = two(&external()).await;
    world.gauge(IPS[0], 4, 3);
    sleep(Duration::from_secs(3)).await;
    world.sidecars.change(IPS[0], |pod| pod.silent = true);
    sleep(Duration::from_secs(15)).await;
    let numbers = world.numbers();
    assert_eq!((numbers.ready, numbers.silent, numbers.in_flight, numbers.queued), (2, 1, 0, 0));
    assert!(is_active(&numbers));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_and_goes_between_two_reports_keeps_a_pool_active_for_a_minute() {
    let world = two(&external()).await;
    sleep(Duration::from_mins(2)).await;
    assert!(!is_active(&world.numbers()));
    let came = Counters { arrivals: 1, completions: 1, ..Counters::default() };
    world.sidecars.change(IPS[1], |pod| pod.counters = came);
    sleep(Duration::from_secs(3)).await;
    assert!(is_active(&world.numbers()));
    sleep(Duration::from_secs(50)).await;
    assert!(is_active(&world.numbers()));
    sleep(Duration::from_secs(15)).await;
    assert!(!is_active(&world.numbers()));
    let refused = Counters { arrivals: 500, policy_rejects: 499, ..came };
    world.sidecars.change(IPS[1], |pod| pod.counters = refused);
    sleep(Duration::from_secs(3)).await;
    assert!(!is_active(&world.numbers()), "what limits refuse is no use of the pool");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_goes_is_no_request() {
    let mut world = two(&external()).await;
    let came = Counters { arrivals: 70, completions: 70, ..Counters::default() };
    world.sidecars.change(IPS[1], |pod| pod.counters = came);
    sleep(Duration::from_mins(2)).await;
    world.end_pod("chat-1", IPS[1]);
    world.pass().await;
    sleep(Duration::from_secs(3)).await;
    let numbers = world.numbers();
    assert!(!is_active(&numbers) && numbers.ready == 1, "{numbers:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_others_scale_is_told_what_the_operator_would_ask_for_and_nobody_acts_by_it() {
    let mut world = two(&external()).await;
    world.busy_for(200, 3).await;
    // Six a second, each of 8 s, in pods of four slots of which three quarters are planned for.
    let Desired::Pods(desired) = world.numbers().desired else { panic!("{:?}", world.numbers()) };
    assert!((14..=20).contains(&desired), "{desired}");
    assert_eq!(world.deployment("chat").unwrap()["spec"]["replicas"], 2);
    let pool = world.api.find("corral.dev", "ollamapools", NS, "chat").unwrap();
    assert_eq!(pool["spec"]["replicas"], 2);
    assert_eq!(pool["status"]["desiredReplicas"], 2, "it is not what the pool is asked to be");
}

#[tokio::test(start_paused = true)]
async fn its_own_bound_holds_where_it_has_one() {
    let mut spec = external();
    spec["autoscaling"]["maxReplicas"] = json!(5);
    let mut world = two(&spec).await;
    world.busy_for(200, 3).await;
    assert_eq!(world.numbers().desired, Desired::Pods(5));
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_scales_itself_says_what_was_decided() {
    let mut spec = pool_spec(1);
    spec["autoscaling"] = json!({"minReplicas": 2, "maxReplicas": 4});
    let world = two(&spec).await;
    assert_eq!(world.numbers().desired, Desired::Pods(2));
}

#[tokio::test(start_paused = true)]
async fn a_pool_without_autoscaling_has_a_load_and_no_advice() {
    let world = two(&pool_spec(2)).await;
    world.gauge(IPS[0], 1, 0);
    sleep(Duration::from_secs(3)).await;
    let numbers = world.numbers();
    assert_eq!((numbers.desired, numbers.in_flight), (Desired::Disabled, 1));
}

#[tokio::test(start_paused = true)]
async fn where_there_is_nothing_to_tell_it_is_said_why() {
    let mut world = World::new().await;
    world.pass().await;
    assert_eq!(world.told(), Err(NoNumbers::Unknown(chat())));
    let mut world = two(&external()).await;
    world.put_pool("chat", &json!({"replicas": "many"}));
    world.pass().await;
    assert_eq!(world.told(), Err(NoNumbers::Unreadable(chat())));
    world.lease.release().await;
    assert_eq!(world.told(), Err(NoNumbers::NotLeading));
}

#[tokio::test(start_paused = true)]
async fn who_never_finishes_the_first_words_or_asks_nothing_is_hung_up_on() {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let numbers = Pools::new(vec![Arc::clone(&world.ctx)], Arc::clone(&world.lease));
    let server = tokio::spawn(serve(listener, Arc::new(numbers)));
    for words in [&b"P"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"] {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(words).await.unwrap();
        let mut said = Vec::new();
        let ended = timeout(Duration::from_mins(10), stream.read_to_end(&mut said)).await;
        assert!(ended.is_ok() && begun.elapsed() < Duration::from_secs(31), "{:?}", begun.elapsed());
    }
    server.abort();
}
