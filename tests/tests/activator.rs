//! From zero: what an activator holds, whom it hands it to, and in whose name.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use corral_tests::activator::{Activator, backend, duty};
use corral_tests::client::{Answer, Client, Connection};
use corral_tests::ollama::{Arrival, Fault, Pace, ScriptedOllama, Settings};
use corral_tests::pod::{self, Pod};
use corral_wire::{
    ApiKeyDoc, Duty, Forwarded, Holding, IdentityDoc, KeyDigester, PlanDoc, Position, RequestLine,
    ServePermission, Unauthenticated,
};
use futures::future::join_all;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

const OK: StatusCode = StatusCode::OK;
const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
const MISDIRECTED: StatusCode = StatusCode::MISDIRECTED_REQUEST;

fn body(prompt: &str) -> Value {
    json!({ "model": "tiny", "prompt": prompt, "stream": false, "options": { "num_predict": 2 } })
}

/// A pod without a sidecar: it answers whoever asks.
async fn plain(slots: usize, token: Duration) -> ScriptedOllama {
    let pace = Pace { token, ..Pace::default() };
    let settings = Settings { num_parallel: slots, max_queue: 512, pace, ..Settings::default() };
    ScriptedOllama::start(settings).await.unwrap()
}

fn ask(client: Client, prompt: &str) -> JoinHandle<Answer> {
    let body = body(prompt);
    tokio::spawn(async move { client.post("/api/generate", &body).await.unwrap() })
}

/// A client at an address of its own, as a trusted proxy tells it.
fn from(activator: &Activator, number: u32) -> Client {
    activator.client().with("x-forwarded-for", &format!("10.0.{}.{}", number / 250, number % 250))
}

/// A plan that believes what the proxies of this machine say.
fn trusting(burst: u64) -> PlanDoc {
    let identity = IdentityDoc { trusted_proxies: vec!["127.0.0.0/8".into()], ..IdentityDoc::default() };
    PlanDoc { identity, ..pod::plan(1, burst) }
}

async fn activator() -> Activator {
    let activator = Activator::start(|_| ()).await.unwrap();
    activator.plan(trusting(1000)).await.unwrap();
    activator
}

#[tokio::test]
async fn what_is_held_goes_to_the_first_pod_in_the_order_it_came_and_by_its_slots() {
    let (activator, ollama) = (activator().await, plain(2, Duration::from_millis(3)).await);
    let mut held = Vec::new();
    for number in 0..12 {
        held.push(ask(from(&activator, number), &format!("number {number:02}")));
        activator.held(number + 1).await.unwrap();
    }
    let holding = activator.ready(&[]).await.unwrap();
    assert_eq!((holding.requests, holding.arrivals, holding.ready_pods), (12, 12, 0));
    assert!(holding.bytes > 12 * 50 && holding.oldest_wait_ms > 0, "{holding:?}");
    assert!(ollama.record().arrivals().is_empty());
    activator.ready(&[backend("a", ollama.address(), 2)]).await.unwrap();
    for answer in join_all(held).await {
        assert_eq!(answer.unwrap().status, OK);
    }
    let order: Vec<String> = ollama.record().inferences().iter().map(Arrival::text).collect();
    for (place, text) in order.iter().enumerate() {
        // Two go at one time, and either of them may be first.
        let near = [place.saturating_sub(1), place, place + 1];
        assert!(near.iter().any(|number| text.contains(&format!("number {number:02}"))), "{order:?}");
    }
    let load = ollama.record().model("tiny:latest");
    assert_eq!((load.max_running, load.max_waiting), (2, 0));
    let over = activator.ready(&[]).await.unwrap();
    assert_eq!((over.requests, over.bytes, over.forwarding, over.refused), (0, 0, 0, 0));
}

#[tokio::test]
async fn five_hundred_at_once_are_held_and_all_are_answered() {
    let (activator, ollama) = (activator().await, plain(8, Duration::ZERO).await);
    let held: Vec<_> = (0..500).map(|number| ask(from(&activator, number), "hi")).collect();
    activator.held(500).await.unwrap();
    activator.ready(&[backend("a", ollama.address(), 8)]).await.unwrap();
    for answer in join_all(held).await {
        assert_eq!(answer.unwrap().status, OK);
    }
    let load = ollama.record().model("tiny:latest");
    assert!(load.max_running <= 8 && load.max_waiting == 0, "{load:?}");
    assert_eq!(ollama.record().inferences().len(), 500, "each once");
}

