//! The log: to standard error, as JSON unless asked otherwise.

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Settings};

/// Starts the log. A filter that cannot be read is an error; a log that was started already stays.
pub fn start(settings: &Settings) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::builder().parse(&settings.log)?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match settings.log_format {
        LogFormat::Json => log.json().flatten_event(true).try_init(),
        LogFormat::Text => log.try_init(),
    };
    if started.is_err() {
        tracing::debug!("the log was started already");
    }
    Ok(())
}
