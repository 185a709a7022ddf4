//! Root file systems for images: a program, and every shared library that it needs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::machine::command::Cmd;

/// Copies a file into a root file system, below `to` (absolute there), with the mode of a program.
pub fn put(root: &Path, file: &Path, to: &str) -> Result<()> {
    let place = root.join(to.trim_start_matches('/'));
    fs::create_dir_all(place.parent().context("a file lies in a folder")?)?;
    fs::copy(file, &place).with_context(|| format!("copying {}", file.display()))?;
    Ok(fs::set_permissions(&place, fs::Permissions::from_mode(0o755))?)
}

/// Makes `/bin/<applet>` for each applet of a busybox at `/bin/busybox`.
pub fn link_applets(root: &Path, applets: &[&str]) -> Result<()> {
    for applet in applets {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    Ok(())
}

/// The shared libraries that `program` loads, its interpreter among them; none for a static one. `own` is searched
/// first.
pub fn libraries(program: &Path, own: &Path) -> Result<Vec<PathBuf>> {
    let said = Cmd::new("ldd").arg(program).env("LD_LIBRARY_PATH", own).attempt()?;
    let told = said.status.success() || said.err.contains("not a dynamic executable");
    ensure!(told, "ldd {}: {}", program.display(), said.tail());
    Ok(parse_ldd(&said.out))
}

fn parse_ldd(text: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        let line = line.split(" (0x").next().unwrap_or_default();
        let path = line.rsplit("=> ").next().unwrap_or_default().trim();
        path.starts_with('/').then(|| PathBuf::from(path))
    };
    text.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interpreter_counts_as_a_library_and_the_kernels_page_does_not() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let paths = ["/lib/x86_64-linux-gnu/libm.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(parse_ldd(text), paths.map(PathBuf::from));
    }
}
