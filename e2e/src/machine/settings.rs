//! Where the harness keeps things: the only place that reads the environment.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The folders of one run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What is built once and kept by version: `$CORRAL_CACHE`, else `$XDG_CACHE_HOME/corral`, else `~/.cache/corral`.
    pub cache: PathBuf,
    /// What belongs to running clusters: `$CORRAL_STATE`, else `$XDG_STATE_HOME/corral`, else `~/.local/state/corral`.
    pub state: PathBuf,
    /// The checkout.
    pub repository: PathBuf,
}

/// Folders that each node replaces by its own: nothing that a node must see may lie below them.
pub const PRIVATE_TO_A_NODE: [&str; 4] = ["/run", "/var/lib", "/var/log", "/opt"];

impl Settings {
    /// Reads the environment.
    pub fn from_environment() -> Result<Self> {
        Self::read(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let folder = |own: &str, xdg: &str, below_home: &str| -> Result<PathBuf> {
            if let Some(path) = variable(own) {
                return Ok(PathBuf::from(path));
            }
            if let Some(base) = variable(xdg) {
                return Ok(PathBuf::from(base).join("corral"));
            }
            let home = variable("HOME").with_context(|| format!("set HOME or {own}"))?;
            Ok(PathBuf::from(home).join(below_home).join("corral"))
        };
        let settings = Self {
            cache: folder("CORRAL_CACHE", "XDG_CACHE_HOME", ".cache")?,
            state: folder("CORRAL_STATE", "XDG_STATE_HOME", ".local/state")?,
            repository: Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?,
        };
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<()> {
        for (what, path) in [("CORRAL_CACHE", &self.cache), ("CORRAL_STATE", &self.state)] {
            ensure!(path.is_absolute(), "{what} must be an absolute path, not {}", path.display());
            for private in PRIVATE_TO_A_NODE {
                ensure!(
                    !path.starts_with(private),
                    "{what} is {}: nodes have a {private} of their own and would not see it",
                    path.display()
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings> {
        Settings::read(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v)))
    }

    #[test]
    fn own_variables_win_over_xdg_and_home() {
        let all =
            [("CORRAL_CACHE", "/c"), ("XDG_CACHE_HOME", "/x"), ("XDG_STATE_HOME", "/s"), ("HOME", "/h")];
        let settings = read(&all).unwrap();
        assert_eq!(settings.cache, Path::new("/c"));
        assert_eq!(settings.state, Path::new("/s/corral"));
    }

    #[test]
    fn home_is_the_last_resort() {
        let settings = read(&[("HOME", "/h")]).unwrap();
        assert_eq!(settings.cache, Path::new("/h/.cache/corral"));
        assert_eq!(settings.state, Path::new("/h/.local/state/corral"));
    }

    #[test]
    fn a_folder_that_nodes_would_not_see_is_refused() {
        let error = read(&[("HOME", "/h"), ("CORRAL_STATE", "/var/lib/corral")]).unwrap_err();
        assert!(error.to_string().contains("/var/lib of their own"), "{error}");
        assert!(read(&[("HOME", "/h"), ("CORRAL_CACHE", "relative")]).is_err());
    }
}
