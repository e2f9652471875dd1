//! Setting a device up, from agreed features to running queues (virtio 1.2, 3.1.1, steps 7 and 8), and letting go of it. Task context.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};

use undercroft_block::Error;
use undercroft_hal::dma::DmaConstraints;
use undercroft_hal::irq::Interrupt;
use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::work::{BottomHalfWork, Turn};
use undercroft_hal::{BottomHalf, Task, cpu};

use super::interrupts::{Target, connect};
use super::restart::{self, Phase};
use super::shape::SPECIAL_DESCRIPTORS;
use super::{Device, Frames, Protocol, Queue, QueueState, Slots};
use crate::ProbeError;
use crate::defect::{Defect, Defects};
use crate::queue::{Ring, Shape};
use crate::transport::{QueueAddresses, Transport};
use crate::wire::{Features, Status};

/// Entries of each chain's own table: 62 segments, a header and a status. A power of two, so that no table crosses a page.
pub(crate) const TABLE_LEN: u16 = 64;

/// What a device type wants of its queues.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// The features agreed on.
    pub(crate) features: u64,
    /// How many queues, the special ones first.
    pub(crate) queues: u16,
    /// How many of them are special (not of one CPU each).
    pub(crate) special: u16,
    /// Descriptors of a queue at most.
    pub(crate) max_size: u16,
    /// What the device reaches of memory.
    pub(crate) reach: DmaConstraints,
    pub(crate) defects: Defects,
}

/// A device that runs, with everything that must go when it goes. Dropping it resets the device; what was in flight then finishes with
/// [`Error::Removed`] from a bottom half, and the rings are freed after that.
pub(crate) struct Running<P: Protocol> {
    pub(crate) device: Arc<Device<P>>,
    pub(crate) interrupts: String,
    handlers: Vec<Interrupt>,
    /// Finishes what is left, and owns the device while it does.
    farewell: Option<BottomHalfWork>,
}

impl<P: Protocol> Drop for Running<P> {
    fn drop(&mut self) {
        self.device.stop(Error::Removed);
        self.handlers.clear();
        let Some(farewell) = self.farewell.take() else { return };
        if self.device.defects.has(Defect::ForgetsAtRemoval) {
            return core::mem::forget(farewell);
        }
        farewell.schedule();
        farewell.detach();
    }
}

/// A half-finished device is reset before its memory goes.
struct Setup(Option<Box<dyn Transport>>);

impl Drop for Setup {
    fn drop(&mut self) {
        if let Some(transport) = &mut self.0 {
            if crate::transport::reset(&mut **transport).is_err() {
                transport.isolate();
            }
            transport.enable_vectors(false);
            transport.set_status(Status::FAILED);
        }
    }
}

fn bottom_half<P: Protocol>(
    device: &Weak<Device<P>>,
    home: usize,
    run: impl Fn(&Device<P>, &BottomHalf) -> Turn + Send + Sync + 'static,
) -> Arc<BottomHalfWork> {
    let device = Weak::clone(device);
    Arc::new(BottomHalfWork::new(home, move |cx: &BottomHalf| {
        // Gone: its farewell has finished everything.
        device.upgrade().map_or(Turn::Done, |device| run(&device, cx))
    }))
}

/// One queue's parts before the device exists.
struct Prepared<S> {
    state: QueueState<S>,
    addresses: [u64; 3],
    size: u16,
    doorbell: crate::transport::Doorbell,
}

fn prepare<P: Protocol>(
    transport: &mut dyn Transport,
    plan: &Plan,
    index: u16,
) -> Result<Prepared<P::Slot>, ProbeError> {
    let features = Features::from_bits_retain(plan.features);
    let most = if index < plan.special { SPECIAL_DESCRIPTORS } else { plan.max_size };
    let offered = transport.queue_max_size(index);
    // The size of a legacy queue is not the driver's to choose.
    let size = if transport.is_legacy() { offered } else { offered.min(most) };
    if size == 0 {
        return Err(ProbeError::NoQueue(index));
    }
    let indirect = features.contains(Features::INDIRECT_DESC) && index >= plan.special;
    let shape = Shape {
        size,
        table_len: if indirect { TABLE_LEN } else { 0 },
        event_idx: features.contains(Features::EVENT_IDX),
        packed: features.contains(Features::RING_PACKED),
        legacy: transport.is_legacy(),
    };
    // A legacy device is told a page's number in 32 bits.
    let most = if shape.legacy { (1 << 44) - 1 } else { u64::MAX };
    let reach = DmaConstraints { max_addr: plan.reach.max_addr.min(most), ..plan.reach };
    let mut ring = Ring::new(shape, reach)?.ok_or(ProbeError::NoQueue(index))?;
    let addresses = ring.addresses();
    #[cfg(test)]
    ring.set_defects(plan.defects);
    // Interrupts are on from the start: the memory's zeroes say so with either feature.
    let _ = ring.enable_interrupts();
    let frames = Frames::new(size, P::FRAME, plan.reach)?;
    let state = QueueState::new(ring, frames, Slots::new(index, size));
    Ok(Prepared { state, addresses, size, doorbell: transport.doorbell(index)? })
}

