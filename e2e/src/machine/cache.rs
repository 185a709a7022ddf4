//! Folders that are built once and kept by version; a broken or half-built one heals itself.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::lock::Lock;

/// The cache of one machine, shared by all runs and checkouts.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// A cache in this folder, which is created when first needed.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The folder of the entry `id`, built if it is missing or fails `check`.
    ///
    /// `build` fills a fresh folder; only one that passes `check` takes its place under `id`. Runs at the same time
    /// wait for each other. What a killed build left is removed by the next one.
    pub fn entry(
        &self,
        id: &str,
        check: impl Fn(&Path) -> Result<()>,
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let _lock = Lock::take(&self.root.join("locks").join(format!("{id}.lock")), id)?;
        let place = self.root.join(id);
        if place.exists() && check(&place).is_ok() {
            touch(&place)?;
            return Ok(place);
        }
        let half_built = self.root.join("building").join(id);
        remove(&half_built)?;
        fs::create_dir_all(&half_built)?;
        build(&half_built).with_context(|| format!("building {id}"))?;
        check(&half_built).with_context(|| format!("{id} was built but does not work"))?;
        remove(&place)?;
        fs::rename(&half_built, &place).with_context(|| format!("moving {id} into place"))?;
        Ok(place)
    }

    /// A folder that tools of their own fill and check, such as cargo's target folder.
    pub fn folder(&self, id: &str) -> Result<PathBuf> {
        let place = self.root.join(id);
        fs::create_dir_all(&place)?;
        touch(&place)?;
        Ok(place)
    }

    /// Removes entries of the same kind as `keep` (its name up to the last `-`) that nobody has used for two hours:
    /// another checkout may be working with one of its own.
    pub fn drop_stale(&self, keep: &str) -> Result<()> {
        let Ok(entries) = fs::read_dir(&self.root) else { return Ok(()) };
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != keep && kind(&name) == kind(keep) && unused_since(&entry.path()) > STALE {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

const STALE: Duration = Duration::from_hours(2);

fn kind(id: &str) -> &str {
    id.rsplit_once('-').map_or(id, |(kind, _)| kind)
}

fn touch(folder: &Path) -> Result<()> {
    Ok(File::open(folder)?.set_modified(SystemTime::now())?)
}

fn unused_since(folder: &Path) -> Duration {
    let touched = fs::metadata(folder).and_then(|metadata| metadata.modified());
    touched.ok().and_then(|time| SystemTime::now().duration_since(time).ok()).unwrap_or_default()
}

/// Removes a folder with all in it; one that is not there is no error.
pub fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// A short name for what goes into a build: equal parts, equal name.
pub fn digest<P: AsRef<[u8]>>(parts: impl IntoIterator<Item = P>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        let part = part.as_ref();
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize()).get(..12).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use anyhow::bail;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("corral-cache-{name}-{}", std::process::id())))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn good(folder: &Path) -> Result<()> {
        if fs::read_to_string(folder.join("tool"))? == "works" { Ok(()) } else { bail!("broken") }
    }

    fn write(folder: &Path, text: &str) -> Result<()> {
        Ok(fs::write(folder.join("tool"), text)?)
    }

    #[test]
    fn an_entry_is_built_once() {
        let folder = Folder::new("once");
        let builds = Cell::new(0);
        for _ in 0..3 {
            let build = |to: &Path| {
                builds.set(builds.get() + 1);
                write(to, "works")
            };
            Cache::new(&folder.0).entry("tool-1", good, build).unwrap();
        }
        assert_eq!(builds.get(), 1);
    }

    #[test]
    fn a_broken_entry_is_built_again() {
        let folder = Folder::new("broken");
        let cache = Cache::new(&folder.0);
        let place = cache.entry("tool-1", good, |to| write(to, "works")).unwrap();
        write(&place, "trunca").unwrap();
        let place = cache.entry("tool-1", good, |to| write(to, "works")).unwrap();
        good(&place).unwrap();
    }

    #[test]
    fn what_a_killed_build_left_is_not_taken() {
        let folder = Folder::new("killed");
        let half = folder.0.join("building/tool-1");
        fs::create_dir_all(&half).unwrap();
        fs::write(half.join("leftover"), "").unwrap();
        let place = Cache::new(&folder.0).entry("tool-1", good, |to| write(to, "works")).unwrap();
        assert!(!place.join("leftover").exists());
    }

    #[test]
    fn a_build_that_fails_its_check_takes_no_place() {
        let folder = Folder::new("bad");
        let error = Cache::new(&folder.0).entry("tool-1", good, |to| write(to, "wrong")).unwrap_err();
        assert!(error.to_string().contains("does not work"), "{error}");
        assert!(!folder.0.join("tool-1").exists());
    }

    #[test]
    fn entries_that_nobody_uses_go_and_others_stay() {
        let folder = Folder::new("stale");
        let cache = Cache::new(&folder.0);
        for id in ["target-debug-old", "target-debug-busy", "target-debug-mine", "target-release-old"] {
            cache.folder(id).unwrap();
        }
        let yesterday = SystemTime::now() - Duration::from_hours(24);
        for id in ["target-debug-old", "target-release-old"] {
            File::open(folder.0.join(id)).unwrap().set_modified(yesterday).unwrap();
        }
        cache.drop_stale("target-debug-mine").unwrap();
        let mut left: Vec<_> =
            fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["target-debug-busy", "target-debug-mine", "target-release-old"]);
    }

    #[test]
    fn a_digest_keeps_parts_apart() {
        assert_ne!(digest(["ab", "c"]), digest(["a", "bc"]));
        assert_eq!(digest(["a"]).len(), 12);
    }
}
