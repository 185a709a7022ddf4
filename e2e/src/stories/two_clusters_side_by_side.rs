//! A second cluster beside this one: its first `up` is killed half way, the next one brings it up all the same, both
//! answer, and when it is taken down nothing of it is left and nothing of the first is missing.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::scene::Scene;
use crate::machine::clock::{Deadline, Stopwatch, seconds};
use crate::machine::command::Cmd;

const NAME: &str = "beside";
/// Into the start of its control plane.
const HALF_WAY: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_mins(3);

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    // What a killed story has left.
    e2e("down")?.run()?;
    let stood = it_comes_up_after_a_killed_run(scene);
    let down = e2e("down")?.run();
    stood?;
    let down = down?.out;
    ensure!(down.contains("No process, mount, namespace, cgroup or file of it is left"), "{down}");
    ensure!(!root(scene).exists(), "{} is still there", root(scene).display());
    two_nodes_are_ready(&scene.cluster.instance.path("bin/kubectl"))
}

fn e2e(word: &str) -> Result<Cmd> {
    Ok(Cmd::new(std::env::current_exe()?).args([word, "--name", NAME]).limit(LIMIT))
}

fn root(scene: &Scene) -> PathBuf {
    scene.cluster.instance.all_clusters().join(NAME)
}

fn it_comes_up_after_a_killed_run(scene: &Scene) -> Result<()> {
    kill_a_run_half_way(scene)?;
    let watch = Stopwatch::start();
    e2e("up")?.run()?;
    scene.tell(&format!("after a killed run a second cluster is up in {}", seconds(watch.elapsed())));
    for kubectl in [root(scene).join("bin/kubectl"), scene.cluster.instance.path("bin/kubectl")] {
        two_nodes_are_ready(&kubectl)?;
    }
    Ok(())
}

fn kill_a_run_half_way(scene: &Scene) -> Result<()> {
    let mut half = e2e("up")?.command()?.spawn()?;
    let begun = Deadline::after(LIMIT).wait("its start begins", Duration::from_millis(50), || {
        Ok(if root(scene).join("instance.json").exists() { Ok(()) } else { Err("not yet".to_owned()) })
    });
    thread::sleep(HALF_WAY);
    half.kill()?;
    let ended = half.wait()?;
    begun?;
    ensure!(!ended.success(), "it was up before it was killed");
    Ok(())
}

fn two_nodes_are_ready(kubectl: &Path) -> Result<()> {
    let nodes = Cmd::new(kubectl).args(["get", "nodes", "--no-headers"]).read()?;
    let ready = nodes.lines().filter(|line| line.split_whitespace().nth(1) == Some("Ready")).count();
    ensure!(ready == 2, "{ready} of 2 nodes are Ready:\n{nodes}");
    Ok(())
}
