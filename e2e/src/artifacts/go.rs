//! Programs built from Go modules: Kubernetes, CoreDNS, Ollama.
//!
//! Each has a module of its own under `e2e/cluster/` that names the program as a tool; `go.sum` pins every source.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::machine::cache::{Cache, digest};
use crate::machine::command::Cmd;
use crate::machine::console::long_step;
use crate::machine::settings::Settings;

/// Generous: a cold build of Kubernetes on two busy cores.
const BUILD_LIMIT: Duration = Duration::from_mins(30);

struct Program {
    name: &'static str,
    version: &'static str,
    /// Folder under `e2e/cluster/`.
    module: &'static str,
    link_flags: &'static str,
    cgo: bool,
    usual: &'static str,
    /// Each binary with the arguments that make it print its version.
    binaries: &'static [(&'static str, &'static str)],
}

const KUBERNETES: Program = Program {
    name: "Kubernetes",
    version: "1.34.4",
    module: "k8s",
    // The version is what `kubectl version` and the chart's own check see.
    link_flags: "-X k8s.io/component-base/version.gitVersion=v1.34.4 -X k8s.io/component-base/version.gitMajor=1 \
                 -X k8s.io/component-base/version.gitMinor=34 -X k8s.io/client-go/pkg/version.gitVersion=v1.34.4",
    cgo: false,
    usual: "5 to 8 min the first time",
    binaries: &[
        ("kube-apiserver", "--version"),
        ("kube-controller-manager", "--version"),
        ("kube-scheduler", "--version"),
        ("kube-proxy", "--version"),
        ("kubelet", "--version"),
    ],
};

const COREDNS: Program = Program {
    name: "CoreDNS",
    version: "1.13.1",
    module: "coredns",
    link_flags: "",
    cgo: false,
    usual: "1 to 2 min the first time",
    binaries: &[("coredns", "-version")],
};

const OLLAMA: Program = Program {
    name: "Ollama",
    version: "0.32.15",
    module: "ollama",
    link_flags: "-X github.com/ollama/ollama/version.Version=0.32.15",
    // Without cgo it does not compile.
    cgo: true,
    usual: "1 to 2 min the first time",
    binaries: &[("ollama", "--version")],
};

/// The folder with the Kubernetes components.
pub fn kubernetes(cache: &Cache, settings: &Settings) -> Result<PathBuf> {
    build(&KUBERNETES, cache, settings)
}

/// The folder with CoreDNS.
pub fn coredns(cache: &Cache, settings: &Settings) -> Result<PathBuf> {
    build(&COREDNS, cache, settings)
}

/// The folder with Ollama's server.
pub fn ollama(cache: &Cache, settings: &Settings) -> Result<PathBuf> {
    build(&OLLAMA, cache, settings)
}

fn build(program: &Program, cache: &Cache, settings: &Settings) -> Result<PathBuf> {
    let module = settings.repository.join("e2e/cluster").join(program.module);
    let sums =
        fs::read(module.join("go.sum")).with_context(|| format!("{} has no go.sum", program.module))?;
    let recipe = digest([fs::read(module.join("go.mod"))?, sums, program.link_flags.into()]);
    let id = format!("{}-{}-{recipe}", program.module, program.version);
    cache.entry(
        &id,
        |folder| check(program, folder),
        |folder| {
            long_step(&format!("building {} {}", program.name, program.version), program.usual, || {
                compile(program, &module, folder)
            })
        },
    )
}

fn compile(program: &Program, module: &Path, folder: &Path) -> Result<()> {
    let mut target = folder.as_os_str().to_owned();
    target.push("/");
    Cmd::words(["go", "build", "-trimpath", "-buildvcs=false", "-ldflags"])
        .arg(format!("-s -w {}", program.link_flags))
        .arg("-o")
        .arg(target)
        .arg("tool")
        .env("CGO_ENABLED", if program.cgo { "1" } else { "0" })
        .env("GOFLAGS", "-mod=readonly")
        .dir(module)
        .limit(BUILD_LIMIT)
        .run()
        .map(drop)
}

fn check(program: &Program, folder: &Path) -> Result<()> {
    for (binary, argument) in program.binaries {
        // Ollama's client looks for a server and writes a key below HOME: it gets neither.
        let said = Cmd::new(folder.join(binary))
            .arg(argument)
            .env("HOME", "/nonexistent")
            .env("OLLAMA_HOST", "127.0.0.1:1")
            .run()?;
        let said = format!("{}{}", said.out, said.err);
        ensure!(said.contains(program.version), "{binary} says it is `{}`", said.trim());
    }
    Ok(())
}
