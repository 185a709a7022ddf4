//! The log: one JSON object a line, or text for a person; to standard error.
//!
//! What is logged never holds a prompt, a key or a header: whoever adds a field adds names and numbers.

use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::config::{LogFormat, LogSettings};

/// Starts logging for the whole process. Once only, in `main`: a second call leaves the first in place.
pub fn start(settings: &LogSettings) -> Result<(), ParseError> {
    let filter = EnvFilter::builder().parse(&settings.filter)?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // An error says that a subscriber is in place already.
    let _ = match settings.format {
        LogFormat::Json => log.json().flatten_event(true).with_current_span(false).try_init(),
        LogFormat::Text => log.with_target(false).try_init(),
    };
    Ok(())
}
