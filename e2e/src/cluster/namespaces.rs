//! A node's own network and own view of the file system, pinned to files so that they outlive the harness.
//!
//! Each node sees `/run`, `/var/lib`, `/var/log` and `/opt` of its own, so that kubelet, containerd, runc and CNI keep
//! their usual paths, meet nothing of this machine's own container runtime, and leave nothing behind: every mount that
//! they make dies with the namespace.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::addresses::{AddressPlan, NODES, node_name};
use super::instance::Instance;
use crate::machine::command::Cmd;
use crate::machine::settings::PRIVATE_TO_A_NODE;

/// Kernel settings that a kubelet writes: it gets copies, for they belong to this machine.
const KUBELET_WRITES: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// Run once inside a fresh mount namespace. `$1` is the node's folder, `$2` the folder of all clusters, then come the
/// private folders.
///
/// What other clusters have pinned is let go first: a copy of the pin would keep their networks alive after their end.
const FURNISH: &str = r#"
node=$1 clusters=$2; shift 2
cut -d' ' -f2 /proc/self/mounts | grep -F "$clusters/" | sort -r | while read -r pin; do umount -l "$pin"; done
for private in "$@"; do
  [ -d "$private" ] || continue
  mount --bind "$node/root$private" "$private"
done
cd "$node/sysctl"
find . -type f | while read -r setting; do mount --bind "$setting" "/proc/sys/$setting"; done
"#;

/// Makes both namespaces of every node and connects the nodes.
pub fn create(instance: &Instance, addresses: AddressPlan) -> Result<()> {
    let pins = instance.path("ns");
    fs::create_dir_all(&pins)?;
    // A namespace can be pinned only where mounts do not spread to other namespaces.
    Cmd::words(["mount", "--bind"]).arg(&pins).arg(&pins).run()?;
    Cmd::words(["mount", "--make-private"]).arg(&pins).run()?;
    for node in 0..NODES {
        pin_network(instance, node)?;
        pin_mounts(instance, node)?;
    }
    connect(instance, addresses)
}

fn pin_network(instance: &Instance, node: usize) -> Result<()> {
    let pin = instance.network_namespace(node);
    fs::write(&pin, "")?;
    Cmd::new("unshare").arg(option("--net", &pin)).arg("true").run().map(drop)
}

fn pin_mounts(instance: &Instance, node: usize) -> Result<()> {
    let (pin, folder) = (instance.mount_namespace(node), instance.node(node));
    for private in PRIVATE_TO_A_NODE {
        fs::create_dir_all(folder.join("root").join(private.trim_start_matches('/')))?;
    }
    for setting in KUBELET_WRITES {
        let copy = folder.join("sysctl").join(setting);
        fs::create_dir_all(copy.parent().context("a setting lies in a folder")?)?;
        let value = fs::read(Path::new("/proc/sys").join(setting)).unwrap_or_default();
        fs::write(copy, value)?;
    }
    fs::write(&pin, "")?;
    Cmd::new("unshare")
        .arg(option("--mount", &pin))
        .args(["--propagation", "private", "sh", "-euc", FURNISH, "furnish"])
        .arg(folder)
        .arg(instance.all_clusters())
        .args(PRIVATE_TO_A_NODE)
        .run()
        .map(drop)
}

fn option(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}

/// The first node has a bridge that all nodes hang on. Nothing leads out of it: an address that is nobody's is refused
/// at once.
fn connect(instance: &Instance, addresses: AddressPlan) -> Result<()> {
    for node in 0..NODES {
        in_network(instance, node, "ip link set lo up")?;
        in_network(instance, node, "sysctl -qw net.ipv4.ip_forward=1")?;
    }
    in_network(instance, 0, "ip link add nodes type bridge")?;
    for node in 1..NODES {
        let other = instance.network_namespace(node);
        in_network(
            instance,
            0,
            &format!("ip link add to-node{node} type veth peer name nodes netns {}", other.display()),
        )?;
        in_network(instance, 0, &format!("ip link set to-node{node} master nodes up"))?;
    }
    for node in 0..NODES {
        in_network(instance, node, &format!("ip addr add {}/24 dev nodes", addresses.node(node)))?;
        in_network(instance, node, "ip link set nodes up")?;
    }
    for node in 0..NODES {
        route(instance, addresses, node)?;
    }
    Ok(())
}

fn route(instance: &Instance, addresses: AddressPlan, node: usize) -> Result<()> {
    for other in (0..NODES).filter(|other| *other != node) {
        let line = format!("ip route add {} via {}", addresses.pods_of(other), addresses.node(other));
        in_network(instance, node, &line)?;
    }
    // A route must exist before kube-proxy can turn a Service's address into a pod's.
    in_network(instance, node, &format!("ip route add {} dev nodes", addresses.services()))?;
    in_network(instance, node, "ip route add unreachable default metric 4294967295")
}

fn in_network(instance: &Instance, node: usize, line: &str) -> Result<()> {
    let enter = ["nsenter".to_owned(), option("--net", &instance.network_namespace(node))];
    let done = Cmd::words(line.split(' ')).behind(enter).run();
    done.map(drop).with_context(|| format!("wiring {}", node_name(node)))
}

/// Words that run what follows on a node: in its network, with its view of the file system.
pub fn on_node(instance: &Instance, node: usize) -> Vec<String> {
    let net = option("--net", &instance.network_namespace(node));
    vec!["nsenter".to_owned(), net, option("--mount", &instance.mount_namespace(node))]
}

/// Words that run what follows in a node's network, with this machine's files.
pub fn in_network_of(instance: &Instance, node: usize) -> Vec<String> {
    vec!["nsenter".to_owned(), option("--net", &instance.network_namespace(node))]
}

/// What identifies the cluster's namespaces: `net:[4026532008]` and so on.
pub fn identities(instance: &Instance) -> Vec<String> {
    let identity = |kind: &str, pin: &Path| {
        let inode = fs::metadata(pin).ok()?.ino();
        Some(format!("{kind}:[{inode}]"))
    };
    let nodes = 0..NODES;
    let all = nodes.flat_map(|node| {
        let (net, mnt) = (instance.network_namespace(node), instance.mount_namespace(node));
        [identity("net", &net), identity("mnt", &mnt)]
    });
    all.flatten().collect()
}

/// Pids of all that is in one of these namespaces.
pub fn inhabitants(identities: &[String]) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let inside = |pid: &i32, kind: &str| {
        let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap_or_default();
        identities.iter().any(|identity| link.as_os_str() == identity.as_str())
    };
    pids.filter(|pid| inside(pid, "net") || inside(pid, "mnt")).collect()
}
