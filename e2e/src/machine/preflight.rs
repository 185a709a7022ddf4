//! Whether a cluster can run here, said in one line when it cannot.

use std::path::Path;

use anyhow::{Result, ensure};

/// What to do instead, where a cluster of our own cannot run.
const OTHER_WAYS: &str = "Elsewhere: install charts/corral with Helm on a cluster you have, or run `corral-sidecar --policy policy.yaml` in front of an Ollama on this machine.";

/// Fails with one line unless this is a Linux machine, of the one architecture that the cached parts are for, and we are root.
pub fn check() -> Result<()> {
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64")),
        "A local cluster needs Linux on x86-64. {OTHER_WAYS}"
    );
    ensure!(
        rustix::process::geteuid().is_root(),
        "A local cluster needs root: it makes network namespaces, mounts and cgroups. {OTHER_WAYS}"
    );
    ensure!(
        Path::new("/usr/bin/apt-get").exists(),
        "A local cluster takes containerd, etcd and others from Debian's packages, and there is no apt-get here. {OTHER_WAYS}"
    );
    Ok(())
}
