//! `cargo demo`: a cluster, Corral, a pool, a policy, real traffic, and what happened in numbers.

mod acts;
mod numbers;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::cluster::{Cluster, up};
use crate::machine::clock::{Deadline, Stopwatch, seconds};
use crate::machine::console::say;
use crate::machine::preflight;
use crate::machine::settings::Settings;
use crate::stories::scene::Scene;

use numbers::Numbers;

/// Where the pool and the policy of the demo live.
const NAMESPACE: &str = "demo";
const POOL: &str = "chat";
const POLICY: &str = "fair-use";
/// For all acts after the cluster is up.
const LIMIT: Duration = Duration::from_mins(5);
const NAMESPACE_LIMIT: Duration = Duration::from_mins(1);

/// A demo under way.
#[derive(Debug)]
pub struct Demo {
    scene: Scene,
    /// Where the manifests lie, as a person can edit and apply them afterwards.
    folder: PathBuf,
    numbers: Numbers,
}

/// Plays all acts, and leaves the cluster up.
pub fn run(settings: &Settings, name: &str, down: &str) -> Result<()> {
    // Where it cannot run, that is all there is to say.
    preflight::check()?;
    let watch = Stopwatch::start();
    title("A real Kubernetes with two nodes of four GPUs each, and Corral on it by Helm");
    say("  (The scheduler sees these GPUs; the tiny models compute on the CPU.)");
    let cluster = up::up(settings, name)?;
    let stood = watch.elapsed();
    let demo = play(&cluster)?;
    let (stood, whole) = (seconds(stood), seconds(watch.elapsed()));
    say(format!("  {stood} until a two-node cluster stood with Corral on it, {whole} in all"));
    say(demo.how_to_go_on());
    say(up::how_to_reach(&cluster, down));
    Ok(())
}

/// Plays all acts on a cluster that stands, and sums them up.
pub fn play(cluster: &Cluster) -> Result<Demo> {
    let mut demo = Demo::begin(cluster)?;
    demo.play()?;
    title("What happened, in numbers");
    say(demo.numbers.to_string());
    Ok(demo)
}

impl Demo {
    fn begin(cluster: &Cluster) -> Result<Self> {
        cluster.fresh_namespace(NAMESPACE, NAMESPACE_LIMIT)?;
        let scene = Scene {
            cluster: cluster.clone(),
            namespace: NAMESPACE.to_owned(),
            deadline: Deadline::after(LIMIT),
        };
        let folder = cluster.instance.path("demo");
        fs::create_dir_all(&folder)?;
        Ok(Self { scene, folder, numbers: Numbers::default() })
    }

    fn play(&mut self) -> Result<()> {
        title("A pool: two replicas of Ollama, one GPU each");
        let pods = self.a_pool()?;
        title("A policy: who may use how much of it");
        self.a_policy(&pods)?;
        title("Answers, streamed through the pool's Service");
        self.streams()?;
        title("A client that takes more than its share");
        self.a_greedy_client()?;
        title("The policy is changed");
        self.a_change(&pods)?;
        title("What kubectl shows");
        self.what_kubectl_shows()
    }

    /// Writes a manifest where a person finds it, applies it, and shows both.
    fn apply(&self, file: &str, manifest: &str) -> Result<()> {
        let manifest = self.scene.fill_in(manifest);
        let path = self.folder.join(file);
        fs::write(&path, &manifest)?;
        say(format!("  $ kubectl apply -f {}", path.display()));
        for line in manifest.lines().filter(|line| !line.starts_with('#')) {
            say(format!("      {line}"));
        }
        self.scene.apply(&manifest)
    }

    fn how_to_go_on(&self) -> String {
        let bin = self.scene.cluster.instance.path("bin");
        format!(
            "\nThe cluster stays up. Go on by hand:\n  \
             export PATH={bin}:$PATH\n  \
             kubectl -n {NAMESPACE} get ollamapools,ratelimitpolicies,pods -o wide\n  \
             kubectl -n {NAMESPACE} get ratelimitpolicy {POLICY} -o yaml\n  \
             $EDITOR {policy}; kubectl -n {NAMESPACE} apply -f {policy}\n  \
             enter curl -i http://$(kubectl -n {NAMESPACE} get service {POOL} -o jsonpath={{.spec.clusterIP}}):11434/api/chat \
             -d '{{\"model\":\"slow\",\"messages\":[{{\"role\":\"user\",\"content\":\"hello\"}}],\"options\":{{\"num_predict\":30}}}}'",
            bin = bin.display(),
            policy = self.folder.join("fair-use.yaml").display(),
        )
    }
}

fn title(text: &str) {
    say(format!("\n{text}"));
}
