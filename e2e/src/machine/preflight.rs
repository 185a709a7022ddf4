//! Whether a cluster can run here, said in one line when it cannot.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::elsewhere::OTHER_WAYS;

/// Fails with one line unless this machine is of the one architecture that the cached parts are for, and we are root.
pub fn check() -> Result<()> {
    ensure!(cfg!(target_arch = "x86_64"), "A local cluster needs an x86-64 machine. {OTHER_WAYS}");
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
