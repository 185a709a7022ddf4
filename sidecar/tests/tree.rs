//! What the sidecar's binary is made of.

use std::collections::BTreeSet;
use std::process::Command;

/// Kubernetes and its schemas, so that the image stays small and a pool pod needs no API token; TLS, which it does not
/// speak; HTTP/2, a class of attacks that Ollama does not need.
const FORBIDDEN: [&str; 8] =
    ["kube", "kube-client", "k8s-openapi", "schemars", "openssl", "ring", "rustls", "h2"];

#[test]
fn the_sidecar_is_built_without_kubernetes_tls_and_http2() {
    let args = ["tree", "--package", "corral-sidecar", "--edges", "normal", "--prefix", "none", "--offline"];
    let output = Command::new(env!("CARGO")).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let tree: BTreeSet<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(tree.contains("hyper"), "{tree:?}");
    let found: Vec<_> = FORBIDDEN.iter().filter(|name| tree.contains(*name)).collect();
    assert!(found.is_empty(), "{found:?}");
}
