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

/// A wired line that was masked because it kept interrupting and no handler claimed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Storm {
    /// The line. Its devices get no interrupts any more until a handler is added to it.
    pub line: IrqLine,
    /// Interrupts in a row that nobody claimed.
    pub unclaimed: u32,
}

/// Interrupts in a row on a wired line that nobody claims before it is masked.
pub const STORM: u32 = 1000;

/// What kind of interrupt a CPU took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    Device = 0,
    Alarm = 1,
    Kick = 2,
}

/// Counts of interrupts by kind. Written by their CPU only, with interrupts off.
#[derive(Debug)]
pub(crate) struct Arrivals([AtomicU64; 3]);

impl Arrivals {
    pub(crate) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; 3])
    }

    #[inline]
    pub(crate) fn count(&self, arrival: Arrival) {
        let count = &self.0[arrival as usize];
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

/// How many interrupts a CPU has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Taken {
    /// From devices.
    pub device: u64,
    /// From its alarm.
    pub alarm: u64,
    /// From other CPUs and itself.
    pub kick: u64,
}

/// Returns how many interrupts CPU `cpu` has taken; none for a CPU that there is not. Any context.
pub fn taken(cpu: usize) -> Taken {
    system::with(|system| {
        system.cpus.get(cpu).map_or(Taken::default(), |cpu| {
            let [device, alarm, kick] = cpu.arrivals.0.each_ref().map(|count| count.load(Ordering::Relaxed));
            Taken { device, alarm, kick }
        })
    })
}

type Handler = Box<dyn Fn(&HardIrq) -> Handled + Send>;

struct Entry {
    /// 0 when the slot is free.
    users: usize,
    line: Option<IrqLine>,
    /// Interrupts so far, and those of late that nobody claimed.
    count: u64,
    unclaimed: u32,
    storm: Option<Storm>,
    handlers: Vec<(u64, Handler)>,
}

impl Entry {
    const fn new() -> Self {
        Self { users: 0, line: None, count: 0, unclaimed: 0, storm: None, handlers: Vec::new() }
    }

    /// Notes an interrupt. `true`: it is one too many that nobody claims, and the line is to be masked.
    fn note(&mut self, handled: Handled) -> bool {
        self.count += 1;
        self.unclaimed = if handled == Handled::Yes { 0 } else { self.unclaimed.saturating_add(1) };
        self.unclaimed == STORM
    }
}

/// The dispatch table.
pub(crate) struct Slots {
    table: [IrqSpinLock<Entry>; SLOTS],
    next_id: AtomicU64,
    unclaimed: AtomicU32,
    /// Storms that nobody was told of yet.
    storms: AtomicU32,
    alarm: IrqSpinLock<Option<fn(&HardIrq)>>,
    kick: IrqSpinLock<Option<fn(&HardIrq)>>,
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots").field("unclaimed", &self.unclaimed).finish_non_exhaustive()
    }
}

impl Slots {
    pub(crate) const fn new() -> Self {
        Self {
            table: [const { IrqSpinLock::new(Rank::IRQ, Entry::new()) }; SLOTS],
            next_id: AtomicU64::new(1),
            unclaimed: AtomicU32::new(0),
            storms: AtomicU32::new(0),
            alarm: IrqSpinLock::new(Rank::IRQ, None),
            kick: IrqSpinLock::new(Rank::IRQ, None),
        }
    }

    pub(crate) fn run(&self, slot: Slot, cx: &HardIrq) {
        let mut handled = Handled::No;
        if let Some(entry) = self.table.get(usize::from(slot.0)) {
            let mut entry = entry.lock();
            for (_, handler) in &entry.handlers {
                // Every handler of a shared line is asked: two devices may have raised it together.
                if handler(cx) == Handled::Yes {
                    handled = Handled::Yes;
                }
            }
            if entry.note(handled)
                && let Some(line) = entry.line
            {
                // A level-triggered line would come back at once, for ever.
                seam::line_mask(line);
                entry.storm = Some(Storm { line, unclaimed: entry.unclaimed });
                self.storms.fetch_add(1, Ordering::Release);
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

    pub(crate) fn run_kick(&self, cx: &HardIrq) {
        let handler = *self.kick.lock();
        if let Some(handler) = handler {
            handler(cx);
        }
    }

    fn claim(&self, line: Option<IrqLine>) -> Result<Slot, IrqError> {
        if line.is_some() {
            let shared = self.table.iter().position(|entry| {
                let mut entry = entry.lock();
                let same = entry.users > 0 && entry.line == line;
                if same {
                    // Its routing unmasks it: the new handler may be the one that was missing.
                    entry.users += 1;
                    entry.unclaimed = 0;
                }
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
                let handlers = core::mem::take(&mut entry.handlers);
                *entry = Entry { users: 1, line, handlers, ..Entry::new() };
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
    /// Where a message arrives.
    cpu: Option<usize>,
}

impl Interrupt {
    /// How many interrupts came in its slot: on a wired line, those of all its devices. Any context.
    pub fn count(&self) -> u64 {
        system::with(|system| system.slots.table[usize::from(self.slot.0)].lock().count)
    }

    /// Raises it as its device would: for tests and measurements. Any context.
    ///
    /// # Errors
    /// [`IrqError::Unsupported`] for a wired line, and where the platform cannot.
    pub fn raise(&self) -> Result<(), IrqError> {
        self.cpu.map_or(Err(IrqError::Unsupported), |cpu| seam::raise(self.slot, cpu))
    }
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
        let interrupt = Interrupt { slot, id: system.slots.add(slot, Box::new(handler)), cpu: Some(cpu) };
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
        let interrupt = Interrupt { slot, id: system.slots.add(slot, Box::new(handler)), cpu: None };
        seam::line_route(line, slot)?;
        Ok(interrupt)
    })
}

/// How many handlers are registered. Any context.
pub fn handlers() -> usize {
    system::with(|system| system.slots.table.iter().map(|entry| entry.lock().handlers.len()).sum())
}

/// How many interrupts no handler claimed.
pub fn unclaimed(_cx: &impl NotHardIrq) -> u32 {
    system::with(|system| system.slots.unclaimed.load(Ordering::Relaxed))
}

/// Returns a storm that was not returned before.
pub fn storm(_cx: &Task) -> Option<Storm> {
    system::with(|system| {
        let slots = &system.slots;
        if slots.storms.load(Ordering::Acquire) == 0 {
            return None;
        }
        let found = slots.table.iter().find_map(|entry| entry.lock().storm.take());
        if found.is_some() {
            slots.storms.fetch_sub(1, Ordering::Relaxed);
        }
        found
    })
}

/// Sets what runs, in hard interrupt context, when a CPU's alarm goes off. The callout wheel does this once.
pub fn set_alarm_handler(_cx: &Task, handler: fn(&HardIrq)) {
    system::with(|system| *system.slots.alarm.lock() = Some(handler));
}

/// Sets what runs, in hard interrupt context, when a CPU is kicked: by [`crate::cpu::kick`], or because work was queued for it. The callout
/// wheel does this once, to look at its alarm.
pub fn set_kick_handler(_cx: &Task, handler: fn(&HardIrq)) {
    system::with(|system| *system.slots.kick.lock() = Some(handler));
}

/// Arms this CPU's alarm for an absolute time, replacing the one before; `None` disarms.
pub fn set_alarm(at: Option<crate::Instant>) {
    let _off = crate::cpu::IrqGuard::new();
    seam::set_alarm(at.map(crate::Instant::as_nanos));
}
