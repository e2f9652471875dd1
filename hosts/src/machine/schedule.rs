//! When devices work and when interrupts arrive.

use crate::Random;

/// What may happen at each call that the guest makes into `hal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// Devices do all they can, and interrupts arrive, at every call.
    Eager,
    /// Devices work and interrupts arrive only when the guest waits (halts or spins).
    Lazy,
    /// At each call devices work a little, and an interrupt arrives, each with its chance in percent.
    Random {
        /// Chance that devices work.
        work: u8,
        /// Chance that an interrupt is delivered.
        deliver: u8,
    },
}

impl Schedule {
    /// Even chances.
    pub const RANDOM: Self = Self::Random { work: 30, deliver: 50 };

    pub(super) fn works(self, random: &mut Random) -> bool {
        match self {
            Self::Eager => true,
            Self::Lazy => false,
            Self::Random { work, .. } => random.chance(work),
        }
    }

    pub(super) fn delivers(self, random: &mut Random) -> bool {
        match self {
            Self::Eager => true,
            Self::Lazy => false,
            Self::Random { deliver, .. } => random.chance(deliver),
        }
    }

    /// How many requests a device takes or completes in one go.
    pub(super) fn budget(self, random: &mut Random) -> usize {
        match self {
            Self::Eager | Self::Lazy => usize::MAX,
            Self::Random { .. } => 1 + random.below(4),
        }
    }
}
