//! Configuration files of the components, rendered from the address plan: no file is read, nothing is run.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::addresses::{AddressPlan, node_name};
use super::corral::{NAMESPACE, RELEASE};
use super::instance::Instance;
use crate::artifacts::images::PAUSE;

/// A configuration file as YAML: kubelet and kube-proxy take a file that begins with a brace for JSON of another kind.
fn yaml(value: &Value) -> Result<String> {
    Ok(serde_yaml::to_string(value)?)
}

/// How `user` reaches the API server.
pub fn kubeconfig(instance: &Instance, plan: AddressPlan, user: &str) -> Result<String> {
    let pki = |file: String| instance.path("pki").join(file);
    yaml(&json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": instance.name,
        "clusters": [{ "name": instance.name, "cluster": {
            "server": plan.api_server(),
            "certificate-authority": pki("ca.crt".to_owned()),
        }}],
        "users": [{ "name": user, "user": {
            "client-certificate": pki(format!("{user}.crt")),
            "client-key": pki(format!("{user}.key")),
        }}],
        "contexts": [{ "name": instance.name, "context": { "cluster": instance.name, "user": user } }],
    }))
}

/// What the API server notes: the operator's writes and nothing else.
pub fn audit_policy() -> Result<String> {
    let operator = format!("system:serviceaccount:{NAMESPACE}:{RELEASE}");
    yaml(&json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            { "level": "Metadata", "users": [operator], "verbs": ["create", "update", "patch", "delete", "deletecollection"] },
            { "level": "None" },
        ],
    }))
}

/// A node's kubelet.
pub fn kubelet(instance: &Instance, plan: AddressPlan, node: usize) -> Result<String> {
    let pki = |file: String| instance.path("pki").join(file);
    yaml(&json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": plan.node(node),
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": false },
            "x509": { "clientCAFile": pki("ca.crt".to_owned()) },
        },
        "authorization": { "mode": "AlwaysAllow" },
        "tlsCertFile": pki(format!("{}.crt", node_name(node))),
        "tlsPrivateKeyFile": pki(format!("{}.key", node_name(node))),
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "cgroupDriver": "cgroupfs",
        // Two kubelets under one root would remove each other's pods.
        "cgroupRoot": format!("/{}", instance.cgroup(node)),
        "failCgroupV1": false,
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        "resolvConf": "",
        "clusterDNS": [plan.node(0)],
        "clusterDomain": "cluster.local",
        // Stories kill containers on purpose: they come back after seconds instead of minutes.
        "featureGates": { "KubeletCrashLoopBackOffMax": true },
        "crashLoopBackOff": { "maxContainerRestartPeriod": "1s" },
        // Mounted Secrets of a pod that nothing else wakes are refreshed this often; one minute in life.
        "syncFrequency": "10s",
        // A machine that is short of disk still runs its stories; images were imported and cannot be pulled again.
        "evictionHard": {
            "memory.available": "100Mi", "nodefs.available": "50Mi", "imagefs.available": "50Mi",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    }))
}

/// kube-proxy, the same on every node.
pub fn kube_proxy(instance: &Instance, plan: AddressPlan) -> Result<String> {
    yaml(&json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": plan.pods().to_string(),
        "clientConnection": { "kubeconfig": instance.path("kube-proxy.kubeconfig") },
        // The size of the connection table belongs to the machine.
        "conntrack": { "maxPerCore": 0, "min": 0 },
    }))
}

/// A node's containerd. Its folders are the usual ones, of which each node has its own.
pub fn containerd(instance: &Instance, node: usize, snapshotter: &str) -> String {
    let cni = instance.node(node).join("cni");
    format!(
        r#"version = 2

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  # Where lowering oom_score_adj is not allowed, runc would refuse to start anything.
  restrict_oom_score_adj = true
  disable_apparmor = true

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{}"
"#,
        cni.display()
    )
}

/// How a node's pods are wired: each by a cable of its own, so that all their traffic is routed and seen by
/// kube-proxy's rules, whatever the machine's bridge settings are.
pub fn cni(plan: AddressPlan, node: usize) -> Result<String> {
    let list = json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [{
            "type": "ptp",
            "ipMasq": true,
            "ipam": {
                "type": "host-local",
                "dataDir": "/run/cni",
                "ranges": [[{ "subnet": plan.pods_of(node).to_string() }]],
                "routes": [{ "dst": "0.0.0.0/0" }],
            },
        }],
    });
    Ok(serde_json::to_string_pretty(&list)?)
}

/// Cluster DNS. Any name outside the cluster does not exist, and is said not to at once.
pub fn corefile(plan: AddressPlan, kubeconfig: &Path) -> String {
    let address = plan.node(0);
    format!(
        "cluster.local:53 in-addr.arpa:53 {{\n  bind {address}\n  errors\n  kubernetes cluster.local in-addr.arpa {{\n    \
         kubeconfig {}\n    pods insecure\n    ttl 5\n  }}\n}}\n.:53 {{\n  bind {address}\n  template ANY ANY {{\n    \
         rcode NXDOMAIN\n  }}\n}}\n",
        kubeconfig.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::settings::Settings;

    fn instance() -> Instance {
        let [cache, state, repository] = ["/cache", "/state", "/repository"].map(Into::into);
        Instance::new(&Settings { cache, state, repository }, "demo").unwrap()
    }

    fn plan() -> AddressPlan {
        AddressPlan::new(1).unwrap()
    }

    #[test]
    fn kubelet_configuration_is_as_reviewed() {
        insta::assert_snapshot!(kubelet(&instance(), plan(), 1).unwrap());
    }

    #[test]
    fn audit_policy_is_as_reviewed() {
        insta::assert_snapshot!(audit_policy().unwrap());
    }

    #[test]
    fn kube_proxy_configuration_is_as_reviewed() {
        insta::assert_snapshot!(kube_proxy(&instance(), plan()).unwrap());
    }

    #[test]
    fn containerd_configuration_is_as_reviewed() {
        insta::assert_snapshot!(containerd(&instance(), 0, "overlayfs"));
    }

    #[test]
    fn pod_network_configuration_is_as_reviewed() {
        insta::assert_snapshot!(cni(plan(), 1).unwrap());
    }

    #[test]
    fn dns_configuration_is_as_reviewed() {
        insta::assert_snapshot!(corefile(plan(), Path::new("/state/clusters/demo/admin.kubeconfig")));
    }

    #[test]
    fn a_kubeconfig_names_the_users_own_certificate() {
        insta::assert_snapshot!(kubeconfig(&instance(), plan(), "admin").unwrap());
    }

    #[test]
    fn no_configuration_begins_with_a_brace() {
        for text in [kubelet(&instance(), plan(), 0).unwrap(), kube_proxy(&instance(), plan()).unwrap()] {
            assert!(!text.trim_start().starts_with('{'), "{text}");
        }
    }
}
