//! What every virtio device of ours has: queues with requests in flight, bottom halves that complete them, and an end.
//!
//! # Life of a device
//! Running ⇄ restarting (see [`restart`]), and from either → stopping (no request goes out any more, the device is being reset) → dead (the device touches no memory any more: what was
//! in flight is finished with the reason, from a bottom half, and the rings may be freed). The last way is one; [`Device::stop`] walks it, for a
//! device that broke its contract as for one that is removed.
//!
//! # Contexts and locks
//! A hard interrupt handler only schedules the queue's bottom half ([`interrupts`]). The bottom half takes the queue's lock for each
//! batch of chains it pops and runs the completions without it. Submitters take the lock once per request and once per commit. Lock order: the
//! transport's (rank `DEVICE`) before a queue's (rank `QUEUE`); they are never held together here.

mod frames;
mod interrupts;
mod queue;
mod restart;
mod serving;
mod shape;
mod slots;
mod start;

pub(crate) use frames::Frames;
pub(crate) use queue::{Life, Queue, QueueState};
pub(crate) use restart::Scope;
pub(crate) use shape::{RequestQueues, feature_names, route};
pub(crate) use slots::Slots;
pub(crate) use start::{Plan, Running, TABLE_LEN, start};

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};

use arrayvec::ArrayVec;
use undercroft_block::{Error, Refusal};
use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hal::sync::{IrqSpinGuard, IrqSpinLock, assert_unlocked};
use undercroft_hal::work::{BottomHalfWork, Turn};
use undercroft_hal::{BottomHalf, cpu};

use restart::Phase;

use crate::ProbeError;
use crate::defect::{Defect, Defects};
use crate::queue::{RingError, Used};
use crate::transport::{Transport, reset};
use crate::wire::{Features, Status};

/// What every driver takes of a device's rings.
pub(crate) const RING_FEATURES: u64 =
    Features::INDIRECT_DESC.union(Features::EVENT_IDX).union(Features::RING_PACKED).union(Features::RING_RESET).bits();

/// Chains completed before others get a turn.
const BUDGET: usize = 64;
/// Of those, how many are taken from the ring with the lock held once.
const BATCH: usize = 16;

/// A device answered something that its contract does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Breach;

/// What one type of device adds.
pub(crate) trait Protocol: Send + Sync + Sized + 'static {
    /// What is kept for a chain in flight: it owns the buffers.
    type Slot: Send;
    /// What the device answered, copied out of shared memory.
    type Reply;
    /// What of the configuration changes while the device runs.
    type News;
    /// What of an answer is large, and rare: there is room for one.
    type Aside: Default;
    /// Shared bytes per chain for headers and answers: a power of two.
    const FRAME: usize;

    /// Copies the answer out of the chain's frame, the large part of it into `aside`, which is then full. Under the queue's lock: right after
    /// this the frame may be used again.
    ///
    /// # Errors
    /// [`Breach`] fails the device.
    fn reply(
        &self,
        frames: &Frames,
        used: Used,
        slot: &Self::Slot,
        aside: &mut Self::Aside,
    ) -> Result<Self::Reply, Breach>;
    /// Whether the answer has filled the aside: it is finished before the next is copied.
    fn fills(reply: &Self::Reply) -> bool {
        let _ = reply;
        false
    }
    /// A chain is done. No lock is held.
    fn finish(&self, cx: &BottomHalf, from: From<'_, Self>, slot: Self::Slot, reply: &Self::Reply);
    /// A request that needed no device is done ([`QueueState::finish_without_device`]). No lock is held.
    fn finish_idle(&self, cx: &BottomHalf, slot: Self::Slot);
    /// A chain ends without an answer. No lock is held; the device does not have it any more.
    fn end(&self, cx: &BottomHalf, slot: Self::Slot, error: Error);
    /// Queue `queue` had refused a request and has room again.
    fn room(&self, cx: &BottomHalf, queue: u16);
    /// The features are agreed on again after a reset, and nothing else is set up: settings of the device's own go in here.
    ///
    /// # Errors
    /// [`ProbeError`] stops the device.
    fn prepare(&self, transport: &mut dyn Transport) -> Result<(), ProbeError> {
        let _ = transport;
        Ok(())
    }
    /// Writes settings that were changed, see [`Device::look_again`]. Tells nobody.
    fn settings(&self, transport: &mut dyn Transport) {
        let _ = transport;
    }
    /// The device runs again after a reset. No lock is held.
    fn restarted(&self, cx: &BottomHalf, device: &Device<Self>, news: Self::News);
    /// Reads what may have changed of the configuration. Tells nobody: nobody else has the transport meanwhile.
    fn look(&self, transport: &dyn Transport) -> Self::News;
    /// The configuration changed. No lock is held.
    fn config_changed(&self, cx: &BottomHalf, news: Self::News);
    /// The device is dead and the first queue's requests have ended.
    fn over(&self, cx: &BottomHalf);
}

