//! Binds [`Platform`](crate::Platform) to the current thread's machine.

use core::ptr::NonNull;

use super::{Machine, current, trap};
use crate::dma::{DmaBlock, DmaError, DmaLayout};
use crate::irq::{IrqError, IrqLine, MsiMessage, Slot};
use crate::mmio::{MmioError, Width};
use crate::pci::Address;

/// Asks the machine, which is not the guest.
pub(super) fn host<R>(ask: impl FnOnce(&dyn Machine) -> R) -> R {
    let current = current();
    trap::outside(|| ask(&*current.machine))
}

struct Hosted;

// SAFETY: a machine is single-threaded, so its one CPU's index is stable and its interrupt flag is what `Machine::irq_save` says; DMA
// blocks come from `Ram`, which hands out each byte once. Device registers are never memory: their addresses are physical ones in
// pointer clothes, looked at by the machine only.
unsafe impl crate::Platform for Hosted {
    fn cpu() -> usize {
        host(|machine| machine.cpu())
    }
    fn cpu_count() -> usize {
        host(|machine| machine.cpu_count())
    }
    fn irq_save() -> bool {
        host(|machine| machine.irq_save())
    }
    fn irq_restore(were_on: bool) {
        host(|machine| machine.irq_restore(were_on));
    }
    fn halt() {
        host(|machine| machine.halt());
    }
    fn relax() {
        host(|machine| machine.relax());
    }
    fn kick(cpu: usize) {
        host(|machine| machine.kick(cpu));
    }
    fn kick_at(at: u64) -> bool {
        host(|machine| machine.kick_at(at))
    }
    fn now() -> u64 {
        host(|machine| machine.now())
    }
    fn set_alarm(at: Option<u64>) {
        host(|machine| machine.set_alarm(at));
    }
    fn dma_alloc(layout: DmaLayout) -> Result<DmaBlock, DmaError> {
        host(|machine| machine.dma_alloc(layout))
    }
    unsafe fn dma_free(block: DmaBlock) {
        host(|machine| machine.dma_free(block));
    }
    fn map_mmio(phys: u64, len: usize) -> Result<NonNull<u8>, MmioError> {
        host(|machine| machine.map_mmio(phys, len))?;
        let addr = usize::try_from(phys).map_err(|_| MmioError::BadRange)?;
        NonNull::new(core::ptr::without_provenance_mut(addr)).ok_or(MmioError::BadRange)
    }
    unsafe fn mmio_read(addr: NonNull<u8>, width: Width) -> u64 {
        host(|machine| machine.mmio_read(addr.addr().get() as u64, width))
    }
    unsafe fn mmio_write(addr: NonNull<u8>, width: Width, value: u64) {
        host(|machine| machine.mmio_write(addr.addr().get() as u64, width, value));
    }
    fn port_read(port: u16, width: Width) -> u32 {
        host(|machine| machine.port_read(port, width))
    }
    fn port_write(port: u16, width: Width, value: u32) {
        host(|machine| machine.port_write(port, width, value));
    }
    fn pci_read(address: Address, offset: u16) -> u32 {
        host(|machine| machine.pci_read(address, offset))
    }
    fn pci_write(address: Address, offset: u16, value: u32) {
        host(|machine| machine.pci_write(address, offset, value));
    }
    fn msi_route(slot: Slot, cpu: usize) -> Result<MsiMessage, IrqError> {
        host(|machine| machine.msi_route(slot, cpu))
    }
    fn raise(slot: Slot, cpu: usize) -> Result<(), IrqError> {
        host(|machine| machine.raise(slot, cpu))
    }
    fn line_route(line: IrqLine, slot: Slot) -> Result<(), IrqError> {
        host(|machine| machine.line_route(line, slot))
    }
    fn line_mask(line: IrqLine) {
        host(|machine| machine.line_mask(line));
    }
    fn pci_line(address: Address, pin: u8) -> Option<IrqLine> {
        host(|machine| machine.pci_line(address, pin))
    }
}

crate::bind_platform!(Hosted);
