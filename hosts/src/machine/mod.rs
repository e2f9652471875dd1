//! The simulated machine: RAM, PCI, windows, interrupts, clock, one or more CPUs; deterministic from a seed.
//!
//! The guest runs as ordinary code on the calling thread, inside [`Machine::run`]. At every call into `hal` the machine may let devices work
//! and deliver interrupts; both happen with none of the machine's cells borrowed, because handlers call back. Time stands still except
//! where the guest halts or spins, and where a test calls [`Machine::advance`].
//!
//! Further CPUs take interrupts and run bottom halves while the first one halts; they have no task context of their own.

mod bus;
mod cpu;
mod interrupts;
mod platform;
mod schedule;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use undercroft_hal::Task;
use undercroft_hal::hosted::{self, Frames, Ram};
use undercroft_hal::irq::{IrqLine, MsiMessage};
use undercroft_hal::pci::Address;

pub use bus::{Bus, Device, Space};
pub use schedule::Schedule;

use crate::Random;
use crate::virtio::{Model, Virtio, VirtioMmio, VirtioPci};
use cpu::Cpu;
use interrupts::Controller;

const RAM_BASE: u64 = 0x10_0000;
const BAR_BASE: u64 = 0xe000_0000;
/// The first port for I/O BARs.
const PORT_BASE: u16 = 0xc000;
const WINDOW_BASE: u64 = 0xfeb0_0000;
const WINDOW_LEN: u64 = 0x1000;
const FIRST_PCI_LINE: u32 = 16;
const FIRST_WINDOW_LINE: u32 = 5;

/// What a machine is made of.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Bytes of RAM.
    pub ram: usize,
    /// The physical address of its first byte.
    pub ram_base: u64,
    /// CPUs.
    pub cpus: usize,
    /// Fixes everything that is left to chance.
    pub seed: u64,
    /// When devices work and interrupts arrive.
    pub schedule: Schedule,
}

impl Default for Config {
    /// 16 MiB, one CPU, an eager schedule.
    fn default() -> Self {
        Self { ram: 16 << 20, ram_base: RAM_BASE, cpus: 1, seed: 1, schedule: Schedule::Eager }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Pci(Address),
    Window(u64),
}

struct Attached {
    device: Rc<RefCell<dyn Device>>,
    place: Place,
    line: IrqLine,
}

/// A simulated machine. See the crate's example.
pub struct Machine {
    ram: Ram,
    frames: Frames,
    cpus: Vec<Cpu>,
    current: Cell<usize>,
    now: Cell<u64>,
    schedule: Cell<Schedule>,
    random: RefCell<Random>,
    interrupts: RefCell<Controller>,
    devices: RefCell<Vec<Option<Attached>>>,
    next_bar: Cell<u64>,
    next_port: Cell<u16>,
    /// Spins in a row in which no device got anything done.
    spins: Cell<u32>,
    spin_nanos: Cell<u64>,
    storm: Cell<u32>,
    dma_until_failure: Cell<Option<u64>>,
    /// The highest address that devices reach.
    reach: Cell<u64>,
    accesses: Cell<u64>,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("now", &self.now).field("cpus", &self.cpus).finish_non_exhaustive()
    }
}

/// A test's hold on a device in a machine.
pub struct Handle<D> {
    device: Rc<RefCell<D>>,
    index: usize,
    /// Where the device's configuration space is (PCI) or its window starts.
    place: Place,
    line: IrqLine,
}

impl<D> fmt::Debug for Handle<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("place", &self.place).finish_non_exhaustive()
    }
}

impl<D> Handle<D> {
    /// Calls `f` with the device.
    ///
    /// # Panics
    /// If `f` calls into `hal`, and so into the machine, which uses the device itself.
    pub fn with<R>(&self, f: impl FnOnce(&mut D) -> R) -> R {
        f(&mut self.device.borrow_mut())
    }

    /// The device's PCI address.
    ///
    /// # Panics
    /// If it is not on PCI.
    pub fn address(&self) -> Address {
        match self.place {
            Place::Pci(address) => address,
            Place::Window(_) => panic!("the device is not on PCI"),
        }
    }

    /// The physical address and length in bytes of the device's window.
    ///
    /// # Panics
    /// If it is on PCI.
    pub fn window(&self) -> (u64, usize) {
        match self.place {
            Place::Window(base) => (base, WINDOW_LEN as usize),
            Place::Pci(_) => panic!("the device has no window"),
        }
    }

    /// The device's interrupt line.
    pub fn line(&self) -> IrqLine {
        self.line
    }
}

impl Machine {
    /// A machine without devices.
    pub fn new(config: Config) -> Rc<Self> {
        Rc::new(Self {
            ram: Ram::new(config.ram_base, config.ram),
            frames: Frames::default(),
            cpus: (0..config.cpus.max(1)).map(|_| Cpu::default()).collect(),
            current: Cell::new(0),
            now: Cell::new(0),
            schedule: Cell::new(config.schedule),
            random: RefCell::new(Random::new(config.seed)),
            interrupts: RefCell::default(),
            devices: RefCell::default(),
            next_bar: Cell::new(BAR_BASE),
            next_port: Cell::new(PORT_BASE),
            spins: Cell::new(0),
            spin_nanos: Cell::new(cpu::SPIN_NANOS),
            storm: Cell::new(0),
            dma_until_failure: Cell::new(None),
            reach: Cell::new(u64::MAX),
            accesses: Cell::new(0),
        })
    }