/// Where an answer came from.
pub(crate) struct From<'a, P: Protocol> {
    pub(crate) device: &'a Device<P>,
    pub(crate) queue: u16,
    pub(crate) aside: &'a P::Aside,
}

/// Whether there is more in a ring.
enum More {
    None,
    Perhaps,
}

/// Chains that came back, with their answers.
type Batch<P> = ArrayVec<(<P as Protocol>::Slot, Result<<P as Protocol>::Reply, Breach>), BATCH>;

/// A queue with its lock held.
pub(crate) type Admitted<'a, P> =
    (&'a Queue<<P as Protocol>::Slot>, IrqSpinGuard<'a, QueueState<<P as Protocol>::Slot>>);

/// A device in use.
pub(crate) struct Device<P: Protocol> {
    pub(crate) protocol: P,
    pub(crate) queues: Box<[Queue<P::Slot>]>,
    /// Taken out by whoever uses it.
    transport: IrqSpinLock<Option<Box<dyn Transport>>>,
    stopping: AtomicBool,
    over_told: AtomicBool,
    /// What was agreed on at the start, and is again after a reset.
    plan: Plan,
    /// Interrupt messages in use; 0 for the line.
    vectors: AtomicU16,
    /// Looks at the configuration.
    config: Arc<BottomHalfWork>,
    phase: IrqSpinLock<Phase>,
    /// Does the restarts.
    restarts: Arc<BottomHalfWork>,
    /// Restarts in a row that the device asked for without having returned anything.
    futile: AtomicU32,
    returned_before: AtomicU32,
    pub(crate) defects: Defects,
}

impl<P: Protocol> Device<P> {
    /// The queue of that number.
    #[inline]
    pub(crate) fn queue(&self, index: usize) -> Option<&Queue<P::Slot>> {
        self.queues.get(index)
    }

