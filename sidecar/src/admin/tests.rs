use std::net::{Ipv4Addr, SocketAddr};

use corral_wire::{Directive, PoolKeys, PoolRef, Position, Report, ServePermission, Signed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::*;
use crate::health::Sign;
use crate::plan::{PlanStore, core_for_tests as core};

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn quick() -> DrainSettings {
    DrainSettings {
        delay: Duration::ZERO,
        timeout: Duration::from_secs(1),
        begin_wait: Duration::from_millis(200),
    }
}

async fn listening(admin: Admin) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, Arc::new(admin)));
    address
}

/// Asks from this address of the loopback, and does not wait for an answer.
async fn open(address: SocketAddr, from: Ipv4Addr, request: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn ask(address: SocketAddr, request: &str) -> (u16, String) {
    answered(open(address, HERE, request).await).await
}

async fn answered(mut stream: TcpStream) -> (u16, String) {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer[9..12].parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    (status, body)
}

async fn get(address: SocketAddr, path: &'static str) -> (u16, String) {
    ask(address, &format!("GET {path} HTTP/1.1\r\nhost: pod\r\nconnection: close\r\n\r\n")).await
}

#[tokio::test]
async fn probes_say_how_things_stand() {
    let core = core();
    let at = listening(Admin::new(Arc::clone(&core), None, quick())).await;
    assert_eq!(get(at, "/livez").await, (200, "ok".into()));
    assert_eq!(get(at, "/startupz").await.0, 200);
    assert_eq!(get(at, "/readyz").await, (503, "Starting".into()));
    assert_eq!(get(at, "/ollama/livez").await.0, 200);
    core.health.saw(Sign::Answer);
    core.health.plan_accepted();
    core.health.told_to_serve();
    assert_eq!(get(at, "/readyz").await, (200, "ok".into()));
    core.health.set_wedged(true);
    assert_eq!(get(at, "/ollama/livez").await.0, 503);
    assert_eq!(get(at, "/livez").await.0, 200, "liveness does not depend on Ollama");
}

#[tokio::test]
async fn metrics_come_in_the_form_asked_for() {
    let at = listening(Admin::new(core(), None, quick())).await;
    let (status, old) = get(at, "/metrics").await;
    assert!(status == 200 && old.contains("# TYPE corral_clients_gone_total counter"), "{old}");
    let request = "GET /metrics HTTP/1.1\r\nhost: pod\r\nconnection: close\r\naccept: \
                   application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n\r\n";
    let (_, new) = ask(at, request).await;
    assert!(new.ends_with("# EOF\n") && new.contains("# TYPE corral_clients_gone counter"), "{new}");
}

#[tokio::test(start_paused = true)]
async fn what_changes_between_two_scrapes_is_seen_after_a_tenth_of_a_second() {
    let core = core();
    let admin = Admin::new(Arc::clone(&core), None, quick());
    let scrape = async || {
        let body = admin.metrics(&HeaderMap::new()).into_body().collect().await.unwrap();
        String::from_utf8(body.to_bytes().into()).unwrap()
    };
    let before = scrape().await;
    assert!(before.contains("corral_connections 0\n"), "{before}");
    core.metrics.connection_opened();
    sleep(Duration::from_millis(99)).await;
    assert_eq!(scrape().await, before, "rendered once");
    sleep(Duration::from_millis(1)).await;
    assert!(scrape().await.contains("corral_connections 1\n"));
}

#[tokio::test]
async fn whoever_waits_for_the_drain_hears_of_its_end() {
    let core = core();
    let at = listening(Admin::new(Arc::clone(&core), None, quick())).await;
    assert_eq!(get(at, "/drain/wait").await, (200, "no drain began".into()));
    let long = DrainSettings { begin_wait: Duration::from_secs(30), ..quick() };
    let at = listening(Admin::new(Arc::clone(&core), None, long)).await;
    let mut waiting = Vec::new();
    for _ in 0..100 {
        waiting
            .push(open(at, HERE, "GET /drain/wait HTTP/1.1\r\nhost: pod\r\nconnection: close\r\n\r\n").await);
    }
    assert_eq!(get(at, "/livez").await.0, 200);
    for stream in &waiting {
        assert!(stream.try_read(&mut [0]).is_err(), "none is answered before its time");
    }
    core.health.drain_over();
    for stream in waiting {
        assert_eq!(answered(stream).await, (200, "drain over".into()));
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_there() {
    let at = listening(Admin::new(core(), None, quick())).await;
    assert_eq!(get(at, "/debug").await.0, 404);
    assert_eq!(get(at, "/exchange").await.0, 405);
    let post =
        |path| format!("POST {path} HTTP/1.1\r\nhost: p\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(ask(at, &post("/exchange")).await.0, 404, "no exchange standalone");
    assert_eq!(ask(at, &post("/livez")).await.0, 405);
}

/// The admin port of a pod with keys, which lie in the folder.
async fn listening_with_keys() -> (SocketAddr, tempfile::TempDir) {
    let (core, keys_dir) = (core(), tempfile::tempdir().unwrap());
    std::fs::write(keys_dir.path().join("1"), [1; 32]).unwrap();
    let store = Arc::new(PlanStore::open(Arc::clone(&core), pool(), None));
    let exchange = Exchange::new(keys_dir.path().into(), "uid".into(), store, 1);
    (listening(Admin::new(core, Some(exchange), quick())).await, keys_dir)
}

fn pool() -> PoolRef {
    PoolRef { namespace: "llm".into(), name: "chat".into() }
}

fn keys() -> PoolKeys {
    PoolKeys::new(vec![vec![1; 32]]).unwrap()
}

fn directive(position: Position) -> String {
    let directive = Directive {
        pool: pool(),
        plan: None,
        divisor: 2,
        serve: ServePermission::Granted,
        relief: false,
        retire: false,
    };
    let body = serde_json::to_string(&keys().sign("uid", position, &directive).unwrap()).unwrap();
    let length = body.len();
    format!(
        "POST /exchange HTTP/1.1\r\nhost: pod\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn a_directive_is_answered_over_http() {
    let (at, _keys_dir) = listening_with_keys().await;
    let position = Position { term: 1, sequence: 1 };
    let request = directive(position);
    let (status, answer) = ask(at, &request).await;
    let signed: Signed = serde_json::from_str(&answer).unwrap();
    let report: Report = keys().open("uid", Some(position), &signed).unwrap();
    assert_eq!((status, report.divisor, report.serve), (200, 2, ServePermission::Granted));
    assert_eq!(ask(at, &request).await.0, 409, "the same again is behind");
    let huge = format!(
        "POST /exchange HTTP/1.1\r\nhost: pod\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        MAX_DIRECTIVE_BYTES + 1
    );
    assert_eq!(ask(at, &huge).await.0, 413);
}

#[tokio::test]
async fn a_source_that_holds_its_places_with_slow_bodies_keeps_no_other_directive_out() {
    let (at, _keys_dir) = listening_with_keys().await;
    let slow = "POST /exchange HTTP/1.1\r\nhost: pod\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n";
    let mut held = Vec::new();
    for _ in 0..MAX_EXCHANGES_EACH {
        let mut stream = open(at, HERE, slow).await;
        let mut line = [0; 12];
        stream.read_exact(&mut line).await.unwrap();
        assert_eq!(&line, b"HTTP/1.1 100", "its body is waited for");
        held.push(stream);
    }
    let request = directive(Position { term: 1, sequence: 1 });
    assert_eq!(ask(at, &request).await.0, 429, "this source has its share");
    let leader = open(at, Ipv4Addr::new(127, 0, 0, 2), &request).await;
    assert_eq!(answered(leader).await.0, 200);
}
