//! Scenario 8: far more comes than can be served, and is sent away: at once, cheaply, and whatever is connected.

use std::time::Duration;

use corral_tests::load::{Heard, Shot, Spread, fire, in_millis};
use corral_tests::ollama::Pace;
use corral_tests::sidecar::PolicyFile;
use http::{Method, StatusCode};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::table::line;
use super::{World, all_are, tokens};

const PLACES: u32 = 8;
/// What a connection may take of the sidecar's memory, as `--max-connections` reckons.
const KIB_PER_CONNECTION: u64 = 96;
/// Whatever it does beside.
const KIB_FOR_THE_REST: u64 = 64 << 10;

struct Size {
    per_second: u32,
    seconds: u32,
    connections: u32,
    kept: u32,
}

#[tokio::test]
async fn too_much_is_refused_at_once_and_memory_stays_bounded() {
    scenario(&Size { per_second: 300, seconds: 2, connections: 1000, kept: 300 }).await;
}

#[tokio::test]
#[ignore = "measures, which is worth something in an optimised build only"]
async fn too_much_is_refused_at_once_and_memory_stays_bounded_in_full_size() {
    scenario(&Size { per_second: 1000, seconds: 8, connections: 8500, kept: 5000 }).await;
}

async fn scenario(size: &Size) {
    // One slot, taken for as long as this lasts, and every place in the queue.
    let pace = Pace { token: Duration::from_secs(1), ..Pace::default() };
    let world = World::start(pace, 1, PolicyFile::open().queue(PLACES, 300)).await;
    let inside = fill(&world).await;
    let before = world.sidecar.resident_kib().unwrap();
    let idle = connect(&world, size.connections).await;
    let heard = fire(too_many(&world, size)).await.unwrap();
    let after = world.sidecar.resident_kib().unwrap();
    all_are_refused(&world, &heard).await;
    let processor = kept_connection(&world, size.kept).await;
    memory_is_bounded(before, after, size.connections);
    drop(idle);
    assert!(inside.iter().all(|one| !one.is_finished()), "who was in stays in");
    // Those who wait leave first, so that nobody is served meanwhile.
    inside.iter().skip(1).for_each(JoinHandle::abort);
    world.until("nobody waits", async || world.sidecar.sum("corral_queue_depth ").await.unwrap() == 0).await;
    inside.iter().for_each(JoinHandle::abort);
    world.comes_to_rest().await;
    assert_eq!(world.ollama.record().inferences().len(), 1, "Ollama has seen the one that ran");
    print(size, &heard, processor);
}

/// The first one runs, the others wait.
async fn fill(world: &World) -> Vec<JoinHandle<()>> {
    let mut inside = Vec::new();
    for waiting in 0..=PLACES as usize {
        let client = world.sidecar.client();
        inside.push(tokio::spawn(async move {
            // It is never answered.
            let _ = client.post("/api/generate", &tokens("tiny", "stays", 2000)).await;
        }));
        world
            .until("it is inside", async || {
                let waits = world.sidecar.sum("corral_queue_depth ").await.unwrap();
                (world.ollama.record().inferences().len(), waits) == (1, waiting)
            })
            .await;
    }
    inside
}

async fn connect(world: &World, count: u32) -> Vec<TcpStream> {
    let mut idle = Vec::new();
    for _ in 0..count {
        idle.push(TcpStream::connect(world.sidecar.address()).await.unwrap());
    }
    let all = idle.len();
    world
        .until("all are connected", async || world.sidecar.sum("corral_connections ").await.unwrap() >= all)
        .await;
    idle
}

fn too_many(world: &World, size: &Size) -> Vec<Shot> {
    let body = tokens("tiny", "too much", 10);
    let due = |number| Duration::from_secs(1) * number / size.per_second;
    let shots = (0..size.per_second * size.seconds).map(due);
    shots.map(|at| Shot::post(at, world.sidecar.address(), "/api/generate", &body)).collect()
}

/// Each is, in full, and is told when to come back; each counts once.
async fn all_are_refused(world: &World, heard: &[Heard]) {
    all_are(heard, 429);
    for one in heard {
        let text = String::from_utf8_lossy(&one.raw).to_ascii_lowercase();
        assert!(text.contains("\r\nretry-after: "), "{text}");
    }
    let mut counted = 0;
    for outcome in ["limited", "queue_full", "wait_too_long"] {
        let series = format!("corral_requests_total{{endpoint=\"generate\",outcome=\"{outcome}\"}}");
        counted += world.sidecar.sum(&series).await.unwrap_or_default();
    }
    assert_eq!(counted, heard.len());
}

/// What refusals cost the sidecar's process when their clients keep their connection.
async fn kept_connection(world: &World, count: u32) -> Duration {
    let body = tokens("tiny", "too much", 10).to_string();
    let mut connection = world.sidecar.client().connect().await.unwrap();
    let before = world.sidecar.processor_time().unwrap();
    for _ in 0..count {
        let answer = connection.send(Method::POST, "/api/generate", &body).await.unwrap();
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    }
    world.sidecar.processor_time().unwrap().saturating_sub(before) / count
}

fn memory_is_bounded(before: u64, after: u64, connections: u32) {
    let bound = KIB_FOR_THE_REST + KIB_PER_CONNECTION * u64::from(connections);
    let each = after.saturating_sub(before) / u64::from(connections);
    line(
        &format!("RSS with {connections} connections open"),
        "<= 64 MiB + buffers",
        &format!("{} MiB, {each} KiB a connection, {} MiB without", after >> 10, before >> 10),
    );
    assert!(after <= bound, "{after} KiB is more than {bound}");
}

fn print(size: &Size, heard: &[Heard], processor: Duration) {
    let ended: Spread = heard.iter().map(|one| one.ended).collect();
    let late: Spread = heard.iter().map(|one| one.sent).collect();
    line(
        &format!("p99 to a 429, {} a second, each on a new connection", size.per_second),
        "<= 5 ms",
        &format!(
            "{}, p50 {}; the load itself was late by p99 {}",
            in_millis(ended.p99()),
            in_millis(ended.p50()),
            in_millis(late.p99())
        ),
    );
    let micros = processor.as_micros();
    line("processor time of a 429 on a kept connection", "<= 50 us", &format!("{micros} us"));
}
