//! `cargo e2e` and `cargo verify`.

use std::process::ExitCode;

use clap::Parser;
use corral_e2e::cli::Cli;
use corral_e2e::machine::console::say;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
