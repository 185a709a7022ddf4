//! The step that needs a cluster: one of its own, taken down again.

use anyhow::Result;

use super::Context;
use super::tally::Tally;
use crate::cluster::instance::Instance;
use crate::cluster::{Cluster, down, up};
use crate::demo;
use crate::machine::console::say;
use crate::stories;

/// Not the name that people use by default: their cluster goes on meanwhile.
const NAME: &str = "verify";

/// Every story, and the demo; that the cluster comes up and leaves nothing behind counts as one more each.
pub fn stories(context: &Context) -> Result<Tally> {
    let _alone = Instance::new(&context.settings, NAME)?.lock_for_stories()?;
    let told = tell(context);
    // Whatever has happened: the next run begins with a clean machine, and so does the user.
    let cleared = down::down(&context.settings, NAME);
    if let Err(error) = &cleared {
        say(format!("{error:#}"));
    }
    let told = told?;
    Ok(Tally {
        passed: told.passed + 1 + usize::from(cleared.is_ok()),
        failed: told.failed + usize::from(cleared.is_err()),
    })
}

fn tell(context: &Context) -> Result<Tally> {
    let cluster = up::up(&context.settings, NAME)?;
    let outcome = stories::runner::run(&cluster, stories::ALL);
    say(outcome.to_string());
    Ok(Tally { passed: outcome.passed, failed: outcome.failed }.plus(show(&cluster)))
}

/// What the README promises first is played as well: nobody else would notice when it breaks.
fn show(cluster: &Cluster) -> Tally {
    let played = demo::play(cluster);
    if let Err(error) = &played {
        say(format!("FAILED the demo: {error:#}"));
    }
    Tally::one(played.is_ok())
}
