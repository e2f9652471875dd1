//! The platform contract: what an embedding kernel implements, once.
//!
//! [`Platform`] is bound at link time by [`bind_platform!`](crate::bind_platform), the way
//! `critical-section` binds its implementation, so that no driver type carries a platform
//! parameter. Each function says from which contexts it is called.

use core::ptr::NonNull;

use crate::dma::{DmaBlock, DmaError, DmaLayout};
use crate::irq::{IrqError, IrqLine, MsiMessage, Slot};
use crate::mmio::{MmioError, Width};
use crate::pci::Address;

/// What a kernel provides to the stack.
///
/// # Safety
/// The implementation upholds each function's contract: in particular CPU indices are stable while
/// interrupts are off, `irq_save` really stops interrupt delivery on the calling CPU, memory from
/// `dma_alloc` is exclusive and at the stated device address, and `now` never goes back.
pub unsafe trait Platform {
    /// This CPU's index, below [`Platform::cpu_count`]. Any context.
    fn cpu() -> usize;
    /// How many CPUs take part, at least 1 and at most [`crate::cpu::MAX_CPUS`]. Any context.
    fn cpu_count() -> usize;

    /// Turns interrupts off on this CPU and returns whether they were on. Any context.
    fn irq_save() -> bool;
    /// Undoes [`Platform::irq_save`]: turns interrupts on if `were_on`. Any context.
    fn irq_restore(were_on: bool);
    /// Turns interrupts on and waits for one, without a window in which one could be missed;
    /// returns with interrupts on. Called in task context with interrupts off.
    fn halt();
    /// Tells the CPU (or the simulator) that the caller is spinning. Any context.
    fn relax();
    /// Makes `cpu` run its pending bottom halves soon (an IPI, say); `cpu` may be the caller's own. Any context.
    fn kick(cpu: usize);

    /// Makes the calling CPU run its pending bottom halves at a time of [`Platform::now`], as by [`Platform::kick`]; a later call
    /// replaces an earlier. `false` if the platform cannot: bottom halves that never end then leave tasks no time. Interrupts are off.
    fn kick_at(at: u64) -> bool {
        let _ = at;
        false
    }

    /// Monotonic nanoseconds since an arbitrary start. Any context, lock-free.
    fn now() -> u64;
    /// Arms this CPU's alarm for an absolute time in the nanoseconds of [`Platform::now`], replacing the
    /// one before; `None` disarms. A time that has passed fires at once. Interrupts are off. On expiry the platform calls
    /// [`crate::dispatch::alarm`].
    fn set_alarm(at: Option<u64>);

    /// Allocates zeroed, device-visible memory. Task context.
    ///
    /// # Errors
    /// [`DmaError`] when the constraints cannot be met.
    fn dma_alloc(layout: DmaLayout) -> Result<DmaBlock, DmaError>;
    /// Frees what [`Platform::dma_alloc`] gave. Bottom half or task context.
    ///
    /// # Safety
    /// `block` came from `dma_alloc`, is freed once, and no device will touch it again.
    unsafe fn dma_free(block: DmaBlock);

    /// Maps `len` bytes of device registers at physical address `phys`, uncached; the mapping lasts for ever.
    /// Task context.
    ///
    /// # Errors
    /// [`MmioError`] when it cannot be mapped.
    fn map_mmio(phys: u64, len: usize) -> Result<NonNull<u8>, MmioError>;
    /// Reads a device register. Any context.
    ///
    /// # Safety
    /// `addr` lies within a mapping made by [`Platform::map_mmio`] and is aligned to `width`.
    unsafe fn mmio_read(addr: NonNull<u8>, width: Width) -> u64 {
        // SAFETY: validity and alignment are the caller's contract; device registers need volatile.
        unsafe {
            match width {
                Width::U8 => u64::from(addr.as_ptr().read_volatile()),
                Width::U16 => u64::from(addr.as_ptr().cast::<u16>().read_volatile()),
                Width::U32 => u64::from(addr.as_ptr().cast::<u32>().read_volatile()),
                Width::U64 => addr.as_ptr().cast::<u64>().read_volatile(),
            }
        }
    }
    /// Writes a device register. Any context.
    ///
    /// # Safety
    /// As [`Platform::mmio_read`]; and what the device does because of the write is within its driver's rights.
    unsafe fn mmio_write(addr: NonNull<u8>, width: Width, value: u64) {
        // SAFETY: validity and alignment are the caller's contract. Truncation to the width is intended.
        unsafe {
            match width {
                Width::U8 => addr.as_ptr().write_volatile(value as u8),
                Width::U16 => addr.as_ptr().cast::<u16>().write_volatile(value as u16),
                Width::U32 => addr.as_ptr().cast::<u32>().write_volatile(value as u32),
                Width::U64 => addr.as_ptr().cast::<u64>().write_volatile(value),
            }
        }
    }
    /// Reads an I/O port; all ones where the machine has none. Any context.
    fn port_read(port: u16, width: Width) -> u32;
    /// Writes an I/O port. Any context.
    fn port_write(port: u16, width: Width, value: u32);

