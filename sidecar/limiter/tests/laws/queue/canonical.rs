//! A text of a queue that two have in common if they are the same: what maps hold is told in order.

use std::fmt::Debug;

/// The debug text, with the parts between each pair of braces in order.
pub(crate) fn text(thing: &impl Debug) -> String {
    let text = format!("{thing:#?}");
    let mut rest = text.lines().map(|line| line.trim().trim_end_matches(','));
    let mut told = String::new();
    while let Some(line) = rest.next() {
        told.push_str(&part(line, &mut rest));
    }
    told
}

/// What begins on a line, with all that belongs to it.
fn part<'a>(line: &'a str, rest: &mut impl Iterator<Item = &'a str>) -> String {
    if !line.ends_with(['{', '[', '(']) {
        return line.into();
    }
    let mut parts = Vec::new();
    let close = loop {
        match rest.next() {
            Some(line) if line.starts_with(['}', ']', ')']) => break line,
            Some(line) => parts.push(part(line, rest)),
            None => break "",
        }
    };
    // The order of lists counts, that of maps and fields does not.
    if line.ends_with('{') {
        parts.sort_unstable();
    }
    format!("{line}{}{close}", parts.join(","))
}

#[test]
fn maps_tell_the_same_whatever_the_order_and_lists_do_not() {
    use std::collections::HashMap;
    let map = |numbers: &[u32]| numbers.iter().map(|number| (*number, [1, 2])).collect::<HashMap<_, _>>();
    assert_eq!(text(&map(&[1, 2, 3, 4])), text(&map(&[4, 2, 3, 1])));
    assert_ne!(text(&map(&[1, 2, 3, 4])), text(&map(&[1, 2, 3])));
    assert_ne!(text(&[1, 2]), text(&[2, 1]));
}
