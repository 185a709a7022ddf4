//! The log: one JSON object a line, or text for a person; to standard error.
//!
//! What is logged never holds a prompt, a key or a header: whoever adds a field adds names and numbers.
//!
//! Nothing waits for whoever reads the log: a thread of its own writes, and what it cannot write, because the disk is
//! full or the reader has stalled or gone, is lost, and nothing else.

use std::io;

use clap::ValueEnum;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};

/// Lines that wait to be written; those beyond are lost.
const MAX_LINES_AHEAD: usize = 4096;

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For a person to read.
    Text,
}

/// Why a filter is refused.
#[derive(Debug, thiserror::Error)]
pub enum BadFilter {
    /// A word that would be taken for a module's name, and silence everything else.
    #[error(
        "`{0}` is no level: say off, error, warn, info, debug or trace, or a module with one, as in `info,corral_sidecar=debug`"
    )]
    NoLevel(String),
    /// It has another form.
    #[error(transparent)]
    Form(#[from] ParseError),
}

/// Writes the log for as long as it lives; dropped, it writes what is left, for a second at most.
#[derive(Debug)]
#[must_use = "the log ends with it"]
pub struct Log(#[expect(dead_code, reason = "held for what its drop does")] WorkerGuard);

/// Starts logging for the whole process. Once only, in `main`: a second call leaves the first in place.
///
/// `filter` is `off`, `error`, `warn`, `info`, `debug` or `trace`, or a filter by module such as
/// `info,corral_operator=debug`; one that cannot be read is an error.
pub fn start(format: LogFormat, filter: &str) -> Result<Log, BadFilter> {
    let filter = parse(filter)?;
    let (writer, log) = writer(io::stderr());
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).log_internal_errors(false);
    // An error says that a subscriber is in place already.
    let _ = match format {
        LogFormat::Json => subscriber.json().flatten_event(true).with_current_span(false).try_init(),
        LogFormat::Text => subscriber.with_target(false).try_init(),
    };
    Ok(log)
}

fn writer(to: impl io::Write + Send + 'static) -> (NonBlocking, Log) {
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(MAX_LINES_AHEAD);
    let (writer, guard) = builder.thread_name("log").finish(to);
    (writer, Log(guard))
}

fn parse(filter: &str) -> Result<EnvFilter, BadFilter> {
    for part in filter.split(',').map(str::trim) {
        let is_level = !part.is_empty() && part.parse::<LevelFilter>().is_ok();
        if !is_level && !part.contains(['=', '[']) {
            return Err(BadFilter::NoLevel(part.to_owned()));
        }
    }
    Ok(EnvFilter::builder().parse(filter)?)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, mpsc};

    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for filter in ["info", "DEBUG", "off", "info,corral_operator=debug", "corral_sidecar::proxy=trace"] {
            assert!(parse(filter).is_ok(), "{filter}");
        }
        for filter in ["verbose", "warning", "", "99", "info,", "corral_sidecar"] {
            assert!(matches!(parse(filter), Err(BadFilter::NoLevel(_))), "{filter}");
        }
        assert!(matches!(parse("a=loud"), Err(BadFilter::Form(_))));
    }

    /// Fails every write, as a full disk does.
    struct Full(Arc<AtomicUsize>);

    impl io::Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::StorageFull.into())
        }
    }

    /// Takes nothing until it is told to.
    struct Stalled(mpsc::Receiver<()>);

    impl io::Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Logs more lines than are kept; how many were lost for want of room.
    fn log_a_lot(to: impl io::Write + Send + 'static) -> (Log, usize) {
        let (writer, log) = writer(to);
        let lost = writer.error_counter();
        let subscriber = tracing_subscriber::fmt().with_writer(writer).log_internal_errors(false).finish();
        tracing::subscriber::with_default(subscriber, || {
            for line in 0..2 * MAX_LINES_AHEAD {
                tracing::info!(line, "a line");
            }
        });
        (log, lost.dropped_lines())
    }

    #[test]
    fn a_full_disk_loses_lines_and_nothing_else() {
        let writes = Arc::new(AtomicUsize::new(0));
        drop(log_a_lot(Full(writes.clone())));
        assert!(writes.load(Ordering::SeqCst) > 1, "the first failed write is not the last one tried");
    }

    #[test]
    fn a_stalled_reader_holds_nobody_up() {
        let (go_on, stalled) = mpsc::channel();
        let (log, lost) = log_a_lot(Stalled(stalled));
        assert!(lost >= MAX_LINES_AHEAD - 2, "lost {lost}");
        drop(log);
        drop(go_on);
    }
}
