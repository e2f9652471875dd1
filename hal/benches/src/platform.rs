//! The smallest platform: each thread is a CPU, and interrupts are a flag of the thread that nobody looks at.
//!
//! Turning interrupts off costs a store here and some ten cycles on a processor; a kick is lost, so bottom halves run where a task waits.
//!
//! UNSAFETY: binds the platform, whose memory for devices is the program's, and calls the dispatcher.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use undercroft_hal::dma::{DmaBlock, DmaError, DmaLayout};
use undercroft_hal::irq::{IrqError, IrqLine, MsiMessage, Slot};
use undercroft_hal::mmio::{MmioError, Width};
use undercroft_hal::pci::Address;
use undercroft_hal::{Platform, dispatch};

thread_local! {
    static CPU: Cell<usize> = const { Cell::new(0) };
    static INTERRUPTS: Cell<bool> = const { Cell::new(true) };
}

static TIME: AtomicU64 = AtomicU64::new(0);

/// Sets the clock, which stands still otherwise, to nanoseconds.
pub fn set_time(nanos: u64) {
    TIME.store(nanos, Ordering::Relaxed);
}

/// Lets this thread's alarm go off.
///
/// # Safety
/// The thread is a CPU of its own and in no context, with its interrupts on.
pub unsafe fn ring() {
    INTERRUPTS.set(false);
    // SAFETY: an alarm's interrupt begins here; bottom halves run once if they are asked for, where nothing else is handled.
    unsafe {
        if dispatch::alarm(|| ()) {
            dispatch::bottom_halves();
        }
    }
    INTERRUPTS.set(true);
}

/// Makes the calling thread CPU `cpu`. Two threads that run at the same time must be different CPUs.
pub fn become_cpu(cpu: usize) {
    CPU.set(cpu);
}

/// What the allocator is asked for. There is no memory below a bound, and none that keeps off a boundary.
fn memory_layout(layout: DmaLayout) -> Result<Layout, DmaError> {
    if layout.len == 0 || layout.constraints.max_addr != u64::MAX || layout.constraints.boundary != 0 {
        return Err(DmaError::NoMemory);
    }
    Layout::from_size_align(layout.len, layout.constraints.align).map_err(|_| DmaError::BadLayout)
}

struct Threads;

// SAFETY: a thread keeps its index while it measures, nothing interrupts it, there is no device, and memory for one is a block of
// the allocator's, at the address where the CPU sees it.
unsafe impl Platform for Threads {
    fn cpu() -> usize {
        CPU.get()
    }
    fn cpu_count() -> usize {
        2
    }
    fn irq_save() -> bool {
        INTERRUPTS.replace(false)
    }
    fn irq_restore(were_on: bool) {
        INTERRUPTS.set(were_on);
    }
    fn halt() {
        INTERRUPTS.set(true);
        std::thread::yield_now();
    }
    fn relax() {
        std::hint::spin_loop();
    }
    fn kick(_cpu: usize) {}
    fn now() -> u64 {
        TIME.load(Ordering::Relaxed)
    }
    fn set_alarm(_at: Option<u64>) {}
    fn dma_alloc(layout: DmaLayout) -> Result<DmaBlock, DmaError> {
        let of = memory_layout(layout)?;
        // SAFETY: it is not empty, which `memory_layout` checks.
        let virt = NonNull::new(unsafe { alloc_zeroed(of) }).ok_or(DmaError::NoMemory)?;
        Ok(DmaBlock { virt, addr: virt.as_ptr() as u64, len: layout.len, layout })
    }
    unsafe fn dma_free(block: DmaBlock) {
        if let Ok(of) = memory_layout(block.layout) {
            // SAFETY: by the caller, it came from `dma_alloc` with this layout, and is freed once.
            unsafe { dealloc(block.virt.as_ptr(), of) };
        }
    }
    fn map_mmio(_phys: u64, _len: usize) -> Result<NonNull<u8>, MmioError> {
        Err(MmioError::BadRange)
    }
    fn port_read(_port: u16, _width: Width) -> u32 {
        u32::MAX
    }
    fn port_write(_port: u16, _width: Width, _value: u32) {}
    fn pci_read(_address: Address, _offset: u16) -> u32 {
        u32::MAX
    }
    fn pci_write(_address: Address, _offset: u16, _value: u32) {}
    fn msi_route(_slot: Slot, _cpu: usize) -> Result<MsiMessage, IrqError> {
        Err(IrqError::NoVector)
    }
    fn line_route(_line: IrqLine, _slot: Slot) -> Result<(), IrqError> {
        Err(IrqError::NoLine)
    }
    fn line_mask(_line: IrqLine) {}
    fn pci_line(_address: Address, _pin: u8) -> Option<IrqLine> {
        None
    }
}

undercroft_hal::bind_platform!(Threads);
