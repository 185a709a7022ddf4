//! How each peer stands to the plan on offer. Pure.

use std::time::Duration;

use corral_wire::{PLAN_VERSION, PlanState};

use super::peer::{Peer, Peers, Role};

/// How a peer stands to the plan on offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodPlan {
    /// It has said that the plan is in force.
    InForce,
    /// It holds another plan, or has not said anything yet.
    Pending,
    /// It has not said anything for too long.
    Silent,
    /// It cannot read plans of this version.
    TooOld,
    /// It could not take the plan, for this reason.
    Refused(String),
}

/// A peer that runs, and how it stands to the plan on offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stance<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it is to its pool.
    pub role: Role,
    /// How it stands.
    pub plan: PodPlan,
}

/// How those that run stand to the plan on offer.
pub(super) fn stances<'a>(peers: &'a Peers, now: Duration, offered: &PlanState) -> Vec<Stance<'a>> {
    let stance = |peer: &'a Peer| Stance {
        name: &peer.sight.name,
        role: peer.sight.role,
        plan: plan(peer, now, offered),
    };
    peers.running().map(stance).collect()
}

fn plan(peer: &Peer, now: Duration, offered: &PlanState) -> PodPlan {
    let unless_silent = |plan| if peer.is_silent(now) { PodPlan::Silent } else { plan };
    let Some(report) = peer.report() else { return unless_silent(PodPlan::Pending) };
    if report.plan.as_ref() == Some(offered) {
        return unless_silent(PodPlan::InForce);
    }
    if !report.plan_versions.contains(&PLAN_VERSION) {
        return PodPlan::TooOld;
    }
    match &report.plan_error {
        Some(error) => PodPlan::Refused(error.clone()),
        None => unless_silent(PodPlan::Pending),
    }
}
