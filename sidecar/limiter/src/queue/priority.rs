//! Who goes first: the words that policies use, and the bands that they come to.

/// How urgent a request is; the first is the most urgent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Interactive, and the only one that may use slots that are held in reserve; pushed out last.
    Critical,
    /// Interactive.
    High,
    /// Standard.
    #[default]
    Medium,
    /// Batch.
    Low,
    /// Only what nobody else wants: a limit that deprioritizes is exceeded.
    Spare,
}

/// Requests that share what their band gets, client by client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Band {
    /// Somebody looks at the screen: 16 parts.
    Interactive,
    /// 4 parts.
    Standard,
    /// Jobs: 1 part, and never less than 5 % of the whole.
    Batch,
    /// What no other band wants.
    Spare,
}

impl Priority {
    /// All, the most urgent first.
    pub const ALL: [Self; 5] = [Self::Critical, Self::High, Self::Medium, Self::Low, Self::Spare];

    /// The band that it comes to.
    pub const fn band(self) -> Band {
        match self {
            Self::Critical | Self::High => Band::Interactive,
            Self::Medium => Band::Standard,
            Self::Low => Band::Batch,
            Self::Spare => Band::Spare,
        }
    }
}

impl Band {
    /// All, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Interactive, Self::Standard, Self::Batch, Self::Spare];

    /// What it gets beside the others, in thousandths. The parts are 16, 4 and 1; with all three at work a single part
    /// would be 4.8 % of the whole, so batch has the 20 · 5 / 95 that make it 5 %. `Spare` competes with nobody.
    pub const fn weight_milli(self) -> u32 {
        match self {
            Self::Interactive => 16_000,
            Self::Standard => 4_000,
            Self::Batch | Self::Spare => 1_053,
        }
    }
}

/// Whose a request is: requests of one client in one band share one place among the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey(pub u128);
