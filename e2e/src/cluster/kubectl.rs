//! kubectl, helm and what is asked of them again and again.

use std::ffi::OsStr;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Cluster;
use super::namespaces::in_network_of;
use crate::machine::clock::Deadline;
use crate::machine::command::Cmd;

impl Cluster {
    /// kubectl as administrator, with these arguments.
    pub fn kubectl<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Cmd {
        self.client(&self.parts.clients.kubectl).args(arguments)
    }

    /// helm 4 as administrator, with these arguments.
    pub fn helm<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Cmd {
        self.client(&self.parts.clients.helm).args(arguments)
    }

    fn client(&self, program: &std::path::Path) -> Cmd {
        Cmd::new(program)
            .env("KUBECONFIG", self.instance.path("admin.kubeconfig"))
            .behind(in_network_of(&self.instance, 0))
    }

    /// Applies YAML documents to a namespace.
    pub fn apply(&self, namespace: &str, documents: &str) -> Result<()> {
        let apply = self.kubectl(["apply", "--namespace", namespace, "--filename", "-"]);
        apply.input(documents).run().map(drop)
    }

    /// What `kubectl get … --output json` says.
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        let said = self.kubectl(["get", "--output", "json"]).args(arguments).read()?;
        serde_json::from_str(&said).context("kubectl printed no JSON")
    }

    /// Waits until `kubectl wait --for=…` is content.
    pub fn wait_for(&self, limit: Duration, condition: &str, arguments: &[&str]) -> Result<()> {
        let wait = self.kubectl(["wait", "--for", condition]).args(arguments);
        let wait = wait.arg(format!("--timeout={}s", limit.as_secs().max(1)));
        wait.limit(limit + Duration::from_secs(10)).run().map(drop)
    }

    /// Makes a namespace, one that is left over removed first, and waits until pods can be made in it.
    pub fn fresh_namespace(&self, name: &str, limit: Duration) -> Result<()> {
        let deadline = Deadline::after(limit);
        self.drop_namespace(name, deadline.left())?;
        self.restricted_namespace(name)
    }

    /// Waits until a namespace has the ServiceAccount that every pod needs.
    pub fn service_account(&self, namespace: &str, deadline: Deadline) -> Result<()> {
        let what = format!("{namespace} has its ServiceAccount");
        deadline.wait(&what, Duration::from_millis(200), || {
            let asked =
                self.kubectl(["get", "serviceaccount", "default", "--namespace", namespace]).attempt()?;
            Ok(if asked.status.success() { Ok(()) } else { Err(asked.tail()) })
        })
    }

    /// Removes a namespace with all in it, and waits until it is gone.
    pub fn drop_namespace(&self, name: &str, limit: Duration) -> Result<()> {
        let limit = limit.max(Duration::from_secs(1));
        let delete = self.kubectl(["delete", "namespace", name, "--ignore-not-found", "--wait"]);
        let delete = delete.arg(format!("--timeout={}s", limit.as_secs()));
        delete.limit(limit + Duration::from_secs(10)).run().map(drop)
    }

    /// Gives a node this many of an extended resource. Only the scheduler believes in them.
    pub fn set_capacity(&self, node: &str, resource: &str, count: u32) -> Result<()> {
        let amounts = json!({ resource: count.to_string() });
        let patch = json!({ "status": { "capacity": amounts, "allocatable": amounts } }).to_string();
        let words = ["patch", "node", node, "--subresource=status", "--type=merge", "--patch", &patch];
        self.kubectl(words).run().map(drop)
    }

    /// Runs a command in a pod and gives what it printed.
    pub fn exec(&self, namespace: &str, pod: &str, command: &[&str]) -> Result<String> {
        self.kubectl(["exec", "--namespace", namespace, pod, "--"]).args(command).read()
    }
}
