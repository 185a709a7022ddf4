//! The processes that make a cluster, and how each is started.

use anyhow::{Context, Result};

use super::addresses::{AddressPlan, NODES, node_name};
use super::audit;
use super::instance::Instance;
use super::namespaces::on_node;
use super::processes::{self, Process};
use crate::artifacts::Parts;
use crate::machine::command::Cmd;

/// A process of the cluster.
#[derive(Debug, Clone)]
pub struct Component {
    /// Its name: of its record, its log, and for people.
    pub name: String,
    /// The node that it runs on.
    pub node: usize,
    words: Vec<String>,
}

impl Component {
    fn new(name: &str, node: usize, words: Vec<String>) -> Self {
        Self { name: name.to_owned(), node, words }
    }

    /// Starts it in the background.
    pub fn start(&self, instance: &Instance) -> Result<Process> {
        processes::start(instance, &self.name, &Cmd::words(&self.words).behind(on_node(instance, self.node)))
    }
}

/// The component of this name.
pub fn named(all: &[Component], name: &str) -> Result<Component> {
    let found = all.iter().find(|component| component.name == name);
    found.cloned().with_context(|| format!("there is no component `{name}`"))
}

/// All of them, in the order in which they are started.
pub fn all(instance: &Instance, plan: AddressPlan, parts: &Parts) -> Vec<Component> {
    let mut list: Vec<Component> = (0..NODES).map(|node| containerd(instance, node)).collect();
    list.extend(control_plane(instance, plan, parts));
    list.push(coredns(instance, parts));
    for node in 0..NODES {
        list.push(kubelet(instance, plan, parts, node));
        list.push(kube_proxy(instance, parts, node));
    }
    list
}

fn words<const N: usize>(words: [String; N]) -> Vec<String> {
    words.into()
}

fn containerd(instance: &Instance, node: usize) -> Component {
    let config = instance.node(node).join("containerd.toml").display().to_string();
    Component::new(
        &format!("containerd-{node}"),
        node,
        words(["containerd".into(), "--config".into(), config]),
    )
}

fn control_plane(instance: &Instance, plan: AddressPlan, parts: &Parts) -> Vec<Component> {
    let program = |name: &str| parts.kubernetes.join(name).display().to_string();
    let file = |name: &str| instance.path(name).display().to_string();
    let etcd = words([
        "etcd".into(),
        format!("--data-dir={}", file("etcd")),
        "--listen-client-urls=http://127.0.0.1:2379".into(),
        "--advertise-client-urls=http://127.0.0.1:2379".into(),
        "--listen-peer-urls=http://127.0.0.1:2380".into(),
    ]);
    let controller_manager = words([
        program("kube-controller-manager"),
        format!("--kubeconfig={}", file("kube-controller-manager.kubeconfig")),
        format!("--root-ca-file={}", file("pki/ca.crt")),
        format!("--service-account-private-key-file={}", file("pki/service-account.key")),
        "--use-service-account-credentials".into(),
        "--leader-elect=false".into(),
        "--bind-address=127.0.0.1".into(),
        "--flex-volume-plugin-dir=/var/lib/kubelet/volume-plugins".into(),
        // A story with a HorizontalPodAutoscaler waits for several rounds of it; 15 s in life.
        "--horizontal-pod-autoscaler-sync-period=5s".into(),
    ]);
    let scheduler = words([
        program("kube-scheduler"),
        format!("--kubeconfig={}", file("kube-scheduler.kubeconfig")),
        "--leader-elect=false".into(),
        "--bind-address=127.0.0.1".into(),
    ]);
    vec![
        Component::new("etcd", 0, etcd),
        Component::new("kube-apiserver", 0, api_server(instance, plan, parts)),
        Component::new("kube-controller-manager", 0, controller_manager),
        Component::new("kube-scheduler", 0, scheduler),
    ]
}

fn api_server(instance: &Instance, plan: AddressPlan, parts: &Parts) -> Vec<String> {
    let pki = |name: &str| instance.path("pki").join(name).display().to_string();
    let address = plan.node(0);
    words([
        parts.kubernetes.join("kube-apiserver").display().to_string(),
        "--etcd-servers=http://127.0.0.1:2379".into(),
        format!("--advertise-address={address}"),
        format!("--bind-address={address}"),
        "--secure-port=6443".into(),
        format!("--service-cluster-ip-range={}", plan.services()),
        format!("--tls-cert-file={}", pki("apiserver.crt")),
        format!("--tls-private-key-file={}", pki("apiserver.key")),
        format!("--client-ca-file={}", pki("ca.crt")),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        format!("--service-account-key-file={}", pki("service-account.pub")),
        format!("--service-account-signing-key-file={}", pki("service-account.key")),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged=true".into(),
        format!("--kubelet-client-certificate={}", pki("admin.crt")),
        format!("--kubelet-client-key={}", pki("admin.key")),
        "--kubelet-preferred-address-types=InternalIP".into(),
        // What API services of others, such as metrics adapters, need to trust us.
        format!("--requestheader-client-ca-file={}", pki("ca.crt")),
        "--requestheader-allowed-names=front-proxy".into(),
        "--requestheader-username-headers=X-Remote-User".into(),
        "--requestheader-group-headers=X-Remote-Group".into(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
        format!("--proxy-client-cert-file={}", pki("front-proxy.crt")),
        format!("--proxy-client-key-file={}", pki("front-proxy.key")),
        format!("--audit-policy-file={}", instance.path(audit::POLICY).display()),
        format!("--audit-log-path={}", instance.path(audit::LOG).display()),
    ])
}

fn coredns(instance: &Instance, parts: &Parts) -> Component {
    let corefile = instance.path("Corefile").display().to_string();
    Component::new("coredns", 0, words([parts.coredns.display().to_string(), "-conf".into(), corefile]))
}

fn kubelet(instance: &Instance, plan: AddressPlan, parts: &Parts, node: usize) -> Component {
    let command = words([
        parts.kubernetes.join("kubelet").display().to_string(),
        format!("--config={}", instance.node(node).join("kubelet.yaml").display()),
        format!("--kubeconfig={}", instance.path(&format!("{}.kubeconfig", node_name(node))).display()),
        format!("--hostname-override={}", node_name(node)),
        format!("--node-ip={}", plan.node(node)),
    ]);
    Component::new(&format!("kubelet-{node}"), node, command)
}

fn kube_proxy(instance: &Instance, parts: &Parts, node: usize) -> Component {
    let command = words([
        parts.kubernetes.join("kube-proxy").display().to_string(),
        format!("--config={}", instance.path("kube-proxy.yaml").display()),
        format!("--hostname-override={}", node_name(node)),
    ]);
    Component::new(&format!("kube-proxy-{node}"), node, command)
}
