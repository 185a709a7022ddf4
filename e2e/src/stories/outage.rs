//! What stories of an outage ask of whoever is away, and of whoever must come back.

use std::time::Duration;

use anyhow::Result;

use super::pool::PoolPod;
use super::scene::Scene;
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

    /// Waits until the API server answers, whatever became of the story.
    pub fn api_server_answers(&self) -> Result<()> {
        let (limit, pause) = (Duration::from_mins(1), Duration::from_millis(300));
        Deadline::after(limit).wait("the API server answers", pause, || {
            let ask = self.cluster.kubectl(["get", "--raw", "/readyz", "--request-timeout=5s"]);
            let asked = ask.attempt()?;
            Ok(if asked.status.success() { Ok(()) } else { Err(asked.tail()) })
        })
    }
}
