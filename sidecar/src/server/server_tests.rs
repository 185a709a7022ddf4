#[path = "cors_tests.rs"]
mod cors;
#[path = "departed_tests.rs"]
mod departed;
#[path = "fake.rs"]
mod fake;
#[path = "stall_tests.rs"]
mod stall;

use std::num::NonZeroU32;
use std::sync::atomic::Ordering;

use corral_limiter::queue::Slots;
use corral_limiter::{HeadFacts, LimiterSettings, compile};
use corral_wire::{
    EndpointClass, IdentityDoc, KeyPart, LimitDoc, Mode, PLAN_VERSION, PlanDoc, PoolRef, QueueDoc, RateDoc,
    Scope,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::*;
use crate::core::CoreSettings;
use crate::health::Health;
use crate::metrics::Metrics;
use fake::Seen;

/// A sidecar between a client and a scripted Ollama.
struct World {
    address: SocketAddr,
    core: Arc<Core>,
    seen: Arc<Seen>,
    stop: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<()>,
}

fn plan(burst: u64) -> PlanDoc {
    let limit = LimitDoc {
        policy: "llm/fair-use".into(),
        name: "per-client".into(),
        mode: Mode::Enforce,
        endpoints: Vec::new(),
        models: Vec::new(),
        per: vec![KeyPart::Client],
        scope: Scope::Pool,
        requests: Some(RateDoc { count_milli: 60_000, window_seconds: 60, burst }),
        concurrency: None,
        ..LimitDoc::default()
    };
    PlanDoc {
        version: PLAN_VERSION,
        pool: PoolRef { namespace: "llm".into(), name: "chat".into() },
        sequence: 1,
        identity: IdentityDoc::default(),
        queue: QueueDoc { max_depth: 100, max_wait_ms: 10_000, ..QueueDoc::default() },
        limits: vec![limit],
        ..PlanDoc::default()
    }
}

async fn world() -> World {
    world_with(1000, |_| ()).await
}

async fn world_with(burst: u64, change: impl FnOnce(&mut ProxySettings)) -> World {
    world_of(1, burst, change).await
}

async fn world_of(per_model: u32, burst: u64, change: impl FnOnce(&mut ProxySettings)) -> World {
    let (upstream, seen) = fake::start().await;
    let health = Arc::new(Health::new());
    health.told_to_serve();
    health.plan_accepted();
    health.upstream_answered();
    let settings = CoreSettings {
        limiter: LimiterSettings { hash_key: [1; 16], keys_per_limit: 100 },
        slots: Slots { per_model, models: 3 },
    };
    let core = Arc::new(Core::new(settings, health, Arc::new(Metrics::new())));
    core.take_plan(Arc::new(compile(&plan(burst)).unwrap()), NonZeroU32::MIN);
    let mut settings = ProxySettings::new(upstream);
    change(&mut settings);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(serve(listener, Arc::clone(&core), settings, async { _ = stopped.await }));
    World { address, core, seen, stop: Some(stop), served }
}

impl World {
    async fn send(&self, raw: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(raw.as_bytes()).await.unwrap();
        stream
    }

    /// The whole answer to bytes after which the connection ends.
    async fn raw(&self, raw: &str) -> String {
        read_all(self.send(raw).await).await
    }

    async fn post(&self, path: &str, body: &str) -> String {
        self.raw(&post(path, "Connection: close\r\n", body)).await
    }

    async fn until(&self, what: impl Fn(&Self) -> bool) {
        let met = async {
            while !what(self) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(5), met).await.expect("it never came true");
    }
}

fn post(path: &str, lines: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{lines}Content-Length: {}\r\n\r\n{body}", body.len())
}

async fn read_all(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    // A reset after the answer is as good as its end.
    let _ = timeout(Duration::from_secs(10), stream.read_to_end(&mut text)).await.expect("no end");
    String::from_utf8(text).unwrap()
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).unwrap_or_else(|| panic!("{answer:?}")).parse().unwrap()
}

