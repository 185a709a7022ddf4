//! Ollama is never sent more than its models have slots, whatever it was told; and models share it without starving each
//! other.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use corral_tests::client::Client;
use corral_tests::ollama::{Endpoint, Fault, ModelSpec, Outcome, Pace, ScriptedOllama, Settings};
use corral_tests::sidecar::{PolicyFile, Sidecar};
use futures::future::join_all;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, pause, sleep};

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A sidecar that was told of four slots and room for three models. From here on time is virtual.
async fn world(settings: Settings, loaded_models: u32) -> (ScriptedOllama, Sidecar) {
    let ollama = ScriptedOllama::start(settings).await.unwrap();
    let policy = PolicyFile::open().slots(4).queue(100, 300).trusting(&["127.0.0.0/8"]);
    let tuned = Sidecar::tuned(&ollama, &policy, |settings| {
        settings.slots.loaded_models = loaded_models.try_into().unwrap();
    });
    let sidecar = tuned.await.unwrap();
    pause();
    (ollama, sidecar)
}

fn generate(model: &str, tokens: u32) -> (&'static str, Value) {
    let options = json!({ "num_predict": tokens });
    ("/api/generate", json!({ "model": model, "prompt": "hi", "stream": false, "options": options }))
}

/// How many clients there were.
static CLIENTS: AtomicUsize = AtomicUsize::new(0);

/// Clients that ask for the same, each again as soon as it is answered; and how many answers they have had.
struct Crowd {
    answers: Arc<AtomicUsize>,
    _clients: JoinSet<()>,
}

