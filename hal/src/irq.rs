//! Interrupt routing: from a device's message or line to its handlers.
//!
//! A [`Slot`] is one entry of the dispatch table. A message-signalled interrupt has a slot of its own; a wired line has one slot for
//! all devices that share it, and each handler says whether the interrupt was its device's. Handlers run in hard interrupt
//! context under the slot's lock, so that once [`Interrupt`] is dropped its handler runs nowhere.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::context::{HardIrq, NotHardIrq, Task};
use crate::platform::seam;
use crate::sync::{IrqSpinLock, Rank};
use crate::system;

/// Entries of the dispatch table.
pub const SLOTS: usize = 256;

/// An entry of the dispatch table. A platform maps its vectors to slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot(pub u16);

/// What a device writes to raise a message-signalled interrupt (PCI 3.0, 6.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsiMessage {
    /// Where it writes.
    pub addr: u64,
    /// What it writes.
    pub data: u32,
}

/// A wired interrupt line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IrqLine {
    /// Global system interrupt number (ACPI 5.2.13).
    pub number: u32,
    /// Level-triggered (else edge).
    pub level: bool,
    /// Active low (else high).
    pub low: bool,
}

/// Why an interrupt could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IrqError {
    /// All slots or all vectors of the CPU are taken.
    NoVector,
    /// No such line on this machine.
    NoLine,
    /// No such CPU.
    NoCpu,
    /// The platform has no interrupts of this kind.
    Unsupported,
}

impl fmt::Display for IrqError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoVector => "no interrupt vector is left",
            Self::NoLine => "the machine has no such interrupt line",
            Self::NoCpu => "no such CPU",
            Self::Unsupported => "the machine has no interrupts of this kind",
        })
    }
}

/// A handler's answer on a line that may be shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handled {
    /// The device had raised it.
    Yes,
    /// Another device's, or spurious.
    No,
}

type Handler = Box<dyn Fn(&HardIrq) -> Handled + Send>;

struct Entry {
    /// 0 when the slot is free.
    users: usize,
    line: Option<IrqLine>,
    handlers: Vec<(u64, Handler)>,
}

/// The dispatch table.
pub(crate) struct Slots {
    table: [IrqSpinLock<Entry>; SLOTS],
    next_id: AtomicU64,
    unclaimed: AtomicU32,
    alarm: IrqSpinLock<Option<fn(&HardIrq)>>,
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots").field("unclaimed", &self.unclaimed).finish_non_exhaustive()
    }
}

impl Slots {
    pub(crate) const fn new() -> Self {
        Self {
            table: [const { IrqSpinLock::new(Rank::IRQ, Entry { users: 0, line: None, handlers: Vec::new() }) }; SLOTS],
            next_id: AtomicU64::new(1),
            unclaimed: AtomicU32::new(0),
            alarm: IrqSpinLock::new(Rank::IRQ, None),
        }
    }

