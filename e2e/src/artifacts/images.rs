//! Container images without a registry: built from Dockerfiles, kept as archives that a node's containerd imports.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::rust::{self, BINARIES, Binary};
use super::{engine, go, rootfs};
use crate::machine::cache::{Cache, digest};
use crate::machine::command::Cmd;
use crate::machine::console::step;
use crate::machine::settings::Settings;

/// The name of the image that holds a pod's namespaces.
pub const PAUSE: &str = "corral.test/pause:1";
/// The name of the client image.
pub const BUSYBOX: &str = "corral.test/busybox:1";
/// The name of the Ollama image.
pub const OLLAMA: &str = "corral.test/ollama:0.32.15";
/// The name of the image that answers a sidecar as an Ollama would, from files.
pub const SCRIPTED_OLLAMA: &str = "corral.test/scripted-ollama:1";
/// Applets of the client image that have a name of their own in `/bin`.
const APPLETS: [&str; 12] =
    ["sh", "cat", "echo", "env", "httpd", "ls", "nc", "nslookup", "sleep", "test", "wget", "kill"];

/// An image archive in the cache.
#[derive(Debug, Clone)]
pub struct Image {
    /// The name under which pods ask for it.
    pub name: String,
    /// The OCI archive.
    pub archive: PathBuf,
    /// Differs when its content may differ.
    pub id: String,
}

/// What an image is built from.
struct Recipe<'a> {
    name: &'a str,
    dockerfile: PathBuf,
    /// Tells apart contents that the Dockerfile does not.
    content: String,
}

/// Builds all images that are not there yet.
pub fn build_all(cache: &Cache, settings: &Settings) -> Result<Vec<Image>> {
    let mut images = vec![
        busybox(cache, settings, PAUSE, "pause")?,
        busybox(cache, settings, BUSYBOX, "busybox")?,
        busybox(cache, settings, SCRIPTED_OLLAMA, "scripted_ollama")?,
        ollama(cache, settings)?,
    ];
    for binary in BINARIES {
        images.push(own(*binary, cache, settings)?);
    }
    Ok(images)
}

/// The name of one of our own images, without its tag: that is a digest of the binary, so that another binary is another
/// image and reaches the pods.
pub fn own_repository(package: &str) -> String {
    format!("corral.test/{package}")
}

fn busybox(cache: &Cache, settings: &Settings, name: &str, file: &str) -> Result<Image> {
    let program = Path::new("/usr/bin/busybox");
    let dockerfile = settings.repository.join(format!("e2e/images/{file}.Dockerfile"));
    let content = digest([fs::read(program)?, APPLETS.join(" ").into_bytes()]);
    build(cache, &Recipe { name, dockerfile, content }, |context| {
        let root = context.join("root");
        rootfs::put(&root, program, "/bin/busybox")?;
        for library in rootfs::libraries(program, Path::new("/nowhere"))? {
            rootfs::put(&root, &library, &library.to_string_lossy())?;
        }
        rootfs::link_applets(&root, &APPLETS)
    })
}

fn ollama(cache: &Cache, settings: &Settings) -> Result<Image> {
    let server = go::ollama(cache, settings)?.join("ollama");
    let engine = engine::fetch(cache)?;
    let dockerfile = settings.repository.join("e2e/images/ollama.Dockerfile");
    let content = format!("{} {}", server.display(), engine.display());
    build(cache, &Recipe { name: OLLAMA, dockerfile, content }, |context| {
        ollama_root(&context.join("root"), &server, &engine)
    })
}

fn ollama_root(root: &Path, server: &Path, engine: &Path) -> Result<()> {
    rootfs::put(root, server, "/bin/ollama")?;
    // Ollama looks for its engine here, from the place of its own binary.
    rootfs::put(root, &engine.join("llama-server"), "/lib/ollama/llama-server")?;
    for program in [server.to_owned(), engine.join("llama-server")] {
        for library in rootfs::libraries(&program, engine)? {
            rootfs::put(root, &library, &library_place(&library, engine))?;
        }
    }
    fs::create_dir_all(root.join("tmp"))?;
    Ok(fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?)
}

