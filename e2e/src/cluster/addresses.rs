//! Which addresses a cluster uses: each instance has a slot, and ranges that follow from it.

use std::fmt;
use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// Nodes of a cluster.
pub const NODES: usize = 2;
/// How many clusters one machine has ranges for.
pub const SLOTS: u8 = 32;

/// An IPv4 range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    first: Ipv4Addr,
    bits: u8,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

/// The addresses of the cluster in one slot: nodes in 10.88+slot, pods in 10.128+slot, Services in 10.168+slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPlan {
    slot: u8,
}

impl AddressPlan {
    /// The plan of a slot, which is below [`SLOTS`].
    pub fn new(slot: u8) -> Result<Self> {
        ensure!(slot < SLOTS, "there are address ranges for {SLOTS} clusters, and all are taken");
        Ok(Self { slot })
    }

    /// The first slot that is not taken.
    pub fn free(taken: &[Self]) -> Result<Self> {
        let slot = (0..SLOTS).find(|slot| taken.iter().all(|plan| plan.slot != *slot));
        Self::new(slot.unwrap_or(SLOTS))
    }

    /// The network that the nodes share.
    pub fn nodes(self) -> Range {
        Range { first: Ipv4Addr::new(10, 88 + self.slot, 0, 0), bits: 24 }
    }

    /// A node's address. The first node also has the control plane and DNS.
    pub fn node(self, node: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 88 + self.slot, 0, 2 + octet(node))
    }

    /// All pods.
    pub fn pods(self) -> Range {
        Range { first: Ipv4Addr::new(10, 128 + self.slot, 0, 0), bits: 16 }
    }

    /// The pods of one node.
    pub fn pods_of(self, node: usize) -> Range {
        Range { first: Ipv4Addr::new(10, 128 + self.slot, octet(node), 0), bits: 24 }
    }

    /// Virtual addresses of Services.
    pub fn services(self) -> Range {
        Range { first: Ipv4Addr::new(10, 168 + self.slot, 0, 0), bits: 16 }
    }

    /// The Service `kubernetes`: always the first address of the range.
    pub fn kubernetes_service(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 168 + self.slot, 0, 1)
    }

    /// Where clients reach the API server.
    pub fn api_server(self) -> String {
        format!("https://{}:6443", self.node(0))
    }
}

fn octet(node: usize) -> u8 {
    u8::try_from(node).unwrap_or(u8::MAX).min(200)
}

/// `node0`, `node1`: as Kubernetes names it.
pub fn node_name(node: usize) -> String {
    format!("node{node}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cluster_has_the_first_ranges() {
        let plan = AddressPlan::free(&[]).unwrap();
        assert_eq!(plan.nodes().to_string(), "10.88.0.0/24");
        assert_eq!(
            (plan.node(0).to_string(), plan.node(1).to_string()),
            ("10.88.0.2".into(), "10.88.0.3".into())
        );
        assert_eq!(plan.pods_of(1).to_string(), "10.128.1.0/24");
        assert_eq!(plan.kubernetes_service().to_string(), "10.168.0.1");
    }

    #[test]
    fn a_freed_slot_is_taken_again() {
        let plans: Vec<_> = [0, 1, 3].map(|slot| AddressPlan::new(slot).unwrap()).into();
        assert_eq!(AddressPlan::free(&plans).unwrap(), AddressPlan::new(2).unwrap());
    }

    #[test]
    fn no_two_slots_share_a_range() {
        let ranges = |slot| {
            let plan = AddressPlan::new(slot).unwrap();
            [plan.nodes(), plan.pods(), plan.services()]
        };
        let mut seen: Vec<Range> = Vec::new();
        for range in (0..SLOTS).flat_map(ranges) {
            let second = range.first.octets()[1];
            assert!(seen.iter().all(|other| other.first.octets()[1] != second), "{range} overlaps");
            seen.push(range);
        }
    }

    #[test]
    fn more_clusters_than_slots_are_refused() {
        let all: Vec<_> = (0..SLOTS).map(|slot| AddressPlan::new(slot).unwrap()).collect();
        assert!(AddressPlan::free(&all).is_err());
    }
}
