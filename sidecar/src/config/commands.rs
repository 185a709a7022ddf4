//! The commands beside serving, and their flags.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::activator::ActivatorFlags;
use super::flags::STATE_DIR;
use super::value::duration;
use super::{Command, Stop};
use crate::explain::Ask;

#[derive(Debug, Subcommand)]
pub(super) enum Sub {
    /// Hold the requests of a pool that scales to zero until a pod is ready; started by the operator.
    Activator(Box<ActivatorFlags>),
    /// Check this binary: a scripted Ollama in process, one request answered, one refused.
    Selftest,
    /// Tell the sidecar running in this pod to begin its drain.
    Drain {
        #[command(flatten)]
        beside: Beside,
    },
    /// Say what would become of a request now, and by which limit; nothing is charged for asking.
    Explain(Box<Explain>),
    /// Show the heaviest clients of this pod.
    Top(Top),
}

/// Which sidecar is meant.
#[derive(Debug, Args)]
pub(super) struct Beside {
    /// The state directory of the running sidecar.
    #[arg(long, env = "CORRAL_STATE_DIR", value_name = "FOLDER", default_value = STATE_DIR)]
    state_dir: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// METHOD PATH, then headers in brackets, then a JSON body or model=NAME: 'POST /api/chat [X-Team: red] model=tiny'.
    #[arg(long, value_name = "REQUEST")]
    request: String,
    /// A header, 'Name: value'. May be given several times.
    #[arg(long, value_name = "HEADER")]
    header: Vec<String>,
    /// An API key, sent as 'Authorization: Bearer'. It is never printed.
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
    /// The TCP peer that the request would come from.
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    client_ip: IpAddr,
    /// Policy file to go by, with nothing used yet, in place of the running sidecar. May be given several times.
    #[arg(long, value_name = "FILE")]
    policy: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    beside: Beside,
}

#[derive(Debug, Args)]
pub(super) struct Top {
    /// From one table to the next.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    interval: Duration,
    /// Print one table and end.
    #[arg(long)]
    once: bool,
    /// The most clients to show.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=256))]
    most: u16,
    #[command(flatten)]
    beside: Beside,
}

impl Sub {
    pub(super) fn command(self) -> Result<Command, Stop> {
        Ok(match self {
            Self::Activator(flags) => flags.command(),
            Self::Selftest => Command::Selftest,
            Self::Drain { beside } => Command::Drain { state_dir: beside.state_dir },
            Self::Explain(explain) => explain.command()?,
            Self::Top(Top { interval, once, most, beside }) => {
                let every = Some(interval).filter(|_| !once);
                Command::Top { state_dir: beside.state_dir, every, most: usize::from(most) }
            }
        })
    }
}

impl Explain {
    fn command(&self) -> Result<Command, Stop> {
        let ask = self.ask().map_err(|error| Stop::Wrong(error.to_string()))?;
        let (policies, state_dir) = (self.policy.clone(), self.beside.state_dir.clone());
        Ok(Command::Explain { ask: Box::new(ask), policies, state_dir, json: self.json })
    }

    fn ask(&self) -> Result<Ask, crate::explain::BadRequest> {
        let mut ask = Ask::parse(&self.request, self.client_ip)?;
        self.header.iter().try_for_each(|line| ask.add_header(line))?;
        self.api_key.iter().try_for_each(|key| ask.add_key(key))?;
        Ok(ask)
    }
}
