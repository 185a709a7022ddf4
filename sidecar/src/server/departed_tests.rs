//! Clients that leave before the first byte, and what becomes of the exchange with Ollama.

use super::*;

const HELD: Duration = Duration::from_millis(60);
/// Long enough for several looks at what is loaded.
const LOOKS: Duration = Duration::from_millis(400);

const SETTLED: &str = r#"{"models":[{"name":"a:latest","expires_at":"2026-01-01T00:00:00Z","size":1}]}"#;
const UNSETTLED: &str =
    r#"{"models":[{"name":"a:latest","expires_at":"2026-01-01T00:00:00.{n}Z","size":1}]}"#;
const EMPTY: &str = r#"{"models":[]}"#;

/// Two slots a model, and Ollama says that of its models.
async fn world_where(listed: &str) -> World {
    let world = world_of(2, 1000, |settings| settings.hold_loaded = HELD).await;
    listed.clone_into(&mut world.seen.listed.lock());
    world
}

impl World {
    async fn serve_one(&self) {
        assert_eq!(status(&self.post("/api/generate", r#"{"model":"a","kind":"whole"}"#).await), 200);
    }

    /// A client that leaves once Ollama has its request.
    async fn leave(&self, body: &str) {
        let before = self.seen.requests.lock().len();
        let stream = self.send(&post("/api/generate", "", body)).await;
        self.until(|world| world.seen.requests.lock().len() > before).await;
        drop(stream);
    }

    fn cut(&self) -> usize {
        self.seen.cut.load(Ordering::SeqCst)
    }

    fn asked(&self) -> usize {
        self.seen.asked.load(Ordering::SeqCst)
    }

    async fn is_cut_soon_and_hands_its_slot_on(&self, left_running: u32) {
        let begun = Instant::now();
        self.until(|world| world.cut() == 1).await;
        assert!(Instant::now() - begun < LOOKS);
        self.until(|world| world.core.gauges().in_flight == left_running).await;
        self.serve_one().await;
    }

    async fn is_held_with_its_slot(&self) {
        sleep(LOOKS).await;
        assert_eq!((self.cut(), self.core.gauges().in_flight), (0, 1));
    }
}

const NEVER: &str = r#"{"model":"a","kind":"never"}"#;

#[tokio::test]
async fn a_model_that_never_answered_is_held_until_its_head_whatever_ollama_lists() {
    let world = world_where(SETTLED).await;
    world.leave(r#"{"model":"a","kind":"later"}"#).await;
    world.is_held_with_its_slot().await;
    world.seen.speak.notify_one();
    world.until(|world| world.cut() == 1 && world.core.gauges().in_flight == 0).await;
    assert_eq!(world.asked(), 0);
}

#[tokio::test]
async fn a_loaded_and_settled_model_is_cut_after_a_moment() {
    let world = world_where(SETTLED).await;
    world.serve_one().await;
    world.leave(NEVER).await;
    world.is_cut_soon_and_hands_its_slot_on(0).await;
    assert_eq!(world.asked(), 2);
}

#[tokio::test]
async fn an_unloaded_or_loading_model_is_held_however_lately_it_answered() {
    for listed in [EMPTY, UNSETTLED, "nonsense", r#"{"models":null}"#] {
        let world = world_where(listed).await;
        world.serve_one().await;
        world.leave(NEVER).await;
        world.is_held_with_its_slot().await;
        assert!(world.asked() > 2, "{listed}");
    }
}

#[tokio::test]
async fn a_model_that_settles_meanwhile_is_cut_then() {
    let world = world_where(UNSETTLED).await;
    world.serve_one().await;
    world.leave(NEVER).await;
    world.is_held_with_its_slot().await;
    SETTLED.clone_into(&mut world.seen.listed.lock());
    world.is_cut_soon_and_hands_its_slot_on(0).await;
}

#[tokio::test]
async fn options_that_need_another_runner_are_held_for_its_load() {
    let world = world_where(SETTLED).await;
    world.serve_one().await;
    world.leave(r#"{"model":"a","kind":"never","options":{"num_ctx":4096}}"#).await;
    world.is_held_with_its_slot().await;
    assert_eq!(world.asked(), 0);
}

#[tokio::test]
async fn beside_a_stream_of_the_same_model_it_does_not_matter_what_ollama_lists() {
    let world = world_where(EMPTY).await;
    let mut stream = world.send(&post("/api/generate", "", r#"{"model":"a","kind":"forever"}"#)).await;
    stream.read_exact(&mut [0; 200]).await.unwrap();
    let reading = tokio::spawn(async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await });
    world.leave(NEVER).await;
    world.is_cut_soon_and_hands_its_slot_on(1).await;
    reading.abort();
}

#[tokio::test]
async fn a_request_that_needs_no_runner_is_cut_at_once() {
    let world = world_where("").await;
    let begun = Instant::now();
    let stream = world.send(&post("/api/show", "", r#"{"model":"a","kind":"never"}"#)).await;
    world.until(|world| world.seen.running.load(Ordering::SeqCst) == 1).await;
    drop(stream);
    world.until(|world| world.cut() == 1).await;
    assert!(Instant::now() - begun < LOOKS);
}
