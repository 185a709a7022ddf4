use corral_wire::{IdentityDoc, LimitDoc, QueueDoc, RateDoc};

use super::*;
use crate::health::Reason;
use crate::plan::core_for_tests as core;

fn n(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

fn at(term: u64, sequence: u64) -> Position {
    Position { term, sequence }
}

fn pool() -> PoolRef {
    PoolRef { namespace: "llm".into(), name: "chat".into() }
}

fn doc(sequence: u64) -> PlanDoc {
    PlanDoc {
        version: 1,
        pool: pool(),
        sequence,
        identity: IdentityDoc::default(),
        queue: QueueDoc { max_depth: 4, max_wait_ms: 1000, ..QueueDoc::default() },
        limits: vec![],
        ..PlanDoc::default()
    }
}

/// Refused by `compile`: a rate of nothing.
fn broken(sequence: u64) -> PlanDoc {
    let limit = LimitDoc {
        policy: "llm/fair".into(),
        name: "per-client".into(),
        mode: corral_wire::Mode::Enforce,
        endpoints: vec![],
        models: vec![],
        per: vec![],
        scope: corral_wire::Scope::Pool,
        requests: Some(RateDoc { count_milli: 0, window_seconds: 0, burst: 0 }),
        concurrency: None,
        ..LimitDoc::default()
    };
    PlanDoc { limits: vec![limit], ..doc(sequence) }
}

fn orders(plan: Option<PlanDoc>, divisor: u32, serve: ServePermission) -> Orders {
    Orders { plan: plan.map(Ok), divisor: n(divisor), serve, relief: false, retire: false }
}

fn in_force(store: &PlanStore) -> Option<u64> {
    store.core().plan().map(|plan| plan.sequence())
}

fn opened(dir: &tempfile::TempDir) -> PlanStore {
    PlanStore::open(core(), pool(), Some(StateDir::new(dir.path().into(), "uid-a".into())))
}

fn newcomer() -> PlanStore {
    PlanStore::open(core(), pool(), None)
}

use ServePermission::{Granted, Wait};

#[test]
fn the_last_good_plan_survives_a_restart_with_all_that_goes_with_it() {
    let dir = tempfile::tempdir().unwrap();
    opened(&dir).obey(at(3, 9), orders(Some(doc(7)), 4, Granted)).unwrap();
    let again = opened(&dir);
    assert_eq!(in_force(&again), Some(7));
    assert_eq!(again.core().divisor(), n(4));
    assert_eq!(again.view(), StoreView { obeyed: at(3, 9), serve: true, plan_error: None });
    again.core().health.upstream_answered();
    assert_eq!(again.core().health.readiness().reason, Reason::Ready, "no newcomer");
}

#[test]
fn a_position_not_above_the_obeyed_one_is_refused_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = opened(&dir);
    store.obey(at(3, 9), orders(None, 2, Wait)).unwrap();
    store.obey(at(3, 10), orders(None, 2, Wait)).unwrap();
    for store in [store, opened(&dir)] {
        for low in [at(3, 10), at(3, 9), at(2, 999), at(0, 0)] {
            assert_eq!(store.obey(low, orders(Some(doc(99)), 8, Granted)), Err(Behind), "{low:?}");
        }
        assert_eq!((in_force(&store), store.core().divisor(), store.view().serve), (None, n(2), false));
    }
    let store = opened(&dir);
    assert_eq!(store.obey(at(4, 1), orders(None, 2, Wait)), Ok(()), "terms before sequences");
}

#[test]
fn a_torn_state_file_makes_a_newcomer_and_no_crash() {
    let dir = tempfile::tempdir().unwrap();
    opened(&dir).obey(at(1, 1), orders(Some(doc(7)), 4, Granted)).unwrap();
    std::fs::write(dir.path().join("held.json"), b"{\"podUid\":\"uid-a\",\"pl").unwrap();
    let store = opened(&dir);
    assert_eq!((in_force(&store), store.view().serve), (None, false));
}

#[test]
fn the_highest_sequence_wins_whatever_its_source() {
    let store = newcomer();
    assert_eq!(store.offer(Ok(doc(5)), n(2), PlanSource::Secret), Offered::Taken);
    store.obey(at(1, 1), orders(Some(doc(6)), 3, Granted)).unwrap();
    assert_eq!(in_force(&store), Some(6));
    assert_eq!(store.offer(Ok(doc(5)), n(2), PlanSource::Secret), Offered::NotNewer);
    assert_eq!((in_force(&store), store.core().divisor()), (Some(6), n(3)));
    assert_eq!(store.offer(Ok(doc(7)), n(2), PlanSource::Secret), Offered::Taken);
    assert_eq!((in_force(&store), store.core().divisor()), (Some(7), n(3)), "the directed D stays");
}

