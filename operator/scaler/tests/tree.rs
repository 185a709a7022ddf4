//! What the scaler is made of.

use std::collections::BTreeSet;
use std::process::Command;

/// It decides, and does nothing: whatever talks, waits or looks at a clock is for those who call it.
const FORBIDDEN: [&str; 9] =
    ["kube", "kube-client", "k8s-openapi", "tokio", "futures", "hyper", "tracing", "jiff", "getrandom"];

#[test]
fn the_scaler_is_built_without_kubernetes_and_without_anything_that_waits() {
    let args = ["tree", "--package", "corral-scaler", "--edges", "normal", "--prefix", "none", "--offline"];
    let output = Command::new(env!("CARGO")).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let tree: BTreeSet<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(tree.contains("corral-wire"), "{tree:?}");
    let found: Vec<_> = FORBIDDEN.iter().filter(|name| tree.contains(*name)).collect();
    assert!(found.is_empty(), "{found:?}");
}
