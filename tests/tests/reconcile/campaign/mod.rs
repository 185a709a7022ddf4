//! Every write and every watch event of everyday changes, each gone wrong in every way, one at a time: it must end as if
//! nothing had happened, then be quiet, and never take away what is needed.
//!
//! ```text
//! workload ─▶ calm run: how many writes and events, and how it ends
//!          └▶ one run for each write × fault and event × fault ─▶ laws
//! ```
//! A run that breaks a law is named, such as `change_a_policy/3/After(Hang)`; with that name in `CORRAL_FAULT` it is the
//! only one. `CORRAL_FAULT=all` runs every fault at every place, which takes minutes; without, the kinds take turns.

mod cluster;
mod injection;
mod laws;
mod run;
mod workloads;

use std::collections::BTreeMap;

use injection::{Extent, Injection};
use run::{Run, run};
use workloads::{ALL, Workload};

/// Holds every injection of a workload to the laws.
fn campaign(workload: &Workload) {
    let calm = run(workload, None);
    let broken: Vec<String> = wanted(workload, &calm).iter().filter_map(|one| verdict(one, &calm)).collect();
    assert!(broken.is_empty(), "{} runs broke a law:\n{}", broken.len(), broken.join("\n"));
}

fn wanted(workload: &Workload, calm: &Run) -> Vec<Injection> {
    #[expect(clippy::disallowed_methods, reason = "the name of the one run that is looked into")]
    let only = std::env::var("CORRAL_FAULT").ok();
    let Some(only) = only else { return injection::all(workload, calm, Extent::Daily) };
    let mut all = injection::all(workload, calm, Extent::Whole);
    all.retain(|one| only == "all" || one.to_string() == only);
    all
}

fn verdict(injection: &Injection, calm: &Run) -> Option<String> {
    let run = run(&injection.workload, Some((injection, &calm.end)));
    laws::broken(injection, calm, &run).map(|why| format!("{injection}: {why}"))
}

#[test]
fn the_campaign_covers_every_write_and_event_of_six_workloads() {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for workload in ALL {
        let calm = run(workload, None);
        println!("{}: {} writes, {} events", workload.name, calm.writes, calm.events);
        for injection in injection::all(workload, &calm, Extent::Daily) {
            *kinds.entry(format!("{:?}", injection.fault)).or_default() += 1;
        }
    }
    let sum: usize = kinds.values().sum();
    println!("{sum} injections: {kinds:#?}");
    assert!(ALL.len() >= 6 && sum >= 250, "{sum}");
}

#[test]
fn creating_a_pool_and_a_policy_survives_every_fault() {
    campaign(&workloads::CREATE);
}

#[test]
fn changing_a_policy_survives_every_fault() {
    campaign(&workloads::CHANGE_A_POLICY);
}

#[test]
fn growing_a_pool_survives_every_fault() {
    campaign(&workloads::GROW);
}

#[test]
fn shrinking_a_pool_survives_every_fault() {
    campaign(&workloads::SHRINK);
}

#[test]
fn changing_the_image_and_the_template_survives_every_fault() {
    campaign(&workloads::CHANGE_THE_PODS);
}

#[test]
fn deleting_a_policy_survives_every_fault() {
    campaign(&workloads::DELETE_A_POLICY);
}

#[test]
fn deleting_a_pool_with_policies_left_survives_every_fault() {
    campaign(&workloads::DELETE_A_POOL);
}