#[tokio::test]
async fn a_stream_passes_piece_by_piece_and_ollama_sees_only_what_it_should() {
    let world = world().await;
    let body = r#"{"model":"tiny","messages":[]}"#;
    let lines = "Authorization: Bearer secret\r\nOrigin: http://localhost\r\nX-Forwarded-For: 1.2.3.4\r\nCookie: a\r\n\
                 Accept: */*\r\nX-Request-Id: mine-1\r\n";
    let mut stream = world.send(&post("/api/chat", lines, body)).await;
    let mut arrivals = Vec::new();
    let mut text = String::new();
    while !text.ends_with("0\r\n\r\n") {
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0, "{text}");
        arrivals.push(Instant::now());
        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("{\"done\":true}\n"), "{text}");
    assert!(text.contains("x-request-id: mine-1\r\n"), "{text}");
    assert!(text.contains("ratelimit: \"per-client.requests\";r=999;t=1\r\n"), "{text}");
    assert!(text.contains("ratelimit-policy: \"per-client.requests\";q=60;w=60\r\n"), "{text}");
    assert!(arrivals.len() >= 3 && arrivals[arrivals.len() - 1] - arrivals[0] > Duration::from_millis(40));
    let seen = world.seen.requests.lock()[0].to_lowercase();
    assert!(
        seen.starts_with("post /api/chat http/1.1\r\n") && seen.ends_with(&format!("\r\n\r\n{body}")),
        "{seen}"
    );
    assert!(
        seen.contains("host: localhost\r\n") && seen.contains(&format!("content-length: {}\r\n", body.len()))
    );
    for absent in ["authorization", "origin", "x-forwarded", "cookie", "transfer-encoding", "secret"] {
        assert!(!seen.contains(absent), "{absent}: {seen}");
    }
}

