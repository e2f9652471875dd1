use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use undercroft_hal::dma::{DmaBlock, DmaError, DmaLayout};
use undercroft_hal::hosted::{self, Event, FIRST_VECTOR};
use undercroft_hal::hyperv::Hypervisor;
use undercroft_hal::irq::{IrqError, IrqLine, MsiMessage, Slot};
use undercroft_hal::mmio::{MmioError, Width};
use undercroft_hal::pci::Address;

/// The model as the driver's hypervisor. All is asked on behalf of virtual processor 0.
pub struct Side(pub Arc<Model>);

impl Hypervisor for Side {
    fn cpuid(&self, leaf: u32) -> [u32; 4] { self.0.cpuid(leaf) }
    fn read_msr(&self, register: u32) -> u64 { self.0.rdmsr(register) }
    fn write_msr(&self, register: u32, value: u64) { self.0.wrmsr(register, value) }
    fn hypercall(&self, control: u64, input: u64, output: u64) -> u64 { self.0.hypercall(control, input, output) }
    fn vector(&self, message: MsiMessage) -> u8 { FIRST_VECTOR + message.data as u8 }
}

/// The rest of the machine: one CPU with its interrupts, its alarm and its clock; memory; no devices but the model's.
pub struct Glue {
    model: Arc<Model>,
    /// The vectors that the model's callback sends, and one that ended a halt.
    raised: mpsc::Receiver<u8>,
    woken: Cell<Option<u8>>,
    on: Cell<bool>,
    started: Instant,
    /// When the alarm goes off and when the CPU kicks itself, in nanoseconds since the start. `u64::MAX`: not at all.
    alarm: Cell<u64>,
    kick: Cell<u64>,
    /// Where memory has not been given out yet, and what came back.
    next: Cell<u64>,
    free: RefCell<Vec<(DmaLayout, u64)>>,
}

impl Glue {
    pub fn new(model: Arc<Model>, raised: mpsc::Receiver<u8>) -> Rc<Self> {
        let never = || Cell::new(u64::MAX);
        let (started, free) = (Instant::now(), RefCell::default());
        // The first page stays free: address 0 is no address.
        let (woken, on, next) = (Cell::new(None), Cell::new(true), Cell::new(4096));
        Rc::new(Self { model, raised, woken, on, started, alarm: never(), kick: never(), next, free })
    }

    fn pending(&self) -> Option<Event> {
        let due = |at: &Cell<u64>| at.get() <= hosted::Machine::now(self) && at.replace(u64::MAX) != u64::MAX;
        let vector = self.woken.take().or_else(|| self.raised.try_recv().ok());
        match vector.and_then(hosted::slot_of_vector) {
            Some(slot) => Some(Event::Interrupt(slot)),
            None if due(&self.alarm) => Some(Event::Alarm),
            None => due(&self.kick).then_some(Event::Kick),
        }
    }

    /// Takes what is pending, as a CPU does that has interrupts on. `false`: nothing was.
    fn take(&self) -> bool {
        let mut took = false;
        while self.on.get() && let Some(event) = self.pending() {
            self.on.set(false);
            hosted::deliver(event);
            self.on.set(true);
            took = true;
        }
        took
    }
}

impl hosted::Machine for Glue {
    fn irq_save(&self) -> bool { self.take(); self.on.replace(false) }
    fn irq_restore(&self, were_on: bool) { self.on.set(were_on); self.take(); }
    fn relax(&self) { std::thread::yield_now(); self.take(); }
    fn halt(&self) {
        self.on.set(true);
        while !self.take() {
            let until = self.alarm.get().min(self.kick.get()).saturating_sub(self.now());
            self.woken.set(self.raised.recv_timeout(Duration::from_nanos(until)).ok());
        }
    }
    fn kick(&self, _cpu: usize) { self.kick.set(0); self.take(); }
    fn kick_at(&self, at: u64) -> bool { self.kick.set(at.min(self.kick.get())); true }
    fn now(&self) -> u64 { self.started.elapsed().as_nanos() as u64 }
    fn set_alarm(&self, at: Option<u64>) { self.alarm.set(at.unwrap_or(u64::MAX)); }
    fn dma_alloc(&self, layout: DmaLayout) -> Result<DmaBlock, DmaError> {
        let again = self.free.borrow().iter().position(|(free, _)| *free == layout);
        let addr = match again {
            Some(at) => self.free.borrow_mut().swap_remove(at).1,
            None => self.next.get().next_multiple_of(layout.constraints.align.max(4096) as u64),
        };
        // Zeroed memory of the guest, at one place for as long as the model lives.
        let virt = self.model.zeroed_guest_memory(addr, layout.len).ok_or(DmaError::NoMemory)?;
        self.next.set(self.next.get().max(addr + layout.len as u64));
        Ok(DmaBlock { virt, addr, len: layout.len, layout })
    }
    fn dma_free(&self, block: DmaBlock) { self.free.borrow_mut().push((block.layout, block.addr)); }
    fn msi_route(&self, slot: Slot, _: usize) -> Result<MsiMessage, IrqError> { Ok(MsiMessage { addr: 0, data: slot.0.into() }) }
    fn map_mmio(&self, _: u64, _: usize) -> Result<(), MmioError> { Err(MmioError::BadRange) }
    fn mmio_read(&self, _: u64, _: Width) -> u64 { u64::MAX }
    fn mmio_write(&self, _: u64, _: Width, _: u64) {}
    fn pci_read(&self, _: Address, _: u16) -> u32 { u32::MAX }
    fn pci_write(&self, _: Address, _: u16, _: u32) {}
    fn line_route(&self, _: IrqLine, _: Slot) -> Result<(), IrqError> { Err(IrqError::NoLine) }
    fn line_mask(&self, _: IrqLine) {}
    fn pci_line(&self, _: Address, _: u8) -> Option<IrqLine> { None }
}
