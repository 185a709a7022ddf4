//! A runner that stops behind an Ollama that answers, and an Ollama that stops as a whole.

use super::*;
use crate::health::{Reason, Unavailable};
use crate::proxy::StallBounds;

const SUSPICION: Duration = Duration::from_millis(150);
const PATIENCE: Duration = Duration::from_millis(150);
/// Longer than both, several times.
const LONG: Duration = Duration::from_secs(1);

const SETTLED: &str = r#"{"models":[{"name":"a:latest","expires_at":"2026-01-01T00:00:00Z","size":1}]}"#;

async fn world_of_stalls(limit: Duration) -> World {
    let world = world_of(2, 1000, |settings| {
        settings.stall = StallBounds { suspicion: SUSPICION, patience: PATIENCE, limit };
        settings.hold_loaded = Duration::from_millis(40);
        settings.expect_gpu = true;
    })
    .await;
    SETTLED.clone_into(&mut world.seen.listed.lock());
    world
}

impl World {
    fn wedge(&self, wedged: bool) {
        self.seen.wedged.store(wedged, Ordering::SeqCst);
    }

    fn canaries(&self) -> usize {
        self.seen.canaries.lock().len()
    }

    fn reason(&self) -> Reason {
        self.core.health.readiness().reason
    }

    /// A stream that has begun and does not end by itself, read to its end by a task.
    async fn streaming(&self, path: &str) -> tokio::task::JoinHandle<String> {
        let body = r#"{"model":"a","kind":"forever","stream":true}"#;
        let mut stream = self.send(&post(path, "Connection: close\r\n", body)).await;
        stream.read_exact(&mut [0; 200]).await.unwrap();
        tokio::spawn(read_all(stream))
    }

    fn metrics(&self) -> String {
        self.core.metrics.render(&crate::metrics::Standing::default())
    }
}

