//! What a device sees of its machine, and what a machine asks of a device.

use std::cell::RefCell;
use std::fmt;

use undercroft_hal::hosted::{BadAccess, Frames, Ram};
use undercroft_hal::irq::{IrqLine, MsiMessage, Slot};
use undercroft_hal::mmio::Width;

use super::interrupts::Controller;
use crate::Random;

/// Which of a device's register ranges an access is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// A PCI base address register.
    Bar(u8),
    /// The device's window in physical memory (virtio-mmio).
    Window,
    /// Ports that the device answers at by tradition, without a base address register; the offset is the port's number.
    Legacy,
}

/// A device's connection to guest memory, interrupts, time and chance.
pub struct Bus<'a> {
    pub(super) ram: &'a Ram,
    pub(super) frames: &'a Frames,
    /// The processor that runs.
    pub(super) cpu: usize,
    pub(super) interrupts: &'a RefCell<Controller>,
    pub(super) random: &'a RefCell<Random>,
    pub(super) now: u64,
    pub(super) budget: usize,
    pub(super) source: usize,
    pub(super) line: IrqLine,
    /// The highest address that the device reaches.
    pub(super) reach: u64,
}

impl fmt::Debug for Bus<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").field("source", &self.source).field("now", &self.now).finish_non_exhaustive()
    }
}