#[tokio::test]
async fn the_operator_hears_at_once_of_the_first_that_is_held_and_of_its_crowd() {
    let activator = activator().await;
    let (at, duty) = (activator.next(), Duty { patience_ms: 20_000, ..duty(&[]) });
    let signed = activator.sign(at, &duty).unwrap();
    let both = tokio::join!(
        async {
            let reply = activator.send(&signed).await.unwrap();
            (Instant::now(), activator.open(at, &reply).unwrap())
        },
        async {
            sleep(Duration::from_millis(100)).await;
            let began = Instant::now();
            (began, (0..20).map(|number| ask(from(&activator, number), "hi")).collect::<Vec<_>>())
        }
    );
    let ((heard, holding), (began, asked)) = both;
    // Far less than the patience that it was asked with.
    assert!(heard - began < Duration::from_secs(5), "after {:?}", heard - began);
    assert!(holding.requests >= 1 && holding.epoch != 0, "{holding:?}");
    asked.iter().for_each(JoinHandle::abort);
    activator.held(0).await.unwrap();
}

#[tokio::test]
async fn an_answer_is_kept_back_no_longer_than_it_may_be_and_news_pass_it_by() {
    let activator = activator().await;
    let began = Instant::now();
    let patient = Duty { patience_ms: 2000, ..duty(&[]) };
    let kept = activator.tell(&patient);
    let at_once = async {
        sleep(Duration::from_millis(50)).await;
        activator.ready(&[backend("a", ([127, 0, 0, 1], 9).into(), 1)]).await.unwrap();
        Instant::now()
    };
    let (kept, at_once) = tokio::join!(kept, at_once);
    let (kept, took) = (kept.unwrap(), Instant::now() - began);
    assert!(at_once - began < took, "{:?} of {took:?}", at_once - began);
    assert_eq!((kept.requests, kept.ready_pods), (0, 1));
    assert!((Duration::from_secs(2)..Duration::from_secs(20)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn a_leader_that_has_gone_leaves_its_places_to_the_next_one() {
    let activator = activator().await;
    let patient = Duty { patience_ms: 20_000, ..duty(&[]) };
    let kept: Vec<_> = [(); 2].map(|()| activator.sign(activator.next(), &patient).unwrap()).into();
    let asking = join_all(kept.iter().map(|signed| activator.send(signed)));
    assert!(timeout(Duration::from_millis(300), asking).await.is_err(), "both are kept back");
    activator.ready(&[]).await.unwrap();
    let mut tries = 0;
    while activator.tell(&Duty { patience_ms: 1, ..duty(&[]) }).await.is_err() {
        tries += 1;
        assert!(tries < 100, "their places are never given up");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn only_the_newest_word_of_the_operator_of_this_pool_to_this_activator_counts() {
    let activator = activator().await;
    let (old, new) = (activator.next(), activator.next());
    let named = duty(&[backend("a", ([127, 0, 0, 1], 9).into(), 1)]);
    let send =
        async |at: Position, duty: &Duty| activator.send(&activator.sign(at, duty).unwrap()).await.unwrap();
    assert_eq!(send(new, &duty(&[])).await.status, OK);
    let behind = send(old, &named).await;
    assert_eq!(behind.status, StatusCode::CONFLICT);
    let holding: Holding = activator.open(old, &behind).unwrap();
    assert_eq!(holding.ready_pods, 0, "it is not obeyed");
    let mut other = named.clone();
    other.pool.name = "other".to_owned();
    assert_eq!(send(activator.next(), &other).await.status, MISDIRECTED);
    let mut signed = activator.sign(activator.next(), &named).unwrap();
    signed.mac = "00".repeat(32);
    assert_eq!(activator.send(&signed).await.unwrap().status, StatusCode::UNAUTHORIZED);
    let long = activator.admin().send(Method::POST, "/activation", vec![b'x'; 70_000]).await.unwrap();
    assert_eq!(long.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(activator.ready(&[]).await.unwrap().ready_pods, 0);
}

#[tokio::test]
async fn beyond_its_bounds_it_says_503_in_the_words_of_each_api_and_when_a_pod_will_be_there() {
    let activator = Activator::start(|settings| settings.hold.max_requests = 1).await.unwrap();
    activator.tell(&Duty { start_left_ms: 40_000, ..duty(&[]) }).await.unwrap();
    let held = ask(activator.client(), "hi");
    activator.held(1).await.unwrap();
    let message = json!({ "role": "user", "content": "hi" });
    let chat = json!({ "model": "tiny", "messages": [message], "max_tokens": 1 });
    for (path, body, at) in [
        ("/api/generate", body("hi"), "/error"),
        ("/v1/chat/completions", chat.clone(), "/error/message"),
        ("/v1/messages", chat, "/error/message"),
    ] {
        let refused = activator.client().post(path, &body).await.unwrap();
        assert_eq!(refused.status, UNAVAILABLE, "{path}");
        let text = refused.json().pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
        assert!(text.contains("maxHeldRequests"), "{path}: {}", refused.text());
        let after: u64 = refused.header("retry-after").parse().unwrap();
        assert!((35..=50).contains(&after), "{after}");
        assert_eq!(refused.header("x-corral-retry"), "estimate");
    }
    let holding = activator.ready(&[]).await.unwrap();
    assert_eq!((holding.arrivals, holding.refused, holding.requests), (4, 3, 1));
    held.abort();
}

#[tokio::test]
async fn one_client_has_a_quarter_of_the_hold_whatever_it_sends() {
    let activator = Activator::start(|settings| settings.hold.max_requests = 8).await.unwrap();
    activator.plan(trusting(1000)).await.unwrap();
    let held: Vec<_> = (0..2).map(|_| ask(from(&activator, 1), "hi")).collect();
    activator.held(2).await.unwrap();
    let refused = ask(from(&activator, 1), "hi").await.unwrap();
    assert_eq!(refused.status, UNAVAILABLE);
    assert!(refused.text().contains("a quarter are yours"), "{}", refused.text());
    let other = ask(from(&activator, 2), "hi");
    activator.held(3).await.unwrap();
    let holding = activator.ready(&[]).await.unwrap();
    assert_eq!((holding.arrivals, holding.refused), (3, 0), "what is beyond its share asks for no pods");
    held.iter().chain([&other]).for_each(JoinHandle::abort);
}

#[tokio::test]
async fn nothing_is_held_for_longer_than_it_may_be() {
    let activator =
        Activator::start(|settings| settings.hold.max_hold = Duration::from_millis(200)).await.unwrap();
    let began = Instant::now();
    let refused = ask(activator.client(), "hi").await.unwrap();
    let took = Instant::now() - began;
    assert!(took >= Duration::from_millis(200), "{took:?}");
    assert_eq!((refused.status, refused.header("retry-after").is_empty()), (UNAVAILABLE, false));
    assert!(refused.text().contains("maxHoldSeconds"), "{}", refused.text());
    assert_eq!(activator.ready(&[]).await.unwrap().refused, 1);
}

#[tokio::test]
async fn what_is_held_for_a_pool_that_is_stopped_is_answered_at_once_and_promised_nothing() {
    let activator = activator().await;
    let held = ask(activator.client(), "hi");
    activator.held(1).await.unwrap();
    activator.tell(&Duty { stopped: true, ..duty(&[]) }).await.unwrap();
    let (held, comes) = (held.await.unwrap(), ask(activator.client(), "hi").await.unwrap());
    for refused in [held, comes] {
        assert_eq!((refused.status, refused.header("retry-after")), (UNAVAILABLE, ""));
        assert!(refused.text().contains("the pool is stopped"), "{}", refused.text());
    }
}

#[tokio::test]
async fn a_long_body_is_not_held_but_passes_when_a_pod_is_ready() {
    let (activator, ollama) = (activator().await, plain(1, Duration::ZERO).await);
    let long = "x".repeat(1 << 20);
    let refused = ask(activator.client(), &long).await.unwrap();
    assert_eq!(refused.status, UNAVAILABLE);
    assert!(refused.text().contains("1048576 bytes"), "{}", refused.text());
    activator.ready(&[backend("a", ollama.address(), 1)]).await.unwrap();
    ask(activator.client(), &long).await.unwrap();
    let arrived = ollama.record().arrivals();
    assert!(arrived.len() == 1 && arrived[0].text().contains(&long), "it passes, whatever a pod says to it");
}

#[tokio::test]
async fn nonsense_starts_no_pod_and_neither_does_a_load_balancer() {
    let activator = activator().await;
    let client = activator.client();
    let status = async |method: Method, path: &str, body: &'static str| {
        client.send(method, path, body).await.unwrap().status.as_u16()
    };
    assert_eq!(status(Method::GET, "/nowhere", "").await, 404);
    assert_eq!(status(Method::POST, "/api/pull", "{}").await, 403);
    assert_eq!(status(Method::GET, "/api/chat", "").await, 405);
    assert_eq!(status(Method::POST, "/api/chat", "{").await, 400);
    assert_eq!(status(Method::POST, "/api/chat", "{}").await, 400);
    assert_eq!(status(Method::POST, "/api/chat", r#"{"model":"x:cloud"}"#).await, 403);
    assert_eq!(status(Method::GET, "/corral/v1/limits", "").await, 503);
    let home = client.get("/").await.unwrap();
    assert_eq!((home.status, home.text().as_str()), (OK, "Ollama is running"));
    let holding = activator.ready(&[]).await.unwrap();
    assert_eq!((holding.requests, holding.arrivals, holding.refused), (0, 0, 0));
}

/// The next plan: nobody is served but with this key.
fn keyed(sequence: u64, key: &str) -> PlanDoc {
    let digester = KeyDigester::derive(pod::key_text().as_bytes());
    let mut digest = String::new();
    for byte in digester.digest(key.as_bytes()) {
        write!(digest, "{byte:02x}").unwrap();
    }
    let identity = IdentityDoc {
        api_keys: vec![ApiKeyDoc { digest, client: "team".into(), tier: None }],
        digest_key: Some(digester.id().to_owned()),
        unauthenticated: Unauthenticated::Reject,
        ..IdentityDoc::default()
    };
    PlanDoc { identity, ..pod::plan(sequence, 1000) }
}

#[tokio::test]
async fn a_key_is_worth_what_the_last_word_of_the_operator_says_though_no_secret_is_mounted() {
    let activator = Activator::start(|_| ()).await.unwrap();
    activator.plan(keyed(1, "old-key-1")).await.unwrap();
    let with = |key: &str| activator.client().with("authorization", &format!("Bearer {key}"));
    let held = ask(with("old-key-1"), "hi");
    activator.held(1).await.unwrap();
    held.abort();
    activator.held(0).await.unwrap();
    let before = activator.ready(&[]).await.unwrap();
    activator.plan(keyed(2, "new-key-1")).await.unwrap();
    let refused = ask(with("old-key-1"), "hi").await.unwrap();
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{}", refused.text());
    let after = activator.ready(&[]).await.unwrap();
    assert_eq!((after.requests, after.arrivals), (0, before.arrivals), "it starts no pod");
    let held = ask(with("new-key-1"), "hi");
    activator.held(1).await.unwrap();
    held.abort();
}

#[tokio::test]
async fn what_is_asked_about_models_waits_for_a_pod_and_is_no_arrival() {
    let (activator, ollama) = (activator().await, plain(1, Duration::ZERO).await);
    let client = activator.client();
    let tags = tokio::spawn(async move { client.get("/api/tags").await.unwrap() });
    activator.held(1).await.unwrap();
    assert_eq!(activator.ready(&[backend("a", ollama.address(), 1)]).await.unwrap().arrivals, 0);
    let tags = tags.await.unwrap();
    assert!(tags.status == OK && tags.json()["models"].is_array(), "{}", tags.text());
}

#[tokio::test]
async fn whoever_has_gone_is_dropped_and_no_pod_sees_its_request() {
    let (activator, ollama) = (activator().await, plain(1, Duration::ZERO).await);
    let (gone, stays) = (ask(from(&activator, 1), "gone"), ask(from(&activator, 2), "stays"));
    activator.held(2).await.unwrap();
    gone.abort();
    activator.held(1).await.unwrap();
    activator.ready(&[backend("a", ollama.address(), 1)]).await.unwrap();
    assert_eq!(stays.await.unwrap().status, OK);
    let seen = ollama.record().inferences();
    assert!(seen.len() == 1 && seen[0].text().contains("stays"), "{seen:?}");
}

#[tokio::test]
async fn a_stale_activator_only_passes_on() {
    let (activator, ollama) = (activator().await, plain(1, Duration::from_millis(5)).await);
    activator.ready(&[backend("a", ollama.address(), 1)]).await.unwrap();
    let asked: Vec<_> = (0..20).map(|_| ask(activator.client(), "hi")).collect();
    for answer in join_all(asked).await {
        assert_eq!(answer.unwrap().status, OK);
    }
    assert!(ollama.record().load().max_waiting > 5, "nothing waits here, whatever slots there are");
    let mut stream = activator.client().stream("/api/generate", &streamed(3)).await.unwrap();
    assert_eq!(stream.status, OK);
    assert!(stream.chunks().await.unwrap().len() >= 3, "frames go on as they come");
}

fn streamed(tokens: u32) -> Value {
    json!({ "model": "tiny", "prompt": "hi", "options": { "num_predict": tokens } })
}

#[tokio::test]
async fn what_a_pod_does_not_answer_goes_to_another_and_loses_neither_place_nor_body() {
    let (activator, good) = (activator().await, plain(1, Duration::ZERO).await);
    let mut gone = plain(1, Duration::ZERO).await;
    let nobody = gone.address();
    gone.kill().await;
    let bad = plain(1, Duration::ZERO).await;
    bad.fault(Fault::Close);
    let held: Vec<_> =
        (0..6).map(|number| ask(from(&activator, number), &format!("number {number}"))).collect();
    activator.held(6).await.unwrap();
    let pods =
        [backend("gone", nobody, 1), backend("bad", bad.address(), 1), backend("good", good.address(), 1)];
    activator.ready(&pods).await.unwrap();
    for answer in join_all(held).await {
        assert_eq!(answer.unwrap().status, OK);
    }
    let told: Vec<String> =
        bad.record().inferences().iter().chain(&good.record().inferences()).map(Arrival::text).collect();
    for number in 0..6 {
        assert!(told.iter().any(|text| text.contains(&format!("number {number}"))), "{number}");
    }
}

#[tokio::test]
async fn what_comes_as_pods_go_away_is_held_until_the_next_is_there() {
    let activator = activator().await;
    let mut ollama = plain(1, Duration::ZERO).await;
    activator.ready(&[backend("a", ollama.address(), 1)]).await.unwrap();
    ollama.kill().await;
    // The operator does not know yet.
    let asked: Vec<_> = (0..5).map(|number| ask(from(&activator, number), "hi")).collect();
    activator.held(5).await.unwrap();
    activator.ready(&[]).await.unwrap();
    let later = ask(from(&activator, 9), "later");
    activator.held(6).await.unwrap();
    ollama.revive().await.unwrap();
    activator.ready(&[backend("b", ollama.address(), 1)]).await.unwrap();
    for answer in join_all(asked.into_iter().chain([later])).await {
        assert_eq!(answer.unwrap().status, OK);
    }
}

#[tokio::test]
async fn with_a_pod_ready_nobody_waits_behind_what_was_held() {
    let (activator, ollama) = (activator().await, plain(1, Duration::from_secs(2)).await);
    let held: Vec<_> = (0..3).map(|number| ask(from(&activator, number), "held")).collect();
    activator.held(3).await.unwrap();
    activator.ready(&[backend("a", ollama.address(), 1)]).await.unwrap();
    activator.held(2).await.unwrap();
    let client = activator.client();
    assert_eq!(client.get("/api/tags").await.unwrap().status, OK);
    assert_eq!(client.get("/").await.unwrap().status, OK);
    assert_eq!(client.get("/corral/v1/limits").await.unwrap().status.as_u16(), 404, "the pod is asked");
    let long = "x".repeat(1 << 20);
    let passing = [ask(from(&activator, 8), &long), ask(from(&activator, 9), "new")];
    let until = Instant::now() + Duration::from_secs(10);
    while ollama.record().inferences().len() < 3 {
        assert!(Instant::now() < until, "they are held though the pod has a queue");
        sleep(Duration::from_millis(10)).await;
    }
    let targets: Vec<String> = ollama.record().arrivals().into_iter().map(|arrival| arrival.target).collect();
    assert!(targets.contains(&"/".to_owned()) && targets.contains(&"/api/tags".to_owned()), "{targets:?}");
    assert_eq!(activator.ready(&[backend("a", ollama.address(), 1)]).await.unwrap().requests, 2, "still");
    held.iter().chain(&passing).for_each(JoinHandle::abort);
}

#[tokio::test]
async fn a_pod_that_serves_nobody_yet_is_waited_for() {
    let (activator, ollama) = (activator().await, plain(4, Duration::ZERO).await);
    let pod = Pod::start(&ollama, Path::new("")).await.unwrap();
    let at = |sequence| Position { term: 1, sequence };
    pod.tell(at(1), Some(trusting(9)), 1, ServePermission::Wait).await.unwrap();
    let pods = [backend(pod::UID, pod.client().address(), 4)];
    let direct = pod.client().post("/api/generate", &body("hi")).await.unwrap();
    assert_eq!(
        (direct.status, direct.header("x-corral-elsewhere")),
        (UNAVAILABLE, ""),
        "who comes by itself"
    );
    activator.ready(&pods).await.unwrap();
    let held = ask(from(&activator, 1), "hi");
    activator.held(1).await.unwrap();
    pod.tell(at(2), None, 1, ServePermission::Granted).await.unwrap();
    pod.readyz(OK).await.unwrap();
    assert_eq!(held.await.unwrap().status, OK);
    assert_eq!(ollama.record().inferences().len(), 1);
}

#[tokio::test]
async fn one_503_of_a_pod_keeps_nobody_else_from_it() {
    let (activator, ollama) = (activator().await, plain(4, Duration::ZERO).await);
    activator.ready(&[backend("a", ollama.address(), 4)]).await.unwrap();
    for fault in [Fault::Busy, Fault::Close] {
        ollama.fault(fault);
        ask(from(&activator, 1), "hi").await.unwrap();
        let metrics = activator.admin().get("/metrics").await.unwrap().text();
        assert!(metrics.contains("corral_queue_depth 0"), "{metrics}");
        let answer = ask(from(&activator, 2), "hi").await.unwrap();
        assert_eq!((answer.status, answer.header("x-corral-queue-time")), (OK, ""));
    }
}

/// Sends only a head that announces a body, and waits for what comes.
async fn announce(activator: &Activator, client: u32, length: u64, wait: Duration) -> String {
    let head = format!(
        "POST /api/generate HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 10.0.0.{client}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    let raw = activator.client().raw(head.as_bytes(), wait).await.unwrap();
    String::from_utf8_lossy(&raw.read).into_owned()
}

#[tokio::test]
async fn a_body_that_would_be_held_has_its_room_before_it_is_read() {
    let activator = Activator::start(|settings| settings.hold.max_requests = 8).await.unwrap();
    activator.plan(trusting(1000)).await.unwrap();
    let long = announce(&activator, 1, 2 << 20, Duration::from_secs(8)).await;
    assert!(long.contains("503") && long.contains("1048576 bytes"), "{long}");
    let slow = async || announce(&activator, 1, 1000, Duration::from_secs(20)).await;
    let third = async {
        let until = Instant::now() + Duration::from_secs(15);
        let refused = loop {
            // Until both have their room it is held itself.
            if let Ok(answer) = timeout(Duration::from_millis(500), ask_once(from(&activator, 1))).await {
                break answer;
            }
            assert!(Instant::now() < until, "what is being read counts for nothing");
        };
        assert!(refused.status == UNAVAILABLE && refused.text().contains("a quarter are yours"));
        let other = ask(from(&activator, 2), "hi");
        activator.held(1).await.unwrap();
        other.abort();
    };
    tokio::select! {
        texts = async { tokio::join!(slow(), slow()) } => panic!("they are being read: {texts:?}"),
        () = third => {}
    }
}

async fn ask_once(client: Client) -> Answer {
    client.post("/api/generate", &body("hi")).await.unwrap()
}

#[tokio::test]
async fn one_address_has_its_share_of_the_connections_unless_it_is_a_proxy() {
    let activator = Activator::start(|settings| settings.proxy.max_connections_each = 2).await.unwrap();
    // Its plan trusts nobody; without one no connection is kept.
    activator.plan(pod::plan(1, 9)).await.unwrap();
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut connection = activator.client().connect().await.unwrap();
        let answer = connection.send(Method::GET, "/", "").await.unwrap();
        assert_eq!((answer.status, answer.header("connection")), (OK, ""));
        kept.push(connection);
    }
    let third = activator.client().get("/").await;
    assert!(third.is_err(), "a third is closed: {:?} {:?}", third.map(|answer| answer.headers), kept.len());
    activator.plan(PlanDoc { identity: trusting(9).identity, ..pod::plan(2, 9) }).await.unwrap();
    assert_eq!(activator.client().get("/").await.unwrap().status, OK);
}

#[tokio::test]
async fn a_request_that_every_pod_fails_is_not_tried_for_ever() {
    let (activator, ollama) = (activator().await, plain(1, Duration::ZERO).await);
    (0..9).for_each(|_| ollama.fault(Fault::Close));
    let pods = ["a", "b", "c", "d"].map(|uid| backend(uid, ollama.address(), 1));
    activator.ready(&pods).await.unwrap();
    let refused = ask(activator.client(), "hi").await.unwrap();
    assert_eq!(refused.status, UNAVAILABLE);
    assert_eq!(ollama.record().arrivals().len(), 2);
}

#[tokio::test]
async fn at_its_end_what_is_still_held_is_told_so() {
    let activator =
        Activator::start(|settings| settings.drain.timeout = Duration::from_millis(200)).await.unwrap();
    let held = ask(activator.client(), "hi");
    activator.held(1).await.unwrap();
    activator.stop().await.unwrap();
    let refused = held.await.unwrap();
    assert_eq!((refused.status, refused.header("retry-after").is_empty()), (UNAVAILABLE, false));
    assert!(refused.text().contains("shuts down"), "{}", refused.text());
}

/// A pod with its sidecar that grants each client so many requests.
async fn guarded(ollama: &ScriptedOllama, burst: u64) -> Pod {
    Pod::serving(ollama, trusting(burst)).await.unwrap()
}

#[tokio::test]
async fn a_pod_charges_once_and_whom_it_would_have_charged() {
    let (activator, ollama) = (activator().await, plain(4, Duration::ZERO).await);
    let pod = guarded(&ollama, 1).await;
    let held: Vec<_> = [1, 2, 1].map(|client| ask(from(&activator, client), "hi")).into_iter().collect();
    activator.held(3).await.unwrap();
    activator.ready(&[backend(pod::UID, pod.client().address(), 4)]).await.unwrap();
    let mut statuses: Vec<u16> =
        join_all(held).await.into_iter().map(|answer| answer.unwrap().status.as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 429], "one each, and the second of the first is one too many");
    let direct =
        pod.client().with("x-forwarded-for", "10.0.0.2").post("/api/generate", &body("hi")).await.unwrap();
    assert_eq!(direct.status.as_u16(), 429, "it is the same client whichever way it comes");
    let other = pod.client().with("x-forwarded-for", "10.0.0.3");
    assert_eq!(other.post("/api/generate", &body("hi")).await.unwrap().status, OK);
    let report =
        pod.tell(Position { term: 1, sequence: 9 }, None, 1, ServePermission::Granted).await.unwrap();
    assert_eq!(report.counters.completions, 3);
    let by_activator = activator.ready(&[]).await.unwrap().arrivals;
    assert_eq!((by_activator, report.counters.arrivals), (3, 5), "the pod counts what came to it either way");
    assert_eq!(report.counters.policy_rejects, 2);
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

const LINE: RequestLine<'_> = RequestLine { method: "POST", target: "/api/generate" };

fn said(nonce: u128) -> Forwarded {
    Forwarded { client: "10.9.9.9".parse().unwrap(), at_unix_ms: now_ms(), nonce }
}

#[tokio::test]
async fn a_pod_believes_a_signed_client_once_and_nobody_else_who_speaks_for_one() {
    let ollama = plain(4, Duration::ZERO).await;
    let pod = guarded(&ollama, 2).await;
    let send = async |value: &str| {
        let client = pod.client().with("x-corral-client", value);
        client.post("/api/generate", &body("hi")).await.unwrap()
    };
    let signed = pod.vouch(&said(1), LINE);
    assert_eq!(send(&signed).await.status, OK);
    assert_eq!(send(&signed).await.status, MISDIRECTED, "a copy of it");
    let stale = Forwarded { at_unix_ms: now_ms() - 40_000, ..said(2) };
    assert_eq!(send(&pod.vouch(&stale, LINE)).await.status, MISDIRECTED);
    let other = pod.vouch(&said(3), RequestLine { target: "/api/chat", ..LINE });
    assert_eq!(send(&other).await.status, MISDIRECTED, "signed for another request");
    assert_eq!(send(&signed.replace("10.9.9.9", "10.9.9.8")).await.status, MISDIRECTED);
    let forged = send("10.9.9.9").await;
    assert_eq!((forged.status, forged.header("connection")), (MISDIRECTED, "close"));
    assert_eq!(send(&pod.vouch(&said(4), LINE)).await.status, OK);
    assert_eq!(send(&pod.vouch(&said(5), LINE)).await.status.as_u16(), 429, "its two are used up");
    assert_eq!(
        pod.client().post("/api/generate", &body("hi")).await.unwrap().status,
        OK,
        "its peer's are not"
    );
}

#[tokio::test]
async fn nobody_speaks_for_a_client_to_an_activator_nor_to_a_pod_that_is_not_meant() {
    let (activator, ollama) = (activator().await, plain(4, Duration::ZERO).await);
    let pod = guarded(&ollama, 9).await;
    let forged = activator.client().with("x-corral-client", &pod.vouch(&said(1), LINE));
    assert_eq!(forged.post("/api/generate", &body("hi")).await.unwrap().status, MISDIRECTED);
    // The address is that pod's, the name another's: as where addresses are used again.
    activator.ready(&[backend("another", pod.client().address(), 4)]).await.unwrap();
    let held = ask(activator.client(), "hi");
    activator.held(1).await.unwrap();
    assert_eq!(ollama.record().inferences().len(), 0);
    activator.ready(&[backend(pod::UID, pod.client().address(), 4)]).await.unwrap();
    assert_eq!(held.await.unwrap().status, OK);
}

#[tokio::test]
async fn a_connection_that_is_kept_carries_one_request_after_another() {
    let (activator, ollama) = (activator().await, plain(1, Duration::ZERO).await);
    activator.ready(&[backend("a", ollama.address(), 1)]).await.unwrap();
    let mut connection: Connection = activator.client().connect().await.unwrap();
    for _ in 0..20 {
        let answer = connection.send(Method::POST, "/api/generate", &body("hi").to_string()).await.unwrap();
        assert_eq!(answer.status, OK);
    }
    let (open, ever) = ollama.record().connections();
    assert_eq!((open, ever), (1, 1), "and one to the pod does too");
    let left = timeout(Duration::from_secs(1), activator.held(0)).await;
    assert!(left.is_ok());
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_ends_it_in_the_pod() {
    let (activator, ollama) = (activator().await, plain(1, Duration::from_millis(5)).await);
    activator.ready(&[backend("a", ollama.address(), 1)]).await.unwrap();
    let mut stream = activator.client().stream("/api/generate", &streamed(10_000)).await.unwrap();
    stream.chunk().await.unwrap().unwrap();
    drop(stream);
    for _ in 0..200 {
        if activator.ready(&[backend("a", ollama.address(), 1)]).await.unwrap().forwarding == 0 {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("the pod still works for nobody");
}