/// The status of a device that runs.
pub(super) fn running(transport: &dyn Transport) -> Status {
    let status = Status::ACKNOWLEDGE | Status::DRIVER | Status::DRIVER_OK;
    if transport.is_legacy() { status } else { status | Status::FEATURES_OK }
}

/// Sets up the queues of a device whose features are agreed on, connects its interrupts and starts it.
///
/// # Errors
/// [`ProbeError`]; the device is reset and nothing of it is left.
pub(crate) fn start<P: Protocol>(
    cx: &Task,
    transport: Box<dyn Transport>,
    plan: Plan,
    protocol: P,
) -> Result<Running<P>, ProbeError> {
    // Declared before `setup`, so freed after it: a setup that fails resets the device while its rings still exist.
    let mut prepared: Vec<Prepared<P::Slot>> = Vec::with_capacity(usize::from(plan.queues));
    let kept: Arc<Device<P>>;
    let mut setup = Setup(Some(transport));
    let Some(transport) = setup.0.as_deref_mut() else { return Err(ProbeError::NeedsReset) };
    for index in 0..plan.queues {
        let queue = match prepare::<P>(transport, &plan, index) {
            Ok(queue) => queue,
            Err(error) => {
                if plan.defects.has(Defect::LeaksOnFailure) {
                    core::mem::forget(core::mem::take(&mut prepared));
                }
                return Err(error);
            }
        };
        let (size, addresses) = (queue.size, QueueAddresses::from(queue.addresses));
        prepared.push(queue);
        transport.set_queue(index, size, addresses)?;
    }
    let mut targets: Vec<Target> = Vec::with_capacity(prepared.len());
    let device = Arc::new_cyclic(|weak| {
        let queues = core::mem::take(&mut prepared).into_iter().zip(0u16..).map(|(prepared, index)| {
            let home = usize::from(index.saturating_sub(plan.special)) % cpu::count().max(1);
            let home = if plan.defects.has(Defect::OneHomeForAll) { 0 } else { home };
            let work = bottom_half(weak, home, move |device, cx| device.service(cx, usize::from(index)));
            targets.push((Arc::clone(&work), home));
            Queue::new(IrqSpinLock::new(Rank::QUEUE, prepared.state), prepared.doorbell, index, work)
        });
        Device {
            protocol,
            queues: queues.collect(),
            transport: IrqSpinLock::new(Rank::DEVICE, None),
            stopping: AtomicBool::new(false),
            over_told: AtomicBool::new(false),
            plan,
            vectors: AtomicU16::new(0),
            config: bottom_half(weak, 0, |device, cx| device.service_config(cx)),
            phase: IrqSpinLock::new(restart::RANK, Phase::Idle),
            restarts: bottom_half(weak, 0, |device, cx| device.service_restart(cx)),
            futile: AtomicU32::new(0),
            returned_before: AtomicU32::new(0),
            defects: plan.defects,
        }
    });
    kept = Arc::clone(&device);
    let wiring = connect(cx, transport, &device.config, &targets, plan.defects)?;
    device.vectors.store(wiring.vectors, Ordering::Relaxed);
    for index in 0..plan.queues {
        transport.enable_queue(index)?;
    }
    transport.set_status(running(transport));
    if transport.status().contains(Status::NEEDS_RESET) {
        return Err(ProbeError::NeedsReset);
    }
    *device.transport.lock() = setup.0.take();
    drop(kept);
    let owned = Arc::clone(&device);
    let farewell = BottomHalfWork::new(0, move |cx: &BottomHalf| super::farewell(&owned, cx));
    Ok(Running { device, interrupts: wiring.name, handlers: wiring.handlers, farewell: Some(farewell) })
}
