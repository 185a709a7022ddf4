//! Never more than a third of the pods are out for their load, whatever becomes of messages and leaders.

use std::time::Duration;

use corral_sidecar::health::relief::ReliefSettings;
use corral_wire::Signed;
use proptest::prelude::*;

use super::world::{Leader, Pod, uid};

const TICK: Duration = Duration::from_millis(500);

/// What becomes of a call.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Answered,
    RequestLost,
    AnswerLost,
    /// It is obeyed so many ticks later, when its leader has long given it up.
    Late(u8),
}

/// What happens in a tick, beside the calls.
#[derive(Debug, Clone, Copy)]
enum Event {
    Nothing,
    /// A pod gets more than it can take, or no longer.
    Load(usize, bool),
    /// A pod is not able to serve, or is again.
    Able(usize, bool),
    /// Another leads from now on, and the one before goes on for so many ticks.
    Leader(u8),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Answered),
        1 => Just(Fate::RequestLost),
        1 => Just(Fate::AnswerLost),
        1 => (1_u8..60).prop_map(Fate::Late),
    ]
}

fn event(pods: usize) -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => Just(Event::Nothing),
        6 => (0..pods, prop::bool::weighted(0.7)).prop_map(|(pod, heavy)| Event::Load(pod, heavy)),
        1 => (0..pods, prop::bool::weighted(0.8)).prop_map(|(pod, able)| Event::Able(pod, able)),
        1 => (0_u8..80).prop_map(Event::Leader),
    ]
}

/// Quick to leave and to come back, so that much happens; the lease is the real one.
fn restless() -> ReliefSettings {
    let second = Duration::from_secs(1);
    ReliefSettings {
        overloaded_for: TICK,
        calm_for: second,
        least_out: second,
        least_in: second,
        longest_dwell: second,
        jitter: Duration::ZERO,
        ..ReliefSettings::default()
    }
}

struct Scene {
    now: Duration,
    pods: Vec<Pod>,
    heavy: Vec<bool>,
    /// The one that leads, and those before that have not noticed yet, each with when it does.
    leaders: Vec<(Leader, Duration)>,
    term: u64,
    late: Vec<(Duration, usize, Signed)>,
    left: usize,
}

impl Scene {
    fn new(pods: usize) -> Self {
        Self {
            now: Duration::ZERO,
            pods: (0..pods).map(|pod| Pod::new(pod, restless())).collect(),
            heavy: vec![false; pods],
            leaders: vec![(Leader::new(1, Duration::ZERO, pods), Duration::MAX)],
            term: 1,
            late: Vec::new(),
            left: 0,
        }
    }

    fn tick(&mut self, event: Event, fates: &[Fate]) {
        self.now += TICK;
        self.happen(event);
        self.deliver_late();
        for at in 0..self.leaders.len() {
            self.lead(at, fates);
        }
        let out = self.out();
        for (pod, heavy) in self.pods.iter_mut().zip(&self.heavy) {
            let (index, filled) = if *heavy { (1.5, 1.0) } else { (0.0, 0.0) };
            pod.step(self.now, index, false, filled);
        }
        self.left += self.out().saturating_sub(out);
    }

