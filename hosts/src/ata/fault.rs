//! Fault scripts: what goes wrong with which command. Commands that read, write, flush or trim count, over both drives of a channel.

use crate::Random;

/// Something that a drive or controller does wrong, or that a good one may do rarely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Begins after this many virtual nanoseconds.
    Delay(u64),
    /// Performs nothing and ends with ERR and this error register.
    Error(u8),
    /// Transfers this many sectors, then ends with ERR and this error register.
    ErrorAfter(u16, u8),
    /// Performs nothing and ends with DF.
    DeviceFault,
    /// Finishes, and the interrupt is seen in the controller but never reaches the CPU.
    InterruptLost,
    /// Finishes, but never asks for an interrupt.
    NoInterrupt,
    /// An edge on the interrupt line in the middle of the transfer, with nothing in the controller's status: another device's, or noise.
    Spurious,
    /// The controller's interrupt bit is set, and the line raised, in the middle of the transfer.
    Glitch,
    /// One more interrupt, with the controller's bit set, after the last.
    Extra,
    /// Stays busy until it is reset.
    StuckBusy,
    /// Stays busy for ever, resets included.
    Wedged,
    /// Says that it is done having moved this many bytes less than it was asked for (DMA).
    Short(u32),
    /// Moves this many bytes; then the engine stops and the drive is at rest, in silence, as if the table had been too short (DMA).
    Stalls(usize),
    /// The controller meets an error on the bus in the middle of the transfer.
    BusError,
    /// Still wants data after the last of it.
    DrqStuck,
}

/// What the script says about one command.
pub type Decision = Vec<Fault>;

#[derive(Debug, Clone, Copy)]
enum When {
    At(u64),
    From(u64),
    Every(u64),
}

/// Decides, for each command in the order in which the channel's drives take them, what goes wrong.
#[derive(Debug, Clone, Default)]
pub struct FaultScript {
    rules: Vec<(When, Fault)>,
    chance: Option<(Random, u8, Vec<Fault>)>,
    next: u64,
}

impl FaultScript {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds a fault at command `number`, counted from 0.
    #[must_use]
    pub fn at(mut self, number: u64, fault: Fault) -> Self {
        self.rules.push((When::At(number), fault));
        self
    }

    /// Adds a fault at command `number` and all after it.
    #[must_use]
    pub fn from(mut self, number: u64, fault: Fault) -> Self {
        self.rules.push((When::From(number), fault));
        self
    }

    /// Adds a fault at every `step`-th command: number `step - 1` first.
    #[must_use]
    pub fn every(mut self, step: u64, fault: Fault) -> Self {
        self.rules.push((When::Every(step.max(1)), fault));
        self
    }

    /// Adds one of `faults` to `percent` of the commands, by `seed`.
    #[must_use]
    pub fn sometimes(mut self, seed: u64, percent: u8, faults: &[Fault]) -> Self {
        self.chance = Some((Random::new(seed), percent, faults.to_vec()));
        self
    }

    /// What goes wrong with the next command.
    pub(super) fn decide(&mut self) -> Decision {
        let number = self.next;
        self.next += 1;
        let applies = |when: &When| match *when {
            When::At(at) => number == at,
            When::From(from) => number >= from,
            When::Every(step) => (number + 1).is_multiple_of(step),
        };
        let mut faults: Decision =
            self.rules.iter().filter(|(when, _)| applies(when)).map(|(_, fault)| *fault).collect();
        if let Some((random, percent, from)) = &mut self.chance
            && random.chance(*percent)
            && !from.is_empty()
        {
            faults.push(from[random.below(from.len())]);
        }
        faults
    }
}
