//! A pool with a pod and an activator: both hear the plan and count for it, and all else is between the pool and its pod.

use corral_wire::{Counters, Gauges, IdentityDoc, QueueDoc};

use super::super::programmed::{Extent, Programmed, Share, out_of_reach, programmed};
use super::*;

const LED: Duration = Duration::from_mins(1);
const POD: &str = "pod";
const ACTIVATOR: &str = "activator";

fn keys() -> PoolKeys {
    PoolKeys::new(vec![vec![1; 32]]).unwrap()
}

fn pool() -> PoolRef {
    PoolRef { namespace: "llm".into(), name: "chat".into() }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn offer(sequence: u64) -> Offer {
    let plan = PlanDoc {
        version: corral_wire::PLAN_VERSION,
        pool: pool(),
        sequence,
        identity: IdentityDoc::default(),
        queue: QueueDoc { max_depth: 10, max_wait_ms: 10_000, ..QueueDoc::default() },
        limits: Vec::new(),
        ..PlanDoc::default()
    };
    Offer { keys: keys(), term: 3, plan: Arc::new(plan), stored_divisor: 1 }
}

fn sight(uid: &str, role: Role) -> PodSight {
    let ip = Some([10, 0, 0, 1].into());
    PodSight { uid: uid.into(), name: uid.into(), role, ip, ready: true, terminating: false }
}

fn both() -> PoolState {
    let mut state = PoolState::new(pool(), offer(1));
    state.take_peers(at(0), vec![sight(POD, Role::Pod), sight(ACTIVATOR, Role::Activator)]);
    state.step(at(0), LED);
    state
}

/// The report of one that serves, by its own word, and is in want of everything.
fn report(plan: Option<PlanState>) -> Report {
    Report {
        pool: pool(),
        plan_versions: vec![1],
        plan,
        plan_error: None,
        divisor: 1,
        serve: ServePermission::Granted,
        able_to_serve: true,
        ready: false,
        reason: "Overloaded".into(),
        relief: Relief::Wanted,
        retiring: false,
        draining: true,
        drain_left_ms: Some(60_000),
        off_gpu: vec![OffGpu { model: "tiny".into(), gpu_percent: 1 }],
        models: Vec::new(),
        epoch: 1,
        counters: Counters { arrivals: 7, ..Counters::default() },
        gauges: Gauges { queued: 5, in_flight: 2, load_permille: 2000, ..Gauges::default() },
    }
}

/// One call that is answered with `plan` in force; what was said, and what the answer gives cause to.
fn call(state: &mut PoolState, now: u64, uid: &str, plan: Option<PlanState>) -> (Directive, Cause) {
    let (asked, message) = state.message(at(now), uid).unwrap();
    let directive = keys().open(uid, None, &message).unwrap();
    let answer = keys().sign_answer(uid, asked, asked, &report(plan)).unwrap();
    let cause = state.hear(at(now), uid, asked, &answer).unwrap();
    state.step(at(now), LED);
    (directive, cause)
}

/// The same, obeyed.
fn obey(state: &mut PoolState, now: u64, uid: &str) {
    let plan = state.plan_state().clone();
    call(state, now, uid, Some(plan));
}

fn come(state: &PoolState, now: u64) -> Programmed {
    programmed(&state.stances(at(now)))
}

fn extent(pods: usize, activators: usize) -> Extent {
    Extent { pods: Share { done: pods, all: 1 }, activators: Share { done: activators, all: 1 } }
}

#[test]
fn an_activator_hears_the_plan_until_it_has_it_and_no_order() {
    let mut state = both();
    obey(&mut state, 0, POD);
    for plan in [None, Some(state.plan_state().clone())] {
        let (said, _) = call(&mut state, 1, ACTIVATOR, plan.clone());
        assert_eq!(said.plan.map(|plan| plan.sequence), Some(1));
        assert_eq!((said.serve, said.relief, said.retire), (ServePermission::Wait, false, false));
    }
    assert_eq!(call(&mut state, 2, ACTIVATOR, None).0.plan, None, "it has it");
    assert_eq!(call(&mut state, 2, POD, None).0.serve, ServePermission::Granted);
}

#[test]
fn an_activator_is_in_no_divisor_and_in_no_load_whatever_it_reports() {
    let mut state = both();
    let expected = |state: &PoolState| {
        let load = state.load(at(1));
        assert_eq!((state.wanted_divisor(), load.queued, load.in_flight, load.ready), (1, 5, 2, 1));
        let named: [Vec<String>; 4] = [
            state.heard().into_iter().map(|(uid, _)| uid).collect(),
            state.draining(at(1)).into_iter().map(|drain| drain.pod).collect(),
            state.unready(at(1)).into_iter().map(|(pod, _)| pod).collect(),
            state.off_gpu().into_iter().map(|(pod, _)| pod).collect(),
        ];
        assert_eq!(named, [[POD]; 4]);
    };
    obey(&mut state, 0, POD);
    expected(&state);
    obey(&mut state, 0, ACTIVATOR);
    obey(&mut state, 1, ACTIVATOR);
    expected(&state);
}

#[test]
fn what_comes_to_an_activator_is_no_use_of_the_pods_and_no_cause_to_size_the_pool() {
    let mut state = both();
    let (_, cause) = call(&mut state, 0, ACTIVATOR, None);
    assert_eq!(cause, Cause { stirs: false, settles: true });
    assert!(!state.load(at(1)).recent);
    assert_eq!(call(&mut state, 0, POD, None).1, Cause { stirs: true, settles: true });
    assert!(state.load(at(1)).recent);
}

#[test]
fn a_plan_has_come_once_the_activator_has_it_too() {
    let mut state = both();
    obey(&mut state, 0, POD);
    assert_eq!(come(&state, 1), Programmed::Reconciling(extent(1, 0)));
    obey(&mut state, 1, ACTIVATOR);
    assert_eq!(come(&state, 2), Programmed::All(extent(1, 1)));
    assert!(state.take_offer(offer(2)), "it is news");
    obey(&mut state, 2, POD);
    obey(&mut state, 8, POD);
    assert_eq!(come(&state, 8), Programmed::Reconciling(extent(1, 0)));
    let Programmed::Partial { causes, .. } = come(&state, 11) else { panic!("it is silent") };
    assert_eq!(causes, "activator has not answered for 10 s");
    assert_eq!(out_of_reach(&state.stances(at(11))), None, "but the pod is not");
}

#[test]
fn an_activator_that_does_not_run_is_waited_for_by_nobody() {
    let mut state = both();
    obey(&mut state, 0, POD);
    let stopped = PodSight { ip: None, ..sight(ACTIVATOR, Role::Activator) };
    assert!(state.take_peers(at(1), vec![sight(POD, Role::Pod), stopped]));
    assert_eq!(state.reachable().map(|(uid, _)| uid).collect::<Vec<_>>(), [POD]);
    let pods_alone = Extent { activators: Share::default(), ..extent(1, 0) };
    assert_eq!(come(&state, 2), Programmed::All(pods_alone));
}

#[test]
fn an_activator_that_obeyed_another_leader_or_holds_a_later_plan_is_caught_up_with() {
    let mut state = both();
    let (asked, _) = state.message(at(0), ACTIVATOR).unwrap();
    let later = PlanState { sequence: 9, ..state.plan_state().clone() };
    let obeys = Position { term: 8, sequence: 1 };
    let refusal = keys().sign_answer(ACTIVATOR, obeys, asked, &report(Some(later))).unwrap();
    assert!(state.hear(at(0), ACTIVATOR, asked, &refusal).unwrap().settles);
    assert_eq!((state.overtaken_by(), state.outrun_by()), (Some(8), Some(9)));
}
