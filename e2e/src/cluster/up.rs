//! Brings a cluster up, whatever was there before.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::addresses::{AddressPlan, NODES, node_name};
use super::instance::{Instance, Record, boot_id};
use super::namespaces::{in_network_of, on_node};
use super::{Cluster, audit, certificates, cgroups, down, namespaces, render};
use crate::artifacts::Parts;
use crate::machine::clock::{Deadline, Stopwatch, seconds};
use crate::machine::command::Cmd;
use crate::machine::console::{say, step};
use crate::machine::settings::Settings;
use crate::machine::{packages, preflight};

/// GPUs that the scheduler sees on each node.
pub const GPUS_PER_NODE: u32 = 4;
/// Seconds, not minutes: on two busy cores the API server needs most of one.
const CONTROL_PLANE_LIMIT: Duration = Duration::from_mins(2);
const NODES_LIMIT: Duration = Duration::from_mins(2);

/// Brings the cluster up; one that is up already stays as it is, but for images that have changed.
pub fn up(settings: &Settings, name: &str) -> Result<Cluster> {
    let watch = Stopwatch::start();
    let instance = Instance::new(settings, name)?;
    preflight::check()?;
    packages::ensure()?;
    let parts = Parts::prepare(settings)?;
    let _lock = instance.lock()?;
    if let Some(cluster) = running(&instance, &parts)? {
        refresh_images(&cluster)?;
        step("Corral, by Helm", || cluster.install_corral())?;
        say(format!("The cluster `{name}` is already up."));
        return Ok(cluster);
    }
    down::clean(&instance)?;
    say(format!("Starting the cluster `{name}`"));
    let addresses = instance.claim_addresses(settings)?;
    let cluster = Cluster::new(instance, addresses, parts);
    start(&cluster)
        .context("the cluster did not come up; it is left as it is, and `cargo e2e down` removes it")?;
    say(format!("The cluster `{name}` is up after {}.", seconds(watch.elapsed())));
    Ok(cluster)
}

/// A cluster that was brought up to its end, all of whose components run, and whose API server answers.
fn running(instance: &Instance, parts: &Parts) -> Result<Option<Cluster>> {
    let Some(record) = instance.record().filter(|record| record.complete) else { return Ok(None) };
    if record.boot != boot_id()? {
        return Ok(None);
    }
    let cluster = Cluster::new(instance.clone(), record.addresses, parts.clone());
    let healthy = cluster.missing_components().is_empty()
        && cluster.kubectl(["get", "--raw", "/readyz", "--request-timeout=10s"]).run().is_ok();
    Ok(healthy.then_some(cluster))
}

fn refresh_images(cluster: &Cluster) -> Result<()> {
    let mut record = cluster.instance.record().context("the cluster has lost its record")?;
    let images = cluster.load_images(&record.images)?;
    if images != record.images {
        record.images = images;
        cluster.instance.write_record(&record)?;
        say("  new images are loaded");
    }
    Ok(())
}

fn start(cluster: &Cluster) -> Result<()> {
    step("networks, certificates, configuration", || furnish(cluster))?;
    step("control plane and images", || start_control_plane(cluster))?;
    step("nodes", || start_nodes(cluster))?;
    step("cluster DNS", || wait_for_dns(cluster))?;
    step("Corral, by Helm", || cluster.install_corral())?;
    let record = Record {
        addresses: cluster.addresses,
        complete: true,
        boot: boot_id()?,
        images: cluster.parts.images.iter().map(|image| image.id.clone()).collect(),
    };
    cluster.instance.write_record(&record)
}

fn furnish(cluster: &Cluster) -> Result<()> {
    let (instance, plan) = (&cluster.instance, cluster.addresses);
    namespaces::create(instance, plan)?;
    certificates::write(&instance.path("pki"), plan)?;
    for user in certificates::users() {
        let text = render::kubeconfig(instance, plan, &user)?;
        fs::write(instance.path(&format!("{user}.kubeconfig")), text)?;
    }
    fs::write(instance.path("kube-proxy.yaml"), render::kube_proxy(instance, plan)?)?;
    fs::write(instance.path(audit::POLICY), render::audit_policy()?)?;
    fs::write(instance.path("Corefile"), render::corefile(plan, &instance.path("admin.kubeconfig")))?;
    for node in 0..NODES {
        furnish_node(instance, plan, node)?;
    }
    write_wrappers(cluster)
}

fn furnish_node(instance: &Instance, plan: AddressPlan, node: usize) -> Result<()> {
    cgroups::create(instance, node)?;
    let folder = instance.node(node);
    fs::create_dir_all(folder.join("cni"))?;
    fs::write(folder.join("cni/10-pods.conflist"), render::cni(plan, node)?)?;
    fs::write(folder.join("kubelet.yaml"), render::kubelet(instance, plan, node)?)?;
    let containerd = render::containerd(instance, node, snapshotter(&folder)?);
    Ok(fs::write(folder.join("containerd.toml"), containerd)?)
}

