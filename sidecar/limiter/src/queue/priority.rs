//! How urgent requests are, and the bands that the queue serves them in.

use corral_wire::PriorityDoc;

/// Whose a request is: all requests of one client in one place of the queue, whatever they ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey(pub u128);

/// How urgent a request is; of two the lesser goes before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// As [`Self::High`], but it may use what is kept free, and is pushed out last.
    Critical,
    /// Somebody waits.
    High,
    /// Nothing is known of it.
    #[default]
    Medium,
    /// Nobody waits.
    Low,
    /// It exceeds a limit that says Deprioritize: it gets only what nobody else wants.
    Spare,
}

impl Priority {
    /// All, the most urgent first.
    pub const ALL: [Self; 5] = [Self::Critical, Self::High, Self::Medium, Self::Low, Self::Spare];

    /// The band that serves it.
    pub const fn band(self) -> Band {
        match self {
            Self::Critical | Self::High => Band::Interactive,
            Self::Medium => Band::Standard,
            Self::Low => Band::Batch,
            Self::Spare => Band::Spare,
        }
    }
}

impl From<PriorityDoc> for Priority {
    fn from(doc: PriorityDoc) -> Self {
        match doc {
            PriorityDoc::Critical => Self::Critical,
            PriorityDoc::High => Self::High,
            PriorityDoc::Medium => Self::Medium,
            PriorityDoc::Low => Self::Low,
        }
    }
}

/// Requests that share what there is by the weights of their clients; bands share it by their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Band {
    /// Weight 16.
    Interactive,
    /// Weight 4.
    Standard,
    /// Weight 1, and never below a twentieth while something of it waits.
    Batch,
    /// What nobody of the others wants.
    Spare,
}

impl Band {
    /// All, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Interactive, Self::Standard, Self::Batch, Self::Spare];

    /// What it gets beside the others, in thousandths. The weights are 16, 4 and 1; with all three at work the last would
    /// get 4.8 % of the whole, so batch has the 20 · 5 / 95 that make it 5 %. [`Self::Spare`] competes with nobody.
    pub const fn weight_milli(self) -> u32 {
        match self {
            Self::Interactive => 16_000,
            Self::Standard => 4_000,
            Self::Batch | Self::Spare => 1_053,
        }
    }

    /// Whether somebody waits for the answers. Of jobs it is no sign of anything that their queue is never empty.
    pub(super) const fn is_waited_for(self) -> bool {
        matches!(self, Self::Interactive | Self::Standard)
    }
}