    /// Reads a PCI configuration register (`offset` is aligned to 4); all ones where there is no function.
    fn pci_read(address: Address, offset: u16) -> u32;
    /// Writes a PCI configuration register (`offset` is aligned to 4).
    fn pci_write(address: Address, offset: u16, value: u32);

    /// Says which message makes `slot`'s interrupt arrive on `cpu`. Task context.
    ///
    /// # Errors
    /// [`IrqError`] when that CPU has no vector left.
    fn msi_route(slot: Slot, cpu: usize) -> Result<MsiMessage, IrqError>;
    /// Raises the interrupt of a `slot` that [`Platform::msi_route`] routed to `cpu`, as its device would. Any context.
    ///
    /// # Errors
    /// [`IrqError::Unsupported`] where the platform cannot.
    fn raise(slot: Slot, cpu: usize) -> Result<(), IrqError> {
        let _ = (slot, cpu);
        Err(IrqError::Unsupported)
    }
    /// Routes a wired interrupt line to `slot` and unmasks it. Task context.
    ///
    /// # Errors
    /// [`IrqError`] when the line does not exist.
    fn line_route(line: IrqLine, slot: Slot) -> Result<(), IrqError>;
    /// Masks a wired line again. Any context.
    fn line_mask(line: IrqLine);
    /// Which wired line a PCI function's interrupt pin (1 = A … 4 = D) is routed to, if any. Task context.
    fn pci_line(address: Address, pin: u8) -> Option<IrqLine>;
}

/// The seam: safe names for the symbols that [`bind_platform!`](crate::bind_platform) defines.
pub(crate) mod seam {
    use super::*;

