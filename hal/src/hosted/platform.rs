//! Binds [`Platform`](crate::Platform) to the current thread's machine.

use core::ptr::NonNull;

use super::current;
use crate::dma::{DmaBlock, DmaError, DmaLayout};
use crate::irq::{IrqError, IrqLine, MsiMessage, Slot};
use crate::mmio::{MmioError, Width};
use crate::pci::Address;

struct Hosted;

// SAFETY: a machine is single-threaded, so its one CPU's index is stable and its interrupt flag is what `Machine::irq_save` says; DMA
// blocks come from `Ram`, which hands out each byte once. Device registers are never memory: their addresses are physical ones in
// pointer clothes, looked at by the machine only.
unsafe impl crate::Platform for Hosted {
    fn cpu() -> usize {
        current().machine.cpu()
    }
    fn cpu_count() -> usize {
        current().machine.cpu_count()
    }
    fn irq_save() -> bool {
        current().machine.irq_save()
    }
    fn irq_restore(were_on: bool) {
        current().machine.irq_restore(were_on);
    }
    fn halt() {
        current().machine.halt();
    }
    fn relax() {
        current().machine.relax();
    }
    fn kick(cpu: usize) {
        current().machine.kick(cpu);
    }
    fn kick_at(at: u64) -> bool {
        current().machine.kick_at(at)
    }
    fn now() -> u64 {
        current().machine.now()
    }
    fn set_alarm(at: Option<u64>) {
        current().machine.set_alarm(at);
    }
    fn dma_alloc(layout: DmaLayout) -> Result<DmaBlock, DmaError> {
        current().machine.dma_alloc(layout)
    }
    unsafe fn dma_free(block: DmaBlock) {
        current().machine.dma_free(block);
    }
    fn map_mmio(phys: u64, len: usize) -> Result<NonNull<u8>, MmioError> {
        current().machine.map_mmio(phys, len)?;
        let addr = usize::try_from(phys).map_err(|_| MmioError::BadRange)?;
        NonNull::new(core::ptr::without_provenance_mut(addr)).ok_or(MmioError::BadRange)
    }
    unsafe fn mmio_read(addr: NonNull<u8>, width: Width) -> u64 {
        current().machine.mmio_read(addr.addr().get() as u64, width)
    }
    unsafe fn mmio_write(addr: NonNull<u8>, width: Width, value: u64) {
        current().machine.mmio_write(addr.addr().get() as u64, width, value);
    }
    fn port_read(port: u16, width: Width) -> u32 {
        current().machine.port_read(port, width)
    }
    fn port_write(port: u16, width: Width, value: u32) {
        current().machine.port_write(port, width, value);
    }
    fn pci_read(address: Address, offset: u16) -> u32 {
        current().machine.pci_read(address, offset)
    }
    fn pci_write(address: Address, offset: u16, value: u32) {
        current().machine.pci_write(address, offset, value);
    }
    fn msi_route(slot: Slot, cpu: usize) -> Result<MsiMessage, IrqError> {
        current().machine.msi_route(slot, cpu)
    }
    fn raise(slot: Slot, cpu: usize) -> Result<(), IrqError> {
        current().machine.raise(slot, cpu)
    }
    fn line_route(line: IrqLine, slot: Slot) -> Result<(), IrqError> {
        current().machine.line_route(line, slot)
    }
    fn line_mask(line: IrqLine) {
        current().machine.line_mask(line);
    }
    fn pci_line(address: Address, pin: u8) -> Option<IrqLine> {
        current().machine.pci_line(address, pin)
    }
}

crate::bind_platform!(Hosted);
