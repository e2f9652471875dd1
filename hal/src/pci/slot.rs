//! Slots whose occupant may come and go while the machine runs: PCI Express native hot plug.
//!
//! A slot is below a root port or a switch's port. The port says by an interrupt that something came, or that somebody wants to take it
//! away (the attention button; a hypervisor presses it when it is asked to remove a device). Whoever listens looks ([`HotSlot::look`]), and
//! switches the slot on or off; a device goes only when its slot is off.
//!
//! Source: PCI Express 3.0, 6.7 and 7.8.9 to 7.8.11. Task context, except [`HotSlot::look`]: any.

use alloc::vec::Vec;
use core::time::Duration;

use super::assign::assign;
use super::function::{Function, PciError, behind, bridges};
use super::{Msi, Msix};
use crate::clock::Instant;
use crate::context::{HardIrq, Task};
use crate::cpu;
use crate::irq::{self, Handled, Interrupt, IrqError};

const EXPRESS: u8 = 0x10;
/// In the capabilities register: the port has a slot.
const SLOT: u16 = 1 << 8;

/// Offsets in the capability.
const LINK_CAPABILITIES: u16 = 0x0c;
const LINK: u16 = 0x10;
const SLOT_CAPABILITIES: u16 = 0x14;
/// Control in the lower half, status in the upper.
const CONTROL: u16 = 0x18;

const HOT_PLUG: u32 = 1 << 6;
/// The port does not tell when it has carried out a command.
const NO_COMPLETED: u32 = 1 << 18;

/// Control: interrupts for the attention button, for presence, and in all; power indicator on or off; power off.
const LISTEN: u32 = 1 << 0 | 1 << 3 | 1 << 5;
const INDICATOR: u32 = 3 << 8;
const INDICATOR_ON: u32 = 1 << 8;
const INDICATOR_OFF: u32 = 3 << 8;
const POWER_OFF: u32 = 1 << 10;

/// Status, in the upper half: what has happened is cleared by writing it.
const ATTENTION: u32 = 1 << 16;
const PRESENCE_CHANGED: u32 = 1 << 19;
const COMPLETED: u32 = 1 << 20;
const PRESENT: u32 = 1 << 22;
/// All that has happened: button, power fault, latch, presence, command, link.
const HAPPENED: u32 = 0x011f << 16;

/// Link status, in the upper half of its register, and whether the port has that bit.
const LINK_ACTIVE: u32 = 1 << 29;
const TELLS_LINK: u32 = 1 << 20;

/// A port carries out a command within this time (6.7.3.2).
const COMMAND_TIME: Duration = Duration::from_secs(1);
/// A link comes up within this time, and a function answers so long after that (6.6.1).
const LINK_TIME: Duration = Duration::from_secs(1);
const SETTLE_TIME: Duration = Duration::from_millis(100);

/// What a look at a slot has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotState {
    /// Something is in it, switched on or not.
    pub present: bool,
    /// Since the last look somebody asked that it be removed, or announced what was just put in.
    pub attention: bool,
    /// Since the last look something was put in or taken out.
    pub changed: bool,
}

/// A slot. Dropping it turns its interrupt off.
#[derive(Debug)]
pub struct HotSlot {
    port: Function,
    at: u16,
    wiring: Option<Wiring>,
}

#[derive(Debug)]
struct Wiring {
    _handler: Interrupt,
}

/// Finds the slots of segment 0.
pub fn slots(cx: &Task) -> Vec<HotSlot> {
    bridges(cx).into_iter().filter_map(HotSlot::of).collect()
}

impl HotSlot {
    fn of(port: Function) -> Option<Self> {
        let capability = port.capabilities().find(|capability| capability.id == EXPRESS)?;
        let at = u16::from(capability.offset);
        let hot = port.read_u16(at + 2) & SLOT != 0 && port.read(at + SLOT_CAPABILITIES) & HOT_PLUG != 0;
        hot.then_some(Self { port, at, wiring: None })
    }

    /// The number on its label.
    pub fn number(&self) -> u16 {
        (self.port.read(self.at + SLOT_CAPABILITIES) >> 19) as u16
    }

