//! The code for KEDA's interface is what comes of `proto/externalscaler.proto`. No protoc is asked, and what ships needs none
//! of the generators.
#![cfg(test)]

use std::fs;
use std::path::{Path, PathBuf};

const INTERFACE: &str = "externalscaler.proto";

fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn committed() -> PathBuf {
    here().join("src/keda/externalscaler.rs")
}

fn generated(folder: &Path) -> String {
    let interface = protox::compile([INTERFACE], [here().join("proto")]).unwrap();
    tonic_prost_build::configure()
        .btree_map(".")
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .out_dir(folder)
        .compile_fds(interface)
        .unwrap();
    fs::read_to_string(folder.join("externalscaler.rs")).unwrap()
}

#[test]
fn the_code_is_that_of_the_interface() {
    let folder = tempfile::tempdir().unwrap();
    let is = fs::read_to_string(committed()).unwrap();
    let again = "run `cargo test -p corral-operator --test keda_interface -- --ignored`";
    assert!(is == generated(folder.path()), "{again}");
}

#[test]
#[ignore = "writes the code anew"]
fn the_code_is_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(committed(), generated(folder.path())).unwrap();
    assert!(committed().is_file());
}
