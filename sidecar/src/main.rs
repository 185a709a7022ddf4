//! `corral-sidecar`: fair use in front of one Ollama.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use corral_sidecar::config::{ActivatorSettings, Command, LogSettings, Settings, Stop};
use corral_sidecar::control_socket::{Question, Reply};
use corral_sidecar::explain::Ask;
use corral_sidecar::shutdown::Signals;
use corral_sidecar::{activator, control_socket, explain, run, selftest};

fn main() -> ExitCode {
    let done = match Command::from_process() {
        Ok(Command::Serve(settings, log)) => serve(*settings, &log),
        Ok(Command::Activate(settings, log)) => activate(*settings, &log),
        Ok(Command::Selftest) => check(),
        Ok(Command::Drain { state_dir }) => {
            control_socket::drain(&state_dir).context("the sidecar of this pod cannot be told to drain")
        }
        Ok(Command::Explain { ask, policies, state_dir, json }) => explain(ask, policies, &state_dir, json),
        Ok(Command::Top { state_dir, every, most }) => top(&state_dir, every, most),
        Err(Stop::Asked(text)) => say(&text),
        Err(wrong) => {
            let _ = writeln!(io::stderr(), "{wrong}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "corral-sidecar: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The first signal begins the drain, a second one ends it.
fn serve(settings: Settings, log: &LogSettings) -> anyhow::Result<()> {
    let _log = corral_telemetry::log::start(log.format, &log.filter).context("--log")?;
    runtime()?.block_on(async {
        let signals = Signals::listen()?;
        let running = run::start(settings).await?;
        running.until(signals.clone().came(1), signals.came(2)).await?;
        Ok(())
    })
}

fn activate(settings: ActivatorSettings, log: &LogSettings) -> anyhow::Result<()> {
    let _log = corral_telemetry::log::start(log.format, &log.filter).context("--log")?;
    runtime()?.block_on(async {
        let signals = Signals::listen()?;
        let running = activator::run::start(settings).await?;
        running.until(signals.clone().came(1), signals.came(2)).await?;
        Ok(())
    })
}

fn explain(ask: Box<Ask>, policies: Vec<PathBuf>, state_dir: &Path, json: bool) -> anyhow::Result<()> {
    let explained = if policies.is_empty() {
        match control_socket::ask(state_dir, &Question::Explain(ask))? {
            Reply::Explain(explained) => explained,
            other => anyhow::bail!("the sidecar answers another question: {other:?}"),
        }
    } else {
        explain::on_a_laptop(policies, &ask)?
    };
    say(&if json { serde_json::to_string_pretty(&explained)? } else { explained.to_string() })
}

fn top(state_dir: &Path, every: Option<Duration>, most: usize) -> anyhow::Result<()> {
    loop {
        match control_socket::ask(state_dir, &Question::Top { most })? {
            Reply::Top(top) => say(&top.to_string())?,
            other => anyhow::bail!("the sidecar answers another question: {other:?}"),
        }
        let Some(pause) = every else { return Ok(()) };
        thread::sleep(pause);
        say("")?;
    }
}

fn check() -> anyhow::Result<()> {
    let line = runtime()?.block_on(selftest::selftest()).context("selftest failed")?;
    say(&line)
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn say(text: &str) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{}", text.trim_end()).context("nobody listens")
}
