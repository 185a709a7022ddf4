//! The operator's own pods, as a story sees them.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::pool::PoolPod;
use super::scene::Scene;
use super::traffic::reading;
use crate::cluster::corral::NAMESPACE;
use crate::cluster::processes::Process;

/// What its pods are known by.
const LABEL: &str = "app.kubernetes.io/component=operator";
/// Where an operator answers probes and Prometheus.
const PORT: u16 = 8080;

impl Scene {
    /// The operator's pods that are not on their way out, by name.
    pub fn operators(&self) -> Result<Vec<PoolPod>> {
        self.pods_with(NAMESPACE, LABEL)
    }

    /// Who holds the Lease: another word for each life of an operator's process.
    pub fn leader(&self) -> Result<String> {
        let leases = self.cluster.get(&["leases", "--namespace", NAMESPACE])?;
        let holder = leases.pointer("/items/0/spec/holderIdentity").and_then(Value::as_str);
        holder.map(str::to_owned).context("nobody leads")
    }

    /// The operator's pod that leads, and one that does not.
    pub fn leader_and_standby(&self) -> Result<(PoolPod, PoolPod)> {
        let leader = self.leader()?;
        let (lead, others): (Vec<_>, Vec<_>) =
            self.operators()?.into_iter().partition(|pod| leader.starts_with(&format!("{}_", pod.name)));
        let pair = lead.into_iter().next().zip(others.into_iter().next());
        pair.with_context(|| format!("{leader} leads, and is no operator beside another"))
    }

    /// Names of the operator's pods that say of themselves that they lead.
    pub fn who_say_they_lead(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for pod in self.operators()? {
            if self.says_it_leads(&pod)? {
                names.push(pod.name);
            }
        }
        Ok(names)
    }

    /// One that has lost its Lease ends and is started anew, which takes tens of seconds where it ended before.
    fn says_it_leads(&self, pod: &PoolPod) -> Result<bool> {
        let port = pod.port(PORT)?;
        let metrics = self.until(&format!("{} answers", pod.name), || {
            Ok(self.metrics(port).map_err(|error| format!("{error:#}")))
        })?;
        Ok(reading(&metrics, "corral_operator_leader")? > 0)
    }

    /// The process of an operator's pod.
    pub fn operator_process(&self, pod: &PoolPod) -> Result<Process> {
        let pid = i32::try_from(self.pid_of(pod, "operator")?)?;
        Process::now(pid).with_context(|| format!("{} has no process {pid}", pod.name))
    }

    /// Ends every pod of the operator at once, as the loss of its node would. Others are made in their place.
    pub fn kill_the_operator(&self) -> Result<()> {
        let kill = ["delete", "pods", "--selector", LABEL, "--namespace", NAMESPACE];
        let said = self.cluster.kubectl(kill).args(["--grace-period=0", "--force", "--wait=false"]).read()?;
        ensure!(said.contains("deleted"), "there was no operator to kill: {said}");
        Ok(())
    }
}
