//! What the real scheduler was seen or read to do.

use std::time::Duration;

use super::super::settings::ONE_SLOT;
use super::*;

fn scheduler(parallel: usize, max_queue: usize, load_ms: u64) -> (Arc<Scheduler>, Record) {
    let pace = Pace { load: Duration::from_millis(load_ms), ..Pace::default() };
    started(&Settings { num_parallel: parallel, max_queue, pace, ..Settings::default() })
}

fn started(settings: &Settings) -> (Arc<Scheduler>, Record) {
    let record = Record::default();
    let pace = Arc::new(Mutex::new(settings.pace));
    (Arc::new(Scheduler::start(settings, record.clone(), pace, Wedge::default())), record)
}

async fn all_at_once(scheduler: &Arc<Scheduler>, count: usize) -> Vec<Result<(), NoRunner>> {
    let model = ModelSpec::endless("slow");
    let one = || {
        let (scheduler, model) = (scheduler.clone(), model.clone());
        tokio::spawn(async move {
            let slot = scheduler.slot(&model, vec![]).await;
            sleep(Duration::from_secs(3)).await;
            slot.map(|_| ())
        })
    };
    let running: Vec<_> = (0..count).map(|_| one()).collect();
    let mut results = Vec::new();
    for task in running {
        results.push(task.await.unwrap());
    }
    results
}

#[tokio::test(start_paused = true)]
async fn an_unloaded_model_with_a_queue_of_two_serves_three_of_eight() {
    let (scheduler, _) = scheduler(1, 2, 100);
    let served = all_at_once(&scheduler, 8).await.iter().filter(|one| one.is_ok()).count();
    assert_eq!(served, 3);
}

#[tokio::test(start_paused = true)]
async fn a_loaded_model_queues_without_bound() {
    let (scheduler, record) = scheduler(1, 2, 0);
    drop(scheduler.slot(&ModelSpec::endless("slow"), vec![]).await);
    let served = all_at_once(&scheduler, 8).await.iter().filter(|one| one.is_ok()).count();
    assert_eq!(served, 8);
    let load = record.model("slow:latest");
    assert_eq!((load.max_running, load.max_waiting), (1, 7));
}

#[tokio::test(start_paused = true)]
async fn a_client_leaks_before_it_has_a_runner_and_never_after() {
    let (scheduler, record) = scheduler(1, 2, 1000);
    let model = ModelSpec::endless("slow");
    let brief = Duration::from_millis(100);
    assert!(tokio::time::timeout(brief, scheduler.slot(&model, vec![])).await.is_err());
    assert_eq!(record.leaked(), 1);
    let slot = scheduler.slot(&model, vec![]).await.ok().unwrap();
    assert!(tokio::time::timeout(brief, scheduler.slot(&model, vec![])).await.is_err());
    assert_eq!((record.leaked(), record.count(Outcome::LeftWaiting)), (1, 1));
    drop(slot);
    assert_eq!(record.load().running, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_listed_has_a_fixed_expiry_once_it_was_idle() {
    let (scheduler, _) = scheduler(2, 2, 1000);
    let model = ModelSpec::endless("slow");
    let expiries = || scheduler.listed().iter().map(|one| one.idle_since).collect::<Vec<_>>();
    let taking = scheduler.slot(&model, vec![]);
    tokio::pin!(taking);
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut taking).await.is_err());
    assert_eq!(expiries(), [None], "listed while it loads");
    let slot = taking.await.ok().unwrap();
    assert_eq!(expiries(), [None], "not idle yet");
    drop(slot);
    let idle = expiries();
    assert!(idle[0].is_some());
    let again = scheduler.slot(&model, vec![]).await.ok().unwrap();
    assert_eq!(expiries(), idle, "requests do not move it");
    drop(again);
    assert!(expiries() > idle, "the next idleness does");
}

#[tokio::test(start_paused = true)]
async fn other_options_load_the_model_anew() {
    let (scheduler, record) = scheduler(1, 2, 10);
    let model = ModelSpec::endless("slow");
    drop(scheduler.slot(&model, vec![]).await);
    drop(scheduler.slot(&model, vec![("num_ctx", "1024".to_owned())]).await);
    drop(scheduler.slot(&model, vec![("num_ctx", "1024".to_owned())]).await);
    assert_eq!(record.loads(), 2);
}

