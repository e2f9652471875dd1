//! Threads as CPUs: a machine without devices, whose CPUs really run at the same time.
//!
//! For stress under a sanitizer (std threads) and for schedule exploration (shuttle threads): the dispatcher, queues, locks and executor
//! of this crate, on several CPUs at once. A kick is a flag that the CPU takes as an interrupt wherever it has interrupts on.

use core::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use super::{Event, Machine, Ram, deliver};
use crate::atomic::{AtomicU32, Ordering};
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
    started: std::time::Instant,
}

impl Cpus {
    /// A machine of `count` CPUs.
    pub fn new(count: usize) -> Arc<Self> {
        Arc::new(Self {
            pending: (0..count).map(|_| AtomicU32::new(0)).collect(),
            masked: AtomicU32::new(0),
            system: System::new(),
            // From 4 GiB less 4 MiB on, so that there is memory on both sides of the line.
            ram: Ram::new((1 << 32) - RAM_BYTES as u64 / 2, RAM_BYTES),
            started: std::time::Instant::now(),
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
        let machine =
            Rc::new(Cpu { index: cpu, irq_on: Cell::new(true), kick_at: Cell::new(0), cpus: Arc::clone(self) });
        super::run_on(machine, super::Owner::Shared(Arc::clone(self)), f)
    }
}

struct Cpu {
    index: usize,
    irq_on: Cell<bool>,
    /// When to kick itself; 0: never.
    kick_at: Cell<u64>,
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
            if pending == 0 {
                return;
            }
            self.irq_on.set(false);
            if pending & KICK != 0 {
                deliver(Event::Kick);
            }
            for slot in 0..31 {
                if pending & 1 << (FIRST_SLOT + slot) != 0 {
                    deliver(Event::Interrupt(Slot(slot as u16)));
                }
            }
            self.irq_on.set(true);
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
        while self.cpus.pending[self.index].load(Ordering::Acquire) == 0 && !self.is_late() {
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
        // A schedule that is run again must be the same: for shuttle, time stands still.
        if cfg!(shuttle) {
            return 0;
        }
        u64::try_from(self.cpus.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
    fn set_alarm(&self, _at: Option<u64>) {}
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
