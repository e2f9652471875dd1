//! I/O APICs: from wired lines to vectors.
//!
//! Source: Intel 82093AA data sheet; interrupt source overrides in ACPI 6.5, 5.2.12.5.
//!
//! Contexts: task and the boot code. Rank: that of PCI configuration access.

use arrayvec::ArrayVec;

use super::paging;
use crate::firmware::acpi::{IoApic, Madt, Override};
use crate::irq::IrqLine;
use crate::sync::{IrqSpinLock, Rank};

const VERSION: u32 = 1;
const REDIRECTION: u32 = 0x10;
const MASKED: u32 = 1 << 16;
const LEVEL: u32 = 1 << 15;
const ACTIVE_LOW: u32 = 1 << 13;
/// Delivery as a non-maskable interrupt.
const DELIVER_NMI: u32 = 4 << 8;

struct Controller {
    /// Where its registers are seen.
    registers: u64,
    /// Global system interrupt of its first pin, and how many pins it has.
    first: u32,
    pins: u32,
}

impl Controller {
    fn register(&self, offset: u64) -> *mut u32 {
        core::ptr::with_exposed_provenance_mut((self.registers + offset) as usize)
    }

    fn read(&self, index: u32) -> u32 {
        // SAFETY: the select and window registers of a mapped I/O APIC; the lock keeps the pair together.
        unsafe {
            self.register(0).write_volatile(index);
            self.register(0x10).read_volatile()
        }
    }

    fn write(&self, index: u32, value: u32) {
        // SAFETY: as in `read`.
        unsafe {
            self.register(0).write_volatile(index);
            self.register(0x10).write_volatile(value);
        }
    }

    fn set(&self, pin: u32, low: u32, target: u32) {
        let at = REDIRECTION + 2 * pin;
        // Masked while the halves do not belong together.
        self.write(at, MASKED);
        self.write(at + 1, target << 24);
        self.write(at, low);
    }
}

struct Controllers {
    all: ArrayVec<Controller, 8>,
    overrides: ArrayVec<Override, 16>,
}

static CONTROLLERS: IrqSpinLock<Controllers> =
    IrqSpinLock::new(Rank::PCI, Controllers { all: ArrayVec::new_const(), overrides: ArrayVec::new_const() });

/// Maps the controllers and masks all their pins. Without a table the PC's usual one is assumed.
pub(super) fn init(madt: Option<&Madt>) {
    const USUAL: IoApic = IoApic { address: 0xFEC0_0000, first: 0 };
    let mut controllers = CONTROLLERS.lock();
    let named = madt.map_or(&[] as &[IoApic], |madt| &madt.io_apics);
    let named = if madt.is_none() { &[USUAL] } else { named };
    for io_apic in named {
        let Some(registers) = paging::map_device(u64::from(io_apic.address), 0x20) else { continue };
        let mut controller = Controller { registers, first: io_apic.first, pins: 0 };
        let version = controller.read(VERSION);
        if version == u32::MAX || version == 0 {
            continue;
        }
        controller.pins = ((version >> 16 & 0xFF) + 1).min(240);
        for pin in 0..controller.pins {
            controller.write(REDIRECTION + 2 * pin, MASKED);
        }
        let _ = controllers.all.try_push(controller);
    }
    controllers.overrides = madt.map_or(ArrayVec::new_const(), |madt| madt.overrides.clone());
}

/// No I/O APIC has the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoLine;

fn with_pin(number: u32, work: impl FnOnce(&Controller, u32)) -> Result<(), NoLine> {
    let controllers = CONTROLLERS.lock();
    let found = controllers
        .all
        .iter()
        .find(|controller| number.checked_sub(controller.first).is_some_and(|pin| pin < controller.pins));
    let controller = found.ok_or(NoLine)?;
    work(controller, number - controller.first);
    Ok(())
}

/// Routes a line to `vector` on the processor with APIC id `target` (below 256) and unmasks it.
pub(super) fn route(line: IrqLine, vector: u32, target: u32) -> Result<(), NoLine> {
    let trigger = if line.level { LEVEL } else { 0 };
    let polarity = if line.low { ACTIVE_LOW } else { 0 };
    with_pin(line.number, |controller, pin| controller.set(pin, vector | trigger | polarity, target))
}

/// Routes a line, edge-triggered, as a non-maskable interrupt to a processor.
pub(super) fn route_nmi(number: u32, target: u32) -> Result<(), NoLine> {
    with_pin(number, |controller, pin| controller.set(pin, DELIVER_NMI, target))
}

/// Masks a line.
pub(super) fn mask(number: u32) -> Result<(), NoLine> {
    with_pin(number, |controller, pin| controller.write(REDIRECTION + 2 * pin, MASKED))
}

/// Where an ISA interrupt arrives.
pub(super) fn isa(source: u8) -> IrqLine {
    let controllers = CONTROLLERS.lock();
    let found = controllers.overrides.iter().find(|found| found.source == source);
    found.map_or(IrqLine { number: u32::from(source), level: false, low: false }, |found| IrqLine {
        number: found.line,
        level: found.level,
        low: found.low,
    })
}
