//! The pool's keys, mounted one file each; a file's content is the key, byte for byte.
//!
//! All of them verify. The one with the greatest file name signs, which is the newest where names count up; but only when
//! it has been here for a while. The kubelets of a pool bring a new key at different times, and whoever has not got it
//! yet believes nothing that it signs: until then the one before it does. By the same keys API
//! keys are recognised, and a plan may come that was made with a new one: so they are followed as the plan is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use corral_wire::{BadKey, PoolKeys};
use tracing::{debug, error};

use crate::core::Core;
use crate::plan::mount::{POLL_INTERVAL, read_bounded};

/// Two while one is rotated out, and some air.
const MAX_KEYS: usize = 8;
const MAX_KEY_BYTES: usize = 1024;

/// How long a kubelet may take to bring a changed Secret: its own look, once a minute, and what it keeps in mind.
const SPREADS_IN: Duration = Duration::from_mins(2);

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The folder cannot be read.
    #[error("cannot read keys in {0}: {1}")]
    Io(PathBuf, io::Error),
    /// One of them is none, or there is none.
    #[error(transparent)]
    Bad(#[from] BadKey),
}

/// Reads the keys in `dir`.
pub(crate) fn read(dir: &Path) -> Result<PoolKeys, KeyError> {
    let io = |error| KeyError::Io(dir.to_owned(), error);
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        // The kubelet's own links begin with dots.
        if !name.as_encoded_bytes().starts_with(b".") {
            files.push(name);
        }
    }
    files.sort_unstable_by(|a, b| b.cmp(a));
    files.truncate(MAX_KEYS);
    if let [newest, before, ..] = files.as_mut_slice()
        && is_new(&dir.join(&*newest))
    {
        std::mem::swap(newest, before);
    }
    let keys: Result<Vec<_>, _> =
        files.iter().map(|name| read_bounded(&dir.join(name), MAX_KEY_BYTES)).collect();
    Ok(PoolKeys::new(keys.map_err(io)?)?)
}

/// A mount is written anew with every change of it, so this is when the last key came or went. Both are well: whoever
/// signs with the one before for a little longer is believed by all.
fn is_new(file: &Path) -> bool {
    let written = fs::metadata(file).and_then(|about| about.modified());
    // A time that is still to come is no reason to wait for it.
    let age = written.ok().and_then(|written| written.elapsed().ok());
    age.is_some_and(|age| age < SPREADS_IN)
}

/// Recognises API keys by the keys in `dir` from now on. While they cannot be read it stays as it is.
pub fn recognise(dir: &Path, core: &Core) {
    match read(dir) {
        Ok(keys) => core.take_keys(&keys),
        Err(error) => debug!(%error, "API keys are recognised as before"),
    }
}

/// Follows the keys in `dir` until it is dropped.
pub async fn watch(dir: PathBuf, core: Arc<Core>) {
    loop {
        tokio::time::sleep(POLL_INTERVAL).await;
        let (dir, core) = (dir.clone(), Arc::clone(&core));
        if let Err(cause) = tokio::task::spawn_blocking(move || recognise(&dir, &core)).await {
            error!(%cause, "the keys of the pool are no longer watched");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use corral_wire::{Directive, PoolRef, Position, ServePermission};

    use super::*;

    fn directive() -> Directive {
        let pool = PoolRef { namespace: "llm".into(), name: "chat".into() };
        Directive { pool, plan: None, divisor: 1, serve: ServePermission::Wait, relief: false, retire: false }
    }

    fn written(path: &Path, ago: Duration) {
        let file = fs::File::options().append(true).open(path).unwrap();
        file.set_modified(std::time::SystemTime::now() - ago).unwrap();
    }

    #[test]
    fn the_newest_key_signs_when_all_have_it_and_all_verify() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("1"), [1; 32]).unwrap();
        fs::create_dir(dir.path().join("..data")).unwrap();
        let only = |byte| PoolKeys::new(vec![vec![byte; 32]]).unwrap();
        let signs = |byte| {
            let signed = read(dir.path()).unwrap().sign("uid", Position::default(), &directive()).unwrap();
            only(byte).open::<Directive>("uid", None, &signed).is_ok()
        };
        assert!(signs(1), "there is no other");
        fs::write(dir.path().join("2"), [2; 32]).unwrap();
        assert!(signs(1), "others have not got the new one yet");
        let keys = read(dir.path()).unwrap();
        let new = only(2).sign("uid", Position::default(), &directive()).unwrap();
        assert!(keys.open::<Directive>("uid", None, &new).is_ok(), "though it is believed at once");
        written(&dir.path().join("2"), Duration::from_secs(121));
        assert!(signs(2));
        let old = only(1).sign("uid", Position::default(), &directive()).unwrap();
        assert!(read(dir.path()).unwrap().open::<Directive>("uid", None, &old).is_ok());
    }

    #[test]
    fn api_keys_are_recognised_by_the_keys_that_are_mounted_now() {
        let (dir, core) = (tempfile::tempdir().unwrap(), crate::plan::core_for_tests());
        let id = |byte: u8| corral_wire::KeyDigester::derive(&[byte; 32]).id().to_owned();
        let known = || [1, 2].map(|byte| core.digesters.digest(&id(byte), b"key").is_some());
        recognise(dir.path(), &core);
        assert_eq!(known(), [false, false]);
        fs::write(dir.path().join("1"), [1; 32]).unwrap();
        recognise(dir.path(), &core);
        fs::write(dir.path().join("2"), [2; 32]).unwrap();
        assert_eq!(known(), [true, false]);
        recognise(dir.path(), &core);
        assert_eq!(known(), [true, true], "two while one is rotated out");
        fs::remove_file(dir.path().join("1")).unwrap();
        recognise(dir.path(), &core);
        assert_eq!(known(), [false, true]);
        fs::remove_file(dir.path().join("2")).unwrap();
        recognise(dir.path(), &core);
        assert_eq!(known(), [false, true], "a mount that cannot be read takes nothing away");
    }

    #[test]
    fn no_folder_no_key_and_a_short_key_are_told_apart_from_keys() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(read(&dir.path().join("none")), Err(KeyError::Io(..))));
        assert!(matches!(read(dir.path()), Err(KeyError::Bad(_))));
        fs::write(dir.path().join("1"), b"short").unwrap();
        let error = read(dir.path()).unwrap_err().to_string();
        assert!(!error.contains("short"), "{error}");
    }
}
