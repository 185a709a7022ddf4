//! `cargo e2e`, `cargo demo` and `cargo verify`.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    use clap::Parser;
    use corral_e2e::cli::Cli;
    use corral_e2e::machine::console::say;

    match Cli::parse().run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_os = "linux"))]
#[expect(clippy::print_stderr, reason = "all that this program does here")]
fn main() -> ExitCode {
    eprintln!("A local cluster needs Linux. {}", corral_e2e::elsewhere::OTHER_WAYS);
    ExitCode::FAILURE
}
