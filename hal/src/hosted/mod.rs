//! The hosted platform: the same drivers, in a test, on a simulated machine.
//!
//! Every call that this crate makes to its platform goes to the [`Machine`] of the current thread, set by [`run`]. Each machine has
//! its own [`System`], so many run side by side in one test program. A machine is single-threaded: between any
//! two calls it may let its devices work and deliver interrupts, by calling [`crate::dispatch`] through [`deliver`].
//!
//! UNSAFETY: makes context tokens on behalf of a simulated CPU, and hands out guest memory as raw blocks.

pub(crate) mod frames;
mod hypervisor;
pub mod leaks;
mod memory;
mod platform;
mod threads;
pub mod trap;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

pub use frames::Frames;
pub use hypervisor::{FIRST_VECTOR, ThisMachine, slot_of_vector};
pub use leaks::LeakCheck;
pub use memory::{BadAccess, Ram};
pub use threads::Cpus;
pub use trap::TrapAlloc;

use crate::context::Task;
use crate::dma::{DmaBlock, DmaError, DmaLayout};
use crate::irq::{IrqError, IrqLine, MsiMessage, Slot};
use crate::mmio::{MmioError, Width};
use crate::pci::Address;
use crate::system::System;
use crate::xen::SharedPage;

/// A simulated machine: what [`crate::Platform`] asks for, as an object. All methods take `&self`: calls nest, because an interrupt
/// delivered inside one runs handlers that make more.
pub trait Machine {
    /// The CPU that the calling code runs on.
    fn cpu(&self) -> usize {
        0
    }
    /// How many CPUs there are.
    fn cpu_count(&self) -> usize {
        1
    }
    /// See [`crate::Platform::irq_save`].
    fn irq_save(&self) -> bool;
    /// See [`crate::Platform::irq_restore`]; a machine may deliver pending interrupts here.
    fn irq_restore(&self, were_on: bool);
    /// See [`crate::Platform::halt`]. A machine in which nothing can ever happen again panics here: the guest hangs.
    fn halt(&self);
    /// The guest spins: let somebody else work.
    fn relax(&self);
    /// See [`crate::Platform::kick`].
    fn kick(&self, cpu: usize);
    /// See [`crate::Platform::kick_at`].
    fn kick_at(&self, at: u64) -> bool {
        let _ = at;
        false
    }
    /// See [`crate::Platform::now`].
    fn now(&self) -> u64;
    /// See [`crate::Platform::set_alarm`].
    fn set_alarm(&self, at: Option<u64>);
    /// See [`crate::Platform::dma_alloc`]; [`Ram::alloc`] does the work.
    ///
    /// # Errors
    /// [`DmaError`].
    fn dma_alloc(&self, layout: DmaLayout) -> Result<DmaBlock, DmaError>;
    /// See [`crate::Platform::dma_free`]; [`Ram::free`] does the work.
    fn dma_free(&self, block: DmaBlock);
    /// Checks that device registers lie at `phys`.
    ///
    /// # Errors
    /// [`MmioError`].
    fn map_mmio(&self, phys: u64, len: usize) -> Result<(), MmioError>;
    /// The guest reads the device register at `phys`.
    fn mmio_read(&self, phys: u64, width: Width) -> u64;
    /// The guest writes the device register at `phys`.
    fn mmio_write(&self, phys: u64, width: Width, value: u64);
    /// The guest reads a port.
    fn port_read(&self, port: u16, width: Width) -> u32 {
        let _ = (port, width);
        u32::MAX
    }
    /// The guest writes a port.
    fn port_write(&self, port: u16, width: Width, value: u32) {
        let _ = (port, width, value);
    }
    /// The guest reads configuration space.
    fn pci_read(&self, address: Address, offset: u16) -> u32;
    /// The guest writes configuration space.
    fn pci_write(&self, address: Address, offset: u16, value: u32);
    /// See [`crate::Platform::msi_route`].
    ///
    /// # Errors
    /// [`IrqError`].
    fn msi_route(&self, slot: Slot, cpu: usize) -> Result<MsiMessage, IrqError>;
    /// See [`crate::Platform::raise`].
    ///
    /// # Errors
    /// [`IrqError`].
    fn raise(&self, slot: Slot, cpu: usize) -> Result<(), IrqError> {
        let _ = (slot, cpu);
        Err(IrqError::Unsupported)
    }
    /// See [`crate::Platform::line_route`].
    ///
    /// # Errors
    /// [`IrqError`].
    fn line_route(&self, line: IrqLine, slot: Slot) -> Result<(), IrqError>;
    /// See [`crate::Platform::line_mask`].
    fn line_mask(&self, line: IrqLine);
    /// See [`crate::Platform::pci_line`].
    fn pci_line(&self, address: Address, pin: u8) -> Option<IrqLine>;