    macro_rules! seam {
        ($($(#[$m:meta])* $kind:tt fn $name:ident = $sym:ident ( $($arg:ident : $ty:ty),* ) $(-> $ret:ty)?;)*) => {
            unsafe extern "Rust" {
                $( fn $sym($($arg: $ty),*) $(-> $ret)?; )*
            }
            $( seam!(@one $kind $name $sym ($($arg: $ty),*) $(-> $ret)?); )*
        };
        (@one safe $name:ident $sym:ident ($($arg:ident : $ty:ty),*) $(-> $ret:ty)?) => {
            #[inline]
            pub fn $name($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: the symbol is defined once, with this signature, by `bind_platform!`, for an
                // implementation of `Platform`, whose function is safe.
                unsafe { $sym($($arg),*) }
            }
        };
        (@one unsafe $name:ident $sym:ident ($($arg:ident : $ty:ty),*) $(-> $ret:ty)?) => {
            /// # Safety
            /// As the function of the same name in [`Platform`].
            #[inline]
            pub unsafe fn $name($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: as above; the function's own contract is passed on to the caller.
                unsafe { $sym($($arg),*) }
            }
        };
    }

    seam! {
        safe fn cpu = _undercroft_cpu() -> usize;
        safe fn cpu_count = _undercroft_cpu_count() -> usize;
        safe fn irq_save = _undercroft_irq_save() -> bool;
        safe fn irq_restore = _undercroft_irq_restore(were_on: bool);
        safe fn halt = _undercroft_halt();
        safe fn relax = _undercroft_relax();
        safe fn kick = _undercroft_kick(cpu: usize);
        safe fn kick_at = _undercroft_kick_at(at: u64) -> bool;
        safe fn now = _undercroft_now() -> u64;
        safe fn set_alarm = _undercroft_set_alarm(at: Option<u64>);
        safe fn dma_alloc = _undercroft_dma_alloc(layout: DmaLayout) -> Result<DmaBlock, DmaError>;
        unsafe fn dma_free = _undercroft_dma_free(block: DmaBlock);
        safe fn map_mmio = _undercroft_map_mmio(phys: u64, len: usize) -> Result<NonNull<u8>, MmioError>;
        unsafe fn mmio_read = _undercroft_mmio_read(addr: NonNull<u8>, width: Width) -> u64;
        unsafe fn mmio_write = _undercroft_mmio_write(addr: NonNull<u8>, width: Width, value: u64);
        safe fn port_read = _undercroft_port_read(port: u16, width: Width) -> u32;
        safe fn port_write = _undercroft_port_write(port: u16, width: Width, value: u32);
        safe fn pci_read = _undercroft_pci_read(address: Address, offset: u16) -> u32;
        safe fn pci_write = _undercroft_pci_write(address: Address, offset: u16, value: u32);
        safe fn msi_route = _undercroft_msi_route(slot: Slot, cpu: usize) -> Result<MsiMessage, IrqError>;
        safe fn raise = _undercroft_raise(slot: Slot, cpu: usize) -> Result<(), IrqError>;
        safe fn line_route = _undercroft_line_route(line: IrqLine, slot: Slot) -> Result<(), IrqError>;
        safe fn line_mask = _undercroft_line_mask(line: IrqLine);
        safe fn pci_line = _undercroft_pci_line(address: Address, pin: u8) -> Option<IrqLine>;
    }
}

/// Binds a type that implements [`Platform`] as the program's platform. Use it exactly once in a program.
///
/// ```text
/// struct MyKernel;
/// unsafe impl undercroft_hal::Platform for MyKernel { /* ... */ }
/// undercroft_hal::bind_platform!(MyKernel);
/// ```
#[macro_export]
macro_rules! bind_platform {
    ($platform:ty) => {
        const _: () = {
            use ::core::ptr::NonNull;
            use $crate::Platform;
            use $crate::dma::{DmaBlock, DmaError, DmaLayout};
            use $crate::irq::{IrqError, IrqLine, MsiMessage, Slot};
            use $crate::mmio::{MmioError, Width};
            use $crate::pci::Address;

            #[unsafe(no_mangle)]
            fn _undercroft_cpu() -> usize {
                <$platform as Platform>::cpu()
            }
            #[unsafe(no_mangle)]
            fn _undercroft_cpu_count() -> usize {
                <$platform as Platform>::cpu_count()
            }
            #[unsafe(no_mangle)]
            fn _undercroft_irq_save() -> bool {
                <$platform as Platform>::irq_save()
            }
            #[unsafe(no_mangle)]
            fn _undercroft_irq_restore(were_on: bool) {
                <$platform as Platform>::irq_restore(were_on)
            }
            #[unsafe(no_mangle)]
            fn _undercroft_halt() {
                <$platform as Platform>::halt()
            }
            #[unsafe(no_mangle)]
            fn _undercroft_relax() {
                <$platform as Platform>::relax()
            }
            #[unsafe(no_mangle)]
            fn _undercroft_kick(cpu: usize) {
                <$platform as Platform>::kick(cpu)
            }
            #[unsafe(no_mangle)]
            fn _undercroft_kick_at(at: u64) -> bool {
                <$platform as Platform>::kick_at(at)
            }
            #[unsafe(no_mangle)]
            fn _undercroft_now() -> u64 {
                <$platform as Platform>::now()
            }
            #[unsafe(no_mangle)]
            fn _undercroft_set_alarm(at: Option<u64>) {
                <$platform as Platform>::set_alarm(at)
            }
            #[unsafe(no_mangle)]
            fn _undercroft_dma_alloc(layout: DmaLayout) -> Result<DmaBlock, DmaError> {
                <$platform as Platform>::dma_alloc(layout)
            }
            // The unsafe functions below keep the contract of the `Platform` function of the same name.
            #[unsafe(no_mangle)]
            unsafe fn _undercroft_dma_free(block: DmaBlock) {
                // SAFETY: the caller keeps the contract of `Platform::dma_free`.
                unsafe { <$platform as Platform>::dma_free(block) }
            }
            #[unsafe(no_mangle)]
            fn _undercroft_map_mmio(phys: u64, len: usize) -> Result<NonNull<u8>, MmioError> {
                <$platform as Platform>::map_mmio(phys, len)
            }
            #[unsafe(no_mangle)]
            unsafe fn _undercroft_mmio_read(addr: NonNull<u8>, width: Width) -> u64 {
                // SAFETY: the caller keeps the contract of `Platform::mmio_read`.
                unsafe { <$platform as Platform>::mmio_read(addr, width) }
            }
            #[unsafe(no_mangle)]
            unsafe fn _undercroft_mmio_write(addr: NonNull<u8>, width: Width, value: u64) {
                // SAFETY: the caller keeps the contract of `Platform::mmio_write`.
                unsafe { <$platform as Platform>::mmio_write(addr, width, value) }
            }
            #[unsafe(no_mangle)]
            fn _undercroft_port_read(port: u16, width: Width) -> u32 {
                <$platform as Platform>::port_read(port, width)
            }
            #[unsafe(no_mangle)]
            fn _undercroft_port_write(port: u16, width: Width, value: u32) {
                <$platform as Platform>::port_write(port, width, value)
            }
            #[unsafe(no_mangle)]
            fn _undercroft_pci_read(address: Address, offset: u16) -> u32 {
                <$platform as Platform>::pci_read(address, offset)
            }
            #[unsafe(no_mangle)]
            fn _undercroft_pci_write(address: Address, offset: u16, value: u32) {
                <$platform as Platform>::pci_write(address, offset, value)
            }
            #[unsafe(no_mangle)]
            fn _undercroft_msi_route(slot: Slot, cpu: usize) -> Result<MsiMessage, IrqError> {
                <$platform as Platform>::msi_route(slot, cpu)
            }
            #[unsafe(no_mangle)]
            fn _undercroft_raise(slot: Slot, cpu: usize) -> Result<(), IrqError> {
                <$platform as Platform>::raise(slot, cpu)
            }
            #[unsafe(no_mangle)]
            fn _undercroft_line_route(line: IrqLine, slot: Slot) -> Result<(), IrqError> {
                <$platform as Platform>::line_route(line, slot)
            }
            #[unsafe(no_mangle)]
            fn _undercroft_line_mask(line: IrqLine) {
                <$platform as Platform>::line_mask(line)
            }
            #[unsafe(no_mangle)]
            fn _undercroft_pci_line(address: Address, pin: u8) -> Option<IrqLine> {
                <$platform as Platform>::pci_line(address, pin)
            }
        };
    };
}
