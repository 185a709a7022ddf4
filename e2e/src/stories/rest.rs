//! What a storm leaves behind in the sidecars: nothing.

use std::time::Duration;

use anyhow::{Context, Result};

use super::pool::{ADMIN_PORT, PoolPod};
use super::scene::Scene;
use crate::machine::clock::Deadline;

/// A client has the last byte of an answer a little before the sidecar has put everything away.
const LIMIT: Duration = Duration::from_secs(10);
/// What must be zero when nobody asks.
const GAUGES: [&str; 4] =
    ["corral_in_flight", "corral_queue_depth", "corral_queue_oldest_wait_seconds", "corral_connections"];

impl Scene {
    /// Holds that nothing runs, waits or is connected in these pods, and that limits of nothing but concurrency count
    /// nobody, given by their names. For when all clients have ended.
    pub fn at_rest(&self, pods: &[PoolPod], concurrency: &[&str]) -> Result<()> {
        pods.iter().try_for_each(|pod| {
            let from = pod.port(ADMIN_PORT)?;
            Deadline::after(LIMIT).wait(
                &format!("nothing is left in {}", pod.name),
                Duration::from_millis(200),
                || {
                    let left = left(&self.metrics(from)?, concurrency)?;
                    Ok(if left.is_empty() { Ok(()) } else { Err(left.join(", ")) })
                },
            )
        })
    }
}

/// The lines of metrics that should say 0 and do not.
fn left(metrics: &str, concurrency: &[&str]) -> Result<Vec<String>> {
    let mut wanted: Vec<String> = GAUGES.iter().map(|gauge| format!("{gauge} ")).collect();
    wanted.extend(concurrency.iter().map(|limit| format!("corral_limit_keys{{*limit=\"{limit}\"")));
    let mut left = Vec::new();
    for gauge in wanted {
        let line = find(metrics, &gauge).with_context(|| format!("no {gauge} in:\n{metrics}"))?;
        let value: f64 = line.rsplit(' ').next().unwrap_or_default().parse()?;
        if value.abs() > f64::EPSILON {
            left.push(line.to_owned());
        }
    }
    Ok(left)
}

/// The first line that begins with what is before `*` and has in it what is behind.
fn find<'a>(metrics: &'a str, gauge: &str) -> Option<&'a str> {
    let (begin, rest) = gauge.split_once('*').unwrap_or((gauge, ""));
    metrics.lines().find(|line| line.starts_with(begin) && line.contains(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "corral_in_flight 0\ncorral_queue_depth 2\ncorral_queue_oldest_wait_seconds 0.0\n\
                           corral_connections 0\ncorral_limit_keys{policy=\"p\",limit=\"few\"} 1\n";

    #[test]
    fn what_is_not_zero_is_named() {
        assert_eq!(left(METRICS, &[]).unwrap(), ["corral_queue_depth 2"]);
        assert_eq!(left(METRICS, &["few"]).unwrap().len(), 2);
        assert!(left(METRICS, &["many"]).is_err(), "a gauge that is not there proves nothing");
    }
}
