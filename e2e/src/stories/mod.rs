//! What a user must be able to do, on a real cluster.
//!
//! A story is a function that says with an error what does not hold. It gets a namespace of its own, removed when it is
//! over, and a deadline, which every wait of it keeps.

pub mod cluster_is_real;
pub mod ollama_answers;
pub mod runner;
pub mod scene;

use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};

use scene::Scene;

/// Which stories may run beside a story.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Beside others of its kind: what it needs is its own.
    Parallel,
    /// No other story meanwhile: it breaks parts of the cluster and mends them.
    Cluster,
    /// No other story meanwhile: it measures.
    Quiet,
}

/// One story.
#[derive(Clone, Copy)]
pub struct Story {
    /// Its name, as `cargo e2e test NAME` takes it.
    pub name: &'static str,
    /// Which stories may run beside it.
    pub lane: Lane,
    /// How long it should take. It fails at twice this.
    pub budget: Duration,
    /// What it does.
    pub run: fn(&Scene) -> Result<()>,
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?}, {} s)", self.name, self.lane, self.budget.as_secs())
    }
}

/// Every story there is.
pub const ALL: &[Story] = &[
    Story {
        name: "cluster_is_real",
        lane: Lane::Cluster,
        budget: Duration::from_secs(30),
        run: cluster_is_real::run,
    },
    Story {
        name: "ollama_answers",
        lane: Lane::Parallel,
        budget: Duration::from_secs(30),
        run: ollama_answers::run,
    },
];

/// The stories of these names; all when there is none.
pub fn choose(names: &[String]) -> Result<Vec<Story>> {
    let known = |name: &String| ALL.iter().any(|story| story.name == name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let all: Vec<_> = ALL.iter().map(|story| story.name).collect();
        bail!("there is no story `{unknown}`; there are {}", all.join(", "));
    }
    let wanted = |story: &&Story| names.is_empty() || names.iter().any(|name| name == story.name);
    Ok(ALL.iter().filter(wanted).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_means_all_and_an_unknown_one_is_refused() {
        assert_eq!(choose(&[]).unwrap().len(), ALL.len());
        assert_eq!(choose(&["ollama_answers".to_owned()]).unwrap().len(), 1);
        assert!(choose(&["ollama_sings".to_owned()]).err().unwrap().to_string().contains("there are"));
    }

    #[test]
    fn names_are_distinct_and_can_name_a_namespace() {
        for (index, story) in ALL.iter().enumerate() {
            assert!(story.name.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit()));
            assert!(ALL.iter().skip(index + 1).all(|other| other.name != story.name), "{} twice", story.name);
        }
    }
}
