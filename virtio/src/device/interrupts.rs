//! From a device's interrupts to its bottom halves, by the best means that device and machine agree on. Task context.
//!
//! In order: a message for configuration changes and one for each queue; one for configuration and one for all queues; one for
//! everything; the line. A means is tried as a whole: when the device refuses a vector (reads back `0xffff`, 4.1.5.1.2) or
//! the machine has none left, everything is undone and the next is tried.

use alloc::format;
use alloc::string::String;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use undercroft_hal::Task;
use undercroft_hal::irq::{self, Handled, Interrupt, IrqError};
use undercroft_hal::work::BottomHalfWork;

use crate::ProbeError;
use crate::defect::{Defect, Defects};
use crate::transport::Transport;
use crate::wire;

/// A bottom half and the CPU that its interrupt should arrive on.
pub(super) type Target = (Arc<BottomHalfWork>, usize);

/// The registered handlers, and how they are reached, for people.
pub(super) struct Wiring {
    pub(super) handlers: Vec<Interrupt>,
    pub(super) name: String,
    /// Messages in use; 0 for the line.
    pub(super) vectors: u16,
}

/// Connects the device's interrupts to `config` and `queues`.
pub(super) fn connect(
    cx: &Task,
    transport: &mut dyn Transport,
    config: &Arc<BottomHalfWork>,
    queues: &[Target],
    defects: Defects,
) -> Result<Wiring, ProbeError> {
    let each = queues.len() as u16 + 1;
    for vectors in [each, 2, 1] {
        if vectors > each || vectors > transport.vectors() {
            continue;
        }
        if let Some(handlers) = messages(cx, transport, config, queues, (vectors, defects)) {
            return Ok(Wiring { handlers, name: format!("msi-x:{vectors}"), vectors });
        }
        undo(transport, queues.len() as u16);
    }
    undo(transport, queues.len() as u16);
    let handler = line(cx, transport, config, queues, defects).map_err(ProbeError::NoInterrupt)?;
    Ok(Wiring { handlers: Vec::from([handler]), name: transport.line_name().to_string(), vectors: 0 })
}

/// What no handler may do.
#[inline(always)]
fn hazard(defects: Defects) {
    if defects.has(Defect::AllocatesInInterrupt) {
        drop(core::hint::black_box(alloc::boxed::Box::new(0)));
    }
}

fn undo(transport: &mut dyn Transport, queues: u16) {
    transport.bind_config(None);
    for queue in 0..queues {
        transport.bind_queue(queue, None);
    }
    transport.enable_vectors(false);
}

/// Vector `v` of `vectors`: 0 is the configuration's; a single one is everybody's.
fn messages(
    cx: &Task,
    transport: &mut dyn Transport,
    config: &Arc<BottomHalfWork>,
    queues: &[Target],
    (vectors, defects): (u16, Defects),
) -> Option<Vec<Interrupt>> {
    let mut handlers = Vec::with_capacity(usize::from(vectors));
    for vector in 0..vectors {
        // Whose vector this is.
        let served: &[Target] = match vector {
            0 if vectors > 1 => &[],
            0 => queues,
            _ if usize::from(vectors) == queues.len() + 1 => core::slice::from_ref(&queues[usize::from(vector) - 1]),
            _ => queues,
        };
        let works: Vec<_> = served.iter().map(|(work, _)| Arc::clone(work)).collect();
        let config = (vector == 0).then(|| Arc::clone(config));
        let cpu = served.first().map_or(0, |(_, cpu)| *cpu);
        let registered = if let (None, [work]) = (&config, &works[..]) {
            let work = Arc::clone(work);
            irq::message(cx, cpu, move |_| {
                hazard(defects);
                work.schedule();
                Handled::Yes
            })
        } else {
            irq::message(cx, cpu, move |_| {
                hazard(defects);
                works.iter().chain(&config).for_each(|work| work.schedule());
                Handled::Yes
            })
        };
        let (handler, message) = registered.ok()?;
        handlers.push(handler);
        transport.set_vector(vector, message);
    }
    transport.enable_vectors(true);
    bind(transport, queues.len() as u16, vectors).then_some(handlers)
}

/// Binds the configuration and each of `queues` to its vector of `vectors`; `false` if the device refused one. Nothing to do for the line.
pub(super) fn bind(transport: &mut dyn Transport, queues: u16, vectors: u16) -> bool {
    if vectors == 0 {
        return true;
    }
    let mut taken = transport.bind_config(Some(0));
    for queue in 0..queues {
        taken &= transport.bind_queue(queue, Some((queue + 1).min(vectors - 1)));
    }
    taken
}

fn line(
    cx: &Task,
    transport: &mut dyn Transport,
    config: &Arc<BottomHalfWork>,
    queues: &[Target],
    defects: Defects,
) -> Result<Interrupt, IrqError> {
    let line = transport.line().ok_or(IrqError::NoLine)?;
    let cause = transport.cause();
    let config = Arc::clone(config);
    let works: Vec<_> = queues.iter().map(|(work, _)| Arc::clone(work)).collect();
    irq::line(cx, line, move |_| {
        hazard(defects);
        let why = cause.take();
        if why.contains(wire::Interrupt::QUEUE) {
            works.iter().for_each(|work| work.schedule());
        }
        if why.contains(wire::Interrupt::CONFIG) {
            config.schedule();
        }
        if why.is_empty() { Handled::No } else { Handled::Yes }
    })
}