/// overlayfs cannot lie on overlayfs, which is what a container's own disk is.
fn snapshotter(folder: &Path) -> Result<&'static str> {
    let kind = Cmd::words(["stat", "--file-system", "--format=%T"]).arg(folder).read()?;
    Ok(if kind == "overlayfs" { "native" } else { "overlayfs" })
}

/// Small programs that run kubectl, helm, or anything inside the cluster's network.
fn write_wrappers(cluster: &Cluster) -> Result<()> {
    let clients = &cluster.parts.clients;
    let kubeconfig = cluster.instance.path("admin.kubeconfig");
    let enter = in_network_of(&cluster.instance, 0).join(" ");
    let wrapped = [
        ("kubectl", format!("{} \"$@\"", clients.kubectl.display())),
        ("helm", format!("{} \"$@\"", clients.helm.display())),
        ("enter", "\"$@\"".to_owned()),
    ];
    fs::create_dir_all(cluster.instance.path("bin"))?;
    for (name, command) in wrapped {
        let path = cluster.instance.path("bin").join(name);
        let text = format!("#!/bin/sh\nexport KUBECONFIG={}\nexec {enter} {command}\n", kubeconfig.display());
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn start_control_plane(cluster: &Cluster) -> Result<()> {
    let deadline = Deadline::after(CONTROL_PLANE_LIMIT);
    for name in ["containerd-0", "containerd-1", "etcd", "kube-apiserver"] {
        cluster.start(name)?;
    }
    thread::scope(|scope| {
        let images = scope.spawn(|| {
            cluster.wait_for_containerd(deadline)?;
            cluster.load_images(&[])
        });
        cluster.explain(wait_for_api(cluster, deadline), &["etcd", "kube-apiserver"])?;
        for name in ["kube-controller-manager", "kube-scheduler", "coredns"] {
            cluster.start(name)?;
        }
        let loaded = images.join().unwrap_or_else(|_| bail!("loading images panicked"));
        cluster.explain(loaded, &["containerd-0", "containerd-1"]).map(drop)
    })
}

fn wait_for_api(cluster: &Cluster, deadline: Deadline) -> Result<()> {
    let ask = cluster.kubectl(["get", "--raw", "/readyz", "--request-timeout=5s"]);
    deadline.wait("the API server is ready", Duration::from_millis(300), || {
        let dead = cluster.missing_components();
        if let Some(name) =
            ["etcd", "kube-apiserver"].iter().find(|name| dead.iter().any(|dead| dead == *name))
        {
            bail!("{name} ended");
        }
        let asked = ask.attempt()?;
        Ok(if asked.status.success() { Ok(()) } else { Err(asked.tail()) })
    })
}

fn start_nodes(cluster: &Cluster) -> Result<()> {
    let deadline = Deadline::after(NODES_LIMIT);
    for node in 0..NODES {
        cluster.start(&format!("kubelet-{node}"))?;
        cluster.start(&format!("kube-proxy-{node}"))?;
    }
    let registered = deadline.wait("the nodes are registered", Duration::from_millis(300), || {
        let names = cluster.kubectl(["get", "nodes", "--output=name"]).read()?;
        Ok(if names.lines().count() == NODES { Ok(()) } else { Err(format!("only {names:?}")) })
    });
    let ready =
        registered.and_then(|()| cluster.wait_for(deadline.left(), "condition=Ready", &["node", "--all"]));
    cluster.explain(ready, &["kubelet-0", "kubelet-1"])?;
    for node in 0..NODES {
        cluster.set_capacity(&node_name(node), "nvidia.com/gpu", GPUS_PER_NODE)?;
    }
    let account = cluster.service_account("default", deadline);
    cluster.explain(account, &["kube-controller-manager"])
}

fn wait_for_dns(cluster: &Cluster) -> Result<()> {
    let server = cluster.addresses.node(0).to_string();
    let ask = Cmd::words(["busybox", "nslookup", "kubernetes.default.svc.cluster.local", &server])
        .limit(Duration::from_secs(10))
        .behind(on_node(&cluster.instance, 1));
    let answered =
        Deadline::after(Duration::from_secs(30)).wait("DNS answers", Duration::from_millis(300), || {
            let asked = ask.attempt()?;
            Ok(if asked.status.success() { Ok(()) } else { Err(asked.tail()) })
        });
    cluster.explain(answered, &["coredns"])
}

/// How a person goes on by hand.
pub fn how_to_reach(cluster: &Cluster, down: &str) -> String {
    let bin = cluster.instance.path("bin");
    format!(
        "\nIts network can be entered from this machine only. Reach it by\n  \
         export PATH={bin}:$PATH        # kubectl and helm of this cluster; no KUBECONFIG needed\n  \
         {bin}/enter curl http://…     # anything else inside its network\n\
         or by hand:\n  \
         export KUBECONFIG={kubeconfig}\n  \
         {enter} kubectl get nodes\n\
         Take it down by\n  {down}",
        bin = bin.display(),
        kubeconfig = cluster.instance.path("admin.kubeconfig").display(),
        enter = in_network_of(&cluster.instance, 0).join(" "),
    )
}