#[test]
fn a_bad_plan_leaves_the_last_good_one_and_is_told() {
    let store = newcomer();
    store.offer(Ok(doc(5)), n(1), PlanSource::Secret);
    assert!(matches!(store.offer(Ok(broken(6)), n(1), PlanSource::Secret), Offered::Refused(_)));
    assert_eq!(in_force(&store), Some(5));
    let told = store.view().plan_error.unwrap();
    assert!(told.contains("limits[0]"), "{told}");
    let newer = Orders { plan: Some(Err(PlanError::Version(2))), ..orders(None, 3, Granted) };
    store.obey(at(1, 1), newer).unwrap();
    assert_eq!(store.core().divisor(), n(3), "the rest of the directive is obeyed");
    assert!(store.view().plan_error.unwrap().contains("version 2"));
    store.obey(at(1, 2), orders(Some(doc(8)), 3, Granted)).unwrap();
    assert_eq!((in_force(&store), store.view().plan_error), (Some(8), None));
}

#[test]
fn a_leader_hears_that_its_plan_is_behind_or_in_conflict() {
    let store = newcomer();
    store.obey(at(1, 1), orders(Some(doc(5)), 1, Granted)).unwrap();
    store.obey(at(1, 2), orders(Some(doc(5)), 1, Granted)).unwrap();
    assert_eq!(store.view().plan_error, None, "the same plan again is no news");
    let mut other = doc(5);
    other.queue.max_depth = 9;
    store.obey(at(1, 3), orders(Some(other), 1, Granted)).unwrap();
    assert!(store.view().plan_error.unwrap().contains("same sequence 5"));
    store.obey(at(1, 4), orders(Some(doc(4)), 1, Granted)).unwrap();
    assert!(store.view().plan_error.unwrap().contains("5 is in force"));
    store.obey(at(1, 5), orders(None, 1, Granted)).unwrap();
    assert_eq!(store.view().plan_error, None, "the leader is content");
}

#[test]
fn the_permission_to_serve_is_never_taken_back() {
    let store = newcomer();
    store.obey(at(1, 1), orders(None, 1, Granted)).unwrap();
    store.obey(at(1, 2), orders(None, 1, Wait)).unwrap();
    assert!(store.view().serve);
}

#[test]
fn the_mounted_divisor_counts_until_a_directive_comes() {
    let store = newcomer();
    store.offer(Ok(doc(1)), n(3), PlanSource::Secret);
    assert_eq!(store.core().divisor(), n(3));
    store.offer(Ok(doc(1)), n(4), PlanSource::Secret);
    assert_eq!(store.core().divisor(), n(4), "also when the plan is the same");
    store.obey(at(1, 1), orders(None, 5, Wait)).unwrap();
    store.offer(Ok(doc(1)), n(4), PlanSource::Secret);
    assert_eq!(store.core().divisor(), n(5));
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_that_nobody_directs_serves_after_its_patience() {
    let (store, patience) = (newcomer(), Duration::from_secs(30));
    let mut asked = 0;
    store.offer(Ok(doc(1)), n(3), PlanSource::Secret);
    tokio::time::advance(Duration::from_secs(20)).await;
    store.obey(at(1, 1), orders(None, 3, Wait)).unwrap();
    let before = store.core().clock().now();
    while let Some(due) = store.serve_if_undirected(patience) {
        asked += 1;
        assert!(!store.view().serve);
        tokio::time::sleep_until(store.core().clock().instant(due)).await;
    }
    let waited = store.core().clock().now().0 - before.0;
    assert!(store.view().serve && asked == 1);
    assert!((30_000_000_000..30_010_000_000).contains(&waited), "{waited}");
}

#[test]
fn a_full_disk_stops_no_enforcement_and_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let blocked = dir.path().join("state");
    std::fs::write(&blocked, b"a file where the folder should be").unwrap();
    let state = || Some(StateDir::new(blocked.clone(), "uid-a".into()));
    let store = PlanStore::open(core(), pool(), state());
    store.obey(at(1, 1), orders(Some(doc(2)), 1, Granted)).unwrap();
    assert_eq!(in_force(&store), Some(2));
    std::fs::remove_file(&blocked).unwrap();
    store.obey(at(1, 2), orders(None, 1, Granted)).unwrap();
    assert_eq!(in_force(&PlanStore::open(core(), pool(), state())), Some(2));
}
