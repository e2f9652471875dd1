//! Fault scripts: what goes wrong with which request. Deterministic: a decision depends on the script and the request's number only.

use crate::Random;

/// Something that a device does wrong, or that a good device may do rarely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Completes after this many virtual nanoseconds.
    Delay(u64),
    /// Completes after this many later requests did (or after a virtual millisecond, if they do not come).
    Behind(u32),
    /// Never answers. The buffers stay the device's until a reset.
    Never,
    /// Performs nothing and answers an error: virtio-blk IOERR, virtio-scsi FAILURE.
    Error,
    /// Answers this status byte (virtio-blk) or response code (virtio-scsi).
    Status(u8),
    /// virtio-scsi: answers CHECK CONDITION with this sense key, code and qualifier.
    Sense(u8, u8, u8),
    /// virtio-scsi: answers this SCSI status without sense data (BUSY is 0x08, TASK SET FULL 0x28).
    ScsiStatus(u8),
    /// Performs the request but leaves the status untouched.
    NoStatus,
    /// Says that it wrote this many bytes less than it did.
    Short(u32),
    /// Says that it wrote this many bytes more than the buffers hold.
    TooLong(u32),
    /// Writes the used entry twice.
    Duplicate,
    /// Writes a used entry with an id beyond the queue instead.
    BadId,
    /// Writes a used entry with an id that is in range and not in flight instead.
    IdleId,
    /// Moves the used index this much further than it wrote entries.
    IndexJump(u16),
    /// Raises no interrupt although one is due.
    NoInterrupt,
    /// Raises an interrupt although none is due, before the request is done.
    Spurious,
    /// Stops, and asks to be reset (DEVICE_NEEDS_RESET).
    NeedsReset,
}

/// What the script says about one request.
pub type Decision = Vec<Fault>;

#[derive(Debug, Clone, Copy)]
enum When {
    At(u64),
    From(u64),
    Every(u64),
}

/// Decides, for each request in the order in which the device takes them, what goes wrong. An endless iterator of decisions.
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

    /// Adds a fault at request `number`, counted from 0.
    #[must_use]
    pub fn at(mut self, number: u64, fault: Fault) -> Self {
        self.rules.push((When::At(number), fault));
        self
    }

    /// Adds a fault at request `number` and all after it.
    #[must_use]
    pub fn from(mut self, number: u64, fault: Fault) -> Self {
        self.rules.push((When::From(number), fault));
        self
    }

    /// Adds a fault at every `step`-th request: number `step - 1` first.
    #[must_use]
    pub fn every(mut self, step: u64, fault: Fault) -> Self {
        self.rules.push((When::Every(step.max(1)), fault));
        self
    }

    /// Adds one of `faults` to `percent` of the requests, by `seed`.
    #[must_use]
    pub fn sometimes(mut self, seed: u64, percent: u8, faults: &[Fault]) -> Self {
        self.chance = Some((Random::new(seed), percent, faults.to_vec()));
        self
    }
}

impl Iterator for FaultScript {
    type Item = Decision;

    fn next(&mut self) -> Option<Decision> {
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
        Some(faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decides_by_number() {
        let script = FaultScript::none().at(1, Fault::Never).every(3, Fault::Error).from(4, Fault::BadId);
        let decisions: Vec<_> = script.take(6).collect();
        let expected: [&[Fault]; 6] =
            [&[], &[Fault::Never], &[Fault::Error], &[], &[Fault::BadId], &[Fault::Error, Fault::BadId]];
        assert_eq!(decisions, expected);
    }

    #[test]
    fn chance_replays_from_its_seed() {
        let script = FaultScript::none().sometimes(7, 50, &[Fault::Error, Fault::Never]);
        let (a, b) = (script.clone().take(100), script.take(100));
        let faulty = a.zip(b).map(|(a, b)| {
            assert_eq!(a, b);
            a.len()
        });
        assert!((20..80).contains(&faulty.sum::<usize>()));
    }
}