impl Bus<'_> {
    fn check(&self, addr: u64, len: usize) -> Result<(), BadAccess> {
        let within = addr.checked_add(len as u64).is_some_and(|end| len == 0 || end - 1 <= self.reach);
        if within { Ok(()) } else { Err(BadAccess { addr, len }) }
    }

    /// Reads guest memory.
    ///
    /// # Errors
    /// [`BadAccess`].
    pub fn read(&self, addr: u64, into: &mut [u8]) -> Result<(), BadAccess> {
        self.check(addr, into.len())?;
        self.ram.read(addr, into)
    }

    /// Writes guest memory.
    ///
    /// # Errors
    /// [`BadAccess`], with nothing written.
    pub fn write(&self, addr: u64, bytes: &[u8]) -> Result<(), BadAccess> {
        self.check(addr, bytes.len())?;
        self.ram.write(addr, bytes)
    }

    /// Reads `N` bytes of guest memory.
    ///
    /// # Errors
    /// [`BadAccess`].
    pub fn read_array<const N: usize>(&self, addr: u64) -> Result<[u8; N], BadAccess> {
        let mut bytes = [0; N];
        self.read(addr, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads an index that the guest publishes.
    ///
    /// # Errors
    /// [`BadAccess`].
    pub fn read_u16(&self, addr: u64) -> Result<u16, BadAccess> {
        self.check(addr, 2)?;
        self.ram.read_u16(addr)
    }

    /// Publishes an index to the guest.
    ///
    /// # Errors
    /// [`BadAccess`].
    pub fn write_u16(&self, addr: u64, value: u16) -> Result<(), BadAccess> {
        self.check(addr, 2)?;
        self.ram.write_u16(addr, value)
    }

    /// The pages that lie beside RAM.
    pub const fn frames(&self) -> &Frames {
        self.frames
    }

    /// The processor that the guest's code runs on.
    pub const fn cpu(&self) -> usize {
        self.cpu
    }

    /// Writes an interrupt message.
    pub fn message(&self, message: MsiMessage) {
        self.interrupts.borrow_mut().message(message);
    }

    /// Raises the interrupt of a slot on a CPU, without a message.
    pub fn interrupt(&self, cpu: usize, slot: Slot) {
        self.interrupts.borrow_mut().raise(cpu, slot);
    }

    /// Drives the device's interrupt line. Asserting it again is no new edge; see [`Bus::pulse_line`].
    pub fn set_line(&self, asserted: bool) {
        self.interrupts.borrow_mut().set_line(self.line.number, self.source, asserted);
    }

    /// Drives a line of the old bus, one of [`Device::isa_lines`].
    pub fn set_isa_line(&self, number: u8, asserted: bool) {
        self.interrupts.borrow_mut().set_line(u32::from(number), self.source, asserted);
    }

    /// Lets the line go and asserts it again: an edge for each interrupt on an edge-triggered line.
    pub fn pulse_line(&self) {
        self.set_line(false);
        self.set_line(true);
    }

    /// Virtual time in nanoseconds.
    pub const fn now(&self) -> u64 {
        self.now
    }

    /// How many requests the device should take or complete in this turn.
    pub const fn budget(&self) -> usize {
        self.budget
    }

    /// A number below `bound`, from the machine's seed.
    pub fn below(&self, bound: usize) -> usize {
        self.random.borrow_mut().below(bound)
    }
}

/// A device model. Accesses and turns are calls with exclusive access; the model never calls back into the machine except through
/// the [`Bus`], so an interrupt that it raises is delivered after it returned.
pub trait Device {
    /// The guest reads a register.
    fn read(&mut self, bus: &Bus<'_>, space: Space, offset: u64, width: Width) -> u64;
    /// The guest writes a register.
    fn write(&mut self, bus: &Bus<'_>, space: Space, offset: u64, width: Width, value: u64);
    /// Works on what the guest asked for. Returns whether it got anything done.
    fn work(&mut self, bus: &Bus<'_>) -> bool;
    /// When it next has something to do without being asked, in virtual nanoseconds.
    fn due(&self) -> Option<u64> {
        None
    }
    /// The guest reads PCI configuration space; `offset` is a multiple of 4.
    fn config_read(&mut self, bus: &Bus<'_>, offset: u16) -> u32 {
        let _ = (bus, offset);
        u32::MAX
    }
    /// The guest writes PCI configuration space.
    fn config_write(&mut self, bus: &Bus<'_>, offset: u16, value: u32) {
        let _ = (bus, offset, value);
    }
    /// Which BAR holds physical address `addr` (if memory decoding is on), and the offset in it.
    fn bar_at(&self, addr: u64) -> Option<(u8, u64)> {
        let _ = addr;
        None
    }
    /// Which of the device's ports `port` is (if it answers there), and the offset.
    fn port_at(&self, port: u16) -> Option<(Space, u64)> {
        let _ = port;
        None
    }
    /// Places the I/O BARs as firmware would, from port `next` upwards; returns the first free port after them.
    fn assign_ports(&mut self, next: u16) -> u16 {
        next
    }
    /// The lines of the old bus (edge-triggered) that the device drives.
    fn isa_lines(&self) -> &'static [u8] {
        &[]
    }
    /// Places the BARs as firmware would, from physical address `next` upwards; returns the first free address after them.
    fn assign_bars(&mut self, next: u64) -> u64 {
        next
    }
    /// A processor asks CPUID for a leaf: EAX, EBX, ECX, EDX. `None`: not a leaf of this device's, which then is no hypervisor.
    fn cpuid(&mut self, bus: &Bus<'_>, leaf: u32) -> Option<[u32; 4]> {
        let _ = (bus, leaf);
        None
    }
    /// Processor `cpu` reads a synthetic register.
    fn read_msr(&mut self, bus: &Bus<'_>, cpu: usize, register: u32) -> Option<u64> {
        let _ = (bus, cpu, register);
        None
    }
    /// Processor `cpu` writes a synthetic register. `false`: not this device's.
    fn write_msr(&mut self, bus: &Bus<'_>, cpu: usize, register: u32, value: u64) -> bool {
        let _ = (bus, cpu, register, value);
        false
    }
    /// Processor `cpu` calls the hypercall page with these in RCX, RDX and R8.
    fn hypercall(&mut self, bus: &Bus<'_>, cpu: usize, registers: [u64; 3]) -> Option<u64> {
        let _ = (bus, cpu, registers);
        None
    }
    /// The guest calls Xen: the call's number, its command, and its structure.
    fn xen_call(&mut self, bus: &Bus<'_>, number: u32, command: u32, argument: &mut [u8]) -> Option<i64> {
        let _ = (bus, number, command, argument);
        None
    }
    /// The guest calls Xen about one of its virtual processors.
    fn xen_vcpu_call(&mut self, bus: &Bus<'_>, command: u32, vcpu: u32, argument: &mut [u8]) -> Option<i64> {
        let _ = (bus, command, vcpu, argument);
        None
    }
    /// Says what the device waits for, for the message of a guest that hangs.
    fn diagnose(&self, bus: &Bus<'_>) -> String {
        let _ = bus;
        String::new()
    }
}
