//! The published clients of the three APIs, in Python and JavaScript, as their users install them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::machine::cache::{self, Cache};
use crate::machine::command::Cmd;
use crate::machine::console::long_step;

/// Everything that goes into the folder, by name.
const FILES: [(&str, &str); 5] = [
    ("obey.py", include_str!("../../clients/obey.py")),
    ("obey.mjs", include_str!("../../clients/obey.mjs")),
    ("python.txt", include_str!("../../clients/python.txt")),
    ("package.json", include_str!("../../clients/package.json")),
    ("package-lock.json", include_str!("../../clients/package-lock.json")),
];
/// Where Python finds its packages.
const SITE: &str = "site";

/// The clients, and the programs that have them meet a limit.
#[derive(Debug, Clone)]
pub struct ApiClients {
    folder: PathBuf,
}

/// Installs the clients once.
pub fn fetch(cache: &Cache) -> Result<ApiClients> {
    let python = Cmd::words(["python3", "--version"]).read()?;
    let parts = FILES.iter().flat_map(|(name, text)| [*name, *text]).chain([python.as_str()]);
    let id = format!("api-clients-{}", cache::digest(parts));
    let folder = cache.entry(&id, check, |folder| {
        long_step("fetching the published API clients", "some seconds the first time", || install(folder))
    })?;
    cache.drop_stale(&id)?;
    Ok(ApiClients { folder })
}

impl ApiClients {
    /// The Python clients against a base URL, this many rounds each.
    pub fn python(&self, base: &str, rounds: u32) -> Cmd {
        let rounds = rounds.to_string();
        Cmd::words(["python3", "obey.py", base, &rounds]).dir(&self.folder).env("PYTHONPATH", SITE)
    }

    /// The JavaScript clients against a base URL, this many rounds each.
    pub fn node(&self, base: &str, rounds: u32) -> Cmd {
        let rounds = rounds.to_string();
        Cmd::words(["node", "obey.mjs", base, &rounds]).dir(&self.folder)
    }
}

fn install(folder: &Path) -> Result<()> {
    for (name, text) in FILES {
        fs::write(folder.join(name), text)?;
    }
    let limit = Duration::from_mins(5);
    Cmd::words(["python3", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"])
        .args(["--only-binary=:all:", "--requirement", "python.txt", "--target", SITE])
        .dir(folder)
        .limit(limit)
        .run()?;
    Cmd::words(["npm", "ci", "--loglevel=error"]).dir(folder).limit(limit).run()?;
    Ok(())
}

fn check(folder: &Path) -> Result<()> {
    Cmd::words(["python3", "-c", "import openai, anthropic, ollama"])
        .dir(folder)
        .env("PYTHONPATH", SITE)
        .run()?;
    let import = "await import('openai'); await import('ollama')";
    Cmd::words(["node", "--input-type=module", "--eval", import]).dir(folder).run()?;
    Ok(())
}
