//! The channel's interrupt. Hard interrupt context.
//!
//! The controller's status says whether a drive asked for it; if none did, the interrupt is another device's, or noise, and nothing is touched
//! (X04). Its bit is cleared *before* the drive's status is read: a drive that finishes between the two sets the bit again and raises a new
//! interrupt, one that finishes before is seen by the bottom half. Whether the command is over is for the bottom half to find out.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use undercroft_hal::irq::Handled;

use crate::defect::{Defect, Defects};
use crate::registers::Registers;
use crate::wire::{MasterStatus, Status};

/// What the interrupt handler shares with the bottom half.
#[derive(Debug)]
pub(crate) struct Signals {
    registers: Registers,
    seen: AtomicBool,
    /// Interrupts that no drive of the channel had asked for.
    foreign: AtomicU32,
    defects: Defects,
}

impl Signals {
    pub(crate) const fn new(registers: Registers, defects: Defects) -> Self {
        Self { registers, seen: AtomicBool::new(false), foreign: AtomicU32::new(0), defects }
    }

    /// The handler: reads the controller's status, acknowledges. The bottom half is to be scheduled if it says [`Handled::Yes`].
    pub(crate) fn arrived(&self) -> Handled {
        let ours = match self.registers.master_status() {
            Some(status) => {
                let ours = status.contains(MasterStatus::INTERRUPT) || self.defects.has(Defect::TrustsInterrupts);
                if ours {
                    self.registers.master_clear(status, MasterStatus::INTERRUPT);
                }
                ours
            }
            None => !self.registers.alternate().contains(Status::BSY),
        };
        if !ours {
            self.foreign.fetch_add(1, Ordering::Relaxed);
            return Handled::No;
        }
        let status = self.registers.status();
        if self.defects.has(Defect::BoxesInInterrupt) && status.contains(Status::ERR) {
            drop(core::hint::black_box(alloc::boxed::Box::new(status.bits())));
        }
        self.seen.store(true, Ordering::Release);
        Handled::Yes
    }

    /// Whether an interrupt came since the last look. Bottom half.
    pub(super) fn take(&self) -> bool {
        self.seen.swap(false, Ordering::Acquire)
    }

    /// How many interrupts were not the channel's. Any context.
    pub(super) fn foreign(&self) -> u32 {
        self.foreign.load(Ordering::Relaxed)
    }
}
