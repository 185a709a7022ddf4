use std::io::{Read, Write};
use std::num::NonZeroU32;

use corral_limiter::queue::Slots;
use corral_limiter::{LimiterSettings, compile};

use super::*;
use crate::api_keys;
use crate::core::CoreSettings;
use crate::explain::Ask;
use crate::health::{Drain, Health};
use crate::metrics::Metrics;
use crate::plan::files;

const POLICY: &str = "\
apiVersion: corral.dev/v1alpha1
kind: RateLimitPolicy
metadata: { name: fair-use }
spec:
  targetRefs: [{ kind: OllamaPool, name: chat }]
  limits:
  - { name: one, per: [Client], requests: 1/h }
";

fn core() -> Arc<Core> {
    let settings = CoreSettings {
        limiter: LimiterSettings { hash_key: [0; 16], keys_per_limit: 10 },
        slots: Slots { per_model: 1, models: 1 },
    };
    let core = Core::new(settings, Arc::new(Health::new()), Arc::new(Metrics::new()));
    let plan = compile(&files::from_text(POLICY, &api_keys::random().unwrap()).unwrap().doc).unwrap();
    core.take_plan(Arc::new(plan), NonZeroU32::MIN);
    Arc::new(core)
}

/// A sidecar's socket, and what is done with it by other processes.
async fn beside<T: Send + 'static>(core: &Arc<Core>, act: impl FnOnce(&Path) -> T + Send + 'static) -> T {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let serving = tokio::spawn({
        let (core, path) = (Arc::clone(core), path.clone());
        async move { serve(&path, core).await }
    });
    while !socket(&path).exists() {
        tokio::task::yield_now().await;
    }
    let acted = tokio::task::spawn_blocking(move || act(&path)).await.unwrap();
    serving.abort();
    acted
}

fn ask_of(text: &str) -> Question {
    Question::Explain(Box::new(Ask::parse(text, [127, 0, 0, 1].into()).unwrap()))
}

#[tokio::test]
async fn the_drain_command_begins_a_drain_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    for _life in 0..2 {
        let (core, path) = (core(), dir.path().to_owned());
        let serving = tokio::spawn({
            let (core, path) = (Arc::clone(&core), path.clone());
            async move { serve(&path, core).await }
        });
        let told = tokio::task::spawn_blocking(move || {
            while drain(&path).is_err() {
                std::thread::yield_now();
            }
        });
        timeout(PATIENCE, told).await.unwrap().unwrap();
        assert_eq!(core.health.drain(), Drain::Closing);
        serving.abort();
    }
}

#[test]
fn without_a_sidecar_every_command_fails_and_names_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let error = drain(dir.path()).unwrap_err().to_string();
    assert!(error.contains("control.sock"), "{error}");
    assert!(matches!(ask(dir.path(), &Question::Top { most: 1 }), Err(AskError::Nobody { .. })));
}

#[tokio::test]
async fn asking_charges_nothing_and_drains_nothing() {
    let core = core();
    let replies = beside(&core, |path| {
        (0..5).map(|_| ask(path, &ask_of("POST /api/chat model=tiny")).unwrap()).collect::<Vec<_>>()
    });
    for reply in replies.await {
        let Reply::Explain(explained) = reply else { panic!("{reply:?}") };
        let first = &explained.limits[0];
        assert_eq!((first.limit.as_str(), first.says.as_str()), ("standalone/fair-use/one", "admits"));
        assert_eq!((first.buckets[0].used, first.buckets[0].remaining), (0, 1));
    }
    assert_eq!(core.health.drain(), Drain::Serving);
}

#[tokio::test]
async fn top_tells_of_nobody_at_first() {
    let core = core();
    let reply = beside(&core, |path| ask(path, &Question::Top { most: 5 }).unwrap()).await;
    let Reply::Top(top) = reply else { panic!("{reply:?}") };
    assert_eq!(top, Top { span_seconds: 300, clients: Vec::new() });
}

/// What comes back for these bytes, and nothing after them.
fn raw(path: &Path, bytes: &[u8]) -> String {
    let mut stream = std::os::unix::net::UnixStream::connect(socket(path)).unwrap();
    // It may have been hung up on.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn nonsense_is_told_so_without_being_repeated() {
    let core = core();
    let answers = beside(&core, |path| {
        ["secret\n", "{\"explain\":{\"secret\":1}}\n", "\n", "secret"].map(|line| raw(path, line.as_bytes()))
    });
    for answer in answers.await {
        assert!(answer.starts_with("{\"error\":\"") && answer.ends_with("\"}\n"), "{answer:?}");
        assert!(!answer.contains("secret"), "{answer}");
    }
    assert_eq!(core.health.drain(), Drain::Serving);
}

#[tokio::test]
async fn a_question_is_bounded() {
    let core = core();
    let long = format!("POST /api/chat {{\"model\":\"{}\"}}", "m".repeat(MAX_QUESTION_BYTES));
    let refused = beside(&core, move |path| ask(path, &ask_of(&long)).unwrap_err()).await;
    assert!(matches!(refused, AskError::TooLong(_)), "{refused}");
}

#[tokio::test]
async fn those_who_say_nothing_do_not_keep_a_drain_waiting_for_long() {
    let core = core();
    let told = beside(&core, |path| {
        let silent: Vec<_> = (0..MAX_EXCHANGES)
            .map(|_| std::os::unix::net::UnixStream::connect(socket(path)).unwrap())
            .collect();
        let told = drain(path);
        drop(silent);
        told
    });
    assert!(told.await.is_ok());
    assert_eq!(core.health.drain(), Drain::Closing);
}