impl Crowd {
    fn of(count: usize, client: &Client, (path, body): (&'static str, Value)) -> Self {
        let answers = Arc::new(AtomicUsize::new(0));
        let mut clients = JoinSet::new();
        for _ in 0..count {
            let number = CLIENTS.fetch_add(1, Ordering::SeqCst);
            let address = format!("10.0.{}.{}", number / 256, number % 256);
            let (client, body) = (client.clone().with("x-forwarded-for", &address), body.clone());
            let answers = Arc::clone(&answers);
            clients.spawn(async move {
                loop {
                    let answer = client.post(path, &body).await.unwrap();
                    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
                    answers.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        Self { answers, _clients: clients }
    }

    fn answers(&self) -> usize {
        self.answers.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_model_that_has_one_slot_is_never_sent_two_whatever_the_pool_says() {
    let models = vec![
        ModelSpec::endless("tiny"),
        ModelSpec::endless("sees").family("qwen3vl"),
        ModelSpec::endless("mixes").family("nemotron_h"),
        ModelSpec::embedding("tinybert"),
        ModelSpec::embedding("embeds").family("qwen3"),
    ];
    let pace = Pace { token: millis(100), load: millis(500), ..Pace::default() };
    let settings = Settings { num_parallel: 4, max_queue: 512, models, pace, ..Settings::default() };
    let (ollama, sidecar) = world(settings, 5).await;
    let client = sidecar.client();
    let ask = async |model: &'static str| {
        let (path, body) = match model {
            "tinybert" | "embeds" => ("/api/embed", json!({ "model": model, "input": "a" })),
            _ => generate(model, 3),
        };
        assert_eq!(client.post(path, &body).await.unwrap().status, StatusCode::OK);
    };
    let models = ["tiny", "sees", "mixes", "tinybert", "embeds"];
    join_all((0..30).map(|at| ask(models[at % models.len()]))).await;
    for (model, slots) in models.into_iter().zip([4, 1, 1, 1, 1]) {
        let load = ollama.record().model(&format!("{model}:latest"));
        assert_eq!((load.max_running, load.max_waiting), (slots, 0), "{model}");
    }
    let shows = ollama.record().arrivals().iter().filter(|one| one.target == "/api/show").count();
    assert_eq!(shows, models.len(), "asked once for each");
}

#[tokio::test]
async fn the_first_request_does_not_wait_until_ollama_has_said_what_its_model_is() {
    let (ollama, sidecar) = world(Settings { num_parallel: 4, ..Settings::default() }, 3).await;
    ollama.fault_at(Endpoint::Show, Fault::Stall { after: 0, lasts: Duration::from_mins(1) });
    let client = sidecar.client();
    let started = Instant::now();
    let (path, body) = generate("tiny", 1);
    assert_eq!(client.post(path, &body).await.unwrap().status, StatusCode::OK);
    assert!(started.elapsed() < millis(500), "{:?}", started.elapsed());
    sleep(Duration::from_secs(3)).await;
    ollama.set_pace(Pace { token: millis(100), ..Pace::default() });
    join_all((0..8).map(|_| client.post(path, &body))).await;
    assert_eq!(
        ollama.record().model("tiny:latest").max_running,
        4,
        "without an answer it counts as any other"
    );
}

/// Four slots that become two, and four again.
#[tokio::test]
async fn requests_that_wait_inside_ollama_bring_its_slots_down_and_they_come_back() {
    let pace = Pace { prompt: millis(200), token: millis(100), ..Pace::default() };
    let settings = Settings { num_parallel: 4, max_queue: 512, pace, ..Settings::default() };
    let (ollama, sidecar) = world(settings, 3).await;
    let crowd = Crowd::of(12, &sidecar.client(), generate("tiny", 9));
    let inside = || {
        let load = ollama.record().model("tiny:latest");
        load.running + load.waiting
    };
    sleep(Duration::from_secs(30)).await;
    assert_eq!((inside(), ollama.record().model("tiny:latest").max_waiting), (4, 0));
    ollama.set_parallel(2);
    sleep(Duration::from_mins(1)).await;
    let before = crowd.answers();
    let mut samples = Vec::new();
    for _ in 0..120 {
        sleep(Duration::from_secs(1)).await;
        samples.push(inside());
    }
    assert!(samples.iter().all(|inside| (1..=3).contains(inside)), "two, and one more or less: {samples:?}");
    let waits = samples.iter().filter(|inside| **inside > 2).count();
    assert!(waits * 2 < samples.len(), "mostly nobody waits inside: {samples:?}");
    // Two slots of 1.2 s for each, for two minutes.
    let served = crowd.answers() - before;
    assert!(served * 100 >= 200 * 95, "the slots that there are, are used: {served} of 200");
    ollama.set_parallel(4);
    sleep(Duration::from_secs(90)).await;
    assert_eq!(inside(), 4);
    assert_eq!(ollama.record().load().waiting, 0);
}

#[tokio::test]
async fn one_503_of_ollama_halves_the_slots_of_its_model_for_a_while() {
    let pace = Pace { token: millis(100), ..Pace::default() };
    let settings = Settings { num_parallel: 4, max_queue: 512, pace, ..Settings::default() };
    let (ollama, sidecar) = world(settings, 3).await;
    let client = sidecar.client();
    let (_, chat) = generate("slow", 9);
    let chat = json!({ "model": "slow", "messages": [{ "role": "user", "content": "hi" }], "options": chat["options"], "stream": false });
    let others = Crowd::of(8, &client, ("/api/chat", chat));
    let crowd = Crowd::of(8, &client, generate("tiny", 9));
    let inside = |model: &str| ollama.record().model(model).running;
    sleep(Duration::from_secs(10)).await;
    assert_eq!((inside("tiny:latest"), inside("slow:latest")), (4, 4));
    let before = crowd.answers();
    // It is sent once more, and nobody notices.
    ollama.fault_at(Endpoint::Generate, Fault::Busy);
    let mut samples = Vec::new();
    for _ in 0..90 {
        sleep(Duration::from_secs(1)).await;
        samples.push((inside("tiny:latest"), inside("slow:latest")));
    }
    assert!(samples[5..25].iter().all(|(tiny, _)| *tiny == 2), "{samples:?}");
    assert!(samples[80..].iter().all(|(tiny, _)| *tiny == 4), "{samples:?}");
    // Now and then all of one model end in the same moment.
    let full = samples.iter().filter(|(_, slow)| *slow == 4).count();
    assert!(full > 80, "another model has nothing to do with it: {samples:?}");
    sleep(Duration::from_secs(210)).await;
    let served = crowd.answers() - before;
    assert!(served * 100 >= 1200 * 85, "one sign alone costs 15 % of five minutes at most: {served} of 1200");
    drop(others);
}

#[tokio::test]
async fn who_wants_another_context_neither_starves_nor_starves_the_others() {
    let pace = Pace { token: millis(100), load: millis(500), ..Pace::default() };
    let settings = Settings { num_parallel: 4, max_queue: 512, pace, ..Settings::default() };
    let (ollama, sidecar) = world(settings, 3).await;
    let many = Crowd::of(12, &sidecar.client(), generate("tiny", 9));
    sleep(Duration::from_secs(10)).await;
    let (path, mut body) = generate("tiny", 9);
    body["options"]["num_ctx"] = 8192.into();
    let one = Crowd::of(1, &sidecar.client(), (path, body));
    let (loads, before) = (ollama.record().loads(), many.answers());
    sleep(Duration::from_mins(5)).await;
    let (loads, many) = (ollama.record().loads() - loads, many.answers() - before);
    let load = ollama.record().model("tiny:latest");
    println!("in 300 s: {many} answers of twelve clients, {} of the other one, {loads} loads", one.answers());
    assert_eq!((load.max_running, load.max_waiting), (4, 0));
    assert!(one.answers() >= 10, "{}", one.answers());
    // Alone the twelve would have had 1,200.
    assert!(many >= 700, "{many}");
    assert!(loads <= 80, "{loads}");
}

#[tokio::test]
async fn a_model_that_does_not_load_gives_its_place_back() {
    let models = vec![ModelSpec::endless("tiny"), ModelSpec::broken("broken", "tensor exceeds file size")];
    let pace = Pace { token: millis(50), load: millis(300), ..Pace::default() };
    let settings = Settings { num_parallel: 4, max_queue: 512, models, pace, ..Settings::default() };
    let (ollama, sidecar) = world(settings, 1).await;
    let client = sidecar.client();
    for _ in 0..5 {
        let (path, body) = generate("broken", 1);
        let failed = client.post(path, &body).await.unwrap();
        assert_eq!(failed.status, StatusCode::INTERNAL_SERVER_ERROR);
        let (path, body) = generate("tiny", 3);
        let answers = join_all((0..8).map(|_| client.post(path, &body))).await;
        assert!(answers.iter().all(|answer| answer.as_ref().unwrap().status == StatusCode::OK));
    }
    let record = ollama.record();
    assert_eq!((record.count(Outcome::LoadFailed), record.count(Outcome::Finished)), (5, 40));
    assert_eq!((record.load().running, record.load().waiting), (0, 0));
}

/// Ollama has room for two models, and is said to have room for three.
#[tokio::test]
async fn models_that_do_not_fit_together_are_loaded_in_turn() {
    let models = ["a", "b", "c"].map(ModelSpec::endless).to_vec();
    let pace = Pace { token: millis(100), load: millis(500), ..Pace::default() };
    let settings =
        Settings { num_parallel: 4, max_queue: 512, max_loaded: 2, models, pace, ..Settings::default() };
    let (ollama, sidecar) = world(settings, 3).await;
    let client = sidecar.client();
    let crowds = ["a", "b", "c"].map(|model| Crowd::of(6, &client, generate(model, 9)));
    sleep(Duration::from_mins(2)).await;
    let before = crowds.each_ref().map(Crowd::answers);
    sleep(Duration::from_mins(5)).await;
    let served: Vec<usize> =
        crowds.iter().zip(before).map(|(crowd, before)| crowd.answers() - before).collect();
    println!(
        "in 300 s, of three models of which two fit: {served:?}, {} loads in all",
        ollama.record().loads()
    );
    // Two models run at one time: 2,400 answers in all if loads took no time.
    assert!(served.iter().all(|served| *served >= 300), "{served:?}");
    assert!(served.iter().sum::<usize>() >= 1500, "{served:?}");
    assert_eq!(ollama.record().load().max_waiting, 0);
}
