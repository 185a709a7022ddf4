//! The command line: `cargo e2e …` and `cargo verify`.

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::cluster::{down, status, up};
use crate::machine::console::say;
use crate::machine::settings::Settings;
use crate::{demo, stories, verify};

/// Real Kubernetes and real Ollama on this machine.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo e2e", version)]
pub struct Cli {
    /// Which cluster is meant: several can run side by side.
    #[arg(long, global = true, default_value = "corral")]
    name: String,
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Start a cluster with two nodes of four GPUs each, and say how to reach it.
    Up,
    /// Take it down and leave nothing behind.
    Down,
    /// Say what runs.
    Status,
    /// Run stories against it, all by default; it is started first if it is not up.
    Test {
        /// Names of stories; all when none is given.
        stories: Vec<String>,
        /// Only list them.
        #[arg(long)]
        list: bool,
    },
    /// Start a cluster, install Corral, and show what it does with a real pool, policy and clients.
    Demo,
    /// Run every check and test that there is, with a cluster that is taken down again.
    Verify,
}

impl Cli {
    /// Does what was asked; false when something that was checked does not hold.
    pub fn run(&self) -> Result<bool> {
        let settings = Settings::from_environment()?;
        match &self.command {
            Task::Up => {
                let cluster = up::up(&settings, &self.name)?;
                say(up::how_to_reach(&cluster, &self.down_command()));
                Ok(true)
            }
            Task::Down => down::down(&settings, &self.name).map(|()| true),
            Task::Status => status::status(&settings).map(|()| true),
            Task::Test { list: true, .. } => {
                for story in stories::ALL {
                    say(story.to_string());
                }
                Ok(true)
            }
            Task::Test { stories: wanted, .. } => {
                let wanted = stories::choose(wanted)?;
                let cluster = up::up(&settings, &self.name)?;
                let _alone = cluster.instance.lock_for_stories()?;
                let outcome = stories::runner::run(&cluster, &wanted);
                say(outcome.to_string());
                Ok(outcome.failed == 0)
            }
            Task::Demo => demo::run(&settings, &self.name, &self.down_command()).map(|()| true),
            Task::Verify => verify::run(&settings),
        }
    }

    fn down_command(&self) -> String {
        match self.name.as_str() {
            "corral" => "cargo e2e down".to_owned(),
            name => format!("cargo e2e down --name {name}"),
        }
    }
}
