//! The text form of metrics: `OpenMetrics` for those who ask for it, the older Prometheus text for all others.
//!
//! The two differ in how a counter is named where it is declared, in units, and in the end mark.

use std::collections::HashSet;

const OPENMETRICS: &str = "application/openmetrics-text";
const OPENMETRICS_FULL: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What to answer to a scrape with this `Accept` header: the content type and the body. `openmetrics` is what
/// `prometheus-client` has written.
pub fn negotiated(accept: Option<&str>, openmetrics: String) -> (&'static str, String) {
    if accept.is_some_and(|types| types.contains(OPENMETRICS)) {
        (OPENMETRICS_FULL, openmetrics)
    } else {
        (CLASSIC, classic(&openmetrics))
    }
}

/// Rewrites text that `prometheus-client` has written.
fn classic(openmetrics: &str) -> String {
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

    #[test]
    fn whoever_does_not_ask_for_openmetrics_gets_the_older_text() {
        let text = "# TYPE a counter\na_total 1\n# EOF\n";
        let asked = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.4";
        assert_eq!(negotiated(Some(asked), text.to_owned()), (OPENMETRICS_FULL, text.to_owned()));
        for accept in [None, Some("*/*"), Some("text/plain")] {
            let (kind, body) = negotiated(accept, text.to_owned());
            assert_eq!((kind, body.as_str()), (CLASSIC, "# TYPE a_total counter\na_total 1\n"));
        }
    }
}
