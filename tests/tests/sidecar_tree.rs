//! The sidecar stays small: nothing that talks to Kubernetes is in its tree.

use std::process::Command;

#[test]
fn the_sidecars_tree_holds_no_kubernetes_client() {
    let cargo = env!("CARGO");
    let mut tree = Command::new(cargo);
    tree.args(["tree", "--offline", "-p", "corral-sidecar", "-e", "normal", "--prefix", "none"]);
    tree.current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = tree.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let names: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains(&"corral-limiter") && names.contains(&"hyper"), "{text}");
    for banned in ["kube", "kube-client", "kube-core", "kube-runtime", "k8s-openapi", "schemars", "openssl"] {
        assert!(!names.contains(&banned), "{banned} is in the sidecar's tree");
    }
}
