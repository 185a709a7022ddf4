//! What a restarted sidecar must still know, on disk: a torn or foreign file is as good as none.
//!
//! Two files. `held.json` has the plan, D and the permission to serve; it changes rarely and is synced to the disk.
//! `position.json` has the place of the last directive obeyed; it changes every two seconds, so it is only renamed into
//! place: it survives the death of the process, and a lost one is behind by a moment, which the last held one bounds.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use corral_wire::{PlanDoc, Position};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

const HELD: &str = "held.json";
const POSITION: &str = "position.json";
/// A plan is at most a MiB; more than this is no state of ours.
const MAX_STATE_BYTES: u64 = 4 * 1024 * 1024;

/// A folder that outlives the container, but not the pod.
#[derive(Debug, Clone)]
pub struct StateDir {
    dir: PathBuf,
    pod_uid: String,
}

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// The pod it belongs to: a folder that outlives its pod must not make the next one believe it was counted.
    pub pod_uid: String,
    /// The plan in force.
    pub plan: Option<PlanDoc>,
    /// D in force.
    pub divisor: NonZeroU32,
    /// Whether the pod was told to serve.
    pub serve: bool,
    /// The highest position obeyed.
    pub obeyed: Position,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeptPosition {
    pod_uid: String,
    obeyed: Position,
}

/// Why kept state is not used. None is fatal: the sidecar starts as a newcomer.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {path}: {error}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is torn, or not ours.
    #[error("{path} is torn or not ours: {error}")]
    Torn {
        /// Which.
        path: PathBuf,
        /// Why.
        error: serde_json::Error,
    },
    /// It was written in another pod.
    #[error("{path} was written by another pod")]
    OtherPod {
        /// Which.
        path: PathBuf,
    },
}

impl StateDir {
    /// Of the pod with this UID. Nothing is touched yet.
    pub fn new(dir: PathBuf, pod_uid: String) -> Self {
        Self { dir, pod_uid }
    }

    /// What an earlier life of this pod's sidecar kept; none in the first. The error is worth a warning.
    pub fn load(&self) -> Result<Option<Kept>, LoadError> {
        let path = self.dir.join(HELD);
        let Some(mut kept) = read::<Kept>(&path)? else { return Ok(None) };
        if kept.pod_uid != self.pod_uid {
            return Err(LoadError::OtherPod { path });
        }
        // A torn position costs a moment of order; the held file bounds how much.
        if let Ok(Some(last)) = read::<KeptPosition>(&self.dir.join(POSITION))
            && last.pod_uid == self.pod_uid
        {
            kept.obeyed = kept.obeyed.max(last.obeyed);
        }
        Ok(Some(kept))
    }

    /// Keeps everything, on the disk before it returns.
    pub fn keep(
        &self,
        plan: Option<&PlanDoc>,
        divisor: NonZeroU32,
        serve: bool,
        obeyed: Position,
    ) -> io::Result<()> {
        let kept = Kept { pod_uid: self.pod_uid.clone(), plan: plan.cloned(), divisor, serve, obeyed };
        self.replace(HELD, &kept, Outlive::Machine)
    }

    /// Keeps the position alone.
    pub fn keep_position(&self, obeyed: Position) -> io::Result<()> {
        self.replace(POSITION, &KeptPosition { pod_uid: self.pod_uid.clone(), obeyed }, Outlive::Process)
    }

    /// A reader, also one after a crash, sees the old file or the new one.
    fn replace(&self, name: &str, content: &impl Serialize, outlive: Outlive) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let (path, fresh) = (self.dir.join(name), self.dir.join(format!("{name}.new")));
        let mut file = File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(content)?)?;
        if outlive == Outlive::Machine {
            file.sync_all()?;
        }
        drop(file);
        fs::rename(&fresh, &path)?;
        if outlive == Outlive::Machine {
            File::open(&self.dir)?.sync_all()?;
        }
        Ok(())
    }
}

/// What a write must outlive.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outlive {
    /// The machine.
    Machine,
    /// This process.
    Process,
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, LoadError> {
    let io = |error| LoadError::Io { path: path.to_owned(), error };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_STATE_BYTES).read_to_end(&mut bytes).map_err(io)?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| LoadError::Torn { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Position = Position { term: 2, sequence: 40 };

    fn two() -> NonZeroU32 {
        NonZeroU32::new(2).unwrap()
    }

    fn state(dir: &tempfile::TempDir, uid: &str) -> StateDir {
        StateDir::new(dir.path().join("not/yet/there"), uid.to_owned())
    }

    #[test]
    fn what_was_kept_is_found_by_the_same_pod_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(state(&dir, "a").load().unwrap().is_none());
        state(&dir, "a").keep(None, two(), true, AT).unwrap();
        let kept = state(&dir, "a").load().unwrap().unwrap();
        assert_eq!((kept.divisor, kept.serve, kept.obeyed), (two(), true, AT));
        assert!(matches!(state(&dir, "b").load(), Err(LoadError::OtherPod { .. })));
    }

    #[test]
    fn the_highest_position_counts_whichever_file_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let state = state(&dir, "a");
        let later = Position { sequence: 41, ..AT };
        state.keep(None, two(), true, AT).unwrap();
        state.keep_position(later).unwrap();
        assert_eq!(state.load().unwrap().unwrap().obeyed, later);
        state.keep(None, two(), true, Position { term: 3, sequence: 1 }).unwrap();
        assert_eq!(state.load().unwrap().unwrap().obeyed, Position { term: 3, sequence: 1 });
    }

    #[test]
    fn a_torn_file_is_an_error_and_no_panic() {
        let dir = tempfile::tempdir().unwrap();
        let state = state(&dir, "a");
        state.keep(None, two(), true, AT).unwrap();
        let path = state.dir.join(HELD);
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(matches!(state.load(), Err(LoadError::Torn { .. })), "{length} bytes");
        }
        fs::write(&path, &whole).unwrap();
        fs::write(state.dir.join(POSITION), b"{\"pod").unwrap();
        assert_eq!(state.load().unwrap().unwrap().obeyed, AT);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), b"").unwrap();
        let state = StateDir::new(dir.path().join("file"), "a".into());
        assert!(state.keep(None, two(), false, AT).is_err());
    }
}
