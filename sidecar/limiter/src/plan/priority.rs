//! How a plan tells how urgent a request is, and how much its client weighs.

use corral_wire::PriorityDoc;

use super::Plan;
use crate::{HeadFacts, queue::Priority};

/// What a client weighs that is in no tier.
pub(crate) const ONE_WEIGHT: u32 = 1;

/// A class of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tier {
    pub(super) name: String,
    /// In thousandths.
    pub(super) scale: u32,
    pub(super) weight: u32,
    /// None: as the endpoint says.
    pub(super) priority: Option<Priority>,
}

impl Plan {
    /// How urgent a request is: as the trusted header says, else its tier, else its endpoint, else medium.
    pub fn priority_of(&self, head: &HeadFacts) -> Priority {
        self.header_priority(head)
            .or_else(|| self.tier_of_head(head)?.priority)
            .or_else(|| self.endpoint_priority(head))
            .unwrap_or_default()
    }

    /// What the client of a request weighs against others of its priority; 1 to 1000.
    pub fn weight_of(&self, head: &HeadFacts) -> u32 {
        self.tier_of_head(head).map_or(ONE_WEIGHT, |tier| tier.weight)
    }

    pub(super) fn tier(&self, name: &str) -> Option<&Tier> {
        self.tiers.iter().find(|tier| tier.name == name)
    }

    fn tier_of_head(&self, head: &HeadFacts) -> Option<&Tier> {
        self.tier(self.tier_of(head)?)
    }

    fn header_priority(&self, head: &HeadFacts) -> Option<Priority> {
        let name = self.priority_header.as_deref()?;
        let (_, value) = head.headers.iter().find(|(given, _)| **given == *name)?;
        PriorityDoc::from_header(value).map(Into::into)
    }

    fn endpoint_priority(&self, head: &HeadFacts) -> Option<Priority> {
        let of_class = self.endpoint_priorities.iter().find(|(endpoint, _)| *endpoint == head.endpoint);
        of_class.map(|(_, priority)| *priority)
    }
}
