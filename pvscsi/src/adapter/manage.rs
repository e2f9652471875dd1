//! Ending commands that do not end by themselves. Task or bottom-half context, no lock held.
//!
//! Each of these first shows the device what it has not seen, so that it can end that too, and leaves it to the bottom half to find what was
//! ended.

use core::sync::atomic::Ordering;

use undercroft_block::scsi::{Address, HostEvent, Managed, Management};
use undercroft_block::{Error, Tag};
use undercroft_hal::BottomHalf;
use undercroft_hal::sync::assert_unlocked;
use zerocopy::{Immutable, IntoBytes};

use super::{Adapter, Life, context_of};
use crate::defect::Defect;
use crate::registers::Kick;
use crate::wire::setup::{AbortCommand, ResetDevice};
use crate::wire::{COMMAND_FAILED, CommandCode, Interrupt};

impl Adapter {
    pub(crate) fn manage(&self, what: Management) -> Managed {
        assert_unlocked("an adapter is asked to end commands");
        match what {
            Management::Abort(tag) => self.abort(tag),
            Management::ResetUnit(Address { target, lun }) => self.reset_by(
                CommandCode::RESET_DEVICE,
                &ResetDevice { target: u32::from(target).into(), lun: lun.to_bytes() },
            ),
            Management::ResetBus => self.reset_by(CommandCode::RESET_BUS, &()),
            Management::ResetHost => self.reset(),
        }
    }

    /// Publishes what was written. `false` if the adapter does not run.
    fn show(&self) -> bool {
        let mut state = self.state.lock();
        if state.life != Life::Running {
            return false;
        }
        if self.defects.has(Defect::AbortsUnpublished) {
            return true;
        }
        let _ = state.rings.publish();
        drop(state);
        // Even if nothing is new: below its threshold the device may not have looked.
        self.kick(Kick::Other);
        true
    }

    fn abort(&self, tag: Tag) -> Managed {
        let control = self.control.lock();
        if !self.show() {
            return Managed::Refused;
        }
        let target = match self.state.lock().in_flight.get(tag) {
            Some(command) => command.address().target,
            None => return Managed::NoCommand,
        };
        // It may end now, and its slot be used again: then the context is another.
        let descriptor =
            AbortCommand { context: context_of(tag).into(), target: u32::from(target).into(), reserved: 0.into() };
        let status = control.registers.command(CommandCode::ABORT_COMMAND, &descriptor);
        drop(control);
        self.asked(status)
    }

    fn reset_by(&self, code: CommandCode, descriptor: &(impl IntoBytes + Immutable)) -> Managed {
        let control = self.control.lock();
        if !self.show() {
            return Managed::Refused;
        }
        let status = control.registers.command(code, descriptor);
        drop(control);
        self.asked(status)
    }

    fn asked(&self, status: u32) -> Managed {
        // What was ended may be in the ring without an interrupt.
        self.work.schedule();
        if status == COMMAND_FAILED { Managed::Refused } else { Managed::Asked }
    }

    /// Resets the adapter and lets the bottom half do the rest.
    fn reset(&self) -> Managed {
        let control = self.control.lock();
        {
            let mut state = self.state.lock();
            if state.life != Life::Running {
                return Managed::Refused;
            }
            state.life = Life::Resetting;
        }
        if !control.registers.reset() {
            drop(control);
            self.stop(Error::Broken);
            return Managed::Refused;
        }
        // The device looks at the rings no more. What it put there before counts.
        self.state.lock().life = Life::Quiet;
        drop(control);
        self.work.schedule();
        Managed::Asked
    }

    /// Sets the rings up anew. The bottom half, when nothing is in flight.
    pub(super) fn resume(&self, cx: &BottomHalf) {
        let control = self.control.lock();
        let (setup, messages) = {
            let mut state = self.state.lock();
            if state.life != Life::Quiet {
                return;
            }
            state.rings.memory().clear();
            state.rings.restart();
            (state.rings.memory().setup(), state.rings.memory().setup_messages())
        };
        let up = control.set_up(&setup, &messages, || {
            let state = self.state.lock();
            (state.rings.memory().is_understood(), state.rings.memory().are_messages_understood())
        });
        let Some(up) = up else {
            drop(control);
            return self.stop(Error::Broken);
        };
        let starved = {
            let mut state = self.state.lock();
            state.rings.set_threshold(up.threshold);
            state.serving = false;
            state.life = Life::Running;
            core::mem::take(&mut state.starved)
        };
        control.registers.mask(up.interrupts());
        drop(control);
        self.counters.resets.fetch_add(1, Ordering::Relaxed);
        // Messages may have been lost.
        self.tell(cx, HostEvent::Rescan);
        if starved {
            self.tell(cx, HostEvent::Room);
        }
    }
}

/// What of the device is in use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Up {
    pub(super) messages: bool,
    pub(super) threshold: bool,
}

impl Up {
    pub(super) fn interrupts(self) -> Interrupt {
        if self.messages { Interrupt::COMPLETIONS | Interrupt::MESSAGES } else { Interrupt::COMPLETIONS }
    }
}
