//! The log: one JSON object a line, or text for a person; to standard error.
//!
//! What is logged never holds a prompt, a key or a header: whoever adds a field adds names and numbers.

use std::io;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
pub use tracing_subscriber::filter::ParseError;

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For a person to read.
    Text,
}

/// Starts logging for the whole process. Once only, in `main`: a second call leaves the first in place.
///
/// `filter` is one of `error`, `warn`, `info`, `debug`, `trace`, or a filter by module such as
/// `info,corral_operator=debug`; one that cannot be read is an error.
pub fn start(format: LogFormat, filter: &str) -> Result<(), ParseError> {
    let filter = EnvFilter::builder().parse(filter)?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // An error says that a subscriber is in place already.
    let _ = match format {
        LogFormat::Json => log.json().flatten_event(true).with_current_span(false).try_init(),
        LogFormat::Text => log.with_target(false).try_init(),
    };
    Ok(())
}
