//! What is printed: a line a figure, its goal beside it.

/// One line. Goals are for an optimised build on a machine with nothing else to do.
pub(crate) fn line(what: &str, goal: &str, ours: &str) {
    let build = if cfg!(debug_assertions) { "unoptimised" } else { "optimised" };
    println!("| {what:<58} | {goal:<12} | {ours} ({build}) |");
}
