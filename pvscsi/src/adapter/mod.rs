//! The adapter in use: commands in flight, its bottom half, its end.
//!
//! # Life
//! ```text
//! running ─ reset ─▶ resetting ─▶ quiet ─▶ running     the rings are drained, what is left ends with `Reset`, the rings are set up anew
//!    │                                │
//!    └─ removed, broken ─▶ stopping ─▶ dead            the rings are not looked at any more, everything ends with the reason
//! ```
//! While it is resetting or stopping one caller has the registers and the bottom half rests.
//!
//! # Contexts and locks
//! The hard interrupt handler acknowledges and schedules the bottom half ([`interrupts`]). The bottom half takes the lock of the state for
//! each completion and runs the command's end without it. Submitters take it once per command and once per commit. Lock order: that of
//! the registers' commands (rank `DEVICE`) before that of the state (rank `QUEUE`).

mod interrupts;
mod manage;
mod service;
mod start;
mod submit;

pub(crate) use start::{Running, start};
pub(crate) use submit::MAX_TRANSFER;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use undercroft_block::scsi::{Command, HostEvent, HostWatcher};
use undercroft_block::{Error, Slab, Tag};
use undercroft_hal::BottomHalf;
use undercroft_hal::pci::Function;
use undercroft_hal::sync::{IrqSpinLock, assert_unlocked};
use undercroft_hal::work::BottomHalfWork;

use crate::defect::{Defect, Defects};
use crate::registers::{Kick, Registers};
use crate::rings::{Rings, Shared};
use crate::tables::Tables;

/// Where the adapter is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// Commands go in and out.
    Running,
    /// It is being reset, to go on.
    Resetting,
    /// It was reset: what is in the rings is the last of it.
    Quiet,
    /// It is being reset for good.
    Stopping,
    /// It was reset for good: everything ends with this.
    Dead(Error),
}

/// What the state's lock protects.
pub(crate) struct State {
    pub(crate) life: Life,
    pub(crate) rings: Rings<Shared>,
    pub(crate) tables: Tables,
    pub(crate) in_flight: Slab<Command>,
    /// A submitter was refused for want of room.
    pub(crate) starved: bool,
    /// The bottom half is at work and will publish what is added meanwhile.
    pub(crate) serving: bool,
}

impl State {
    /// The command that a context names, if that use of its slot is not over.
    #[inline]
    pub(crate) fn known(&self, context: u64, defects: Defects) -> Option<Tag> {
        let index = (context as u16).checked_sub(1)?;
        let tag = self.in_flight.tag_at(index)?;
        (context == context_of(tag) || defects.has(Defect::TrustsContext)).then_some(tag)
    }
}

/// What names a command to the device: 32 bits, never 0. The slot, and the low half of its generation.
#[inline]
pub(crate) fn context_of(tag: Tag) -> u64 {
    u64::from(tag.generation() as u16) << 16 | (u64::from(tag.index()) + 1)
}

/// What register commands need; whoever has the lock gives them.
pub(crate) struct Control {
    pub(crate) registers: Registers,
    function: Function,
    /// The device has a message ring.
    pub(crate) messages: bool,
    /// The device has a request-call threshold.
    pub(crate) threshold: bool,
}

/// What happened to an adapter since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Messages that units came or went.
    pub messages: u64,
    /// Of those, how many named no unit, or said something unknown.
    pub unclear: u64,
    /// Adapter resets after which it went on.
    pub resets: u64,
    /// Kicks.
    pub kicks: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) messages: AtomicU64,
    pub(crate) unclear: AtomicU64,
    pub(crate) resets: AtomicU64,
    pub(crate) kicks: AtomicU64,
}

impl Counters {
    pub(crate) fn read(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            messages: read(&self.messages),
            unclear: read(&self.unclear),
            resets: read(&self.resets),
            kicks: read(&self.kicks),
        }
    }
}

/// The adapter.
pub(crate) struct Adapter {
    pub(crate) state: IrqSpinLock<State>,
    pub(crate) control: IrqSpinLock<Control>,
    /// For what needs no exclusion: kicks.
    pub(crate) registers: Registers,
    /// Its bottom half; the interrupt handler has a reference.
    pub(crate) work: Arc<BottomHalfWork>,
    pub(crate) watcher: IrqSpinLock<Option<Arc<dyn HostWatcher>>>,
    pub(crate) counters: Counters,
    stopping: AtomicBool,
    over_told: AtomicBool,
    pub(crate) defects: Defects,
}

impl Adapter {
    /// Kicks, if one is due. No lock of the state is held: the exit to the host may be long.
    #[inline]
    pub(crate) fn kick(&self, kick: Kick) {
        if kick != Kick::None {
            self.counters.kicks.fetch_add(1, Ordering::Relaxed);
            self.registers.kick(kick);
        }
    }

    /// Starts what was submitted.
    #[inline]
    pub(crate) fn commit(&self) {
        let mut state = self.state.lock();
        // Commands that are sent as others end get one kick for the whole batch, at its end.
        if state.serving || state.life != Life::Running {
            return;
        }
        let kick = state.rings.publish();
        drop(state);
        self.kick(kick);
    }

    pub(crate) fn watch(&self, watcher: Arc<dyn HostWatcher>) {
        // Dropped after the lock: the last reference may run anything.
        let old = self.watcher.lock().replace(watcher);
        drop(old);
    }

    pub(crate) fn tell(&self, cx: &BottomHalf, event: HostEvent) {
        let watcher = self.watcher.lock().clone();
        if let Some(watcher) = watcher {
            watcher.event(cx, event);
        }
    }

    /// Stops the adapter for good: resets it and has everything in flight finished with `error`. Bottom half or task context, no lock held.
    /// Only the first call acts.
    pub(crate) fn stop(&self, error: Error) {
        assert_unlocked("an adapter is stopped");
        if self.stopping.swap(true, Ordering::AcqRel) {
            return;
        }
        let control = self.control.lock();
        self.state.lock().life = Life::Stopping;
        if !control.registers.reset() {
            // The buffers go back to their owners all the same, so the device must not reach memory any more.
            control.function.disable_bus_master();
        }
        self.state.lock().life = Life::Dead(error);
        drop(control);
        if !self.defects.has(Defect::ForgetsAtRemoval) {
            self.work.schedule();
        }
    }
}
