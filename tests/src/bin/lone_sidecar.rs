//! The sidecar as a process of its own, so that tests can measure what it alone takes.
//!
//! Its arguments are the sidecar's. It prints where clients connect and where probes do, and ends with its input: no
//! test that dies leaves one behind.

use std::io::{self, Read as _, Write as _};
use std::thread;

use anyhow::{Context as _, bail};
use corral_sidecar::config::{Command, LogSettings, Settings};
use corral_sidecar::run;
use tokio::sync::oneshot;

fn main() -> anyhow::Result<()> {
    match Command::from_process()? {
        Command::Serve(settings, log) => serve(*settings, &log),
        _ => bail!("it only serves"),
    }
}

fn serve(settings: Settings, log: &LogSettings) -> anyhow::Result<()> {
    let _log = corral_telemetry::log::start(log.format, &log.filter).context("--log")?;
    let (end, ended) = oneshot::channel();
    thread::spawn(move || {
        // Whatever it reads, or fails to, it is over.
        let _ = io::stdin().read(&mut [0]);
        let _ = end.send(());
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let running = run::start(settings).await?;
        writeln!(io::stdout(), "{} {}", running.client_address(), running.admin_address())?;
        let over = async {
            let _ = ended.await;
        };
        running.until(over, std::future::ready(())).await?;
        Ok(())
    })
}
