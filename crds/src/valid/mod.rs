//! What the schema and its rules refuse, checked in plain Rust: the same fields, the same words, no API server.
//!
//! A standalone sidecar refuses with it what `kubectl apply` would refuse. Words for bounds are those of the API server,
//! words for rules those of [`crate::rules`].

mod autoscaling;
mod limit;
mod policy;
mod pool;
pub(crate) mod text;

use std::{fmt, ops::RangeInclusive};

use ipnet::IpNet;

pub use self::{autoscaling::check_zones, policy::check_policy, pool::check_pool};
use crate::{
    bounds,
    rules::{self, Rule},
};

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Problem {
    /// The field, as in `spec.limits[0].requests`.
    pub path: String,
    /// What is wrong with it, for its author.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Walks an object and collects what is wrong with it.
#[derive(Debug, Default)]
struct Checks {
    path: String,
    problems: Vec<Problem>,
}

impl Checks {
    fn of(root: &str) -> Self {
        Self { path: root.to_owned(), problems: Vec::new() }
    }

    /// Looks at a part, named as in a path: `.name`, `[3]`.
    fn at(&mut self, step: &str, look: impl FnOnce(&mut Self)) {
        let above = self.path.len();
        self.path.push_str(step);
        look(self);
        self.path.truncate(above);
    }

    /// Looks at each item of a list.
    fn each<T>(&mut self, step: &str, items: &[T], look: impl Fn(&mut Self, &T)) {
        self.at(step, |checks| {
            for (place, item) in items.iter().enumerate() {
                checks.at(&format!("[{place}]"), |checks| look(checks, item));
            }
        });
    }

    /// Looks at each item of a list that holds each item once, and at most so many.
    fn set(&mut self, step: &str, items: &[String], most: usize, look: impl Fn(&mut Self, &str)) {
        self.items(step, items.len(), 0..=most);
        self.distinct(step, items);
        self.each(step, items, |checks, item| look(checks, item));
    }

    fn refuse(&mut self, message: impl Into<String>) {
        self.problems.push(Problem { path: self.path.clone(), message: message.into() });
    }

    fn rule(&mut self, rule: &Rule, holds: bool) {
        if !holds {
            self.at(rule.field, |checks| checks.refuse(rule.message));
        }
    }

    fn within<N: Copy + PartialOrd + fmt::Display>(
        &mut self,
        step: &str,
        number: N,
        bounds: RangeInclusive<N>,
    ) {
        self.at(step, |checks| {
            if number < *bounds.start() {
                checks.refuse(format!("should be greater than or equal to {}", bounds.start()));
            }
            if number > *bounds.end() {
                checks.refuse(format!("should be less than or equal to {}", bounds.end()));
            }
        });
    }

    fn length(&mut self, step: &str, text: &str, bounds: RangeInclusive<usize>) {
        self.at(step, |checks| checks.own_length(text, bounds));
    }

    fn own_length(&mut self, text: &str, bounds: RangeInclusive<usize>) {
        let characters = text.chars().count();
        if characters < *bounds.start() {
            self.refuse(format!("should be at least {} chars long", bounds.start()));
        }
        if characters > *bounds.end() {
            self.refuse(format!("Too long: may not be more than {} bytes", bounds.end()));
        }
    }

    fn items(&mut self, step: &str, count: usize, bounds: RangeInclusive<usize>) {
        self.at(step, |checks| {
            if count < *bounds.start() {
                checks.refuse(format!("should have at least {} items", bounds.start()));
            }
            if count > *bounds.end() {
                checks.refuse(format!("Too many: {count}: must have at most {} items", bounds.end()));
            }
        });
    }

    fn properties(&mut self, step: &str, count: usize, most: usize) {
        if count > most {
            self.at(step, |checks| {
                checks.refuse(format!("Too many: {count}: must have at most {most} items"));
            });
        }
    }

    /// Refuses every item that stands in the list before.
    fn distinct<T: PartialEq>(&mut self, step: &str, keys: &[T]) {
        self.at(step, |checks| {
            for (place, key) in keys.iter().enumerate() {
                if keys.iter().take(place).any(|earlier| earlier == key) {
                    checks.at(&format!("[{place}]"), |checks| checks.refuse("Duplicate value"));
                }
            }
        });
    }

    fn pattern(&mut self, step: &str, pattern: &str, matches: bool) {
        if !matches {
            self.at(step, |checks| checks.refuse(format!("should match '{pattern}'")));
        }
    }
}

/// A network, wherever it stands.
fn network(checks: &mut Checks, network: &str) {
    checks.own_length(network, 0..=bounds::MAX_CIDR);
    checks.rule(&rules::CIDR, is_cidr(network));
}

/// As Kubernetes reads it: an IPv4 network is not written as an IPv6 one.
fn is_cidr(network: &str) -> bool {
    network.parse::<IpNet>().is_ok_and(|network| match network {
        IpNet::V4(_) => true,
        IpNet::V6(network) => network.addr().to_ipv4_mapped().is_none(),
    })
}

/// The name of a header, wherever it stands.
fn header_name(checks: &mut Checks, name: &str) {
    checks.own_length(name, 0..=bounds::MAX_HEADER_NAME);
    checks.rule(&rules::HEADER_NAME, text::is_header_name(name));
}
