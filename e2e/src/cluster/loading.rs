//! Loads image archives into the nodes' containerds.

use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

use super::Cluster;
use super::addresses::NODES;
use super::namespaces::on_node;
use crate::artifacts::images::Image;
use crate::machine::clock::Deadline;
use crate::machine::command::Cmd;

impl Cluster {
    /// Loads every image that is not among `loaded` into all nodes, which do it at the same time. Gives the identities
    /// of all images that are there then.
    pub fn load_images(&self, loaded: &[String]) -> Result<Vec<String>> {
        let new: Vec<&Image> = self.parts.images.iter().filter(|image| !loaded.contains(&image.id)).collect();
        thread::scope(|scope| {
            let nodes: Vec<_> = (0..NODES)
                .map(|node| {
                    scope.spawn({
                        let new = &new;
                        move || new.iter().try_for_each(|image| self.load(node, image))
                    })
                })
                .collect();
            nodes
                .into_iter()
                .try_for_each(|node| node.join().unwrap_or_else(|_| bail!("loading images panicked")))
        })?;
        Ok(self.parts.images.iter().map(|image| image.id.clone()).collect())
    }

    fn load(&self, node: usize, image: &Image) -> Result<()> {
        self.ctr(node).args(["images", "import", "--no-unpack=false"]).arg(&image.archive).run().map(drop)
    }

    /// containerd's own client on a node.
    pub fn ctr(&self, node: usize) -> Cmd {
        let ctr = Cmd::words(["ctr", "--namespace", "k8s.io"]).limit(Duration::from_mins(3));
        ctr.behind(on_node(&self.instance, node))
    }

    /// Waits until every node's containerd answers.
    pub fn wait_for_containerd(&self, deadline: Deadline) -> Result<()> {
        for node in 0..NODES {
            deadline.wait("containerd answers", Duration::from_millis(100), || {
                let asked = self.ctr(node).arg("version").attempt()?;
                Ok(if asked.status.success() { Ok(()) } else { Err(asked.tail()) })
            })?;
        }
        Ok(())
    }
}