    /// The functions in it that answer.
    pub fn functions(&self, cx: &Task) -> Vec<Function> {
        match self.port.read_u8(0x19) {
            // Firmware has given it no bus.
            0 => Vec::new(),
            bus => behind(cx, bus),
        }
    }

    /// Has `event` run in the hard interrupt by which the port tells that there is something to look at. What happened before is
    /// forgotten, so look afterwards. A port without interrupts that the machine can route is to be looked at now and then instead.
    ///
    /// # Errors
    /// [`IrqError`]: no interrupt.
    pub fn listen(&mut self, cx: &Task, event: impl Fn(&HardIrq) + Send + 'static) -> Result<(), IrqError> {
        self.port.enable();
        self.look();
        let msix = Msix::new(self.port).unwrap_or(None);
        let msi = Msi::new(self.port);
        if msix.is_none() && msi.is_none() {
            return Err(IrqError::Unsupported);
        }
        let (handler, message) = irq::message(cx, cpu::current(), move |cx| {
            event(cx);
            Handled::Yes
        })?;
        if let Some(msix) = msix {
            msix.set(0, message);
            msix.enable();
        } else if !msi.is_some_and(|msi| msi.enable(message)) {
            return Err(IrqError::Unsupported);
        }
        self.wiring = Some(Wiring { _handler: handler });
        self.control(cx, LISTEN, LISTEN);
        Ok(())
    }

    /// What has happened since the last look, and how it is now. After an interrupt look until nothing more has happened: the port
    /// interrupts again only then.
    pub fn look(&self) -> SlotState {
        let word = self.port.read(self.at + CONTROL);
        // A port that does not answer any more has nothing in it.
        if word == u32::MAX {
            return SlotState { present: false, attention: false, changed: false };
        }
        let happened = word & HAPPENED & !COMPLETED;
        if happened != 0 {
            self.port.write(self.at + CONTROL, word & 0xffff | happened);
        }
        SlotState {
            present: word & PRESENT != 0,
            attention: word & ATTENTION != 0,
            changed: word & PRESENCE_CHANGED != 0,
        }
    }

    /// Changes control bits, and waits for the port to have done it, bounded in time.
    fn control(&self, cx: &Task, mask: u32, bits: u32) {
        let at = self.at + CONTROL;
        let before = self.port.read(at) & 0xffff;
        // An old completion is not this one's.
        self.port.write(at, before & !mask | bits | COMPLETED);
        if self.port.read(self.at + SLOT_CAPABILITIES) & NO_COMPLETED == 0 {
            wait(cx, COMMAND_TIME, || self.port.read(at) & COMPLETED != 0);
        }
    }

    /// Switches the slot on, and gives what is in it addresses.
    ///
    /// # Errors
    /// [`PciError`]; the slot is switched off again.
    pub fn power_on(&self, cx: &Task) -> Result<Vec<Function>, PciError> {
        self.control(cx, POWER_OFF | INDICATOR, INDICATOR_ON);
        if self.port.read(self.at + LINK_CAPABILITIES) & TELLS_LINK != 0 {
            wait(cx, LINK_TIME, || self.port.read(self.at + LINK) & LINK_ACTIVE != 0);
        }
        wait(cx, SETTLE_TIME, || false);
        self.port.enable();
        let functions = self.functions(cx);
        match assign(&self.port, &functions) {
            Ok(()) => Ok(functions),
            Err(error) => {
                self.power_off(cx);
                Err(error)
            }
        }
    }

    /// Switches the slot off: what is in it may be taken out. Nothing of it is used any more.
    pub fn power_off(&self, cx: &Task) {
        self.control(cx, POWER_OFF | INDICATOR, POWER_OFF | INDICATOR_OFF);
    }
}

impl Drop for HotSlot {
    fn drop(&mut self) {
        if self.wiring.is_some() {
            let word = self.port.read(self.at + CONTROL);
            self.port.write(self.at + CONTROL, word & 0xffff & !LISTEN);
        }
    }
}

/// Waits until `done`, or for `time`. Others run meanwhile.
fn wait(cx: &Task, time: Duration, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() && start.elapsed() < time {
        cx.run_pending();
        cpu::relax();
    }
}
