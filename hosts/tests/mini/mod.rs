//! A driver by hand, with which the models are proven: it pokes rings and registers exactly as told, rightly or wrongly.
#![allow(dead_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use undercroft_hal::dma::{Coherent, DmaConstraints};
use undercroft_hal::irq::{self, Handled, Interrupt, MsiMessage};
use undercroft_hal::mmio::Mmio;
use undercroft_hal::pci::{self, Address, Function, Msix};
use undercroft_hal::{Task, cpu};

/// What the guest allocates in a hard interrupt or under a spinlock ends the program (A-GEN-03).
#[global_allocator]
static ALLOCATOR: undercroft_hal::hosted::TrapAlloc = undercroft_hal::hosted::TrapAlloc::strict();

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

pub const F_INDIRECT: u64 = 1 << 28;
pub const F_EVENT_IDX: u64 = 1 << 29;
pub const F_VERSION_1: u64 = 1 << 32;
pub const F_RING_RESET: u64 = 1 << 40;

/// The registers of either transport.
pub enum Registers {
    Pci { function: Function, common: Mmio, isr: Mmio, notify: Mmio, step: usize, config: Mmio, msix: Msix },
    Mmio(Mmio),
}

pub struct Mini {
    pub registers: Registers,
    pub queues: Vec<Queue>,
    /// How many interrupts arrived, by vector (or 0, for a line).
    pub irqs: Vec<Arc<AtomicU32>>,
    _handlers: Vec<Interrupt>,
}

/// A queue and a page for buffers.
pub struct Queue {
    pub number: u16,
    pub size: u16,
    pub ring: Coherent,
    pub page: Coherent,
    pub avail_idx: u16,
    pub seen_used: u16,
    pub event_idx: bool,
}

impl Queue {
    pub fn new(number: u16, size: u16, event_idx: bool) -> Self {
        let n = usize::from(size);
        let ring = Coherent::new(16 * n + 6 + 2 * n + 16 + 6 + 8 * n, DmaConstraints::ANY).unwrap();
        let page = Coherent::new(64 * 1024, DmaConstraints::ANY).unwrap();
        Self { number, size, ring, page, avail_idx: 0, seen_used: 0, event_idx }
    }

    pub fn avail_at(&self) -> usize {
        16 * usize::from(self.size)
    }

    pub fn used_at(&self) -> usize {
        (self.avail_at() + 6 + 2 * usize::from(self.size)).next_multiple_of(16)
    }

    pub fn used_event(&self) -> usize {
        self.avail_at() + 4 + 2 * usize::from(self.size)
    }

    pub fn avail_event(&self) -> usize {
        self.used_at() + 4 + 8 * usize::from(self.size)
    }

    pub fn descriptor(&self, at: u16, addr: u64, len: u32, flags: u16, next: u16) {
        let base = 16 * usize::from(at);
        self.ring.write(base, addr);
        self.ring.write(base + 8, len);
        self.ring.write(base + 12, flags);
        self.ring.write(base + 14, next);
    }

