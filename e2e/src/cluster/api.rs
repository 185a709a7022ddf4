//! Quick reads of the API: where kubectl needs a good part of a second to start, this needs a few milliseconds.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::Cluster;
use super::http::{Answer, Request};
use super::processes;
use crate::machine::clock::Deadline;

const NAME: &str = "kubectl-proxy";
const PORT: u16 = 8001;
const LIMIT: Duration = Duration::from_secs(10);

/// A `kubectl proxy` inside the cluster's network, ended when this is dropped. One at a time.
#[derive(Debug)]
pub struct Api {
    cluster: Cluster,
}

impl Api {
    /// Starts it and waits until it answers.
    pub fn open(cluster: &Cluster) -> Result<Self> {
        let proxy = cluster.kubectl(["proxy", &format!("--port={PORT}")]);
        processes::start(&cluster.instance, NAME, &proxy)?;
        let api = Self { cluster: cluster.clone() };
        Deadline::after(LIMIT).wait("kubectl proxy answers", Duration::from_millis(50), || {
            Ok(api.get("/version").map(drop).map_err(|error| format!("{error:#}")))
        })?;
        Ok(api)
    }

    /// The object at a path such as `/api/v1/namespaces/default`.
    pub fn get(&self, path: &str) -> Result<Value> {
        let answer = self.ask(&Request::get(path))?;
        ensure!(answer.status == 200, "{path}: {} {}", answer.status, answer.text());
        answer.json()
    }

    /// What the API server says to an object that is posted to a path.
    pub fn post(&self, path: &str, object: &Value) -> Result<Answer> {
        self.ask(&Request::post(path, object))
    }

    fn ask(&self, request: &Request) -> Result<Answer> {
        self.cluster.http(0, SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)), request, LIMIT)
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = processes::stop(&self.cluster.instance, NAME, Duration::from_secs(1));
        let _ = fs::remove_file(self.cluster.instance.path("run").join(format!("{NAME}.json")));
    }
}