    /// The queue of that number with its lock held, if it takes requests: the first thing that every submitter asks. Any context.
    ///
    /// # Errors
    /// What to give the request back with.
    #[inline]
    pub(crate) fn admit(&self, index: usize) -> Result<Admitted<'_, P>, Refusal> {
        let Some(queue) = self.queues.get(index) else { return Err(Refusal::Gone(Error::Broken)) };
        let mut state = queue.state.lock();
        if state.life != Life::Running {
            return Err(state.not_running());
        }
        if self.defects.has(Defect::AllocatesPerRequest) && DmaBuf::new(64, DmaConstraints::ANY).is_err() {
            return Err(Refusal::Gone(Error::NoMemory));
        }
        Ok((queue, state))
    }

    /// Completes what a queue's device has returned. The queue's bottom half.
    pub(crate) fn service(&self, cx: &BottomHalf, index: usize) -> Turn {
        let Some(queue) = self.queues.get(index) else { return Turn::Done };
        let mut budget = BUDGET;
        loop {
            let mut state = queue.state.lock();
            match state.life {
                Life::Running => queue.begin_service(&mut state),
                Life::Restarting | Life::Stopping => return Turn::Done,
                Life::Dead(error) => {
                    drop(state);
                    let turn = self.end_all(cx, queue, error);
                    if turn == Turn::Done && index == 0 && !self.over_told.swap(true, Ordering::AcqRel) {
                        self.protocol.over(cx);
                    }
                    return turn;
                }
            }
            if let Some(slot) = state.done.pop_front() {
                drop(state);
                self.protocol.finish_idle(cx, slot);
                continue;
            }
            if budget == 0 && !self.defects.has(Defect::NoBudget) {
                let kick = queue.end_service(&mut state);
                drop(state);
                queue.kick_if(kick);
                return Turn::Again;
            }
            let (mut batch, mut aside) = (Batch::<P>::new(), P::Aside::default());
            let rest = self.take(&mut state, budget.clamp(1, BATCH), &mut batch, &mut aside);
            if !batch.is_empty() {
                budget = budget.saturating_sub(batch.len());
                let _held = if self.defects.has(Defect::CompletesUnderLock) {
                    Some(state)
                } else {
                    drop(state);
                    None
                };
                for (slot, reply) in batch.drain(..) {
                    match &reply {
                        Ok(reply) => {
                            let from = From { device: self, queue: queue.index, aside: &aside };
                            self.protocol.finish(cx, from, slot, reply);
                        }
                        Err(Breach) => {
                            self.stop(Error::Broken);
                            self.protocol.end(cx, slot, Error::Broken);
                        }
                    }
                }
                continue;
            }
            match rest {
                Ok(More::Perhaps) => {}
                Ok(More::None) => {
                    if budget == BUDGET && self.defects.has(Defect::ExpectsUsed) {
                        drop(state);
                        self.stop(Error::Broken);
                        return Turn::Done;
                    }
                    #[cfg(test)]
                    let mut state = widen(state, queue);
                    let kick = queue.end_service(&mut state);
                    let more = state.ring.enable_interrupts() && !self.defects.has(Defect::NoSecondLook);
                    let starved = core::mem::take(&mut state.starved);
                    drop(state);
                    queue.kick_if(kick);
                    if starved {
                        self.protocol.room(cx, queue.index);
                    }
                    if !more {
                        return Turn::Done;
                    }
                }
                Err(error) => {
                    drop(state);
                    log::error!("queue {index}: {error}");
                    self.stop(Error::Broken);
                    return Turn::Done;
                }
            }
        }
    }

    /// Takes up to `most` chains from the ring, as far as the answers go together.
    ///
    /// # Errors
    /// The device broke the ring's contract; what was taken before that is good.
    #[inline]
    fn take(
        &self,
        state: &mut QueueState<P::Slot>,
        most: usize,
        batch: &mut Batch<P>,
        aside: &mut P::Aside,
    ) -> Result<More, RingError> {
        for _ in 0..most {
            let Some(used) = state.ring.pop()? else { return Ok(More::None) };
            let Some(slot) = state.slots.take(used.head) else { continue };
            let reply = self.protocol.reply(&state.frames, used, &slot, aside);
            let is_last = reply.as_ref().map_or(true, P::fills);
            batch.push((slot, reply));
            if is_last {
                break;
            }
        }
        Ok(More::Perhaps)
    }

    /// Finishes what a dead device had in flight.
    fn end_all(&self, cx: &BottomHalf, queue: &Queue<P::Slot>, error: Error) -> Turn {
        for _ in 0..BUDGET {
            let mut state = queue.state.lock();
            if let Some(slot) = state.done.pop_front() {
                drop(state);
                self.protocol.finish_idle(cx, slot);
            } else if let Some((_, slot)) = state.slots.take_any() {
                drop(state);
                self.protocol.end(cx, slot, error);
            } else {
                return Turn::Done;
            }
        }
        Turn::Again
    }

    /// Whether a dead device has nothing left to finish.
    fn is_over(&self) -> bool {
        self.queues.iter().all(|queue| {
            let state = queue.state.lock();
            matches!(state.life, Life::Dead(_)) && state.slots.is_empty() && state.done.is_empty()
        })
    }

    /// Has settings written and the configuration looked at. Any context.
    pub(crate) fn look_again(&self) {
        self.config.schedule();
    }

    /// The configuration changed, or the device failed. The device's bottom half.
    fn service_config(&self, cx: &BottomHalf) -> Turn {
        // Whoever has the transport now is restarting the device, or stopping it.
        let Some(mut transport) = self.transport.lock().take() else { return self.later() };
        let failed = transport.status().contains(Status::NEEDS_RESET);
        let restarting = *self.phase.lock() != Phase::Idle;
        let news = (!failed && !restarting).then(|| {
            self.protocol.settings(&mut *transport);
            self.protocol.look(&*transport)
        });
        // Whoever is told may drop the driver, which resets the device.
        *self.transport.lock() = Some(transport);
        match news {
            Some(news) => self.protocol.config_changed(cx, news),
            // A restart looks for itself, at its end.
            None if restarting => {}
            None => self.needs_reset(),
        }
        Turn::Done
    }

    /// Stops the device for good: resets it and has everything in flight finished with `error`. Bottom half or task context, no lock held.
    /// Only the first call acts.
    pub(crate) fn stop(&self, error: Error) {
        assert_unlocked("a device is stopped");
        if self.stopping.swap(true, Ordering::AcqRel) {
            return;
        }
        for queue in &self.queues {
            queue.state.lock().life = Life::Stopping;
        }
        let mut transport = loop {
            // A look at the configuration on another CPU has it for a moment.
            if let Some(transport) = self.transport.lock().take() {
                break transport;
            }
            cpu::relax();
        };
        if let Err(error) = reset(&mut *transport) {
            // The buffers go back to their owners all the same, so the device must not reach memory any more.
            log::error!("{error}");
            transport.isolate();
        }
        transport.enable_vectors(false);
        *self.transport.lock() = Some(transport);
        for queue in &self.queues {
            queue.state.lock().life = Life::Dead(error);
            if !self.defects.has(Defect::ForgetsAtRemoval) {
                queue.work.schedule();
            }
        }
    }
}

/// Opens the window between the last look at the ring and the request for interrupts, so that simulated devices get a chance to use it.
#[cfg(test)]
fn widen<'a, S>(state: IrqSpinGuard<'a, QueueState<S>>, queue: &'a Queue<S>) -> IrqSpinGuard<'a, QueueState<S>> {
    drop(state);
    queue.state.lock()
}

/// Runs what is left of a removed device until nothing is; owns it meanwhile.
fn farewell<P: Protocol>(device: &Arc<Device<P>>, cx: &BottomHalf) -> Turn {
    for queue in &device.queues {
        let life = queue.state.lock().life;
        if let Life::Dead(error) = life
            && device.end_all(cx, queue, error) == Turn::Again
        {
            return Turn::Again;
        }
    }
    if device.is_over() { Turn::Done } else { Turn::Again }
}
