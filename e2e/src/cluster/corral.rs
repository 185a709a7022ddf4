//! Corral on a cluster: installed, upgraded and removed as a user does it, by Helm.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Cluster;
use crate::artifacts::images;
use crate::machine::clock::Deadline;

/// The Helm release, and the name of its Deployment.
pub const RELEASE: &str = "corral";
/// The operator's namespace.
pub const NAMESPACE: &str = "corral-system";
/// Both definitions.
pub const CRDS: [&str; 2] = ["ollamapools.corral.dev", "ratelimitpolicies.corral.dev"];
/// For the operator's pod to be there and to lead.
const LIMIT: Duration = Duration::from_mins(2);

impl Cluster {
    /// Installs Corral from the chart of this checkout, or upgrades what is installed. Nothing changed, nothing done.
    pub fn install_corral(&self) -> Result<()> {
        self.install_corral_from(&self.parts.chart, "*")
    }

    /// Upgrades it to an operator that gives new pods another sidecar image by default.
    pub fn upgrade_corral_to_sidecar(&self, tag: &str) -> Result<()> {
        let mut values = self.values("*")?;
        let wanted = values.pointer_mut("/sidecarImage/tag").context("the values name a sidecar")?;
        *wanted = json!(tag);
        self.install_corral_with(&self.parts.chart, &values)
    }

    /// Upgrades it to this many operators, of which one leads.
    pub fn scale_corral(&self, replicas: u32) -> Result<()> {
        let mut values = self.values("*")?;
        values
            .as_object_mut()
            .context("values are an object")?
            .insert("replicas".to_owned(), json!(replicas));
        self.install_corral_with(&self.parts.chart, &values)
    }

    /// The same from another folder with a chart, for the pools of one namespace, or of all: `*`.
    pub fn install_corral_from(&self, chart: &Path, watched: &str) -> Result<()> {
        self.install_corral_with(chart, &self.values(watched)?)
    }

    fn install_corral_with(&self, chart: &Path, values: &Value) -> Result<()> {
        self.restricted_namespace(NAMESPACE)?;
        let upgrade = self.helm(["upgrade", "--install", RELEASE]).arg(chart);
        let upgrade = upgrade.args(["--namespace", NAMESPACE, "--wait", "--timeout=100s", "--values", "-"]);
        let installed = upgrade.input(values.to_string()).limit(LIMIT).run();
        installed.map(drop).with_context(|| self.describe_operator())
    }

    /// Removes the release. The definitions stay, and so do the pools and policies.
    pub fn uninstall_corral(&self) -> Result<()> {
        let uninstall = self.helm(["uninstall", RELEASE, "--namespace", NAMESPACE, "--ignore-not-found"]);
        uninstall.args(["--wait", "--timeout=100s"]).limit(LIMIT).run().map(drop)
    }

    /// Removes the operator's namespace with all in it, as somebody does who wants to be rid of it.
    pub fn drop_corral_namespace(&self) -> Result<()> {
        self.drop_namespace(NAMESPACE, LIMIT)
    }

    /// Runs the chart's own test.
    pub fn test_corral(&self) -> Result<String> {
        let test = self.helm(["test", RELEASE, "--namespace", NAMESPACE, "--timeout=60s"]);
        test.limit(LIMIT).read()
    }

    /// What the chart is told: our images, and where to look for pools.
    fn values(&self, watched: &str) -> Result<Value> {
        let image = |package: &str| -> Result<Value> {
            let name = self.own_image(package)?;
            let (repository, tag) = name.rsplit_once(':').context("an image has a tag")?;
            Ok(json!({ "repository": repository, "tag": tag }))
        };
        Ok(json!({
            "image": image("corral-operator")?,
            "sidecarImage": image("corral-sidecar")?,
            "watchNamespaces": [watched],
        }))
    }

    /// The full name of one of our own images.
    pub fn own_image(&self, package: &str) -> Result<String> {
        let wanted = images::own_repository(package);
        let mut names = self.parts.images.iter().map(|image| &image.name);
        let name = names.find(|name| name.split(':').next() == Some(wanted.as_str()));
        name.cloned().with_context(|| format!("no image of {package} was built"))
    }

    /// Makes a namespace if it is not there, in which only pods run that keep to restricted Pod Security.
    pub fn restricted_namespace(&self, name: &str) -> Result<()> {
        let namespace = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": { "name": name, "labels": { "pod-security.kubernetes.io/enforce": "restricted" } },
        });
        let apply = self.kubectl(["apply", "--filename", "-"]).input(namespace.to_string());
        apply.run()?;
        self.service_account(name, Deadline::after(Duration::from_secs(30)))
    }

    /// What is known of an operator that does not come up.
    fn describe_operator(&self) -> String {
        let ask = |arguments: &[&str]| {
            let asked = self.kubectl(arguments.iter().chain(&["--namespace", NAMESPACE])).attempt();
            asked.map_or_else(|error| error.to_string(), |output| output.tail())
        };
        let pods = ask(&["describe", "pods"]);
        let log = ask(&["logs", "deployment/corral", "--tail=15"]);
        format!("{pods}\n--- end of the operator's log\n{log}")
    }
}
