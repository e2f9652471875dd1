//! Threads as CPUs: a machine without devices, whose CPUs really run at the same time.
//!
//! For stress under a sanitizer (std threads) and for schedule exploration (shuttle threads): the dispatcher, queues, locks and executor
//! of this crate, on several CPUs at once. A kick is a flag that the CPU takes as an interrupt wherever it has interrupts on.

use core::cell::Cell;
use core::sync::atomic::AtomicU64;
use std::rc::Rc;
use std::sync::Arc;

use super::{Event, Machine, Ram, deliver};
use crate::atomic::{AtomicU32, Ordering};
use crate::clock::Duration;
use crate::context::Task;
use crate::dma::{DmaBlock, DmaError, DmaLayout};
use crate::irq::{IrqError, IrqLine, MsiMessage, Slot};
use crate::mmio::{MmioError, Width};
use crate::pci::Address;
use crate::system::System;

/// Bytes of RAM.
const RAM_BYTES: usize = 8 << 20;
const KICK: u32 = 1;
/// Interrupts of slots 0 to 30.
const FIRST_SLOT: u32 = 1;

/// What the CPUs share.
#[derive(Debug)]
pub struct Cpus {
    pending: Vec<AtomicU32>,
    /// Lines that were masked, by number.
    masked: AtomicU32,
    system: System,
    ram: Ram,
    clock: Clock,
}

/// What time it is.
#[derive(Debug)]
enum Clock {
    /// The host's.
    Real(std::time::Instant),
    /// As somebody says.
    Manual(AtomicU64),
}

impl Clock {
    fn now(&self) -> u64 {
        match self {
            // A schedule that is run again must be the same: for shuttle, time stands still.
            Self::Real(_) if cfg!(shuttle) => 0,
            Self::Real(started) => u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX),
            Self::Manual(now) => now.load(Ordering::SeqCst),
        }
    }
}

impl Cpus {
    /// A machine of `count` CPUs.
    pub fn new(count: usize) -> Arc<Self> {
        Self::with_clock(count, Clock::Real(std::time::Instant::now()))
    }

    /// A machine of `count` CPUs whose clock starts at `start` nanoseconds and goes on only by [`Cpus::advance`], and, when a CPU halts that has
    /// nothing else to wait for, to that CPU's alarm.
    pub fn with_manual_clock(count: usize, start: u64) -> Arc<Self> {
        Self::with_clock(count, Clock::Manual(AtomicU64::new(start)))
    }

    /// Lets time pass on a manual clock; another takes no notice. Alarms that are due go off wherever their CPU has interrupts on.
    pub fn advance(&self, by: Duration) {
        if let Clock::Manual(now) = &self.clock {
            let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
            let _ = now.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| Some(now.saturating_add(by)));
        }
    }

    fn with_clock(count: usize, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            pending: (0..count).map(|_| AtomicU32::new(0)).collect(),
            masked: AtomicU32::new(0),
            system: System::new(),
            // From 4 GiB less 4 MiB on, so that there is memory on both sides of the line.
            ram: Ram::new((1 << 32) - RAM_BYTES as u64 / 2, RAM_BYTES),
            clock,
        })
    }

    /// Raises the interrupt of `slot` (0 to 30) on `cpu`.
    pub fn raise(&self, cpu: usize, slot: Slot) {
        self.pending[cpu].fetch_or(1 << (FIRST_SLOT + u32::from(slot.0)), Ordering::AcqRel);
    }

    /// Whether the wired line `number` (0 to 31) was ever masked.
    pub fn was_masked(&self, number: u32) -> bool {
        self.masked.load(Ordering::Acquire) & 1 << (number % 32) != 0
    }

    /// The RAM that DMA blocks come from, for a test that plays the device.
    pub fn ram(&self) -> &Ram {
        &self.ram
    }

    pub(super) fn system(&self) -> &System {
        &self.system
    }

    /// Runs `f` as the task of CPU `cpu`, on this thread.
    pub fn run<R>(self: &Arc<Self>, cpu: usize, f: impl FnOnce(&Task) -> R) -> R {
        let machine = Rc::new(Cpu {
            index: cpu,
            irq_on: Cell::new(true),
            kick_at: Cell::new(0),
            alarm: Cell::new(None),
            cpus: Arc::clone(self),
        });
        super::run_on(machine, super::Owner::Shared(Arc::clone(self)), f)
    }
}

struct Cpu {
    index: usize,
    irq_on: Cell<bool>,
    /// When to kick itself; 0: never.
    kick_at: Cell<u64>,
    alarm: Cell<Option<u64>>,
    cpus: Arc<Cpus>,
}

