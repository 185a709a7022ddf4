//! How much memory request bodies may take, so that no client can have the sidecar killed for its memory.
//!
//! | what | bytes |
//! | --- | --- |
//! | bodies | the budget: a quarter of the container's memory limit, at most 256 MiB |
//! | buckets | 113 for each client in each rate limit that is kept per client: 5.4 MiB for 50,000 clients |
//! | connections | 19 KiB each while idle, 87 KiB in the middle of a long head |
//! | the rest | 6 MiB |
//!
//! The figures are measured, and `tests/memory.rs` holds the second. What is left is for what bodies cost besides their
//! bytes, such as room made ahead while they grow. So ten limits that are kept per client, all full, fit beside the
//! bodies into the 256 MiB that a pool's sidecar has unless its pool says otherwise.

use super::Stop;

/// The most bytes of one body where nobody says.
pub(super) const USUAL_BODY: usize = 32 << 20;
/// The most bytes of all bodies where nobody says.
const USUAL_BUDGET: usize = 256 << 20;
/// However little memory there is.
const LEAST_BUDGET: usize = 1024;

/// What is known of it; all in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known {
    /// The memory limit of the container. None or 0: not known, as on a laptop.
    pub(super) limit: Option<u64>,
    /// The most of all bodies, if somebody says.
    pub(super) budget: Option<usize>,
    /// The most of one body, if somebody says.
    pub(super) body: Option<usize>,
}

/// The bounds on bodies, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BodyBounds {
    /// Of one.
    pub(super) body: usize,
    /// Of all at one time.
    pub(super) budget: usize,
}

impl Known {
    /// What is said wins. Else the budget has room for one whole body, and a body fits the budget.
    pub(super) fn bounds(self) -> BodyBounds {
        let limit = self.limit.filter(|limit| *limit > 0);
        let quarter = limit.map_or(USUAL_BUDGET, |limit| usize::try_from(limit / 4).unwrap_or(usize::MAX));
        let usual = quarter.clamp(LEAST_BUDGET, USUAL_BUDGET);
        let budget = self.budget.unwrap_or_else(|| usual.max(self.body.unwrap_or_default()));
        let body = self.body.unwrap_or_else(|| budget.min(USUAL_BODY));
        BodyBounds { body, budget }
    }
}

impl BodyBounds {
    /// A body without room would be put off for ever.
    pub(super) fn check(self) -> Result<(), Stop> {
        let Self { body, budget } = self;
        if body <= budget {
            return Ok(());
        }
        Err(Stop::Wrong(format!(
            "--body-budget-bytes {budget} has no room for one body of --max-body-bytes {body}"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn bounds(limit: Option<usize>, budget: Option<usize>, body: Option<usize>) -> (usize, usize) {
        let known = Known {
            limit: limit.map(|mib| (mib * MIB) as u64),
            budget: budget.map(|mib| mib * MIB),
            body: body.map(|mib| mib * MIB),
        };
        let BodyBounds { body, budget } = known.bounds();
        (body / MIB, budget / MIB)
    }

    #[test]
    fn bodies_take_a_quarter_of_the_memory_and_never_more_than_256_mib() {
        assert_eq!(bounds(Some(256), None, None), (32, 64));
        assert_eq!(bounds(Some(1024), None, None), (32, 256));
        assert_eq!(bounds(Some(64 * 1024), None, None), (32, 256));
        assert_eq!(bounds(None, None, None), (32, 256), "a laptop");
        assert_eq!(bounds(Some(0), None, None), (32, 256), "nobody knows");
    }

    #[test]
    fn where_a_quarter_holds_no_usual_body_bodies_are_smaller() {
        assert_eq!(bounds(Some(128), None, None), (32, 32));
        assert_eq!(bounds(Some(64), None, None), (16, 16));
        let least = Known { limit: Some(1), ..Known::default() };
        assert_eq!(least.bounds(), BodyBounds { body: 1024, budget: 1024 });
    }

    #[test]
    fn what_somebody_says_wins() {
        assert_eq!(bounds(Some(256), Some(200), None), (32, 200));
        assert_eq!(bounds(Some(256), None, Some(8)), (8, 64));
        assert_eq!(bounds(Some(256), None, Some(100)), (100, 100), "one whole body always fits");
        assert_eq!(bounds(Some(256), Some(16), None), (16, 16));
        assert_eq!(bounds(None, Some(300), Some(300)), (300, 300));
    }

    #[test]
    fn every_default_has_room_for_one_whole_body() {
        for limit in [None, Some(0), Some(5 << 20), Some(256 << 20), Some(u64::MAX)] {
            for body in [None, Some(1024), Some(300 * MIB)] {
                assert_eq!(
                    Known { limit, budget: None, body }.bounds().check(),
                    Ok(()),
                    "{limit:?} {body:?}"
                );
            }
        }
    }

    #[test]
    fn a_budget_without_room_for_one_body_is_told() {
        let known = Known { limit: None, budget: Some(MIB), body: Some(2 * MIB) };
        let Err(Stop::Wrong(line)) = known.bounds().check() else { panic!("it fits") };
        assert!(
            line.contains("--body-budget-bytes 1048576") && line.contains("--max-body-bytes 2097152"),
            "{line}"
        );
    }
}
