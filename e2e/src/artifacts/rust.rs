//! Our own binaries, static, as a release has them.

use std::fs::{self, DirEntry};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::machine::cache::{Cache, digest, remove};
use crate::machine::command::Cmd;
use crate::machine::console::{long_step, step};
use crate::machine::settings::Settings;

/// glibc, not musl, whose allocator and memcpy cost the proxy a good part of its speed.
const TARGET: &str = "x86_64-unknown-linux-gnu";
const BUILD_LIMIT: Duration = Duration::from_mins(30);

/// A binary that becomes an image of its own, from `images/<name>.Dockerfile`.
#[derive(Debug, Clone, Copy)]
pub struct Binary {
    /// The package and its binary: `corral-<name>`.
    pub package: &'static str,
    /// Its Dockerfile, from the repository's root.
    pub dockerfile: &'static str,
}

/// All of them. Each is built with `-p`, or cargo would unify into it the features that another one asks for.
pub const BINARIES: &[Binary] = &[
    Binary { package: "corral-operator", dockerfile: "images/operator.Dockerfile" },
    Binary { package: "corral-sidecar", dockerfile: "images/sidecar.Dockerfile" },
];

/// Builds a binary and gives its path.
pub fn build(binary: Binary, cache: &Cache, settings: &Settings) -> Result<PathBuf> {
    let target = target_folder(cache, settings, "release")?;
    let what = format!("building {} (static release)", binary.package);
    let cold = !target.join(TARGET).exists();
    let work = || {
        Cmd::words(["cargo", "build", "--quiet", "--release", "--locked", "--target", TARGET])
            .args(["--package", binary.package, "--bin", binary.package])
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .env("CARGO_TARGET_DIR", &target)
            .dir(&settings.repository)
            .limit(BUILD_LIMIT)
            .run()
    };
    if cold { long_step(&what, "1 to 4 min the first time", work) } else { step(&what, work) }?;
    Ok(target.join(TARGET).join("release").join(binary.package))
}

/// A target folder that all checkouts share, named by the compiler; those that nobody uses any more are dropped.
pub fn target_folder(cache: &Cache, settings: &Settings, profile: &str) -> Result<PathBuf> {
    let compiler = Cmd::words(["rustc", "--version", "--verbose"]).dir(&settings.repository).read()?;
    let id = format!("target-{profile}-{}", digest([compiler]));
    cache.drop_stale(&id)?;
    let folder = cache.folder(&id)?;
    forget_other_checkout(&folder, &settings.repository)?;
    Ok(folder)
}

/// Cargo takes a source for unchanged by its time alone, and two checkouts call their crates by the same names: what
/// another one built of ours is built again. What it built of our dependencies stays.
fn forget_other_checkout(target: &Path, repository: &Path) -> Result<()> {
    let (note, here) = (target.join("checkout"), repository.as_os_str().as_encoded_bytes());
    if fs::read(&note).is_ok_and(|there| there == here) {
        return Ok(());
    }
    for profile in ["debug", "release", "x86_64-unknown-linux-gnu/release"] {
        let Ok(entries) = fs::read_dir(target.join(profile).join(".fingerprint")) else { continue };
        let ours = |entry: &DirEntry| entry.file_name().to_string_lossy().starts_with("corral-");
        for entry in entries.filter_map(Result::ok).filter(ours) {
            remove(&entry.path())?;
        }
    }
    Ok(fs::write(note, here)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_checkout_built_of_our_crates_is_built_again() {
        let target = std::env::temp_dir().join(format!("corral-target-{}", std::process::id()));
        let prints = target.join("debug/.fingerprint");
        let (ours, theirs) = (prints.join("corral-wire-1"), prints.join("serde-1"));
        let build = || [&ours, &theirs].map(|print| fs::create_dir_all(print).unwrap());
        build();
        forget_other_checkout(&target, Path::new("/a")).unwrap();
        assert!(!ours.exists() && theirs.exists());
        build();
        forget_other_checkout(&target, Path::new("/a")).unwrap();
        assert!(ours.exists(), "the same checkout again");
        forget_other_checkout(&target, Path::new("/b")).unwrap();
        assert!(!ours.exists());
        remove(&target).unwrap();
    }
}