fn library_place(library: &Path, engine: &Path) -> String {
    let name = library.file_name().unwrap_or_default().to_string_lossy();
    if library.starts_with(engine) {
        format!("/lib/ollama/{name}")
    } else if name.starts_with("ld-linux") {
        format!("/lib64/{name}")
    } else {
        format!("/lib/x86_64-linux-gnu/{name}")
    }
}

fn own(binary: Binary, cache: &Cache, settings: &Settings) -> Result<Image> {
    let program = rust::build(binary, cache, settings)?;
    let dockerfile = settings.repository.join(binary.dockerfile);
    let content = digest([fs::read(&program)?]);
    let name = format!("{}:{content}", own_repository(binary.package));
    let image = build(cache, &Recipe { name: &name, dockerfile, content }, |context| {
        rootfs::put(context, &program, binary.package)
    })?;
    cache.drop_stale(&image.id)?;
    Ok(image)
}

/// `image-corral.test_ollama`, to which a digest is added that covers the tag.
fn kind(name: &str) -> String {
    format!("image-{}", name.split(':').next().unwrap_or(name).replace('/', "_"))
}

fn build(cache: &Cache, recipe: &Recipe<'_>, fill: impl FnOnce(&Path) -> Result<()>) -> Result<Image> {
    let id = format!(
        "{}-{}",
        kind(recipe.name),
        digest([recipe.name.into(), fs::read(&recipe.dockerfile)?, recipe.content.clone().into()])
    );
    let place = cache.entry(&id, check, |folder| {
        step(&format!("building image {}", recipe.name), || {
            let context = folder.join("context");
            fs::create_dir_all(&context)?;
            fill(&context)?;
            archive(recipe, &context, folder)?;
            Ok(fs::remove_dir_all(context)?)
        })
    })?;
    Ok(Image { name: recipe.name.to_owned(), archive: place.join("image.tar"), id })
}

/// Nothing in our Dockerfiles runs, so a build is a copy: no daemon, no network, no base image.
fn archive(recipe: &Recipe<'_>, context: &Path, folder: &Path) -> Result<()> {
    let storage = folder.join("storage");
    let buildah = || {
        Cmd::words(["buildah", "--storage-driver", "vfs", "--root"])
            .arg(storage.join("root"))
            .arg("--runroot")
            .arg(storage.join("run"))
            .limit(Duration::from_mins(5))
    };
    let timestamp =
        ["bud", "--quiet", "--isolation", "chroot", "--timestamp", "0", "--tag", recipe.name, "--file"];
    buildah().args(timestamp).arg(&recipe.dockerfile).arg(context).run()?;
    let target = format!("oci-archive:{}:{}", folder.join("image.tar").display(), recipe.name);
    buildah().args(["push", "--quiet", recipe.name]).arg(target).run()?;
    Ok(fs::remove_dir_all(storage)?)
}

fn check(folder: &Path) -> Result<()> {
    let listed = Cmd::words(["tar", "-tf"]).arg(folder.join("image.tar")).read()?;
    ensure!(listed.lines().any(|file| file == "index.json"), "an archive without an index");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_libraries_stay_with_it_and_the_interpreter_keeps_its_place() {
        let engine = Path::new("/cache/llama/bin");
        let place = |path: &str| library_place(Path::new(path), engine);
        assert_eq!(place("/cache/llama/bin/libggml.so.0"), "/lib/ollama/libggml.so.0");
        assert_eq!(place("/lib64/ld-linux-x86-64.so.2"), "/lib64/ld-linux-x86-64.so.2");
        assert_eq!(place("/usr/lib/x86_64-linux-gnu/libm.so.6"), "/lib/x86_64-linux-gnu/libm.so.6");
    }

    #[test]
    fn an_image_name_becomes_a_file_name() {
        assert_eq!(kind("corral.test/ollama:0.32.15"), "image-corral.test_ollama");
    }
}
