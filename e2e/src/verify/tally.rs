//! Counts what passed and what failed.

use std::fmt;
use std::time::Duration;

use crate::machine::clock::seconds;

/// A count of checks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Checks that hold.
    pub passed: usize,
    /// Checks that do not.
    pub failed: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

impl Tally {
    /// One check.
    pub fn one(holds: bool) -> Self {
        Self { passed: usize::from(holds), failed: usize::from(!holds) }
    }

    /// The sum of all `test result:` lines of `cargo test`.
    pub fn of_tests(output: &str) -> Self {
        let results = output.lines().filter_map(|line| line.trim().strip_prefix("test result: "));
        results.map(one_result).fold(Self::default(), Self::plus)
    }

    /// Both together.
    pub(super) fn plus(self, other: Self) -> Self {
        Self { passed: self.passed + other.passed, failed: self.failed + other.failed }
    }
}

/// `ok. 58 passed; 0 failed; 0 ignored; …`
fn one_result(text: &str) -> Tally {
    let counted = |word: &str| {
        let mut parts = text.split(['.', ';']).map(str::trim);
        let count = parts.find_map(|part| part.strip_suffix(word));
        count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    };
    Tally { passed: counted("passed"), failed: counted("failed") }
}

/// A step that is over.
#[derive(Debug)]
pub struct Done {
    /// Its name.
    pub name: &'static str,
    /// What it counted.
    pub tally: Tally,
    /// How long it took.
    pub time: Duration,
}

/// One line a step, then the time of all, then the closing line.
pub fn summary(steps: &[Done], time: Duration) -> String {
    let lines = steps
        .iter()
        .map(|step| format!("  {:<16}{:<24}{}", step.name, step.tally.to_string(), seconds(step.time)));
    let all = steps.iter().map(|step| step.tally).fold(Tally::default(), Tally::plus);
    let lines: Vec<String> = lines.collect();
    format!("\nVerified in {}:\n{}\n\n{all}", seconds(time), lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_test_programs_add_up() {
        let output = "running 2 tests\ntest result: ok. 58 passed; 0 failed; 3 ignored; 0 measured\n\
                      test result: FAILED. 4 passed; 2 failed; 0 ignored\nerror: test failed\n";
        assert_eq!(Tally::of_tests(output), Tally { passed: 62, failed: 2 });
        assert_eq!(Tally::of_tests("error: could not compile"), Tally::default());
    }

    #[test]
    fn the_closing_line_is_the_sum_and_stands_alone() {
        let step =
            |name, passed, failed| Done { name, tally: Tally { passed, failed }, time: Duration::ZERO };
        let text = summary(&[step("tests", 3, 1), step("stories", 2, 0)], Duration::from_secs(90));
        assert_eq!(text.lines().last(), Some("5 passed, 1 failed"));
    }
}