#[tokio::test]
async fn streams_of_a_stopped_runner_end_in_their_apis_error_and_it_comes_back_when_it_works() {
    for (path, told) in [
        ("/api/chat", r#"{"error":"The model has stopped working: the answer is not complete."}"#),
        ("/v1/chat/completions", r#"data: {"error":{"code":null,"message":"The model has stopped"#),
        ("/v1/messages", "event: error\ndata: {\"error\":{\"message\":\"The model has stopped"),
        (
            "/v1/responses",
            "event: error\ndata: {\"code\":\"server_error\",\"message\":\"The model has stopped",
        ),
    ] {
        let world = world_of_stalls(Duration::ZERO).await;
        let stream = world.streaming(path).await;
        world.wedge(true);
        let begun = Instant::now();
        let text = stream.await.unwrap();
        assert!(text.contains(told), "{path}: {text}");
        assert!(
            (SUSPICION + PATIENCE..LONG).contains(&(Instant::now() - begun)),
            "{:?}",
            Instant::now() - begun
        );
        assert_eq!((world.reason(), world.canaries()), (Reason::Stalled, 1));
        let answer = world.post("/api/generate", r#"{"model":"a"}"#).await;
        assert!(status(&answer) == 503 && answer.contains("retry-after: "), "{answer}");
        assert!(answer.contains("The model has stopped working."), "{answer}");
        assert_eq!(world.core.health.needs_restart(), Some("a runner of Ollama has stopped working"));
        world.until(|world| world.core.gauges().in_flight == 0).await;
        world.wedge(false);
        world.until(|world| world.reason() == Reason::Ready).await;
        assert_eq!(world.canaries(), 1, "the one that stayed open heals it");
        assert_eq!(status(&world.post("/api/generate", r#"{"model":"a","kind":"whole"}"#).await), 200);
        let text = world.metrics();
        for line in [
            "corral_engine_stalls_total{found=\"unanswering\"} 1\n",
            "corral_upstream_failures_total{kind=\"stalled\"} 1\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }
}

#[tokio::test]
async fn a_request_on_a_stopped_runner_gets_503_before_its_head_and_so_does_who_waits_behind_it() {
    let world = world_of_stalls(Duration::ZERO).await;
    world.post("/api/generate", r#"{"model":"a","kind":"whole"}"#).await;
    world.wedge(true);
    let one = r#"{"model":"a","kind":"never"}"#;
    let answers = futures_of([
        world.post("/api/generate", one),
        world.post("/v1/chat/completions", one),
        world.post("/api/chat", one),
    ]);
    for answer in answers.await {
        assert!(status(&answer) == 503 && answer.contains("retry-after: "), "{answer}");
        assert!(answer.contains("The model has stopped working."), "{answer}");
    }
    world.until(|world| world.core.gauges().in_flight == 0).await;
    assert_eq!(world.seen.requests.lock().len(), 3, "who waited was never sent to it");
}

async fn futures_of<const N: usize>(all: [impl Future<Output = String>; N]) -> Vec<String> {
    let mut done = Vec::new();
    let mut pinned: Vec<_> = all.into_iter().map(Box::pin).collect();
    // All at once, each to its end.
    std::future::poll_fn(|context| {
        pinned.retain_mut(|one| match one.as_mut().poll(context) {
            std::task::Poll::Ready(answer) => {
                done.push(answer);
                false
            }
            std::task::Poll::Pending => true,
        });
        if pinned.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done
}

#[tokio::test]
async fn whoever_may_wait_for_a_load_is_not_suspected_and_nobody_is_asked() {
    let world = world_of_stalls(SUSPICION).await;
    world.wedge(true);
    let mut stream = world.send(&post("/api/generate", "", r#"{"model":"a","kind":"later"}"#)).await;
    sleep(LONG).await;
    assert_eq!((world.reason(), world.canaries()), (Reason::Ready, 0));
    world.wedge(false);
    world.seen.speak.notify_one();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
}

#[tokio::test]
async fn a_silent_runner_that_ollama_answers_for_is_asked_about_again_and_again_and_left_alone() {
    let world = world_of_stalls(Duration::ZERO).await;
    world.post("/api/generate", r#"{"model":"a","kind":"whole","options":{"num_ctx":7}}"#).await;
    let body = r#"{"model":"a","kind":"later","options":{"num_ctx":7}}"#;
    let stream = world.send(&post("/api/generate", "Connection: close\r\n", body)).await;
    world.until(|world| world.canaries() >= 3).await;
    assert_eq!(world.reason(), Reason::Ready);
    assert!(
        world
            .seen
            .canaries
            .lock()
            .iter()
            .all(|canary| { canary.ends_with(r#"{"model":"a:latest","options":{"num_ctx":7}}"#) })
    );
    world.seen.speak.notify_one();
    let answer = read_all(stream).await;
    assert!(answer.contains("{\"done\":true}"), "{answer}");
}

#[tokio::test]
async fn streams_that_are_silent_for_longer_than_any_may_be_are_ended_though_ollama_answers() {
    let world = world_of_stalls(LONG).await;
    let stream = world.streaming("/api/chat").await;
    world.seen.hushed.store(true, Ordering::SeqCst);
    let text = stream.await.unwrap();
    assert!(text.contains("The model has stopped working"), "{text}");
    assert!(world.canaries() >= 2, "it was answered for all the time");
    world.until(|world| world.seen.requests.lock().iter().any(|one| one.contains("\"num_predict\":1"))).await;
    world.seen.hushed.store(false, Ordering::SeqCst);
    world.until(|world| world.reason() == Reason::Ready).await;
}

#[tokio::test]
async fn when_ollama_stops_as_a_whole_whatever_it_was_asked_ends() {
    let world = world_of_stalls(Duration::ZERO).await;
    let stream = world.streaming("/api/chat").await;
    let answers = futures_of([
        world.post("/api/generate", r#"{"model":"b","kind":"never"}"#),
        world.post("/api/show", r#"{"model":"b","kind":"never"}"#),
    ]);
    let wedge = async {
        world.until(|world| world.seen.requests.lock().len() == 3).await;
        world.core.health.set_wedged(true);
    };
    let (answers, ()) = tokio::join!(answers, wedge);
    for answer in answers {
        assert_eq!(status(&answer), 503, "{answer}");
    }
    assert!(stream.await.unwrap().contains("The model has stopped working"));
    assert_eq!(world.core.health.needs_restart(), Some("Ollama takes connections and answers none"));
}

#[tokio::test]
async fn an_ollama_that_says_it_is_busy_is_counted_and_as_well_as_before() {
    let world = world_of_stalls(Duration::ZERO).await;
    for _ in 0..5 {
        assert_eq!(status(&world.post("/api/generate", r#"{"model":"a","kind":"busy"}"#).await), 503);
    }
    assert_eq!(world.core.upstream_busy(), 5);
    assert_eq!((world.reason(), world.core.health.unavailable()), (Reason::Ready, None::<Unavailable>));
    assert!(world.metrics().contains("corral_upstream_failures_total{kind=\"busy\"} 5\n"));
}

#[tokio::test]
async fn a_model_that_is_not_wholly_on_the_gpu_is_known_and_changes_no_readiness() {
    let world = world_of_stalls(Duration::ZERO).await;
    let listed = r#"{"models":[{"name":"a:latest","expires_at":"1","size":4,"size_vram":3}]}"#;
    listed.clone_into(&mut world.seen.listed.lock());
    world.until(|world| !world.core.health.off_gpu().is_empty()).await;
    let off = world.core.health.off_gpu();
    assert_eq!((off[0].model.as_str(), off[0].gpu_percent), ("a:latest", 75));
    assert_eq!(world.reason(), Reason::Ready);
}