    /// Plugs in a PCI device, at the next free device number of bus 0, its BARs placed.
    ///
    /// # Panics
    /// If bus 0 is full.
    pub fn add_pci<D: Device + 'static>(&self, mut device: D) -> Handle<D> {
        let index = self.devices.borrow().len();
        let number = u8::try_from(index + 1).ok().filter(|number| *number < 32).expect("bus 0 holds 31 devices");
        self.next_bar.set(device.assign_bars(self.next_bar.get()));
        self.next_port.set(device.assign_ports(self.next_port.get()));
        let address = Address { segment: 0, bus: 0, device: number, function: 0 };
        let line = IrqLine { number: FIRST_PCI_LINE + u32::from(number % 4), level: true, low: true };
        self.attach(device, Place::Pci(address), line)
    }

    /// Plugs in a device with a window in physical memory and an interrupt line of its own.
    pub fn add_window<D: Device + 'static>(&self, device: D, level: bool) -> Handle<D> {
        let index = self.devices.borrow().len();
        let base = WINDOW_BASE + index as u64 * WINDOW_LEN;
        // Above the PCI lines once the low ones are used up.
        let number = FIRST_WINDOW_LINE + index as u32;
        let number = if number < FIRST_PCI_LINE { number } else { number + 4 };
        self.attach(device, Place::Window(base), IrqLine { number, level, low: false })
    }

    /// Plugs in a virtio device behind the modern PCI transport.
    pub fn add_virtio_pci<M: Model + 'static>(&self, model: M) -> Handle<VirtioPci<M>> {
        self.add_pci(VirtioPci::new(Virtio::new(model)))
    }

    /// Plugs in a virtio device behind the MMIO transport, version 2, on a level-triggered line.
    pub fn add_virtio_mmio<M: Model + 'static>(&self, model: M) -> Handle<VirtioMmio<M>> {
        self.add_window(VirtioMmio::new(Virtio::new(model)), true)
    }

    fn attach<D: Device + 'static>(&self, device: D, place: Place, line: IrqLine) -> Handle<D> {
        let device = Rc::new(RefCell::new(device));
        let isa = device.borrow().isa_lines();
        for number in isa {
            let line = IrqLine { number: u32::from(*number), level: false, low: false };
            self.interrupts.borrow_mut().add_line(line);
        }
        self.interrupts.borrow_mut().add_line(line);
        let mut devices = self.devices.borrow_mut();
        let index = devices.len();
        devices.push(Some(Attached { device: device.clone(), place, line }));
        Handle { device, index, place, line }
    }

    /// Pulls a device out without warning: it answers all ones and does nothing any more.
    pub fn unplug<D>(&self, handle: &Handle<D>) {
        let gone = self.devices.borrow_mut().get_mut(handle.index).and_then(Option::take);
        if let Some(gone) = gone {
            let isa = gone.device.borrow().isa_lines();
            for number in isa.iter().map(|number| u32::from(*number)).chain([handle.line.number]) {
                self.interrupts.borrow_mut().set_line(number, handle.index, false);
            }
        }
    }

    /// Runs `f` as the guest's task context on the first CPU.
    ///
    /// # Panics
    /// If the guest panics, or hangs: halts while no device has anything to do and no alarm is set.
    pub fn run<R>(self: &Rc<Self>, f: impl FnOnce(&Task) -> R) -> R {
        hosted::run(self.clone(), f)
    }

    /// As [`Machine::run`], but a panic (a guest that hangs, say) is returned as its message.
    ///
    /// # Errors
    /// The message of the panic.
    pub fn try_run<R>(self: &Rc<Self>, f: impl FnOnce(&Task) -> R) -> Result<R, String> {
        catch_unwind(AssertUnwindSafe(|| self.run(f))).map_err(|payload| match payload.downcast::<String>() {
            Ok(message) => *message,
            Err(payload) => payload.downcast_ref::<&str>().map_or_else(String::new, |text| (*text).to_owned()),
        })
    }

    /// Changes when devices work and interrupts arrive.
    pub fn set_schedule(&self, schedule: Schedule) {
        self.schedule.set(schedule);
    }

    /// Lets time pass: `nanos` nanoseconds. Devices work and interrupts arrive at the guest's next call.
    pub fn advance(&self, nanos: u64) {
        self.now.set(self.now.get().saturating_add(nanos));
    }

    /// Lets a spin of the guest take this much time: more, where a test is about waiting in vain.
    pub fn spins_take(&self, nanos: u64) {
        self.spin_nanos.set(nanos);
    }

    /// From now on devices reach addresses up to `last` only, as behind an IOMMU, or on a machine that shows them one area: any other is
    /// an error of theirs. Memory beyond is what the guest gets first, unless it asks for less.
    pub fn limit_devices(&self, last: u64) {
        self.reach.set(last);
    }

    /// Lets `more` DMA allocations succeed and the one after them fail; those after that succeed again.
    pub fn fail_dma_after(&self, more: u64) {
        self.dma_until_failure.set(Some(more));
    }

    /// How many DMA blocks the guest holds: none, once its drivers are gone.
    pub fn live_dma_blocks(&self) -> usize {
        self.ram.live_blocks()
    }

    /// How many device registers the guest has read and written: what would each be an exit to a real host.
    pub fn register_accesses(&self) -> u64 {
        self.accesses.get()
    }

    /// Holds an interrupt line asserted, or lets it go, as a device would that no driver knows.
    pub fn hold_line(&self, number: u32, asserted: bool) {
        self.interrupts.borrow_mut().set_line(number, usize::MAX, asserted);
    }

    /// Interrupt messages that went where no interrupt was routed.
    pub fn stray_messages(&self) -> Vec<MsiMessage> {
        self.interrupts.borrow().stray().to_vec()
    }
}
