//! Without features the crate brings no Kubernetes client: the sidecar's image and its attack surface depend on it.
#![expect(clippy::unwrap_used, reason = "a helper of tests may panic as a test may")]

use std::process::Command;

fn tree(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--edges", "normal", "--prefix", "none", "--package", "corral-crds"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn names(tree: &str) -> Vec<&str> {
    tree.lines().filter_map(|line| line.split_whitespace().next()).collect()
}

#[test]
fn the_plain_build_holds_no_kubernetes_client() {
    let tree = tree(&[]);
    let heavy =
        ["kube", "kube-core", "kube-client", "k8s-openapi", "schemars", "tokio", "hyper", "rustls", "regex"];
    assert_eq!(names(&tree).into_iter().find(|name| heavy.contains(name)), None);
}

#[test]
fn the_feature_brings_it() {
    let tree = tree(&["--features", "kube"]);
    assert!(names(&tree).contains(&"k8s-openapi"));
}
