//! What a pod tells of the work that it is asked for: the counts of its report, of requests as clients send them.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::path::Path;
use std::time::Duration;

use corral_tests::client::Client;
use corral_tests::ollama::{Endpoint, Fault, Pace, ScriptedOllama, Settings};
use corral_tests::pod::{Pod, plan};
use corral_wire::{Counters, EndpointClass, PlanDoc, Position, QueueDoc, ServePermission};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;

const FIRST: Position = Position { term: 1, sequence: 1 };
const LAST: Position = Position { term: 1, sequence: 2 };

fn ask(tokens: u32) -> Value {
    json!({ "model": "tiny", "prompt": "hi", "stream": true, "options": { "num_predict": tokens } })
}

/// One slot, two places, and this plan otherwise.
async fn serving(plan: PlanDoc) -> (ScriptedOllama, Pod) {
    let pace = Pace { token: Duration::from_millis(10), ..Pace::default() };
    let ollama =
        ScriptedOllama::start(Settings { pace, max_queue: 512, ..Settings::default() }).await.unwrap();
    let pod = Pod::start(&ollama, Path::new("")).await.unwrap();
    let queue = QueueDoc { max_depth: 2, max_wait_ms: 60_000, ..QueueDoc::default() };
    pod.tell(FIRST, Some(PlanDoc { queue, ..plan }), 1, ServePermission::Granted).await.unwrap();
    pod.readyz(StatusCode::OK).await.unwrap();
    (ollama, pod)
}

fn open() -> PlanDoc {
    PlanDoc { limits: Vec::new(), ..plan(1, 1) }
}

async fn status(client: &Client, target: &str, body: &Value) -> u16 {
    client.post(target, body).await.unwrap().status.as_u16()
}

/// Arrivals, retries, completions, refused by the queue, refused by a limit.
async fn counted(pod: &Pod) -> [u64; 5] {
    let report = pod.tell(LAST, None, 1, ServePermission::Granted).await.unwrap();
    let Counters { arrivals, retries, completions, capacity_rejects, policy_rejects, .. } = report.counters;
    [arrivals, retries, completions, capacity_rejects, policy_rejects]
}

/// Waits until so many requests have given their slot back, and sees that there are no more. It is asked for last.
async fn released(pod: &Pod, requests: u64) {
    let mut seen = 0;
    for sequence in 10..110 {
        let position = Position { sequence, ..LAST };
        seen = pod.tell(position, None, 1, ServePermission::Granted).await.unwrap().counters.releases;
        if seen >= requests {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(seen, requests);
}

#[tokio::test]
async fn a_list_to_embed_in_many_parts_is_one_arrival_and_one_completion_and_gives_one_slot_back() {
    let (ollama, pod) = serving(open()).await;
    let texts: Vec<String> = (0..100).map(|at| format!("no.{at:07}")).collect();
    let list = json!({ "model": "tinybert", "input": texts });
    assert_eq!(status(&pod.client(), "/api/embed", &list).await, 200);
    assert!(ollama.record().inferences().len() > 5);
    assert_eq!(counted(&pod).await, [1, 0, 1, 0, 0]);
    let mut leaves = pod.client().stream("/api/generate", &ask(60)).await.unwrap();
    assert!(leaves.chunk().await.unwrap().is_some());
    drop(leaves);
    released(&pod, 2).await;
}

#[tokio::test]
async fn a_request_that_ollama_is_sent_twice_is_one_arrival() {
    let (ollama, pod) = serving(open()).await;
    ollama.fault_at(Endpoint::Generate, Fault::Busy);
    assert_eq!(status(&pod.client(), "/api/generate", &ask(1)).await, 200);
    assert_eq!(ollama.record().inferences().len(), 2);
    assert_eq!(counted(&pod).await, [1, 0, 1, 0, 0]);
}

#[tokio::test]
async fn whom_the_queue_refuses_is_an_arrival_and_counts_once() {
    let (_ollama, pod) = serving(open()).await;
    let (client, again) = (pod.client(), pod.client().with("x-stainless-retry-count", "1"));
    let mut running = client.stream("/api/generate", &ask(60)).await.unwrap();
    assert!(running.chunk().await.unwrap().is_some());
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { status(&client, "/api/generate", &ask(1)).await })
        })
        .collect();
    sleep(Duration::from_millis(100)).await;
    assert_eq!(status(&client, "/api/generate", &ask(1)).await, 429);
    assert_eq!(status(&again, "/api/generate", &ask(1)).await, 429);
    assert!(running.rest().await.1);
    for waiter in waiting {
        assert_eq!(waiter.await.unwrap(), 200);
    }
    assert_eq!(status(&again, "/api/generate", &ask(1)).await, 200);
    assert_eq!(counted(&pod).await, [6, 2, 4, 2, 0]);
}