#[tokio::test]
async fn connections_on_both_sides_are_used_again() {
    let world = world().await;
    let body = r#"{"model":"whole"}"#;
    let mut stream = world.send("").await;
    for _ in 0..3 {
        stream.write_all(post("/api/generate", "", body).as_bytes()).await.unwrap();
        let mut text = String::new();
        while !text.ends_with("{\"done\":true}") {
            let mut buffer = [0; 4096];
            let read = stream.read(&mut buffer).await.unwrap();
            assert_ne!(read, 0, "{text}");
            text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
        assert!(text.contains("content-length: 13\r\n") && !text.contains("x-own"), "{text}");
    }
    assert_eq!(world.seen.connections.load(Ordering::SeqCst), 1);
    assert_eq!(world.core.counters().completions, 3);
}

#[tokio::test]
async fn ollama_never_has_more_than_its_slots() {
    let world = world().await;
    let one = || world.post("/api/chat", r#"{"model":"slow"}"#);
    let answers = futures::future::join_all((0..5).map(|_| one())).await;
    assert!(
        answers.iter().all(|answer| status(answer) == 200 && answer.contains("\"done\":true")),
        "{answers:?}"
    );
    assert_eq!(world.seen.most.load(Ordering::SeqCst), 1);
    assert_eq!(world.core.gauges().in_flight, 0);
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_stops_the_model() {
    let world = world().await;
    let mut stream = world.send(&post("/api/chat", "", r#"{"model":"forever"}"#)).await;
    stream.read_exact(&mut [0; 200]).await.unwrap();
    assert_eq!(world.core.gauges().in_flight, 1);
    drop(stream);
    world
        .until(|world| world.seen.cut.load(Ordering::SeqCst) == 1 && world.core.gauges().in_flight == 0)
        .await;
}

#[tokio::test]
async fn before_the_first_byte_ollama_is_held_and_the_slot_with_it() {
    let world = world_with(1000, |settings| settings.hold_loading = Duration::from_millis(400)).await;
    let begun = Instant::now();
    let stream = world.send(&post("/api/chat", "", r#"{"model":"never"}"#)).await;
    world.until(|world| world.seen.running.load(Ordering::SeqCst) == 1).await;
    drop(stream);
    sleep(Duration::from_millis(150)).await;
    assert_eq!((world.core.gauges().in_flight, world.seen.cut.load(Ordering::SeqCst)), (1, 0));
    world
        .until(|world| world.core.gauges().in_flight == 0 && world.seen.cut.load(Ordering::SeqCst) == 1)
        .await;
    assert!(Instant::now() - begun >= Duration::from_millis(400));
}

#[tokio::test]
async fn nothing_is_dispatched_for_a_client_that_left_the_queue() {
    let world = world().await;
    let first = world.send(&post("/api/chat", "", r#"{"model":"forever"}"#)).await;
    world.until(|world| world.core.gauges().in_flight == 1).await;
    let second = world.send(&post("/api/chat", "", r#"{"model":"forever"}"#)).await;
    world.until(|world| world.core.gauges().queued == 1).await;
    drop(second);
    world.until(|world| world.core.gauges().queued == 0).await;
    drop(first);
    world.until(|world| world.core.gauges().in_flight == 0).await;
    assert_eq!(world.seen.requests.lock().len(), 1);
}

#[tokio::test]
async fn a_stream_that_dies_ends_in_its_apis_own_error() {
    let world = world().await;
    let native = world.post("/api/chat", r#"{"model":"cut"}"#).await;
    assert!(native.contains("\n{\"error\":\"") && native.ends_with("0\r\n\r\n"), "{native}");
    for model in ["cut", "cut-clean"] {
        let body = format!(r#"{{"model":"{model}","stream":true}}"#);
        let openai = world.post("/v1/chat/completions", &body).await;
        assert!(openai.contains("data: {\"error\":{") && openai.ends_with("0\r\n\r\n"), "{openai}");
        let anthropic = world.post("/v1/messages", &body).await;
        assert!(
            anthropic.contains("event: error\ndata: {") && anthropic.ends_with("0\r\n\r\n"),
            "{anthropic}"
        );
    }
    assert_eq!(world.core.gauges().in_flight, 0);
}

#[tokio::test]
async fn a_limit_refuses_and_ollama_hears_nothing_of_it() {
    let world = world_with(1, |_| ()).await;
    assert_eq!(status(&world.post("/api/chat", r#"{"model":"whole"}"#).await), 200);
    let refused = world.post("/v1/messages", r#"{"model":"whole"}"#).await;
    assert_eq!(status(&refused), 429, "{refused}");
    assert!(refused.contains("x-corral-limit: llm/fair-use/per-client\r\n"), "{refused}");
    assert!(refused.contains("retry-after: 1\r\n") && refused.contains("\"rate_limit_error\""), "{refused}");
    assert!(refused.contains("ratelimit: \"per-client.requests\";r=0;t=1\r\n"), "{refused}");
    assert_eq!(world.seen.requests.lock().len(), 1);
}

#[tokio::test]
async fn heads_in_doubt_are_refused_and_the_connection_closed() {
    let world = world().await;
    for (lines, expected) in [
        (
            "POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "POST /api/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "POST /api/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
            400,
        ),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        ("GET /#f HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("GET / HTTP/1.0\r\nHost: localhost\r\n\r\n", 505),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: authorization\r\n\r\n", 400),
        ("GET http://evil/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400),
        ("OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400),
        ("CONNECT a:80 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc", 400),
    ] {
        let answer = world.raw(lines).await;
        assert_eq!(status(&answer), expected, "{lines:?} {answer}");
    }
    assert!(world.seen.requests.lock().is_empty());
}

#[tokio::test]
async fn a_second_request_hidden_behind_the_first_is_refused_and_the_first_is_served() {
    let world = world().await;
    let first = post("/api/chat", "", r#"{"model":"whole"}"#);
    let answer = world.raw(&format!("{first}GET / HTTP/1.1\r\nHost: localhost\r\nHost: b\r\n\r\n")).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 1, "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 400").count(), 1, "{answer}");
}

#[tokio::test]
async fn malformed_chunks_reach_nobody() {
    let world = world().await;
    let head = "POST /api/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in ["2 \r\n{}\r\n0\r\n\r\n", "2;x\r\n{}\r\n0\r\n\r\n", "zz\r\n"] {
        let answer = world.raw(&format!("{head}{body}")).await;
        assert!(answer.is_empty() || status(&answer) == 400, "{answer}");
    }
    assert!(world.seen.requests.lock().is_empty());
    let body = r#"{"model":"whole"}"#;
    let chunked = format!(
        "{head}5\r\n{}\r\n{:x}\r\n{}\r\n0\r\nAuthorization: x\r\n\r\n",
        &body[..5],
        body.len() - 5,
        &body[5..]
    );
    let chunked = chunked.replace("Host: localhost\r\n", "Host: localhost\r\nConnection: close\r\n");
    assert_eq!(status(&world.raw(&chunked).await), 200);
    assert!(world.seen.requests.lock()[0].contains(&format!("content-length: {}\r\n", body.len())));
}

#[tokio::test]
async fn bodies_that_cannot_be_read_or_are_too_large_are_refused() {
    let world = world_with(1000, |settings| settings.max_body_bytes = 100).await;
    let large = format!(r#"{{"model":"tiny","prompt":"{}"}}"#, "x".repeat(100));
    for (lines, body, expected) in [
        ("Connection: close\r\nContent-Encoding: zstd\r\n", r#"{"model":"tiny"}"#, 415),
        ("Connection: close\r\n", "{\"model\":\"tiny\",\"Model\":\"b\"}", 400),
        ("Connection: close\r\n", "{}", 400),
        ("Connection: close\r\n", r#"{"model":"x:cloud"}"#, 403),
        ("Connection: close\r\n", &large, 413),
        ("Connection: close\r\nExpect: x\r\n", "{}", 417),
    ] {
        assert_eq!(status(&world.raw(&post("/api/chat", lines, body)).await), expected, "{lines} {body}");
    }
    assert!(world.seen.requests.lock().is_empty());
}

#[tokio::test]
async fn a_client_that_goes_on_sending_still_reads_why_it_should_not() {
    let world = world().await;
    let head = "POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n";
    let mut stream = world.send(head).await;
    for _ in 0..20 {
        let _ = stream.write_all(&[b' '; 16384]).await;
        sleep(Duration::from_millis(5)).await;
    }
    let answer = read_all(stream).await;
    assert!(status(&answer) == 413 && answer.contains("connection: close\r\n"), "{answer}");
}

#[tokio::test]
async fn an_offer_to_upgrade_is_not_taken_up() {
    let world = world().await;
    let lines = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";
    let twice = post("/api/chat", lines, r#"{"model":"whole"}"#)
        + &post("/api/chat", "Connection: close\r\n", r#"{"model":"whole"}"#);
    let answer = world.raw(&twice).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
    assert!(world.seen.requests.lock().iter().all(|request| !request.to_lowercase().contains("upgrade")));
}

#[tokio::test]
async fn metadata_takes_no_slot_and_management_is_closed() {
    let world = world().await;
    let busy = world.send(&post("/api/chat", "", r#"{"model":"forever"}"#)).await;
    world.until(|world| world.core.gauges().in_flight == 1).await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    for path in ["/", "/api/tags", "/api/ps", "/api/version", "/v1/models", "/v1/models/tiny"] {
        let answer = world.raw(&get(path)).await;
        assert_eq!(status(&answer), 200, "{path} {answer}");
    }
    assert_eq!(status(&world.post("/api/show", r#"{"name":"whole"}"#).await), 200);
    let head = world.raw("HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert!(
        status(&head) == 200 && head.contains("content-length: 17\r\n") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    let closed = world.post("/api/pull", "{}").await;
    assert!(status(&closed) == 403 && closed.contains("{\"error\":\""), "{closed}");
    assert_eq!(status(&world.raw(&get("/api/chat")).await), 405);
    assert_eq!(status(&world.raw(&get("/api/generate/")).await), 404);
    drop(busy);
}

#[tokio::test]
async fn metadata_is_bounded_per_client() {
    let world = world().await;
    let get = "GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(60);
    let mut stream = world.send(&get).await;
    let mut text = String::new();
    while text.matches("HTTP/1.1 ").count() < 60 {
        let mut buffer = [0; 16384];
        let read = stream.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0);
        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
    let served = text.matches("HTTP/1.1 200").count();
    assert!((1..60).contains(&served), "{served}");
    assert!(text.contains("corral.dev/built-in/metadata"), "{text}");
}

/// Puts a limit on metadata in force that forgets nothing within a test.
fn limit_metadata(world: &World) {
    let [limit] = plan(1).limits.try_into().unwrap();
    let requests = Some(RateDoc { count_milli: 1000, window_seconds: 3600, burst: 10 });
    let limit = LimitDoc { endpoints: vec![EndpointClass::Metadata], requests, name: "slow".into(), ..limit };
    let doc = PlanDoc { limits: vec![limit], ..plan(1) };
    world.core.take_plan(Arc::new(compile(&doc).unwrap()), NonZeroU32::MIN);
}

/// How many requests it has counted.
fn metadata_charged(world: &World) -> u64 {
    let facts = HeadFacts::new([127, 0, 0, 1].into(), EndpointClass::Metadata, "/api/chat");
    let standings = world.core.standing(&facts, None);
    let slow = standings.iter().find(|standing| standing.limit.name == "slow").unwrap();
    slow.capacity - slow.remaining
}

#[tokio::test]
async fn a_request_that_is_itself_at_fault_counts_once_where_its_head_decides() {
    let get = |path: &str, lines: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n")
    };
    for (request, expected, charged) in [
        (get("/v1/models/@sha256:00", ""), 400, 1),
        (get("/v1/models/x:cloud", ""), 403, 1),
        (get("/api/tags", "Content-Length: 2\r\n") + "{}", 400, 1),
        (get("//api/tags", ""), 400, 0),
        (get("/api/tags?a=b", ""), 400, 0),
        (get("/api/nothing", ""), 404, 0),
        (get("/api/pull", ""), 403, 0),
        (get("/api/chat", ""), 405, 0),
        (get("/api/tags", "Origin: http://example.com\r\n"), 403, 0),
        (get("/api/tags", "Authorization: a\r\nAuthorization: b\r\n"), 400, 0),
    ] {
        let world = world().await;
        limit_metadata(&world);
        let answer = world.raw(&request).await;
        assert_eq!((status(&answer), metadata_charged(&world)), (expected, charged), "{request:?} {answer}");
    }
}

#[tokio::test]
async fn the_caller_can_ask_what_limits_apply() {
    let world = world().await;
    world.post("/api/chat", r#"{"model":"whole"}"#).await;
    let answer =
        world.raw("GET /corral/v1/limits HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!((&body["client"], &body["pods"]), (&"127.0.0.1".into(), &1.into()), "{body}");
    let limit =
        body["limits"].as_array().unwrap().iter().find(|limit| limit["limit"] == "per-client").unwrap();
    assert_eq!(
        (&limit["requests"], &limit["burst"]["requests"]),
        (&"60 per 1m".into(), &1000.into()),
        "{limit}"
    );
    assert_eq!(limit["thisPod"][0]["remaining"], 999, "{limit}");
    assert_eq!(limit["thisPod"][0]["endpoints"], serde_json::json!(["Chat", "Generate", "Embed"]), "{limit}");
}

#[tokio::test]
async fn without_ollama_or_plan_the_answer_is_503_and_nothing_is_charged() {
    let world = world_with(1, |settings| settings.upstream = ([127, 0, 0, 1], 1).into()).await;
    let down = world.post("/v1/chat/completions", r#"{"model":"tiny"}"#).await;
    assert!(
        status(&down) == 503 && down.contains("retry-after: ") && down.contains("\"unavailable\""),
        "{down}"
    );
    assert_eq!(world.core.health.unavailable(), Some(crate::health::Unavailable::OllamaDown));
    let down = world.post("/v1/chat/completions", r#"{"model":"tiny"}"#).await;
    assert!(down.contains("Ollama is down"), "{down}");
    let limits =
        world.raw("GET /corral/v1/limits HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert!(limits.contains("\"remaining\":1,"), "{limits}");
}

#[tokio::test]
async fn a_busy_ollama_says_when_to_come_back_as_an_estimate() {
    let world = world().await;
    let busy = world.post("/api/chat", r#"{"model":"busy"}"#).await;
    assert!(status(&busy) == 503 && busy.ends_with("{\"error\":\"server busy\"}"), "{busy}");
    assert!(busy.contains("retry-after: ") && busy.contains("retry-after-ms: 5"), "{busy}");
    assert!(busy.contains("x-corral-retry: estimate\r\n"), "{busy}");
}

#[tokio::test]
async fn slow_and_silent_clients_are_let_go() {
    let world = world_with(1000, |settings| {
        settings.head_timeout = Duration::from_millis(100);
        settings.idle_timeout = Duration::from_millis(300);
        settings.stall_timeout = Duration::from_millis(200);
    })
    .await;
    for (sent, within) in
        [("", 100), ("GET / HT", 100), ("GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n", 300)]
    {
        let begun = Instant::now();
        read_all(world.send(sent).await).await;
        let took = Instant::now() - begun;
        let within = Duration::from_millis(within);
        assert!(took >= within && took < within + Duration::from_millis(700), "{sent:?} {took:?}");
    }
    let slow = read_all(
        world.send("POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{").await,
    )
    .await;
    assert_eq!(status(&slow), 408, "{slow}");
}

#[tokio::test]
async fn a_connection_closes_with_an_answer_once_it_is_old_or_the_pod_drains() {
    let world = world_with(1000, |settings| settings.max_connection_age = Duration::ZERO).await;
    let answer = world.raw("GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    let world = self::world().await;
    world.core.health.begin_drain();
    let answer = world.raw("GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(status(&answer) == 200 && answer.contains("connection: close\r\n"), "{answer}");
    world.core.health.refuse_new();
    assert_eq!(status(&world.post("/api/chat", r#"{"model":"tiny"}"#).await), 503);
}

#[tokio::test]
async fn a_drain_serves_once_more_whoever_was_never_told_that_the_connection_closes() {
    let world = world().await;
    let tiny = post("/api/chat", "", r#"{"model":"tiny"}"#);
    let mut idle = world.send("").await;
    let mut running = world.send(&post("/api/chat", "", r#"{"model":"slow"}"#)).await;
    let mut begun = Vec::new();
    while !begun.ends_with(b"{\"done\":false}\n\r\n") {
        begun.push(running.read_u8().await.unwrap());
    }
    world.core.health.begin_drain();
    world.core.health.refuse_new();
    for early in [&mut running, &mut idle] {
        early.write_all(tiny.as_bytes()).await.unwrap();
    }
    assert!(!String::from_utf8(begun).unwrap().contains("connection: close"));
    let rest = read_all(running).await;
    assert!(rest.contains("{\"done\":true}"), "what runs is finished: {rest}");
    let once_more = rest.split_once("HTTP/1.1 200 OK").expect("the next one is served").1;
    assert!(once_more.contains("connection: close"), "{once_more}");
    let answer = read_all(idle).await;
    assert!(status(&answer) == 200 && answer.contains("connection: close"), "{answer}");
    assert_eq!(status(&world.raw(&tiny).await), 503, "who comes late is turned away");
    let mut last = world.send("").await;
    world.core.health.drain_over();
    last.write_all(tiny.as_bytes()).await.unwrap();
    assert_eq!(status(&read_all(last).await), 503, "as is everybody when the drain is over");
}

#[tokio::test]
async fn a_shutdown_lets_requests_in_flight_end_and_then_returns() {
    let mut world = world().await;
    let idle = world.send("").await;
    let running = tokio::spawn(read_all(world.send(&post("/api/chat", "", r#"{"model":"slow"}"#)).await));
    world.until(|world| world.core.gauges().in_flight == 1).await;
    drop(world.stop.take());
    assert!(running.await.unwrap().contains("{\"done\":true}"));
    timeout(Duration::from_secs(5), world.served).await.expect("serve returns").unwrap();
    drop(idle);
}

#[tokio::test]
async fn a_shutdown_whose_time_is_over_tells_every_client_in_its_own_words() {
    let mut world = world().await;
    let mut streams = Vec::new();
    for (path, name, words) in [
        ("/api/chat", "a", "{\"error\":\"This pod is shutting down"),
        ("/v1/chat/completions", "b", "data: {\"error\":{"),
        ("/v1/messages", "c", "event: error\ndata: {"),
    ] {
        let body =
            format!(r#"{{"model":"{name}","stream":true,"max_tokens":9,"messages":[],"user":"forever"}}"#);
        streams.push((words, tokio::spawn(read_all(world.send(&post(path, "", &body)).await))));
    }
    world.until(|world| world.core.gauges().in_flight == 3).await;
    let queued = tokio::spawn(read_all(world.send(&post("/api/chat", "", r#"{"model":"a"}"#)).await));
    world.until(|world| world.core.gauges().queued == 1).await;
    sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    drop(world.stop.take());
    world.core.health.cut_running();
    for (words, stream) in streams {
        let told = stream.await.unwrap();
        assert!(told.starts_with("HTTP/1.1 200") && told.contains(words), "{told}");
        assert!(told.contains("This pod is shutting down") && told.ends_with("\r\n0\r\n\r\n"), "{told}");
    }
    let told = queued.await.unwrap();
    assert!(status(&told) == 503 && told.contains("retry-after: "), "{told}");
    world.served.await.unwrap();
    assert!(Instant::now() - begun < Duration::from_secs(1));
}

#[tokio::test]
async fn a_client_that_takes_nothing_does_not_keep_a_cut_shutdown_waiting() {
    let mut world = world().await;
    let _half = world.send("POST /api/chat HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{").await;
    let never = tokio::spawn(read_all(world.send(&post("/api/chat", "", r#"{"model":"never"}"#)).await));
    world.until(|world| world.core.gauges().in_flight == 1).await;
    drop(world.stop.take());
    world.core.health.cut_running();
    assert_eq!(status(&never.await.unwrap()), 503);
    timeout(LAST_WORDS * 2, world.served).await.expect("serve returns").unwrap();
}

/// How many requests a scrape counts with this endpoint and outcome.
fn counted(world: &World, endpoint: &str, outcome: &str) -> bool {
    let text = world.core.metrics.render(&crate::metrics::Standing::default());
    text.contains(&format!("corral_requests_total{{endpoint=\"{endpoint}\",outcome=\"{outcome}\"}} 1\n"))
}

#[tokio::test]
async fn every_request_has_exactly_one_outcome() {
    let world = world_with(3, |_| ()).await;
    world.post("/api/generate", r#"{"model":"tiny"}"#).await;
    world.until(|world| counted(world, "generate", "served")).await;
    world.post("/v1/completions", r#"{"model":"cut"}"#).await;
    world.until(|world| counted(world, "generate", "failed")).await;
    // What was cut before it said a word was given back.
    world.post("/v1/chat/completions", r#"{"model":"tiny"}"#).await;
    world.until(|world| counted(world, "chat", "served")).await;
    let never = world.send(&post("/api/chat", "", r#"{"model":"never"}"#)).await;
    world.until(|world| world.core.gauges().in_flight == 1).await;
    drop(never);
    world.until(|world| counted(world, "chat", "client_gone")).await;
    world.post("/api/embed", r#"{"model":"tiny"}"#).await;
    world.until(|world| counted(world, "embed", "limited")).await;
    world.raw("GET /api/nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    world.until(|world| counted(world, "none", "invalid")).await;
}
