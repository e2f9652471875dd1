//! A software reset of both drives (ATA 9.2), a step at a time. Bottom half.

use undercroft_hal::{Duration, Instant};

use super::engine::Engine;
use crate::registers::Registers;
use crate::wire::{Control, Status, signature};

/// SRST is held at least this long.
pub(crate) const PULSE: Duration = Duration::from_micros(5);
/// And no drive is asked for its status for this long afterwards.
pub(crate) const QUIET: Duration = Duration::from_millis(2);
/// A drive may take this long to come back (ATA 9.2, 31 s).
pub(crate) const LIMIT: Duration = if cfg!(test) { Duration::from_millis(3) } else { Duration::from_secs(31) };

/// How far a reset is.
#[derive(Debug, Clone, Copy)]
enum Stage {
    Pulse,
    Quiet,
    /// Waiting for this drive.
    Drive(usize),
}

/// A reset in progress.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reset {
    stage: Stage,
    since: Instant,
    alive: [bool; 2],
}

impl Reset {
    /// Begins one. The bus master is stopped.
    pub(super) fn begin(registers: Registers) -> Self {
        // Not every controller's reset selects the first drive; one that is busy would not hear of it.
        if !registers.alternate().intersects(Status::BSY | Status::DRQ) {
            registers.select(0);
        }
        registers.control(Control::SRST | Control::NIEN);
        Self { stage: Stage::Pulse, since: Instant::now(), alive: [false; 2] }
    }

    /// Goes on as far as it can. When it is over: which drives came back.
    pub(super) fn step(&mut self, engine: &Engine) -> Option<[bool; 2]> {
        let registers = &engine.registers;
        match self.stage {
            Stage::Pulse if self.since.elapsed() > PULSE => {
                registers.control(Control::NIEN);
                (self.stage, self.since) = (Stage::Quiet, Instant::now());
            }
            Stage::Quiet if self.since.elapsed() > QUIET => {
                (self.stage, self.since) = (Stage::Drive(0), Instant::now());
            }
            Stage::Drive(drive) => {
                // Whoever the first drive is, the second cannot be asked while it is busy.
                let status = registers.alternate();
                let busy = status.contains(Status::BSY) && status != Status::all();
                if busy && self.since.elapsed() <= LIMIT {
                    return None;
                }
                // It must be at rest, and what it was.
                let at_rest = !status.intersects(Status::BSY | Status::DRQ);
                self.alive[drive] = at_rest && registers.signature() == signature::DISK;
                if drive == 0 && !busy && engine.means[1].is_some() {
                    registers.select(1);
                    (self.stage, self.since) = (Stage::Drive(1), Instant::now());
                } else {
                    registers.control(Control::empty());
                    return Some(self.alive);
                }
            }
            Stage::Pulse | Stage::Quiet => {}
        }
        None
    }
}
