use proptest::prelude::*;

use super::super::inspect::{Reads, shape_of};
use super::*;

const ARRIVAL: Duration = Duration::from_secs(1);

/// A table, and the time of its world.
struct Sky {
    table: Residency,
    now: Instant,
}

fn need(model: &str, options: &str) -> Need {
    let body = format!(r#"{{"options":{{{options}}}}}"#);
    Need { model: ModelName::parse(model).unwrap(), shape: shape_of(&body, Reads::Options) }
}

fn plain() -> Need {
    need("a", "")
}

fn other_shape() -> Need {
    need("a", r#""num_ctx":9"#)
}

fn names(models: &[&str]) -> Vec<ModelName> {
    models.iter().map(|model| ModelName::parse(model).unwrap()).collect()
}

impl Sky {
    fn new() -> Self {
        Self { table: Residency::new(ARRIVAL), now: Instant::now() }
    }

    fn wait(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    fn send(&mut self, need: &Need) -> u64 {
        self.table.dispatched(need.clone(), self.now).0
    }

    fn head(&mut self, id: u64, head: Head) {
        self.table.answered(id, head, self.now);
    }

    fn end(&mut self, id: u64) {
        self.table.ended(id, self.now);
    }

    /// A whole request, long past.
    fn serve(&mut self, need: &Need, head: Head) {
        let id = self.send(need);
        self.head(id, head);
        self.end(id);
        self.wait(60_000);
    }

    fn streaming(&mut self, need: &Need) -> u64 {
        let id = self.send(need);
        self.head(id, Head::Stream);
        id
    }

    fn is_aboard(&mut self, id: u64) -> bool {
        self.table.is_aboard(id, self.now)
    }

    /// Long enough for any request to have arrived.
    fn arrived(&mut self, id: u64) -> bool {
        self.wait(1000);
        self.is_aboard(id)
    }
}

#[test]
fn nothing_vouches_for_a_model_that_never_answered() {
    let mut sky = Sky::new();
    let id = sky.send(&plain());
    assert!(!sky.arrived(id));
    assert_eq!(sky.table.witnesses(id), None);
}

#[test]
fn after_an_answer_it_is_for_ollama_to_say_whether_the_model_is_still_loaded() {
    let mut sky = Sky::new();
    sky.serve(&plain(), Head::Whole);
    let id = sky.send(&plain());
    assert!(!sky.arrived(id));
    assert_eq!(sky.table.witnesses(id), Some(names(&["a"])));
}

#[test]
fn who_came_while_another_streams_is_aboard_once_it_has_arrived_and_stays_so() {
    let mut sky = Sky::new();
    let stream = sky.streaming(&plain());
    let id = sky.send(&plain());
    sky.wait(999);
    assert!(!sky.is_aboard(id), "it may still be on its way");
    sky.wait(1);
    assert!(sky.is_aboard(id));
    sky.end(stream);
    assert!(sky.arrived(id));
    let next = sky.send(&plain());
    assert!(sky.arrived(next), "it holds the runner for the next one");
}

#[test]
fn company_that_leaves_before_it_has_arrived_proves_nothing() {
    let mut sky = Sky::new();
    let stream = sky.streaming(&plain());
    let id = sky.send(&plain());
    sky.wait(500);
    sky.end(stream);
    sky.streaming(&plain());
    assert!(!sky.arrived(id));
}

#[test]
fn company_may_take_turns() {
    let mut sky = Sky::new();
    let first = sky.streaming(&plain());
    let second = sky.streaming(&plain());
    let id = sky.send(&plain());
    sky.wait(500);
    sky.end(first);
    assert!(!sky.is_aboard(id));
    sky.wait(600);
    sky.end(second);
    assert!(sky.is_aboard(id));
}

#[test]
fn who_came_before_the_first_answer_may_stand_behind_another_models_load() {
    let mut sky = Sky::new();
    let first = sky.send(&plain());
    let behind = sky.send(&plain());
    sky.head(first, Head::Stream);
    assert!(!sky.arrived(behind));
}

#[test]
fn an_answer_that_came_whole_or_whose_client_stalls_is_no_company() {
    let mut sky = Sky::new();
    let whole = sky.send(&plain());
    sky.head(whole, Head::Whole);
    let id = sky.send(&plain());
    assert!(!sky.arrived(id));
    let stalled = sky.streaming(&plain());
    let id = sky.send(&plain());
    sky.table.lagging(stalled, sky.now);
    assert!(!sky.arrived(id));
}

#[test]
fn company_with_another_shape_or_another_model_is_none() {
    let mut sky = Sky::new();
    sky.streaming(&plain());
    let id = sky.send(&other_shape());
    let foreign = sky.send(&need("b", ""));
    assert!(!sky.arrived(id) && !sky.is_aboard(foreign));
}

#[test]
fn a_shape_other_than_the_last_answers_is_not_loaded() {
    let mut sky = Sky::new();
    sky.serve(&plain(), Head::Whole);
    let id = sky.send(&other_shape());
    assert_eq!(sky.table.witnesses(id), None);
    sky.head(id, Head::Whole);
    sky.end(id);
    let back = sky.send(&plain());
    assert_eq!(sky.table.witnesses(back), None);
    sky.end(back);
    let again = sky.send(&other_shape());
    assert_eq!(sky.table.witnesses(again), None, "the one that ended unheard may have changed it back");
}

#[test]
fn nothing_vouches_while_somebody_wants_the_runner_changed() {
    let mut sky = Sky::new();
    sky.serve(&plain(), Head::Whole);
    let id = sky.send(&plain());
    sky.wait(5000);
    let changer = sky.send(&other_shape());
    assert_eq!(sky.table.witnesses(id), None);
    sky.end(changer);
    assert_eq!(sky.table.witnesses(id), None, "it may have been changed, and nobody heard");
}

#[test]
fn an_error_in_another_shape_may_have_changed_the_runner_and_one_in_its_own_has_not() {
    let mut sky = Sky::new();
    sky.serve(&plain(), Head::Whole);
    sky.serve(&plain(), Head::Error);
    let id = sky.send(&plain());
    assert_eq!(sky.table.witnesses(id), Some(names(&["a"])));
    sky.serve(&other_shape(), Head::Error);
    assert_eq!(sky.table.witnesses(id), None);
}

#[test]
fn whoever_may_stand_in_front_must_be_loaded_too() {
    let mut sky = Sky::new();
    sky.serve(&plain(), Head::Whole);
    let front = sky.send(&need("b", ""));
    sky.wait(5000);
    let id = sky.send(&plain());
    assert_eq!(sky.table.witnesses(id), None, "b may be loading");
    sky.head(front, Head::Whole);
    assert_eq!(sky.table.witnesses(id), Some(names(&["a"])), "its answer has begun: it stands nowhere");
    sky.end(front);
    sky.wait(500);
    let beside = sky.send(&need("b", ""));
    assert_eq!(sky.table.witnesses(id), Some(names(&["a", "b"])), "it may have overtaken on the way");
    sky.end(beside);
    sky.wait(500);
    sky.send(&need("c", ""));
    assert_eq!(sky.table.witnesses(id), Some(names(&["a"])), "it came too late to be in front");
}

#[test]
fn who_is_aboard_stands_in_nobodys_way() {
    let mut sky = Sky::new();
    sky.serve(&plain(), Head::Whole);
    sky.streaming(&need("b", ""));
    let front = sky.send(&need("b", ""));
    assert!(sky.arrived(front));
    let id = sky.send(&plain());
    assert_eq!(sky.table.witnesses(id), Some(names(&["a"])));
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut sky = Sky::new();
    for n in 0..1000 {
        sky.serve(&need(&format!("m{n}"), ""), Head::Whole);
    }
    assert_eq!((sky.table.answered.len(), sky.table.flights.len()), (MAX_MODELS, 0));
}

/// One model of Ollama whose runner is let go the moment that nobody is on it, as with `keep_alive` 0; another model's
/// load may stand in the line for as long as it likes.
#[derive(Default)]
struct Ollama {
    waiting: Vec<u64>,
    aboard: Vec<u64>,
}

impl Ollama {
    fn arrive(&mut self, id: u64) {
        if self.aboard.is_empty() { self.waiting.push(id) } else { self.aboard.push(id) }
    }
}

proptest! {
    #[test]
    fn nobody_is_taken_for_aboard_who_is_not(steps in prop::collection::vec((0..6_u8, 0..8_usize, 0..700_u64), 1..80)) {
        let (mut sky, mut ollama) = (Sky::new(), Ollama::default());
        let (mut travelling, mut streaming) = (Vec::<(u64, Instant)>::new(), Vec::new());
        for (step, which, pause) in steps {
            sky.wait(pause);
            let due = sky.now - Duration::from_millis(999);
            while let Some((id, _)) = travelling.first().copied().filter(|(_, sent)| *sent <= due) {
                travelling.remove(0);
                ollama.arrive(id);
            }
            match step {
                0 | 1 => travelling.push((sky.send(&plain()), sky.now)),
                2 if !travelling.is_empty() => {
                    let (id, _) = travelling.remove(which % travelling.len());
                    ollama.arrive(id);
                }
                // One that waits is given the runner, and speaks.
                3 if !ollama.waiting.is_empty() => {
                    let id = ollama.waiting.remove(which % ollama.waiting.len());
                    ollama.aboard.push(id);
                    sky.head(id, Head::Stream);
                    streaming.push(id);
                }
                4 if !ollama.aboard.is_empty() => {
                    let id = ollama.aboard.remove(which % ollama.aboard.len());
                    if !streaming.contains(&id) {
                        sky.head(id, if which % 2 == 0 { Head::Whole } else { Head::Error });
                    }
                    sky.end(id);
                }
                _ => {}
            }
            for id in ollama.waiting.iter().chain(travelling.iter().map(|(id, _)| id)) {
                prop_assert!(!sky.is_aboard(*id));
            }
        }
    }
}

impl Sky {
    fn waited_for(&mut self) -> Vec<(Need, bool)> {
        let runners = self.table.runners(self.now).into_iter();
        runners.map(|runner| (runner.need, runner.streams)).collect()
    }

    fn loads(&mut self) -> bool {
        self.table.all_wait_for_a_load(Duration::from_secs(5), self.now)
    }
}

#[test]
fn a_runner_is_waited_for_by_streams_that_have_begun_and_by_who_is_aboard() {
    let mut sky = Sky::new();
    let waiting = sky.send(&plain());
    sky.wait(60_000);
    assert!(sky.waited_for().is_empty(), "it may wait for a load");
    sky.table.proven(waiting, sky.now);
    assert_eq!(sky.waited_for(), [(plain(), false)]);
    sky.head(waiting, Head::Stream);
    assert_eq!(sky.waited_for(), [(plain(), true)]);
    let other = sky.streaming(&need("b", ""));
    assert_eq!(sky.waited_for(), [(plain(), true), (need("b", ""), true)]);
    sky.end(other);
    sky.end(waiting);
    assert!(sky.waited_for().is_empty());
    let whole = sky.send(&plain());
    sky.head(whole, Head::Whole);
    assert!(sky.waited_for().is_empty(), "its answer is on its way");
}

#[test]
fn a_stream_whose_client_is_waited_for_waits_for_no_runner_until_the_client_has_caught_up() {
    let mut sky = Sky::new();
    let (id, pulse) = sky.table.dispatched(plain(), sky.now);
    sky.head(id, Head::Stream);
    pulse.handing_on(true);
    assert!(sky.waited_for().is_empty());
    pulse.handing_on(false);
    assert_eq!(sky.waited_for(), [(plain(), true)]);
}

#[test]
fn who_shares_a_runner_shares_its_signs_of_life_and_an_error_is_none() {
    let mut sky = Sky::new();
    let (first, one) = sky.table.dispatched(plain(), sky.now);
    let (second, other) = sky.table.dispatched(plain(), sky.now);
    let (_, foreign) = sky.table.dispatched(other_shape(), sky.now);
    one.beat();
    other.beat();
    assert_eq!((one.beats().count(), foreign.beats().count()), (2, 0));
    sky.head(first, Head::Error);
    assert_eq!(one.beats().count(), 2);
    sky.head(second, Head::Whole);
    assert_eq!(one.beats().count(), 3);
}

#[test]
fn a_model_loads_as_long_as_all_that_is_in_flight_may_wait_for_it() {
    let mut sky = Sky::new();
    assert!(!sky.loads(), "nobody waits");
    let first = sky.send(&plain());
    sky.wait(4_900);
    assert!(!sky.loads());
    sky.wait(100);
    assert!(sky.loads());
    let second = sky.send(&plain());
    assert!(sky.loads(), "who came later waits for the same");
    sky.table.proven(second, sky.now);
    assert!(!sky.loads(), "one is on a runner");
    sky.end(second);
    assert!(sky.loads());
    sky.head(first, Head::Stream);
    assert!(!sky.loads());
}

#[tokio::test(start_paused = true)]
async fn all_of_a_model_are_ended_and_nobody_elses() {
    let mut sky = Sky::new();
    let mut pulses: Vec<_> =
        [plain(), other_shape(), need("b", "")].map(|need| sky.table.dispatched(need, sky.now).1).into();
    let ended = |pulse: Arc<Pulse>| async move {
        tokio::time::timeout(Duration::from_secs(1), pulse.until_ended()).await.is_ok()
    };
    sky.table.end_all(Some(&ModelName::parse("a").unwrap()));
    assert!(ended(pulses.remove(0)).await && ended(pulses.remove(0)).await);
    assert!(!ended(Arc::clone(&pulses[0])).await);
    sky.table.end_all(None);
    assert!(ended(pulses.remove(0)).await);
}
