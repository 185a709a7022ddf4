//! What else happens while a pool shrinks: its owner changes the bounds or the mode, the operator dies, load comes back while the
//! API server is slow. Whoever goes has been told to, and has finished.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::scaling::{grown, idle, scaling, usual};
use super::scaling_cluster::{Cluster, POOL};

fn bounds(min: u32, max: u32) -> Value {
    let down = json!({"windowSeconds": 60, "maxPercent": 100, "periodSeconds": 1});
    scaling(&json!({"minReplicas": min, "maxReplicas": max, "scaleDown": down}))
}

/// A pool of four in which some shall go that still work for so many seconds.
async fn shrinking(seconds: u64) -> Cluster {
    let mut cluster = idle().await;
    for name in cluster.ready().into_iter().map(str::to_owned).collect::<Vec<_>>() {
        cluster.give(&name, 1, seconds);
    }
    cluster.until(150, |cluster| cluster.retiring().len() >= 2).await;
    cluster
}

/// Nobody was taken away that had something to do, or that was not chosen.
fn nothing_was_lost(cluster: &Cluster) {
    assert_eq!((cluster.cut, cluster.refused), (0, 0));
    assert_eq!(cluster.mistaken, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_lower_maximum_counts_at_once_and_cuts_no_answer() {
    let mut cluster = grown().await;
    cluster.world.put_pool(POOL, &bounds(1, 2));
    let took = cluster.until(10, |cluster| cluster.desired() == 2).await;
    assert!(took <= 5, "{took} s");
    assert_eq!(cluster.asked(), 4, "they work");
    cluster.pass(3).await;
    let (is, reason, message) = cluster.world.condition("ollamapools", POOL, "ScalingLimited");
    assert_eq!((is.as_str(), reason.as_str()), ("True", "TooManyReplicas"));
    assert!(message.ends_with(" are needed, and maxReplicas is 2"), "{message}");
    // What two pods can do.
    cluster.load.0 = 0.4;
    cluster.until(120, |cluster| cluster.asked() == 2).await;
    cluster.pass(5).await;
    nothing_was_lost(&cluster);
}

#[tokio::test(start_paused = true)]
async fn a_size_asked_for_by_name_of_a_pool_that_scales_itself_is_told_to_be_for_nothing() {
    let mut cluster = Cluster::with_pool(&usual()).await;
    let mut spec = usual();
    let ignored = |cluster: &Cluster| cluster.notes(&["ReplicasIgnored"]);
    spec["replicas"] = json!(3);
    cluster.world.put_pool(POOL, &spec);
    cluster.pass(20).await;
    assert_eq!((cluster.asked(), ignored(&cluster).len()), (1, 1));
    assert!(ignored(&cluster)[0].starts_with("spec.replicas is 3 now, which changes nothing"));
    cluster.replace_operator();
    cluster.pass(20).await;
    assert_eq!(ignored(&cluster).len(), 1, "it was for nothing before");
    spec["autoscaling"]["mode"] = json!("Disabled");
    spec["replicas"] = json!(2);
    cluster.world.put_pool(POOL, &spec);
    cluster.until(20, |cluster| cluster.asked() == 2).await;
    assert_eq!(ignored(&cluster).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_higher_minimum_lets_those_stay_that_were_to_go() {
    let mut cluster = shrinking(240).await;
    let made = cluster.pods.len();
    cluster.world.put_pool(POOL, &bounds(4, 4));
    cluster.until(10, |cluster| cluster.retiring().is_empty()).await;
    cluster.until(10, |cluster| cluster.ready().len() == 4 && cluster.priced().is_empty()).await;
    cluster.watch(90, |cluster| assert_eq!((cluster.asked(), cluster.desired()), (4, 4))).await;
    assert_eq!((cluster.pods.len(), cluster.taken.len()), (made, 0));
}

#[tokio::test(start_paused = true)]
async fn a_pool_whose_scaling_is_turned_off_while_it_shrinks_has_what_its_spec_says() {
    let mut cluster = shrinking(240).await;
    let mut spec = usual();
    spec["replicas"] = json!(4);
    spec["autoscaling"] = json!({"mode": "Disabled"});
    cluster.world.put_pool(POOL, &spec);
    cluster.until(10, |cluster| cluster.retiring().is_empty() && cluster.priced().is_empty()).await;
    cluster.watch(90, |cluster| assert_eq!(cluster.asked(), 4)).await;
    assert_eq!(cluster.taken.len(), 0);
    spec["replicas"] = json!(2);
    cluster.world.put_pool(POOL, &spec);
    cluster.until(300, |cluster| cluster.asked() == 2).await;
    cluster.pass(5).await;
    nothing_was_lost(&cluster);
}

#[tokio::test(start_paused = true)]
async fn another_leader_ends_what_one_began_with_the_same_pods() {
    let mut cluster = shrinking(60).await;
    cluster.until(150, |cluster| cluster.priced().len() >= 2).await;
    let priced: BTreeSet<String> = cluster.priced().into_iter().collect();
    cluster.replace_operator();
    cluster.until(300, |cluster| cluster.asked() < 4).await;
    cluster.pass(5).await;
    let first: BTreeSet<String> = cluster.taken.iter().take(priced.len()).cloned().collect();
    assert!(first.is_subset(&priced), "{:?}, of which {priced:?} were to go first", cluster.taken);
    nothing_was_lost(&cluster);
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_restarts_over_a_light_load_makes_no_pod() {
    let mut cluster = Cluster::with_pool(&usual()).await;
    cluster.load = (1.0, Duration::from_millis(250));
    cluster.pass(100).await;
    assert_eq!((cluster.asked(), cluster.pods.len()), (1, 1));
    let learned = cluster.status()["autoscaling"]["numbers"].clone();
    cluster.replace_operator();
    cluster.watch(60, |cluster| assert_eq!(cluster.asked(), 1)).await;
    let known = cluster.status()["autoscaling"]["numbers"].clone();
    for number in ["serviceSeconds", "startupSeconds"] {
        assert_eq!(known[number], learned[number], "{number}: {known} after {learned}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_requests_of_a_new_pool_are_what_they_are_and_not_what_was_expected() {
    let mut cluster = Cluster::with_pool(&usual()).await;
    cluster.load = (1.0, Duration::from_millis(250));
    cluster.watch(40, |cluster| assert_eq!(cluster.asked(), 1)).await;
}

#[tokio::test(start_paused = true)]
async fn load_that_returns_while_a_shrink_is_on_its_way_is_in_time() {
    for seconds in [5, 7, 9, 11] {
        let mut cluster = idle().await;
        cluster.until(150, |cluster| !cluster.priced().is_empty()).await;
        // A look and what it leads to now lie seconds apart.
        cluster.world.api.faults(|faults| faults.slow("secrets", Duration::from_secs(2)));
        cluster.pass(seconds).await;
        cluster.load = (4.0, Duration::from_secs(8));
        cluster.pass(40).await;
        assert_eq!(cluster.cut, 0, "after {seconds} s");
        assert_eq!(cluster.mistaken, [""; 0], "after {seconds} s");
    }
}
