//! Taking an adapter into use, and letting go of it. Task context.

use alloc::sync::{Arc, Weak};
use core::sync::atomic::AtomicBool;

use undercroft_block::{Error, Slab};
use undercroft_hal::dma::DmaError;
use undercroft_hal::pci::Function;
use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::work::{BottomHalfWork, Turn};
use undercroft_hal::{BottomHalf, Task};

use super::interrupts::{self, Wiring};
use super::manage::Up;
use super::{Adapter, Control, Counters, Life, State, service};
use crate::ProbeError;
use crate::defect::{Defect, Defects};
use crate::registers::Registers;
use crate::rings::{Rings, Shared};
use crate::tables::Tables;
use crate::wire::rings::REQUESTS_PER_PAGE;
use crate::wire::setup::{MAX_RING_PAGES, SetupMessageRing, SetupRequestCall, SetupRings};
use crate::wire::{COMMAND_FAILED, CommandCode};

/// Pages of the request ring: 256 commands in flight.
pub(crate) const REQUEST_PAGES: usize = 8;
/// Pages of the message ring: 32 messages.
const MESSAGE_PAGES: usize = 1;
/// Targets where the adapter does not say: what one can address.
const TARGETS: u32 = 64;

const _: () = assert!(REQUEST_PAGES.is_power_of_two() && REQUEST_PAGES <= MAX_RING_PAGES);

/// An adapter that runs, with everything that must go when it goes. Dropping it resets the adapter; what was in flight then finishes with
/// [`Error::Removed`] from a bottom half, and the rings are freed after that.
pub(crate) struct Running {
    pub(crate) adapter: Arc<Adapter>,
    /// How it interrupts, for people.
    pub(crate) interrupts: &'static str,
    /// Highest target.
    pub(crate) max_target: u16,
    /// Commands in flight at most.
    pub(crate) depth: u32,
    /// What of the device is in use.
    up: Up,
    wiring: Option<Wiring>,
    /// Finishes what is left, and owns the adapter while it does.
    farewell: Option<BottomHalfWork>,
}

impl Running {
    /// The optional parts of the interface that are in use, for people.
    pub(crate) fn features(&self) -> &'static str {
        match (self.up.messages, self.up.threshold) {
            (true, true) => "messages request-call",
            (true, false) => "messages",
            (false, true) => "request-call",
            (false, false) => "",
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.adapter.stop(Error::Removed);
        drop(self.wiring.take());
        let Some(farewell) = self.farewell.take() else { return };
        if self.adapter.defects.has(Defect::ForgetsAtRemoval) {
            return core::mem::forget(farewell);
        }
        farewell.schedule();
        farewell.detach();
    }
}

/// An adapter that is half set up is reset before its memory goes.
struct Setup(Option<Control>);

impl Drop for Setup {
    fn drop(&mut self) {
        if let Some(control) = &self.0
            && !control.registers.reset()
        {
            control.function.disable_bus_master();
        }
    }
}

impl Control {
    /// Names the rings to the device. `understood` says whether it took the request and completion rings, and the message ring, as they
    /// are. `None` if it did not take the first two.
    pub(super) fn set_up(
        &self,
        setup: &SetupRings,
        messages: &SetupMessageRing,
        understood: impl Fn() -> (bool, bool),
    ) -> Option<Up> {
        let registers = self.registers;
        if registers.command(CommandCode::SETUP_RINGS, setup) == COMMAND_FAILED || !understood().0 {
            return None;
        }
        let has_messages = self.messages
            && registers.command(CommandCode::SETUP_MESSAGE_RING, messages) != COMMAND_FAILED
            && understood().1;
        let on = SetupRequestCall { enable: 1.into() };
        let threshold =
            self.threshold && !matches!(registers.command(CommandCode::SETUP_REQUEST_CALL, &on), 0 | COMMAND_FAILED);
        Some(Up { messages: has_messages, threshold })
    }
}

/// How many targets the adapter may have.
fn targets(registers: Registers) -> u16 {
    match registers.command(CommandCode::GET_MAX_TARGETS, &()) {
        0 | COMMAND_FAILED => TARGETS as u16,
        targets => targets.min(256) as u16,
    }
}