/// `Scheduler.load`: `Embedding models should always be loaded with parallel=1`, and the list of architectures that
/// follows it there.
#[tokio::test(start_paused = true)]
async fn some_models_have_one_slot_whatever_the_server_was_told() {
    let ones = ONE_SLOT.iter().map(|family| (ModelSpec::endless("m").family(family), 1));
    let others = [
        (ModelSpec::embedding("m"), 1),
        (ModelSpec::embedding("m").family("qwen3"), 1),
        (ModelSpec::endless("m"), 4),
        (ModelSpec::endless("m").family("qwen3"), 4),
    ];
    for (model, expected) in ones.chain(others) {
        let settings = Settings { num_parallel: 4, max_queue: 9, ..Settings::default() };
        let (scheduler, record) = started(&settings);
        let hold = async || {
            let _slot = scheduler.slot(&model, vec![]).await;
            sleep(Duration::from_secs(1)).await;
        };
        futures::future::join_all((0..6).map(|_| hold())).await;
        let load = record.model("m:latest");
        assert_eq!((load.max_running, load.max_waiting), (expected, 6 - expected), "{model:?}");
    }
}

/// `getRunner` gives a loaded runner to whoever it suits, and `processPending` waits for `refCount` 0 at the head of the
/// line: `Block other requests until we get this pending request running`.
#[tokio::test(start_paused = true)]
async fn other_options_wait_for_an_idle_runner_while_others_pass_by_and_all_other_loads_wait() {
    let (scheduler, record) = scheduler(2, 9, 100);
    let model = ModelSpec::endless("slow");
    let wide = || vec![("num_ctx", "8192".to_owned())];
    let first = scheduler.slot(&model, vec![]).await.ok().unwrap();
    let brief = Duration::from_millis(500);
    let reload = scheduler.slot(&model, wide());
    let other = ModelSpec::endless("tiny");
    let behind = scheduler.slot(&other, vec![]);
    tokio::pin!(reload, behind);
    assert!(tokio::time::timeout(brief, &mut reload).await.is_err(), "the runner is in use");
    let second = scheduler.slot(&model, vec![]).await.ok().unwrap();
    assert!(tokio::time::timeout(brief, &mut behind).await.is_err(), "all loads wait behind it");
    drop(first);
    assert!(tokio::time::timeout(brief, &mut reload).await.is_err(), "who passed by keeps it waiting");
    drop(second);
    let reloaded = tokio::time::timeout(brief, &mut reload).await.unwrap().ok().unwrap();
    assert!(tokio::time::timeout(brief, &mut behind).await.is_ok());
    drop(reloaded);
    assert_eq!(record.loads(), 3);
}

/// `findRunnerToUnload`: an idle one, or else it waits for what runs.
#[tokio::test(start_paused = true)]
async fn one_model_too_many_throws_out_an_idle_one_or_waits_until_one_is() {
    let settings = Settings { max_loaded: 2, ..Settings::default() };
    let (scheduler, record) = started(&settings);
    let [one, two, three] = ["a", "b", "c"].map(ModelSpec::endless);
    let held = scheduler.slot(&one, vec![]).await.ok().unwrap();
    drop(scheduler.slot(&two, vec![]).await);
    let third = scheduler.slot(&three, vec![]).await.ok().unwrap();
    let loaded = || {
        let mut names: Vec<_> = scheduler.listed().iter().map(|one| name::short(&one.model)).collect();
        names.sort();
        names
    };
    assert_eq!(loaded(), ["a:latest", "c:latest"], "the idle one went");
    let again = scheduler.slot(&two, vec![]);
    tokio::pin!(again);
    let brief = Duration::from_millis(500);
    assert!(tokio::time::timeout(brief, &mut again).await.is_err(), "both are in use");
    drop(held);
    assert!(tokio::time::timeout(brief, &mut again).await.is_ok());
    assert_eq!((loaded(), record.loads()), (vec!["b:latest".to_owned(), "c:latest".to_owned()], 4));
    drop(third);
}
