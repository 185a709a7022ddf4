//! The operator's binary: settings, log, run.

use clap::Parser;
use corral_operator::config::Settings;
use corral_operator::run::{Parts, run};
use corral_telemetry::log;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    let _log = log::start(settings.log_format, &settings.log)?;
    let installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    if installed.is_err() {
        tracing::debug!("a TLS provider was installed already");
    }
    let parts = Parts::real(&settings).await?;
    let (mut terminated, mut interrupted) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = async {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
    };
    run(settings, parts, stop).await
}