    pub(crate) fn run(&self, slot: Slot, cx: &HardIrq) {
        let mut handled = Handled::No;
        if let Some(entry) = self.table.get(usize::from(slot.0)) {
            for (_, handler) in &entry.lock().handlers {
                // Every handler of a shared line is asked: two devices may have raised it together.
                if handler(cx) == Handled::Yes {
                    handled = Handled::Yes;
                }
            }
        }
        if handled == Handled::No {
            self.unclaimed.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn run_alarm(&self, cx: &HardIrq) {
        let handler = *self.alarm.lock();
        if let Some(handler) = handler {
            handler(cx);
        }
    }

    fn claim(&self, line: Option<IrqLine>) -> Result<Slot, IrqError> {
        if line.is_some() {
            let shared = self.table.iter().position(|entry| {
                let mut entry = entry.lock();
                let same = entry.users > 0 && entry.line == line;
                entry.users += usize::from(same);
                same
            });
            if let Some(index) = shared {
                return Ok(Slot(index as u16));
            }
        }
        let free = self.table.iter().position(|entry| {
            let mut entry = entry.lock();
            let free = entry.users == 0;
            if free {
                entry.users = 1;
                entry.line = line;
            }
            free
        });
        free.map(|index| Slot(index as u16)).ok_or(IrqError::NoVector)
    }

    fn add(&self, slot: Slot, handler: Handler) -> u64 {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let entry = &self.table[usize::from(slot.0)];
        // Allocate outside the lock: nothing may allocate under a spinlock.
        loop {
            let want = entry.lock().handlers.len() + 1;
            let mut grown = Vec::with_capacity(want);
            let mut entry = entry.lock();
            if grown.capacity() > entry.handlers.len() {
                grown.append(&mut entry.handlers);
                grown.push((id, handler));
                let old = core::mem::replace(&mut entry.handlers, grown);
                drop(entry);
                drop(old);
                return id;
            }
        }
    }

    fn remove(&self, slot: Slot, id: u64) {
        let mut entry = self.table[usize::from(slot.0)].lock();
        let gone = entry.handlers.iter().position(|(this, _)| *this == id).map(|at| entry.handlers.swap_remove(at));
        entry.users = entry.users.saturating_sub(1);
        let line = if entry.users == 0 { entry.line.take() } else { None };
        let empty = if entry.users == 0 { core::mem::take(&mut entry.handlers) } else { Vec::new() };
        drop(entry);
        if let Some(line) = line {
            seam::line_mask(line);
        }
        drop((gone, empty));
    }
}

/// A registered handler. Dropping it (bottom half or task context) removes the handler; when the drop returns, the handler
/// runs nowhere and is freed.
#[derive(Debug)]
pub struct Interrupt {
    slot: Slot,
    id: u64,
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        system::with(|system| system.slots.remove(self.slot, self.id));
    }
}

/// Registers a handler for a message-signalled interrupt that arrives on `cpu`.
///
/// # Errors
/// [`IrqError`] when there is no vector left, no such CPU, or no such interrupts.
pub fn message(
    _cx: &Task,
    cpu: usize,
    handler: impl Fn(&HardIrq) -> Handled + Send + 'static,
) -> Result<(Interrupt, MsiMessage), IrqError> {
    system::with(|system| {
        let slot = system.slots.claim(None)?;
        let interrupt = Interrupt { slot, id: system.slots.add(slot, Box::new(handler)) };
        let message = seam::msi_route(slot, cpu)?;
        Ok((interrupt, message))
    })
}

/// Registers a handler on a wired line, which other handlers may share.
///
/// # Errors
/// [`IrqError`] when the line does not exist or no slot is left.
pub fn line(
    _cx: &Task,
    line: IrqLine,
    handler: impl Fn(&HardIrq) -> Handled + Send + 'static,
) -> Result<Interrupt, IrqError> {
    system::with(|system| {
        let slot = system.slots.claim(Some(line))?;
        let interrupt = Interrupt { slot, id: system.slots.add(slot, Box::new(handler)) };
        seam::line_route(line, slot)?;
        Ok(interrupt)
    })
}

/// How many interrupts no handler claimed.
pub fn unclaimed(_cx: &impl NotHardIrq) -> u32 {
    system::with(|system| system.slots.unclaimed.load(Ordering::Relaxed))
}

/// Sets what runs, in hard interrupt context, when a CPU's alarm goes off. The callout wheel does this once.
pub fn set_alarm_handler(_cx: &Task, handler: fn(&HardIrq)) {
    system::with(|system| *system.slots.alarm.lock() = Some(handler));
}

/// Arms this CPU's alarm for an absolute time, replacing the one before; `None` disarms.
pub fn set_alarm(at: Option<crate::Instant>) {
    let _off = crate::cpu::IrqGuard::new();
    seam::set_alarm(at.map(crate::Instant::as_nanos));
}
