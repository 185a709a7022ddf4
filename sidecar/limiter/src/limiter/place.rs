//! Where a request stands in the queue: whose it is, how much its client weighs, and how urgent it is.

use corral_wire::KeyPart;

use super::Limiter;
use crate::{
    HeadFacts,
    queue::{FlowKey, Priority},
};

/// Where a request stands in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Whose it is: the client of its API key, else its address (of an IPv6 address its /64).
    pub flow: FlowKey,
    /// What its client weighs against others of its priority; 1 to 1000, by its tier.
    pub weight: u32,
    /// How urgent it is. Never [`Priority::Spare`]: that is for a limit to say.
    pub priority: Priority,
}

impl Limiter {
    /// Where a request stands in the queue under the plan in force; its client is the same under every plan. Without a
    /// plan all are of medium priority and weigh the same.
    pub fn place(&self, head: &HeadFacts) -> Place {
        let flow = FlowKey(self.hasher.key(&[KeyPart::Client], (head, None), None).bits());
        match self.plan.as_deref() {
            Some(plan) => Place { flow, weight: plan.weight_of(head), priority: plan.priority_of(head) },
            None => Place { flow, weight: 1, priority: Priority::default() },
        }
    }
}
