//! What stories of an outage ask of whoever is away, and of whoever must come back.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::pool::PoolPod;
use super::scene::Scene;
use super::traffic::{names_limit, sort};
use crate::cluster::http::Request;
use crate::machine::clock::Deadline;

impl Scene {
    /// Waits until a pod's sidecar serves. Asks for metadata only: that uses nothing up.
    pub fn serves_again(&self, pod: &PoolPod) -> Result<()> {
        let pause = Duration::from_millis(50);
        Deadline::after(self.deadline.left()).wait("the sidecar serves again", pause, || {
            let limit = Duration::from_secs(2);
            let asked = self.cluster.http(0, pod.client_port()?, &Request::get("/api/version"), limit);
            Ok(match asked {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(format!("{} {}", answer.status, answer.text())),
                Err(error) => Err(format!("{error:#}")),
            })
        })
    }

    /// Holds that one of two pods admits three of so many requests at once: its share of the six of the limit `few`. A
    /// sidecar that has just started begins with all of it.
    pub fn admits_three(&self, pod: &PoolPod, request: &Request, of: usize) -> Result<()> {
        let (served, refused) = sort(self.volley(pod.client_port()?, request, of)?)?;
        ensure!(served.len() == 3, "{} admits {} of {of}, not its share of 3", pod.name, served.len());
        refused.iter().try_for_each(|attempt| names_limit(&attempt.answer, &self.few()))
    }

    /// Holds that a pod refuses a request by the limit `few`.
    pub fn refuses(&self, pod: &PoolPod, request: &Request) -> Result<()> {
        names_limit(&self.http(pod.client_port()?, request)?, &self.few())
    }

    fn few(&self) -> String {
        format!("{}/few/few", self.namespace)
    }

    /// Leaves the control plane whole, whatever became of the story. Whoever could not reach the API server tries again after a
    /// minute at the latest: in life controllers whose Lease is over end and are started anew, ours hold none.
    pub fn mend_the_control_plane(&self) -> Result<()> {
        self.api_server_runs()?;
        for controllers in ["kube-controller-manager", "kube-scheduler"] {
            self.cluster.stop(controllers)?;
            self.cluster.start(controllers)?;
        }
        Ok(())
    }

    /// Starts the API server if it does not run, and waits until it answers.
    pub fn api_server_runs(&self) -> Result<()> {
        if self.cluster.missing_components().iter().any(|name| name == "kube-apiserver") {
            self.cluster.start("kube-apiserver")?;
        }
        let (limit, pause) = (Duration::from_mins(1), Duration::from_millis(300));
        Deadline::after(limit).wait("the API server answers", pause, || {
            let ask = self.cluster.kubectl(["get", "--raw", "/readyz", "--request-timeout=5s"]);
            let asked = ask.attempt()?;
            Ok(if asked.status.success() { Ok(()) } else { Err(asked.tail()) })
        })
    }
}
