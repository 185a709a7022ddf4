//! promtool, which knows what Prometheus makes of a metric: taken out of Debian's package, whose server is not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::machine::cache::Cache;
use crate::machine::command::Cmd;
use crate::machine::console::long_step;

/// The binary.
pub fn fetch(cache: &Cache) -> Result<PathBuf> {
    let place = cache.entry("promtool-debian", check, |folder| {
        long_step("fetching promtool", "28 MB the first time", || download(folder))
    })?;
    Ok(place.join("promtool"))
}

fn download(folder: &Path) -> Result<()> {
    let download = Cmd::words(["apt-get", "download", "--quiet", "prometheus"]).dir(folder);
    let download = download.limit(Duration::from_mins(5));
    if download.attempt()?.status.success() {
        return unpack(folder);
    }
    // What apt knows of the archive may be older than the archive.
    Cmd::words(["apt-get", "update", "--quiet"]).limit(Duration::from_mins(3)).run()?;
    download.run()?;
    unpack(folder)
}

fn unpack(folder: &Path) -> Result<()> {
    let package = fs::read_dir(folder)?.next().context("apt-get downloaded nothing")??.path();
    Cmd::words(["dpkg-deb", "--extract"]).arg(&package).arg("content").dir(folder).run()?;
    fs::rename(folder.join("content/usr/bin/promtool"), folder.join("promtool"))?;
    fs::remove_dir_all(folder.join("content"))?;
    Ok(fs::remove_file(package)?)
}

fn check(folder: &Path) -> Result<()> {
    let said = Cmd::new(folder.join("promtool")).arg("--version").run()?;
    let said = format!("{}{}", said.out, said.err);
    ensure!(said.contains("promtool, version"), "promtool says `{}`", said.trim());
    Ok(())
}