#[tokio::test]
async fn what_a_limit_refuses_is_no_demand_and_no_retry() {
    let (_ollama, pod) = serving(plan(1, 2)).await;
    let again = pod.client().with("x-stainless-retry-count", "2");
    for expected in [200, 200, 429, 429, 429] {
        assert_eq!(status(&again, "/api/generate", &ask(1)).await, expected);
    }
    let [arrivals, retries, completions, capacity, policy] = counted(&pod).await;
    assert_eq!([arrivals, retries, completions, capacity, policy], [5, 2, 2, 0, 3]);
}

#[tokio::test]
async fn what_asks_for_no_slot_or_is_wrong_is_in_no_count() {
    let (_ollama, pod) = serving(open()).await;
    let client = pod.client();
    for target in ["/api/tags", "/api/version", "/v1/models", "/corral/v1/limits", "/nowhere"] {
        client.get(target).await.unwrap();
    }
    assert_eq!(status(&client, "/api/show", &json!({ "model": "tiny" })).await, 200);
    assert_eq!(status(&client, "/api/generate", &json!({ "prompt": "of no model" })).await, 400);
    let nonsense = client.send(Method::POST, "/api/generate", "{").await.unwrap();
    assert_eq!(nonsense.status, StatusCode::BAD_REQUEST);
    assert_eq!(counted(&pod).await, [0; 5]);
}

/// Looks and arrivals, asked for the `nth` time.
async fn looks(pod: &Pod, nth: u64) -> [u64; 2] {
    let position = Position { sequence: LAST.sequence + nth, ..LAST };
    let counters = pod.tell(position, None, 1, ServePermission::Granted).await.unwrap().counters;
    [counters.looks, counters.arrivals]
}

#[tokio::test]
async fn what_would_wake_a_pool_and_is_no_work_is_counted_beside_and_health_checks_are_not() {
    let (_ollama, pod) = serving(open()).await;
    let client = pod.client();
    for target in ["/", "/corral/v1/limits", "/nowhere", "/api/pull", "/v1/models/..%2f"] {
        client.get(target).await.unwrap();
    }
    client.send(Method::HEAD, "/", "").await.unwrap();
    client.send(Method::POST, "/api/show", "{").await.unwrap();
    client.send(Method::GET, "/api/tags", "a body").await.unwrap();
    assert_eq!(status(&client, "/api/generate", &ask(1)).await, 200);
    assert_eq!(looks(&pod, 1).await, [0, 1]);
    let targets =
        ["/api/tags", "/api/version", "/api/ps", "/v1/models", "/v1/models/tiny", "/v1/models/none"];
    for target in targets {
        client.get(target).await.unwrap();
    }
    client.send(Method::HEAD, "/api/tags", "").await.unwrap();
    assert_eq!(status(&client, "/api/show", &json!({ "model": "tiny" })).await, 200);
    assert_eq!(looks(&pod, 2).await, [8, 1]);
}

#[tokio::test]
async fn a_list_that_a_limit_refuses_is_counted_too_for_an_activator_would_hold_it() {
    let mut plan = plan(1, 2);
    plan.limits[0].endpoints = vec![EndpointClass::Metadata];
    let (_ollama, pod) = serving(plan).await;
    for expected in [200, 200, 429, 429] {
        assert_eq!(pod.client().get("/api/tags").await.unwrap().status.as_u16(), expected);
    }
    assert_eq!(looks(&pod, 1).await, [4, 0]);
}

#[tokio::test]
async fn what_ollama_fails_or_its_client_leaves_is_an_arrival_and_no_completion() {
    let (ollama, pod) = serving(open()).await;
    let client = pod.client();
    assert_eq!(status(&client, "/api/generate", &json!({ "model": "unknown", "prompt": "hi" })).await, 404);
    let mut left = client.stream("/api/generate", &ask(500)).await.unwrap();
    assert!(left.chunk().await.unwrap().is_some());
    drop(left);
    assert_eq!(status(&client, "/api/generate", &ask(1)).await, 200);
    assert_eq!(ollama.record().inferences().len(), 3);
    assert_eq!(counted(&pod).await, [3, 0, 1, 0, 0]);
}
