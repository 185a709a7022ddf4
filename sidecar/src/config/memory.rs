//! How much memory clients may take, so that none of them can have the sidecar killed for it.
//!
//! | what | bytes |
//! | --- | --- |
//! | bodies | the budget: a quarter of the container's memory limit, at most 256 MiB |
//! | connections | 19 KiB each while idle, 87 KiB in the middle of a long head: at most half of the limit |
//! | buckets | 113 for each client in each rate that is kept per client: 5.4 MiB for 50,000 clients |
//! | the rest | 6 MiB |
//!
//! The figures are measured, and `tests/memory.rs` holds the one of buckets. In the 256 MiB that a pool's sidecar has
//! unless its pool says otherwise that leaves 58 MiB for buckets: ten rates that are kept per client, all full. A pool
//! with more gives its sidecar more memory. A sliding log takes up to 12 MiB, and a tier that scales a limit has its own
//! buckets.

use super::Stop;

/// The most bytes of one body where nobody says.
const USUAL_BODY: usize = 32 << 20;
/// The most bytes of all bodies where nobody says.
const USUAL_BUDGET: usize = 256 << 20;
/// However little memory there is.
const LEAST_BUDGET: usize = 1024;

/// The most connections where nobody says.
const USUAL_CONNECTIONS: u32 = 10_000;
/// However little memory there is.
const LEAST_CONNECTIONS: u32 = 16;
/// What a connection takes at most.
const BYTES_PER_CONNECTION: u64 = 96 << 10;

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
        let quarter =
            self.limit().map_or(USUAL_BUDGET, |limit| usize::try_from(limit / 4).unwrap_or(usize::MAX));
        let usual = quarter.clamp(LEAST_BUDGET, USUAL_BUDGET);
        let budget = self.budget.unwrap_or_else(|| usual.max(self.body.unwrap_or_default()));
        let body = self.body.unwrap_or_else(|| budget.min(USUAL_BODY));
        BodyBounds { body, budget }
    }

    /// The most connections where nobody says: what half of the memory can hold.
    pub(super) fn connections(self) -> u32 {
        let fit = self.limit().map_or(USUAL_CONNECTIONS, |limit| {
            u32::try_from(limit / 2 / BYTES_PER_CONNECTION).unwrap_or(u32::MAX)
        });
        fit.clamp(LEAST_CONNECTIONS, USUAL_CONNECTIONS)
    }

    fn limit(self) -> Option<u64> {
        self.limit.filter(|limit| *limit > 0)
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
    fn connections_take_half_of_the_memory_and_are_never_more_than_10_000() {
        let connections = |mib: u64| Known { limit: Some(mib << 20), ..Known::default() }.connections();
        assert_eq!([connections(256), connections(1024), connections(4096)], [1365, 5461, 10_000]);
        assert_eq!([connections(1), connections(0)], [16, 10_000]);
        assert_eq!(Known::default().connections(), 10_000, "a laptop");
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