/// Everything that the commands in flight need; half of it, and half again, where memory is short.
fn memory() -> Result<(Shared, Tables), DmaError> {
    let mut pages = REQUEST_PAGES;
    loop {
        let rings = Shared::new(pages, MESSAGE_PAGES);
        match rings.and_then(|rings| Ok((rings, Tables::new(pages * REQUESTS_PER_PAGE)?))) {
            Err(DmaError::NoMemory) if pages > 1 => pages /= 2,
            result => return result,
        }
    }
}

fn bottom_half(adapter: &Weak<Adapter>) -> Arc<BottomHalfWork> {
    let adapter = Weak::clone(adapter);
    Arc::new(BottomHalfWork::new(0, move |cx: &BottomHalf| {
        // Gone: its farewell has finished everything.
        adapter.upgrade().map_or(Turn::Done, |adapter| adapter.service(cx))
    }))
}

/// Takes the adapter behind a PCI function into use.
///
/// # Errors
/// [`ProbeError`]; the adapter is reset and nothing of it is left.
pub(crate) fn start(cx: &Task, function: Function, defects: Defects) -> Result<Running, ProbeError> {
    function.enable();
    let registers = Registers::map(&function)?;
    if !registers.reset() {
        return Err(ProbeError::ResetRefused);
    }
    let max_target = targets(registers) - 1;
    let messages = registers.knows(CommandCode::SETUP_MESSAGE_RING);
    let threshold = registers.knows(CommandCode::SETUP_REQUEST_CALL);
    let (shared, tables) = memory()?;
    let sizes = shared.sizes();
    let rings = Rings::new(shared, sizes);
    #[cfg(test)]
    let rings = rings.with_defects(defects);
    // Declared before `setup`, so freed after it: a setup that fails resets the adapter while its rings still exist.
    let adapter: Arc<Adapter>;
    let mut setup = Setup(Some(Control { registers, function, messages, threshold }));
    let depth = sizes[0];
    let state = State {
        life: Life::Resetting,
        rings,
        tables,
        in_flight: Slab::new(0, depth as u16),
        starved: false,
        serving: false,
    };
    adapter = Arc::new_cyclic(|weak| Adapter {
        state: IrqSpinLock::new(Rank::QUEUE, state),
        control: IrqSpinLock::new(Rank::DEVICE, Control { registers, function, messages, threshold }),
        registers,
        work: bottom_half(weak),
        watcher: IrqSpinLock::new(Rank::new(34), None),
        counters: Counters::default(),
        stopping: AtomicBool::new(false),
        over_told: AtomicBool::new(false),
        defects,
    });
    if defects.has(Defect::LeaksOnFailure) {
        core::mem::forget(Arc::clone(&adapter));
    }
    let wiring =
        interrupts::connect(cx, function, registers, (&adapter.work, 0), defects).map_err(ProbeError::NoInterrupt)?;
    let Some(control) = &setup.0 else { return Err(ProbeError::ResetRefused) };
    let (rings, message_ring) = {
        let state = adapter.state.lock();
        (state.rings.memory().setup(), state.rings.memory().setup_messages())
    };
    let understood = || {
        let state = adapter.state.lock();
        (state.rings.memory().is_understood(), state.rings.memory().are_messages_understood())
    };
    let up = control.set_up(&rings, &message_ring, understood).ok_or(ProbeError::RingsRefused)?;
    {
        let mut state = adapter.state.lock();
        state.rings.set_threshold(up.threshold);
        state.life = Life::Running;
    }
    registers.mask(up.interrupts());
    setup.0 = None;
    let owned = Arc::clone(&adapter);
    let farewell = BottomHalfWork::new(0, move |cx: &BottomHalf| service::farewell(&owned, cx));
    Ok(Running {
        interrupts: wiring.name,
        wiring: Some(wiring),
        farewell: Some(farewell),
        adapter,
        max_target,
        depth,
        up,
    })
}