impl Cpu {
    /// Takes what is pending, as hardware does when interrupts are on.
    fn take_interrupts(&self) {
        while self.irq_on.get() {
            if self.is_late() {
                self.kick_at.set(0);
                self.cpus.pending[self.index].fetch_or(KICK, Ordering::AcqRel);
            }
            let pending = self.cpus.pending[self.index].swap(0, Ordering::AcqRel);
            let alarm = self.is_alarmed();
            if pending == 0 && !alarm {
                return;
            }
            self.irq_on.set(false);
            let _on = InterruptsOn(&self.irq_on);
            if alarm {
                self.alarm.set(None);
                deliver(Event::Alarm);
            }
            if pending & KICK != 0 {
                deliver(Event::Kick);
            }
            for slot in 0..31 {
                if pending & 1 << (FIRST_SLOT + slot) != 0 {
                    deliver(Event::Interrupt(Slot(slot as u16)));
                }
            }
        }
    }

    fn is_alarmed(&self) -> bool {
        self.alarm.get().is_some_and(|at| at <= self.now())
    }

    /// Nothing is pending: on a manual clock, time passes until this CPU's next event.
    fn pass_time(&self) {
        let Clock::Manual(now) = &self.cpus.clock else { return };
        let kick = Some(self.kick_at.get()).filter(|&at| at != 0);
        match self.alarm.get().into_iter().chain(kick).min() {
            Some(at) => _ = now.fetch_max(at, Ordering::SeqCst),
            None => assert!(self.cpu_count() > 1, "the CPU halts, and nothing can ever happen again"),
        }
    }

    fn is_late(&self) -> bool {
        !cfg!(shuttle) && self.kick_at.get() != 0 && self.now() >= self.kick_at.get()
    }

    fn pause() {
        #[cfg(shuttle)]
        shuttle::thread::yield_now();
        #[cfg(not(shuttle))]
        std::thread::yield_now();
    }
}

/// Turns interrupts on when it goes, also if a handler of a test unwinds.
struct InterruptsOn<'a>(&'a Cell<bool>);

impl Drop for InterruptsOn<'_> {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

impl Machine for Cpu {
    fn cpu(&self) -> usize {
        self.index
    }
    fn cpu_count(&self) -> usize {
        self.cpus.pending.len()
    }
    fn irq_save(&self) -> bool {
        // The last moment at which an interrupt can strike.
        self.take_interrupts();
        self.irq_on.replace(false)
    }
    fn irq_restore(&self, were_on: bool) {
        self.irq_on.set(were_on);
        self.take_interrupts();
    }
    fn halt(&self) {
        self.irq_on.set(true);
        while self.cpus.pending[self.index].load(Ordering::Acquire) == 0 && !self.is_late() && !self.is_alarmed() {
            self.pass_time();
            Self::pause();
        }
        self.take_interrupts();
    }
    fn relax(&self) {
        Self::pause();
        self.take_interrupts();
    }
    fn kick(&self, cpu: usize) {
        self.cpus.pending[cpu].fetch_or(KICK, Ordering::AcqRel);
        self.take_interrupts();
    }
    fn kick_at(&self, at: u64) -> bool {
        self.kick_at.set(at);
        !cfg!(shuttle)
    }
    fn now(&self) -> u64 {
        self.cpus.clock.now()
    }
    fn set_alarm(&self, at: Option<u64>) {
        self.alarm.set(at);
    }
    fn dma_alloc(&self, layout: DmaLayout) -> Result<DmaBlock, DmaError> {
        self.cpus.ram.alloc(layout)
    }
    fn dma_free(&self, block: DmaBlock) {
        self.cpus.ram.free(block);
    }
    fn map_mmio(&self, _phys: u64, _len: usize) -> Result<(), MmioError> {
        Err(MmioError::BadRange)
    }
    fn mmio_read(&self, _phys: u64, _width: Width) -> u64 {
        u64::MAX
    }
    fn mmio_write(&self, _phys: u64, _width: Width, _value: u64) {}
    fn pci_read(&self, _address: Address, _offset: u16) -> u32 {
        u32::MAX
    }
    fn pci_write(&self, _address: Address, _offset: u16, _value: u32) {}
    fn msi_route(&self, slot: Slot, _cpu: usize) -> Result<MsiMessage, IrqError> {
        if slot.0 < 31 { Ok(MsiMessage { addr: 0, data: u32::from(slot.0) }) } else { Err(IrqError::NoVector) }
    }
    fn raise(&self, slot: Slot, cpu: usize) -> Result<(), IrqError> {
        self.cpus.raise(cpu, slot);
        self.take_interrupts();
        Ok(())
    }
    /// Lines are there only to be raised by [`Cpus::raise`] of their slot.
    fn line_route(&self, _line: IrqLine, slot: Slot) -> Result<(), IrqError> {
        if slot.0 < 31 { Ok(()) } else { Err(IrqError::NoVector) }
    }
    fn line_mask(&self, line: IrqLine) {
        self.cpus.masked.fetch_or(1 << (line.number % 32), Ordering::AcqRel);
    }
    fn pci_line(&self, _address: Address, _pin: u8) -> Option<IrqLine> {
        None
    }
}