    fn out(&self) -> usize {
        self.pods.iter().filter(|pod| pod.is_out()).count()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Nothing => {}
            Event::Load(pod, heavy) => self.heavy[pod] = heavy,
            Event::Able(pod, able) => self.pods[pod].able = able,
            Event::Leader(lingers) => {
                let until = self.now + TICK * u32::from(lingers);
                self.leaders.retain(|(_, until)| *until > self.now);
                self.leaders.last_mut().unwrap().1 = until;
                self.term += 1;
                self.leaders.push((Leader::new(self.term, self.now, self.pods.len()), Duration::MAX));
            }
        }
    }

    fn deliver_late(&mut self) {
        let now = self.now;
        let (due, later) = std::mem::take(&mut self.late).into_iter().partition(|(at, ..)| *at <= now);
        self.late = later;
        let due: Vec<(Duration, usize, Signed)> = due;
        for (_, pod, message) in due {
            self.pods[pod].answer(now, &message);
        }
    }

    /// Each pod is called every two seconds, and all of them on news.
    fn lead(&mut self, at: usize, fates: &[Fate]) {
        let (leader, until) = &mut self.leaders[at];
        if *until <= self.now {
            return;
        }
        let news = leader.step(self.now);
        let round = usize::try_from(self.now.as_millis() / TICK.as_millis()).unwrap();
        for (number, pod) in self.pods.iter_mut().enumerate() {
            if !news && (round + number) % 4 != 0 {
                continue;
            }
            let (asked, message) = leader.state.message(self.now, &uid(number)).unwrap();
            match fates[(number + at) % fates.len()] {
                Fate::RequestLost => {}
                Fate::Late(ticks) => {
                    self.late.push((self.now + TICK * u32::from(ticks), number, message));
                }
                Fate::AnswerLost => drop(pod.answer(self.now, &message)),
                Fate::Answered => {
                    let answer = pod.answer(self.now, &message);
                    leader.hear(self.now, &uid(number), asked, &answer);
                }
            }
        }
    }
}

fn course() -> impl Strategy<Value = (usize, Vec<(Event, Vec<Fate>)>)> {
    (3_usize..10).prop_flat_map(|pods| {
        let tick = (event(pods), prop::collection::vec(fate(), 4));
        (Just(pods), prop::collection::vec(tick, 100..250))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn at_no_time_are_more_than_a_third_out_for_their_load((pods, course) in course()) {
        let mut scene = Scene::new(pods);
        for (event, fates) in course {
            scene.tick(event, &fates);
            prop_assert!(scene.out() <= pods / 3, "{} of {pods} at {:?}", scene.out(), scene.now);
        }
        // When all is heard again, those that are away for another reason are counted as well.
        for _ in 0..60 {
            scene.tick(Event::Nothing, &[Fate::Answered]);
        }
        let away = scene.pods.iter().filter(|pod| !pod.able).count();
        prop_assert!(scene.out() <= (pods / 3).saturating_sub(away), "{} and {away} of {pods}", scene.out());
    }
}

/// The law above would hold as well if nobody ever left.
#[test]
fn pods_do_leave_through_a_network_that_loses_and_delays() {
    let mut scene = Scene::new(6);
    let fates = [Fate::Answered, Fate::Answered, Fate::AnswerLost, Fate::Late(30), Fate::Answered];
    for tick in 0..1200 {
        let event = if tick % 40 == 0 { Event::Load(tick / 80 % 6, tick % 80 == 0) } else { Event::Nothing };
        let turned: Vec<Fate> = (0..5).map(|at| fates[(at + tick) % 5]).collect();
        scene.tick(event, &turned);
        assert!(scene.out() <= 2);
    }
    assert!(scene.left >= 8, "{} departures", scene.left);
}

#[test]
fn kubernetes_may_see_a_pod_leave_before_its_leader_hears_of_it() {
    let mut leader = Leader::new(1, Duration::ZERO, 4);
    let mut pods: Vec<Pod> = (0..4).map(|pod| Pod::new(pod, restless())).collect();
    let mut now = Duration::from_secs(20);
    for second in 0..4 {
        now += Duration::from_secs(1);
        pods[0].step(now, 1.5, false, 1.0);
        if second < 3 {
            for pod in &mut pods {
                leader.call(now, pod);
            }
        }
    }
    assert!(pods[0].is_out());
    leader.see(now, &[false, true, true, true]);
    leader.call(now, &mut pods[0]);
    pods[0].step(now, 1.5, false, 1.0);
    assert!(pods[0].is_out(), "it may stay out");
    leader.see(now, &[false, false, true, true]);
    leader.call(now, &mut pods[0]);
    pods[0].step(now, 1.5, false, 1.0);
    assert!(!pods[0].is_out(), "another pod is away");
}
