//! `OpenMetrics` text in the older Prometheus form, for those who do not ask for the newer one.
//!
//! The two differ in how a counter is named where it is declared, in units, and in the end mark.

use std::collections::HashSet;

/// The content type of the older form.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Rewrites text that `prometheus-client` has written.
pub fn classic(openmetrics: &str) -> String {
    let counters: HashSet<&str> = openmetrics.lines().filter_map(|line| family(line, "counter")).collect();
    let infos: HashSet<&str> = openmetrics.lines().filter_map(|line| family(line, "info")).collect();
    let mut text = String::with_capacity(openmetrics.len());
    for line in openmetrics.lines().filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF") {
        match declared(line) {
            Some((head, name, rest)) if counters.contains(name) => {
                text.extend([head, name, "_total", rest]);
            }
            Some((head, name, rest)) if infos.contains(name) => {
                text.extend([head, name, "_info", if rest == " info" { " gauge" } else { rest }]);
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

/// The name in a `# TYPE name kind` line.
fn family<'a>(line: &'a str, kind: &str) -> Option<&'a str> {
    line.strip_prefix("# TYPE ")?.strip_suffix(kind)?.strip_suffix(' ')
}

/// A `# HELP name …` or `# TYPE name …` line in three parts.
fn declared(line: &str) -> Option<(&str, &str, &str)> {
    let (head, rest) = ["# HELP ", "# TYPE "]
        .into_iter()
        .find_map(|head| line.strip_prefix(head).map(|rest| (head, rest)))?;
    let end = rest.find(' ').unwrap_or(rest.len());
    let (name, rest) = rest.split_at(end);
    Some((head, name, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_declared_by_the_name_of_their_samples() {
        let open = "# HELP a_b Bees.\n# TYPE a_b counter\na_b_total{x=\"# TYPE\"} 1\n# HELP g Gauge.\n\
                    # TYPE g gauge\n# UNIT g seconds\ng 2\n# HELP i Build.\n# TYPE i info\ni_info 1\n# EOF\n";
        let old = "# HELP a_b_total Bees.\n# TYPE a_b_total counter\na_b_total{x=\"# TYPE\"} 1\n# HELP g Gauge.\n\
                   # TYPE g gauge\ng 2\n# HELP i_info Build.\n# TYPE i_info gauge\ni_info 1\n";
        assert_eq!(classic(open), old);
    }
}
