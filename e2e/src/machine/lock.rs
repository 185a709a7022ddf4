//! Locks between runs of the harness: a file lock, which the kernel lets go of when its holder dies.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::console::say;

/// Held until dropped, or until the process ends in any way.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "holds the lock while it lives")] File);

impl Lock {
    /// Takes the lock, waiting for another run that has it; says so once when it has to wait.
    pub fn take(path: &Path, what: &str) -> Result<Self> {
        if let Some(lock) = Self::try_take(path)? {
            return Ok(lock);
        }
        say(format!("  waiting for another run that holds {what}"));
        let file = open(path)?;
        file.lock().with_context(|| format!("locking {}", path.display()))?;
        Ok(Self(file))
    }

    /// Takes the lock if nobody has it.
    pub fn try_take(path: &Path) -> Result<Option<Self>> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => bail!("locking {}: {error}", path.display()),
        }
    }
}

fn open(path: &Path) -> Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    options.open(path).with_context(|| format!("opening {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_waits_until_the_first_lets_go() {
        let folder = std::env::temp_dir().join(format!("corral-lock-{}", std::process::id()));
        let path = folder.join("x.lock");
        let first = Lock::try_take(&path).unwrap().unwrap();
        assert!(Lock::try_take(&path).unwrap().is_none());
        drop(first);
        assert!(Lock::try_take(&path).unwrap().is_some());
        fs::remove_dir_all(folder).unwrap();
    }
}
