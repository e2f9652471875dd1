//! Binds this platform to `hal`.

use core::ptr::NonNull;

use super::{apic, clock, interrupts, ioapic, memory, paging, pci, percpu, port, registers, shootdown, timer};
use crate::dma::{DmaBlock, DmaError, DmaLayout};
use crate::irq::{IrqError, IrqLine, MsiMessage, Slot};
use crate::mmio::{MmioError, Width};
use crate::pci::Address;
use crate::platform::Platform;

/// Bare x86_64.
#[derive(Debug)]
pub struct X86;

// SAFETY: processor numbers are fixed and tasks do not migrate; `cli` stops delivery; DMA blocks are exclusive frames
// whose device address is their physical address; every clock source is monotonic or made so.
unsafe impl Platform for X86 {
    #[inline(always)]
    fn cpu() -> usize {
        percpu::id()
    }

    fn cpu_count() -> usize {
        percpu::count()
    }

    #[inline(always)]
    fn irq_save() -> bool {
        let were_on = registers::interrupts_on();
        registers::interrupts_disable();
        were_on
    }

    #[inline(always)]
    fn irq_restore(were_on: bool) {
        if were_on {
            registers::interrupts_enable();
        }
    }

    fn halt() {
        registers::enable_and_halt();
    }

    #[inline(always)]
    fn relax() {
        shootdown::relax();
    }

    fn kick(cpu: usize) {
        if cpu == percpu::id() {
            apic::send_to_self(interrupts::KICK);
        } else if cpu < percpu::count() {
            apic::send(percpu::apic_id(cpu), interrupts::KICK);
        }
    }

    fn kick_at(at: u64) -> bool {
        timer::kick_at(at);
        true
    }

    #[inline]
    fn now() -> u64 {
        clock::nanoseconds()
    }

    fn set_alarm(at: Option<u64>) {
        timer::set_alarm(at);
    }

    fn dma_alloc(layout: DmaLayout) -> Result<DmaBlock, DmaError> {
        memory::dma_allocate(layout)
    }

    unsafe fn dma_free(block: DmaBlock) {
        // SAFETY: the caller keeps the contract of `Platform::dma_free`.
        unsafe { memory::dma_free(block) }
    }

    fn map_mmio(phys: u64, len: usize) -> Result<NonNull<u8>, MmioError> {
        if len == 0 || phys.checked_add(len as u64).is_none() || memory::is_ram(phys, len as u64) {
            return Err(MmioError::BadRange);
        }
        let seen = paging::map_device(phys, len).ok_or(MmioError::NoSpace)?;
        NonNull::new(core::ptr::with_exposed_provenance_mut(seen as usize)).ok_or(MmioError::NoSpace)
    }

    fn port_read(port: u16, width: Width) -> u32 {
        match width {
            Width::U8 => u32::from(port::read8(port)),
            Width::U16 => u32::from(port::read16(port)),
            Width::U32 => port::read32(port),
            Width::U64 => u32::MAX,
        }
    }

    fn port_write(port: u16, width: Width, value: u32) {
        match width {
            Width::U8 => port::write8(port, value as u8),
            Width::U16 => port::write16(port, value as u16),
            Width::U32 => port::write32(port, value),
            Width::U64 => {}
        }
    }

    fn pci_read(address: Address, offset: u16) -> u32 {
        pci::read(address, offset)
    }

    fn pci_write(address: Address, offset: u16, value: u32) {
        pci::write(address, offset, value);
    }

    fn msi_route(slot: Slot, cpu: usize) -> Result<MsiMessage, IrqError> {
        interrupts::message(slot, cpu)
    }

    fn raise(slot: Slot, cpu: usize) -> Result<(), IrqError> {
        interrupts::raise(slot, cpu)
    }

    fn line_route(line: IrqLine, slot: Slot) -> Result<(), IrqError> {
        interrupts::line(line, slot)
    }

    fn line_mask(line: IrqLine) {
        // A line that no I/O APIC has cannot have been routed.
        let _ = ioapic::mask(line.number);
    }

    fn pci_line(address: Address, pin: u8) -> Option<IrqLine> {
        pci::line(address, pin)
    }
}

crate::bind_platform!(X86);
