//! Flags for what the operator mounts into each of its pods.

use std::path::PathBuf;

use clap::Args;

/// Where what is mounted stands.
#[derive(Debug, Args)]
pub(super) struct Mounts {
    /// The mounted plan; in a pool pod the file `divisor` beside it holds D.
    #[arg(
        long,
        env = "CORRAL_PLAN_FILE",
        value_name = "FILE",
        default_value = "/etc/corral/plan/plan.v1.json"
    )]
    pub(super) plan_file: PathBuf,
    /// The mounted keys of the pool, one file each.
    #[arg(long, env = "CORRAL_KEYS_DIR", value_name = "FOLDER", default_value = "/etc/corral/keys")]
    pub(super) keys_dir: PathBuf,
}
