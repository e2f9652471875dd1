//! A machine under Hyper-V: the model's side of the guest's memory and time, and its interrupts into the machine's.
//!
//! Messages carry an interrupt slot's number here, and vectors those of [`hosted::FIRST_VECTOR`] on.

use std::fmt;
use std::rc::Rc;

use undercroft_hal::hosted::{self, BadAccess, Ram};
use undercroft_hal::irq::MsiMessage;

use super::Machine;
use super::interrupts::address_of_cpu;
use crate::hyperv::{BadGpa, Guest, Hyperv};

/// Nanoseconds in a unit of the reference counter.
const UNIT: u64 = 100;

/// What the model sees of the machine.
struct Seen<'a> {
    ram: &'a Ram,
    now: u64,
}

impl From<BadAccess> for BadGpa {
    fn from(bad: BadAccess) -> Self {
        Self { gpa: bad.addr, len: bad.len }
    }
}

impl Guest for Seen<'_> {
    fn read(&self, gpa: u64, into: &mut [u8]) -> Result<(), BadGpa> {
        Ok(self.ram.read(gpa, into)?)
    }

    fn write(&self, gpa: u64, bytes: &[u8]) -> Result<(), BadGpa> {
        Ok(self.ram.write(gpa, bytes)?)
    }

    fn now(&self) -> u64 {
        self.now / UNIT
    }
}

/// A test's hold on the Hyper-V that a machine is under.
pub struct Hypervisor(Rc<Machine>);

impl fmt::Debug for Hypervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hypervisor").finish_non_exhaustive()
    }
}

impl Hypervisor {
    /// Calls `f` with the model and the guest as it sees it.
    ///
    /// # Panics
    /// If `f` calls into `hal`, and so into the machine, which uses the model itself.
    pub fn with<R>(&self, f: impl FnOnce(&mut Hyperv, &dyn Guest) -> R) -> R {
        self.0.with_hyperv(f).expect("the machine was made under Hyper-V")
    }
}

impl Machine {
    /// Puts the machine under Hyper-V. The drivers of Hyper-V reach it through [`hosted::ThisMachine`].
    pub fn add_hyperv(self: &Rc<Self>, host: Hyperv) -> Hypervisor {
        *self.hyperv.borrow_mut() = Some(host);
        Hypervisor(Rc::clone(self))
    }

    /// Does something with the model, if there is one; its interrupts are pending afterwards.
    pub(super) fn with_hyperv<R>(&self, f: impl FnOnce(&mut Hyperv, &dyn Guest) -> R) -> Option<R> {
        let mut hyperv = self.hyperv.borrow_mut();
        let host = hyperv.as_mut()?;
        let result = f(host, &Seen { ram: &self.ram, now: self.now.get() });
        for interrupt in host.take_interrupts() {
            let slot = hosted::slot_of_vector(interrupt.vector).map_or(u32::MAX, |slot| u32::from(slot.0));
            let message = MsiMessage { addr: address_of_cpu(interrupt.vp as usize), data: slot };
            self.interrupts.borrow_mut().message(message);
        }
        Some(result)
    }

    pub(super) fn under_hyperv(&self) -> bool {
        self.hyperv.borrow().is_some()
    }

    /// Gives the model its turn. Returns whether it got anything done.
    pub(super) fn work_hyperv(&self, budget: usize) -> bool {
        self.with_hyperv(|host, guest| host.work(guest, budget)).unwrap_or(false)
    }

    /// When the model next does something by itself, in virtual nanoseconds.
    pub(super) fn hyperv_due(&self) -> Option<u64> {
        self.with_hyperv(|host, _| host.due())?.map(|due| due.saturating_mul(UNIT))
    }
}

/// What the guest's processors ask.
impl Machine {
    pub(super) fn ask_cpuid(&self, leaf: u32) -> [u32; 4] {
        const HYPERVISOR_PRESENT: u32 = 1 << 31;
        let present = if leaf == 1 { [0, 0, HYPERVISOR_PRESENT, 0] } else { [0; 4] };
        self.with_hyperv(|host, _| host.cpuid(leaf, 0)).map_or([0; 4], |known| known.unwrap_or(present))
    }

    pub(super) fn ask_read_msr(&self, register: u32) -> u64 {
        self.step();
        let vp = self.current.get() as u32;
        // A fault of the processor's; the model has noted why.
        self.with_hyperv(|host, guest| host.rdmsr(guest, vp, register)).and_then(Result::ok).unwrap_or(0)
    }

    pub(super) fn ask_write_msr(&self, register: u32, value: u64) {
        let vp = self.current.get() as u32;
        self.with_hyperv(|host, guest| host.wrmsr(guest, vp, register, value));
        self.step();
    }

    pub(super) fn ask_hypercall(&self, control: u64, input: u64, output: u64) -> u64 {
        const NO_SUCH_CALL: u64 = 2;
        let vp = self.current.get() as u32;
        let status = self.with_hyperv(|host, guest| host.hypercall(guest, vp, control, input, output));
        self.step();
        status.unwrap_or(NO_SUCH_CALL)
    }
}