    /// Publishes a head.
    pub fn offer(&mut self, head: u16) {
        let at = self.avail_at() + 4 + 2 * usize::from(self.avail_idx % self.size);
        self.ring.write(at, head);
        self.avail_idx = self.avail_idx.wrapping_add(1);
        self.ring.atomic_u16(self.avail_at() + 2).store(self.avail_idx, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    pub fn used_idx(&self) -> u16 {
        self.ring.atomic_u16(self.used_at() + 2).load(Ordering::Acquire)
    }

    pub fn used(&self, at: u16) -> (u32, u32) {
        let at = self.used_at() + 4 + 8 * usize::from(at % self.size);
        (self.ring.read(at), self.ring.read(at + 4))
    }

    /// Takes the next used entry.
    pub fn pop(&mut self) -> Option<(u32, u32)> {
        if self.used_idx() == self.seen_used {
            return None;
        }
        let entry = self.used(self.seen_used);
        self.seen_used = self.seen_used.wrapping_add(1);
        Some(entry)
    }

    /// Asks for an interrupt when the used index passes the one after `at`.
    pub fn arm(&self, at: u16) {
        self.ring.write(self.used_event(), at);
        fence(Ordering::SeqCst);
    }

    /// A virtio-blk request in three descriptors from `first`, with its header at 32 * first of the page, the status 16 bytes
    /// later, and data at `data`.
    pub fn blk(&self, first: u16, kind: u32, sector: u64, data: u64, len: u32) {
        let header = 32 * usize::from(first);
        self.page.write(header, kind);
        self.page.write(header + 8, sector);
        self.page.write(header + 16, 0xffu8);
        let write = if kind == 0 || kind == 8 { WRITE } else { 0 };
        self.descriptor(first, self.page.addr(header), 16, NEXT, first + 1);
        if len > 0 {
            self.descriptor(first + 1, data, len, NEXT | write, first + 2);
            self.descriptor(first + 2, self.page.addr(header + 16), 1, WRITE, 0);
        } else {
            self.descriptor(first + 1, self.page.addr(header + 16), 1, WRITE, 0);
        }
    }

    pub fn status(&self, first: u16) -> u8 {
        self.page.read(32 * usize::from(first) + 16)
    }
}

fn count(counter: &Arc<AtomicU32>) -> impl Fn() + Send + 'static {
    let counter = Arc::clone(counter);
    move || {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Mini {
    /// Finds the structures of a PCI device.
    pub fn pci(task: &Task, address: Address) -> Self {
        let function = pci::devices(task).into_iter().find(|function| function.address == address).unwrap();
        function.enable();
        let find = |kind: u8| {
            let capability = function
                .capabilities()
                .find(|c| c.id == 9 && function.read_u8(u16::from(c.offset) + 3) == kind)
                .unwrap();
            let at = u16::from(capability.offset);
            let bar = function.map_bar(function.read_u8(at + 4)).unwrap();
            let part = bar.sub(function.read(at + 8) as usize, function.read(at + 12) as usize).unwrap();
            (part, function.read(at + 16) as usize)
        };
        let (notify, step) = find(2);
        let registers = Registers::Pci {
            common: find(1).0,
            isr: find(3).0,
            config: find(4).0,
            msix: Msix::new(function).unwrap().unwrap(),
            notify,
            step,
            function,
        };
        Self { registers, queues: Vec::new(), irqs: Vec::new(), _handlers: Vec::new() }
    }

    pub fn mmio(base: u64, len: usize) -> Self {
        let registers = Registers::Mmio(Mmio::map(base, len).unwrap());
        Self { registers, queues: Vec::new(), irqs: Vec::new(), _handlers: Vec::new() }
    }

    pub fn status(&self) -> u8 {
        match &self.registers {
            Registers::Pci { common, .. } => common.read(0x14),
            Registers::Mmio(mmio) => mmio.read::<u32>(0x70) as u8,
        }
    }

    pub fn set_status(&self, status: u8) {
        match &self.registers {
            Registers::Pci { common, .. } => common.write(0x14, status),
            Registers::Mmio(mmio) => mmio.write(0x70, u32::from(status)),
        }
    }

    pub fn offered(&self) -> u64 {
        let half = |select: u32| match &self.registers {
            Registers::Pci { common, .. } => {
                common.write(0x00, select);
                common.read::<u32>(0x04)
            }
            Registers::Mmio(mmio) => {
                mmio.write(0x14, select);
                mmio.read::<u32>(0x10)
            }
        };
        u64::from(half(1)) << 32 | u64::from(half(0))
    }

    pub fn accept(&self, features: u64) {
        for (select, value) in [(0u32, features as u32), (1, (features >> 32) as u32)] {
            match &self.registers {
                Registers::Pci { common, .. } => {
                    common.write(0x08, select);
                    common.write(0x0c, value);
                }
                Registers::Mmio(mmio) => {
                    mmio.write(0x24, select);
                    mmio.write(0x20, value);
                }
            }
        }
    }

    pub fn select(&self, queue: u16) {
        match &self.registers {
            Registers::Pci { common, .. } => common.write(0x16, queue),
            Registers::Mmio(mmio) => mmio.write(0x30, u32::from(queue)),
        }
    }

    pub fn queue_max(&self, queue: u16) -> u16 {
        self.select(queue);
        match &self.registers {
            Registers::Pci { common, .. } => common.read(0x18),
            Registers::Mmio(mmio) => mmio.read::<u32>(0x34) as u16,
        }
    }

    /// Sets size and addresses, without enabling.
    pub fn place(&self, queue: &Queue) {
        self.select(queue.number);
        let addrs = [queue.ring.addr(0), queue.ring.addr(queue.avail_at()), queue.ring.addr(queue.used_at())];
        match &self.registers {
            Registers::Pci { common, .. } => {
                common.write(0x18, queue.size);
                for (at, addr) in [0x20, 0x28, 0x30].into_iter().zip(addrs) {
                    common.write(at, addr as u32);
                    common.write(at + 4, (addr >> 32) as u32);
                }
            }
            Registers::Mmio(mmio) => {
                mmio.write(0x38, u32::from(queue.size));
                for (at, addr) in [0x80, 0x90, 0xa0].into_iter().zip(addrs) {
                    mmio.write(at, addr as u32);
                    mmio.write(at + 4, (addr >> 32) as u32);
                }
            }
        }
    }

    pub fn enable_queue(&self, queue: u16) {
        self.select(queue);
        match &self.registers {
            Registers::Pci { common, .. } => common.write(0x1c, 1u16),
            Registers::Mmio(mmio) => mmio.write(0x44, 1u32),
        }
    }

    pub fn notify(&self, queue: u16) {
        match &self.registers {
            Registers::Pci { common, notify, step, .. } => {
                common.write(0x16, queue);
                let offset: u16 = common.read(0x1e);
                notify.write(usize::from(offset) * step, queue);
            }
            Registers::Mmio(mmio) => mmio.write(0x50, u32::from(queue)),
        }
    }

    pub fn config<T: undercroft_hal::mmio::Register>(&self, offset: usize) -> T {
        match &self.registers {
            Registers::Pci { config, .. } => config.read(offset),
            Registers::Mmio(mmio) => mmio.read(0x100 + offset),
        }
    }

    pub fn generation(&self) -> u32 {
        match &self.registers {
            Registers::Pci { common, .. } => u32::from(common.read::<u8>(0x15)),
            Registers::Mmio(mmio) => mmio.read(0xfc),
        }
    }

    pub fn reset(&self) {
        self.set_status(0);
        while self.status() != 0 {
            cpu::relax();
        }
    }

    /// Reset to FEATURES_OK, accepting `wanted` of what is offered.
    pub fn negotiate(&self, wanted: u64) -> u64 {
        self.reset();
        self.set_status(1);
        self.set_status(3);
        let features = self.offered() & (wanted | F_VERSION_1);
        self.accept(features);
        self.set_status(3 | 8);
        features
    }

    /// A vector for each queue (from 1) and one for the configuration (0).
    pub fn use_msix(&mut self, task: &Task, queues: u16) -> Vec<u16> {
        let mut granted = Vec::new();
        for vector in 0..=queues {
            let counter = Arc::new(AtomicU32::new(0));
            let counts = count(&counter);
            let (handler, message): (Interrupt, MsiMessage) = irq::message(task, 0, move |_| {
                counts();
                Handled::Yes
            })
            .unwrap();
            self._handlers.push(handler);
            self.irqs.push(counter);
            let Registers::Pci { common, msix, .. } = &self.registers else { panic!("MSI-X is for PCI") };
            msix.set(vector, message);
            if vector == 0 {
                common.write(0x10, vector);
                granted.push(common.read(0x10));
            } else {
                common.write(0x16, vector - 1);
                common.write(0x1a, vector);
                granted.push(common.read(0x1a));
            }
        }
        let Registers::Pci { msix, .. } = &self.registers else { panic!("MSI-X is for PCI") };
        msix.enable();
        granted
    }

    /// The wired line, whose handler reads and clears the device's interrupt status.
    pub fn use_line(&mut self, task: &Task, line: irq::IrqLine) {
        let counter = Arc::new(AtomicU32::new(0));
        let counts = count(&counter);
        let ack: Box<dyn Fn() -> u32 + Send> = match &self.registers {
            Registers::Pci { isr, .. } => {
                let isr = *isr;
                Box::new(move || u32::from(isr.read::<u8>(0)))
            }
            Registers::Mmio(mmio) => {
                let mmio = *mmio;
                Box::new(move || {
                    let status: u32 = mmio.read(0x60);
                    mmio.write(0x64, status);
                    status
                })
            }
        };
        let handler = irq::line(task, line, move |_| {
            if ack() == 0 {
                return Handled::No;
            }
            counts();
            Handled::Yes
        });
        self._handlers.push(handler.unwrap());
        self.irqs.push(counter);
    }

    pub fn irq_count(&self, vector: usize) -> u32 {
        self.irqs[vector].load(Ordering::Relaxed)
    }

    /// The whole way to DRIVER_OK, with `count` queues of `size`.
    pub fn bring_up(&mut self, wanted: u64, count: u16, size: u16) -> u64 {
        let features = self.negotiate(wanted);
        assert_eq!(self.status(), 11);
        self.bring_up_queues(features, count, size);
        features
    }

    pub fn bring_up_queues(&mut self, features: u64, count: u16, size: u16) {
        for number in 0..count {
            let queue = Queue::new(number, size, features & F_EVENT_IDX != 0);
            self.place(&queue);
            self.enable_queue(number);
            self.queues.push(queue);
        }
        self.set_status(15);
    }
}
