//! The mounted plan Secret: looked at again and again, read when it has changed.
//!
//! The kubelet swaps a Secret's files by one symlink, so the plan and the divisor are read from behind it: both old or
//! both new. Polling sees that swap on every file system; a notification of it would be one more thing to lose.

use std::fs::{self, File};
use std::io::{self, Read};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing::error;

use super::read::{MAX_PLAN_BYTES, PlanError, from_bytes};
use super::store::PlanStore;
use crate::metrics::PlanSource;

/// How often the mount is looked at. A change is seen within twice this, well under the 2 s that a plan may take.
pub const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The file beside the plan that holds D.
pub const DIVISOR_FILE: &str = "divisor";

/// Follows the mount until it is dropped.
pub async fn watch(file: PathBuf, store: Arc<PlanStore>) {
    let mut mount = Mount::new(file);
    loop {
        let store = Arc::clone(&store);
        let looked = tokio::task::spawn_blocking(move || {
            mount.look(&store);
            mount
        });
        match looked.await {
            Ok(again) => mount = again,
            Err(cause) => {
                error!(%cause, "the mounted plan is no longer watched");
                return;
            }
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The mounted plan, and what it looked like last.
#[derive(Debug)]
pub struct Mount {
    file: PathBuf,
    seen: Option<Look>,
}

/// Changes whenever the content may have.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Look {
    /// Behind every symlink: a Secret's swap changes it.
    file: PathBuf,
    stamps: [Option<(SystemTime, u64)>; 2],
}

impl Mount {
    /// Of the plan at `file`. Nothing is read yet.
    pub fn new(file: PathBuf) -> Self {
        Self { file, seen: None }
    }

    /// Offers the plan to the store if it may have changed since the last look.
    pub fn look(&mut self, store: &PlanStore) {
        let look = Look::at(&self.file);
        if look.is_some() && look == self.seen {
            return;
        }
        match look.as_ref().map(|look| read(&look.file)) {
            Some(Ok((plan, divisor))) => {
                store.offer(from_bytes(&plan), divisor, PlanSource::Secret);
            }
            Some(Err(error)) => store.note_error(&unreadable(&self.file, &error), PlanSource::Secret),
            // Not yet mounted, or taken away: what is in force stays, and there is nothing to tell before the first.
            None => {}
        }
        self.seen = look;
    }
}

impl Look {
    fn at(file: &Path) -> Option<Self> {
        let file = fs::canonicalize(file).ok()?;
        let stamps = [stamp(&file), stamp(&file.with_file_name(DIVISOR_FILE))];
        Some(Self { file, stamps })
    }
}

fn stamp(file: &Path) -> Option<(SystemTime, u64)> {
    let about = fs::metadata(file).ok()?;
    Some((about.modified().ok()?, about.len()))
}

fn read(file: &Path) -> io::Result<(Vec<u8>, NonZeroU32)> {
    let plan = read_bounded(file, MAX_PLAN_BYTES)?;
    let divisor = match read_bounded(&file.with_file_name(DIVISOR_FILE), 32) {
        Ok(bytes) => parse_divisor(&bytes).ok_or(io::ErrorKind::InvalidData)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => NonZeroU32::MIN,
        Err(error) => return Err(error),
    };
    Ok((plan, divisor))
}

fn parse_divisor(bytes: &[u8]) -> Option<NonZeroU32> {
    std::str::from_utf8(bytes).ok()?.trim().parse().ok()
}

/// One byte more than the bound shows that it is exceeded.
pub(crate) fn read_bounded(file: &Path, bound: usize) -> io::Result<Vec<u8>> {
    // What is no file, such as a pipe, may keep its reader waiting for ever.
    if !fs::metadata(file)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(file)?.take(bound as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unreadable(file: &Path, error: &io::Error) -> PlanError {
    PlanError::Unreadable(format!("{}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use corral_wire::PoolRef;

    use super::*;
    use crate::plan::core_for_tests;

    fn store() -> PlanStore {
        PlanStore::open(core_for_tests(), PoolRef { namespace: "llm".into(), name: "chat".into() }, None)
    }

    fn plan(sequence: u64) -> String {
        format!(
            r#"{{"version":1,"sequence":{sequence},"pool":{{"namespace":"llm","name":"chat"}},
               "identity":{{"trustedProxies":[]}},"queue":{{"maxDepth":8,"maxWaitMs":1000}},"limits":[]}}"#
        )
    }

    /// Writes as the kubelet does: a new folder, then one rename of the symlink that all files go through.
    fn publish(dir: &Path, plan: &str, divisor: &str) {
        let fresh = tempfile::Builder::new().prefix("..").tempdir_in(dir).unwrap().keep();
        fs::write(fresh.join("plan.v1.json"), plan).unwrap();
        fs::write(fresh.join(DIVISOR_FILE), divisor).unwrap();
        symlink(&fresh, dir.join("..data_tmp")).unwrap();
        fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
        for name in ["plan.v1.json", DIVISOR_FILE] {
            let _ = symlink(Path::new("..data").join(name), dir.join(name));
        }
    }

    fn in_force(store: &PlanStore) -> (Option<u64>, u32) {
        (store.core().plan().map(|plan| plan.sequence()), store.core().divisor().get())
    }

    #[test]
    fn a_swapped_secret_is_taken_with_its_divisor() {
        let (dir, store) = (tempfile::tempdir().unwrap(), store());
        let mut mount = Mount::new(dir.path().join("plan.v1.json"));
        mount.look(&store);
        assert_eq!(in_force(&store), (None, 1), "not yet mounted");
        publish(dir.path(), &plan(3), "2\n");
        mount.look(&store);
        assert_eq!(in_force(&store), (Some(3), 2));
        publish(dir.path(), &plan(4), "5");
        mount.look(&store);
        assert_eq!(in_force(&store), (Some(4), 5));
    }

    #[test]
    fn a_bad_secret_leaves_the_last_good_plan() {
        let (dir, store) = (tempfile::tempdir().unwrap(), store());
        let mut mount = Mount::new(dir.path().join("plan.v1.json"));
        publish(dir.path(), &plan(3), "2");
        mount.look(&store);
        for (text, divisor) in
            [("{", "2"), ("", "2"), (&plan(4)[..40], "2"), (&plan(4), "0"), (&plan(4), "x")]
        {
            publish(dir.path(), text, divisor);
            mount.look(&store);
            assert_eq!(in_force(&store), (Some(3), 2));
            assert!(store.view().plan_error.is_some(), "{text} {divisor}");
        }
        fs::remove_file(dir.path().join("..data")).unwrap();
        mount.look(&store);
        assert_eq!(in_force(&store), (Some(3), 2), "taken away");
        publish(dir.path(), &plan(4), "2");
        mount.look(&store);
        assert_eq!((in_force(&store), store.view().plan_error), ((Some(4), 2), None));
    }
}