    /// The guest asks CPUID: EAX, EBX, ECX, EDX. See [`crate::hyperv::Hypervisor`] for this and the next three.
    fn cpuid(&self, leaf: u32) -> [u32; 4] {
        let _ = leaf;
        [0; 4]
    }
    /// The guest reads a synthetic register of the CPU that it runs on.
    fn read_msr(&self, register: u32) -> u64 {
        let _ = register;
        0
    }
    /// The guest writes a synthetic register.
    fn write_msr(&self, register: u32, value: u64) {
        let _ = (register, value);
    }
    /// The guest calls the hypercall page.
    fn hypercall(&self, control: u64, input: u64, output: u64) -> u64 {
        let _ = (control, input, output);
        // HV_STATUS_INVALID_HYPERCALL_CODE.
        2
    }

    /// The guest calls Xen: the call's number, its command, and its structure. See [`crate::xen::Hypervisor`] for this and the next three.
    fn xen_call(&self, number: u32, command: u32, argument: &mut [u8]) -> i64 {
        let _ = (number, command, argument);
        // ENOSYS.
        -38
    }
    /// The guest calls `vcpu_op` for this virtual processor.
    fn xen_vcpu_call(&self, command: u32, vcpu: u32, argument: &mut [u8]) -> i64 {
        let _ = (command, vcpu, argument);
        -38
    }
    /// A frame where nothing is; [`Frames`] does the work.
    fn spare_frame(&self) -> Option<u64> {
        None
    }
    /// What lies at a frame beside RAM.
    fn map_page(&self, frame: u64) -> Option<SharedPage> {
        let _ = frame;
        None
    }
}

/// What a machine delivers to its CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A device's interrupt.
    Interrupt(Slot),
    /// The CPU's alarm.
    Alarm,
    /// A kick.
    Kick,
}

#[derive(Clone)]
struct Current {
    machine: Rc<dyn Machine>,
    system: Owner,
}

/// Who keeps a machine's [`System`]: the machine alone, or CPUs that are threads together.
#[derive(Clone)]
enum Owner {
    Alone(Rc<System>),
    Shared(Arc<Cpus>),
}

#[cfg(not(shuttle))]
thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}
#[cfg(shuttle)]
shuttle::thread_local! {
    static CURRENT: RefCell<Option<Current>> = RefCell::new(None);
}

fn current() -> Current {
    CURRENT
        .with(|current| current.borrow().clone())
        .expect("hosted code runs inside hal::hosted::run, on the thread of its machine")
}

pub(crate) fn with_system<R>(f: impl FnOnce(&System) -> R) -> R {
    match current().system {
        Owner::Alone(system) => f(&system),
        Owner::Shared(cpus) => f(cpus.system()),
    }
}

/// Runs `f` as task context on `machine`'s first CPU. The machine lasts until `f` returns; what `f` leaves behind (a driver that was
/// not dropped) must not be used afterwards, and panics if it tries to reach its machine.
///
/// # Panics
/// If a machine already runs on this thread. If `f` leaves DMA memory or interrupt handlers behind, unless it runs in [`leaks::allowed`].
pub fn run<R>(machine: Rc<dyn Machine>, f: impl FnOnce(&Task) -> R) -> R {
    run_on(machine, Owner::Alone(Rc::new(System::new())), |task| {
        let _check = LeakCheck::new(task);
        f(task)
    })
}

fn run_on<R>(machine: Rc<dyn Machine>, system: Owner, f: impl FnOnce(&Task) -> R) -> R {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            let left = CURRENT.with(|current| current.borrow_mut().take());
            if std::thread::panicking() {
                // Tasks that a guest which panicked has left would reach for their machine: a second panic ends the program.
                core::mem::forget(left);
            }
        }
    }
    CURRENT.with(|current| {
        let mut current = current.borrow_mut();
        assert!(current.is_none(), "a machine already runs on this thread");
        *current = Some(Current { machine, system });
    });
    let _leave = Leave;
    // SAFETY: the machine was just made current: its only CPU is in no interrupt and no bottom half.
    unsafe { crate::dispatch::enter_task(|task| trap::guest(|| f(task))) }
}

/// Delivers an interrupt to the current machine's CPU, as hardware would. The machine calls this with interrupts off on the simulated
/// CPU (having noted that they were on) and turns them on again afterwards.
pub fn deliver(event: Event) {
    // SAFETY: the simulated CPU takes the interrupt at this point: the machine has turned interrupts off, and host stacks are deep
    // enough for bottom halves.
    trap::guest(|| unsafe {
        let bottom_halves = match event {
            Event::Interrupt(slot) => crate::dispatch::interrupt(slot, || ()),
            Event::Alarm => crate::dispatch::alarm(|| ()),
            Event::Kick => crate::dispatch::kicked(|| ()),
        };
        if bottom_halves {
            crate::dispatch::bottom_halves();
        }
    });
}
