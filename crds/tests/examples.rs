//! Every example is a file that works: read without a word of complaint, and compiled.
#![expect(clippy::unwrap_used, reason = "a helper of tests may panic as a test may")]

use std::{fs, path::PathBuf};

use corral_crds::standalone;

fn examples() -> Vec<PathBuf> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_example_compiles() {
    for path in examples() {
        let read = standalone::read(&fs::read_to_string(&path).unwrap(), 1);
        assert!(read.is_ok(), "{}: {}", path.display(), read.unwrap_err());
    }
}

#[test]
fn every_example_says_what_it_is_for() {
    for path in examples() {
        assert!(fs::read_to_string(&path).unwrap().starts_with("# "), "{}", path.display());
    }
}

#[test]
fn all_examples_together_are_one_file() {
    let texts: Vec<_> = examples().iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let read = standalone::read(&texts.join("---\n"), 1).unwrap();
    assert_eq!(read.num_parallel, 4);
    assert_eq!(read.doc.limits.len(), 5);
}
