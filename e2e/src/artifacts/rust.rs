//! Our own binaries, static, as a release has them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::machine::cache::{Cache, digest};
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

/// The target folder of this checkout, named by compiler and place; those that nobody uses any more are dropped.
///
/// Not shared between checkouts: cargo takes a source for unchanged by its time alone, and calls the crates of two
/// checkouts by the same names.
pub fn target_folder(cache: &Cache, settings: &Settings, profile: &str) -> Result<PathBuf> {
    let compiler = Cmd::words(["rustc", "--version", "--verbose"]).dir(&settings.repository).read()?;
    let place = settings.repository.as_os_str().as_encoded_bytes();
    let id = format!("target-{profile}-{}", digest([compiler.as_bytes(), place]));
    cache.drop_stale(&id)?;
    cache.folder(&id)
}
