//! Every example is a file that works: read as a sidecar reads its files, without a word of complaint, and enforced.
#![expect(clippy::unwrap_used, reason = "a helper of tests may panic as a test may")]

use std::{fs, num::NonZeroU32, path::PathBuf};

use corral_sidecar::config::SlotSettings;
use corral_sidecar::plan::files::{FileError, PolicyFiles, Standalone};
use corral_wire::KeyDigester;

fn examples() -> Vec<PathBuf> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn open(paths: Vec<PathBuf>) -> Result<Standalone, FileError> {
    let slots = SlotSettings { per_model: None, loaded_models: NonZeroU32::MIN };
    PolicyFiles::open(paths, slots, KeyDigester::derive(&[7; 32])).map(|(_, standalone)| standalone)
}

#[test]
fn every_example_works_alone() {
    for path in examples() {
        let opened = open(vec![path]);
        assert!(opened.is_ok(), "{}", opened.unwrap_err());
    }
}

#[test]
fn every_example_says_what_it_is_for() {
    for path in examples() {
        assert!(fs::read_to_string(&path).unwrap().starts_with("# "), "{}", path.display());
    }
}
