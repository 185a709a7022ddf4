//! The chart is what Helm 3.17 and 4.1 both accept, refuses values that mean nothing, and its own test passes.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::scene::Scene;
use crate::machine::command::{Cmd, Output};

/// The Kubernetes that templates are made for where no cluster is asked.
const KUBERNETES: &str = "1.34.4";
/// Values that a user may well try.
const GOOD: [&[&str]; 7] = [
    &[],
    &["--set-json", "watchNamespaces=[\"*\"]"],
    &["--set-json", "watchNamespaces=[\"team-a\",\"team-b\"]"],
    &["--set", "crds.enabled=false,aggregatedRoles.enabled=false,replicas=2,log.format=text"],
    &["--set", "keda.enabled=true,keda.port=9191"],
    &["--set", "keda.enabled=true,keda.namespace=keda"],
    &["--set", "image.digest=sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"],
];
/// Values that must not be taken in silence, and a word of what is said of them.
const BAD: [(&[&str], &str); 7] = [
    (&["--set", "replica=2"], "replica"),
    (&["--set", "replicas=0"], "replicas"),
    (&["--set", "keda.enabled=true,keda.port=8080"], "port"),
    (&["--set", "keda.enabled=true,keda.namespace=Keda"], "namespace"),
    (&["--set", "log.format=xml"], "format"),
    (&["--set-json", "watchNamespaces=[\"*\",\"team-a\"]"], "stands alone"),
    (&["--set", "serviceAccount.create=false"], "serviceAccount.name"),
];

/// Tells the story.
pub fn run(scene: &Scene) -> Result<()> {
    let clients = &scene.cluster.parts.clients;
    for helm in [&clients.helm, &clients.helm3] {
        let version = Cmd::new(helm).args(["version", "--short"]).read()?;
        both_accept_it(scene, helm).with_context(|| format!("helm {version}"))?;
        scene.tell(&format!("helm {version} lints and templates it; {} bad values are refused", BAD.len()));
    }
    let tested = scene.cluster.test_corral()?;
    ensure!(tested.contains("Succeeded"), "helm test says {tested}");
    what_it_renders_keeps_the_rules(scene)
}

fn both_accept_it(scene: &Scene, helm: &Path) -> Result<()> {
    let lint = Cmd::new(helm).args(["lint", "--strict", "--kube-version", KUBERNETES]);
    lint.arg(&scene.cluster.parts.chart).run()?;
    for values in GOOD {
        let output = template(scene, helm, values)?;
        ensure!(output.status.success(), "{values:?}: {}", output.tail());
    }
    for (values, word) in BAD {
        let output = template(scene, helm, values)?;
        ensure!(!output.status.success(), "{values:?} is taken");
        ensure!(output.err.contains(word), "{values:?} is refused without `{word}`: {}", output.tail());
    }
    Ok(())
}

fn template<A: AsRef<OsStr>>(scene: &Scene, helm: &Path, values: &[A]) -> Result<Output> {
    let template = Cmd::new(helm).args(["template", "corral"]).arg(&scene.cluster.parts.chart);
    template.args(["--namespace", "corral-system", "--kube-version", KUBERNETES]).args(values).attempt()
}

/// Definitions outlive the release; no right is a wildcard; without being told the operator sees one namespace only.
fn what_it_renders_keeps_the_rules(scene: &Scene) -> Result<()> {
    let text = template::<&str>(scene, &scene.cluster.parts.clients.helm, &[])?.out;
    let documents =
        text.split("\n---").filter(|document| document.contains("kind: CustomResourceDefinition"));
    let kept = documents.filter(|document| document.contains("helm.sh/resource-policy: keep")).count();
    ensure!(kept == 2, "2 definitions are kept, not {kept}");
    ensure!(!text.contains("kind: ClusterRoleBinding"), "the operator sees the whole cluster unasked");
    ensure!(!text.contains("verbs: [*]") && !text.contains("- '*'"), "a right is a wildcard");
    Ok(())
}
