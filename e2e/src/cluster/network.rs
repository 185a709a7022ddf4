//! Packets that do not arrive.

use std::net::IpAddr;

use anyhow::Result;

use super::Cluster;
use super::addresses::NODES;
use super::namespaces::in_network_of;
use crate::machine::command::Cmd;

/// TCP packets from one address to one port are lost on every node, until this is dropped.
#[derive(Debug)]
pub struct Lost {
    cluster: Cluster,
    rule: Vec<String>,
}

impl Cluster {
    /// Loses what a pod sends to a port from now on. The sender's kernel tries again and again.
    pub fn lose(&self, from: IpAddr, port: u16) -> Result<Lost> {
        let (from, port) = (from.to_string(), port.to_string());
        let rule = ["FORWARD", "--source", &from, "--protocol", "tcp", "--dport", &port, "--jump", "DROP"];
        let lost = Lost { cluster: self.clone(), rule: rule.map(str::to_owned).into() };
        for node in 0..NODES {
            lost.iptables(node, "--insert").run()?;
        }
        Ok(lost)
    }
}

impl Lost {
    fn iptables(&self, node: usize, what: &str) -> Cmd {
        let enter = in_network_of(&self.cluster.instance, node);
        Cmd::words(["iptables", "--wait", what]).args(&self.rule).behind(enter)
    }
}

impl Drop for Lost {
    fn drop(&mut self) {
        for node in 0..NODES {
            let _ = self.iptables(node, "--delete").attempt();
        }
    }
}
