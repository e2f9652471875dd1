//! From the adapter's interrupt to its bottom half, by the best means that device and machine agree on: MSI-X, MSI, the line. Task context.
//!
//! One message is enough: the adapter has one completion ring. A message needs no acknowledgement; on a line, which others may share, the
//! status register says whether the interrupt is the adapter's.

use alloc::sync::Arc;

use undercroft_hal::Task;
use undercroft_hal::irq::{self, Handled, Interrupt, IrqError};
use undercroft_hal::pci::{Function, Msi, Msix};
use undercroft_hal::work::BottomHalfWork;

use crate::defect::{Defect, Defects};
use crate::registers::Registers;

/// How the adapter interrupts. Dropping it turns that off.
pub(super) struct Wiring {
    means: Means,
    /// For people.
    pub(super) name: &'static str,
    _handler: Interrupt,
}

enum Means {
    MsiX(Msix),
    Msi(Msi),
    Line(Function),
}

impl Drop for Wiring {
    fn drop(&mut self) {
        match &self.means {
            Means::MsiX(msix) => msix.disable(),
            Means::Msi(msi) => msi.disable(),
            Means::Line(function) => function.mask_intx(true),
        }
    }
}

/// Connects the adapter's interrupt to `work`, which is at home on `cpu`.
pub(super) fn connect(
    cx: &Task,
    function: Function,
    registers: Registers,
    (work, cpu): (&Arc<BottomHalfWork>, usize),
    defects: Defects,
) -> Result<Wiring, IrqError> {
    if let Some(wiring) = message(cx, function, work, cpu) {
        function.mask_intx(true);
        return Ok(wiring);
    }
    function.mask_intx(false);
    let line = function.line().ok_or(IrqError::NoLine)?;
    let work = Arc::clone(work);
    let handler = irq::line(cx, line, move |_| {
        if registers.take_interrupts().is_empty() && !defects.has(Defect::ClaimsEverything) {
            return Handled::No;
        }
        work.schedule();
        Handled::Yes
    })?;
    Ok(Wiring { means: Means::Line(function), name: "intx", _handler: handler })
}

fn message(cx: &Task, function: Function, work: &Arc<BottomHalfWork>, cpu: usize) -> Option<Wiring> {
    // A table that cannot be mapped leaves the other means.
    let msix = Msix::new(function).unwrap_or(None);
    let msi = Msi::new(function);
    if msix.is_none() && msi.is_none() {
        return None;
    }
    let work = Arc::clone(work);
    let (handler, message) = irq::message(cx, cpu, move |_| {
        work.schedule();
        Handled::Yes
    })
    .ok()?;
    if let Some(msix) = msix {
        msix.set(0, message);
        msix.enable();
        return Some(Wiring { means: Means::MsiX(msix), name: "msi-x:1", _handler: handler });
    }
    let msi = msi.filter(|msi| msi.enable(message))?;
    Some(Wiring { means: Means::Msi(msi), name: "msi", _handler: handler })
}
