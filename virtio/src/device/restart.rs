//! Resetting a device, or one of its queues, with requests in flight, and going on with it (virtio 1.2, 2.4, 2.6.1, 3.3).
//!
//! The way: queues in question take nothing more (submitters are told that they are full); the device, or the queue, is reset and waited
//! for; what it had returned before is finished with its true answer; what is left ends with [`Error::NotStarted`] if the device was never
//! told of it and with [`Error::Reset`] if it was, since then nobody knows; the rings are zeroed and given to the device again; submitters
//! are told that there is room. Every request is finished once, by one bottom half in bounded turns. What fails on the way stops the device
//! for good.
//!
//! Bottom-half context, but for [`Device::restart`]: any, no lock held.

use core::sync::atomic::Ordering;

use undercroft_block::Error;
use undercroft_hal::BottomHalf;
use undercroft_hal::sync::Rank;
use undercroft_hal::work::Turn;

use super::interrupts::bind;
use super::start::running;
use super::{BUDGET, Breach, Device, From, Life, Protocol, Queue};
use crate::ProbeError;
use crate::defect::Defect;
use crate::transport::{QueueAddresses, Transport, agree, reset};
use crate::wire::{Features, Status};

/// Restarts in a row, asked for by a device that returned nothing in between, until it is given up.
const FUTILE: u32 = 3;

/// What is restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All of it.
    Device,
    /// One queue, where the device can.
    Queue(u16),
}

/// How far a restart is. Under a lock outside of the queues'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Idle,
    /// Nothing goes in any more.
    Asked(Scope),
    /// The reset is over; what was in flight is being finished.
    Draining(Scope),
}

/// Outside of the transport's and the queues' locks.
pub(super) const RANK: Rank = Rank::new(20);

/// How a queue's requests in flight have ended.
enum Drained {
    All,
    /// Others get a turn first.
    Budget,
    /// The device's returns made no sense.
    Broken,
    /// The device is stopped meanwhile.
    Stopped,
}

impl<P: Protocol> Device<P> {
    /// Asks for a restart. `false` if the device cannot, or is stopped, or one of its queues is being restarted and only a queue is asked
    /// for; a restart under way that covers what is asked for counts as it.
    pub(crate) fn restart(&self, scope: Scope) -> bool {
        {
            let mut phase = self.phase.lock();
            if self.stopping.load(Ordering::Acquire) {
                return false;
            }
            match (scope, *phase) {
                (_, Phase::Asked(Scope::Device) | Phase::Draining(Scope::Device)) => return true,
                (Scope::Queue(one), Phase::Asked(Scope::Queue(two)) | Phase::Draining(Scope::Queue(two))) => {
                    return one == two;
                }
                (Scope::Queue(index), Phase::Idle) => {
                    let able = Features::from_bits_retain(self.plan.features).contains(Features::RING_RESET);
                    let Some(queue) = self.queue(usize::from(index)).filter(|_| able) else { return false };
                    queue.hold();
                }
                (Scope::Device, _) => self.queues.iter().for_each(Queue::hold),
            }
            *phase = Phase::Asked(scope);
        }
        self.restarts.schedule();
        true
    }

    /// The device says that it cannot go on. Unless that is all that it ever does, it gets another chance.
    pub(super) fn needs_reset(&self) {
        if *self.phase.lock() != Phase::Idle {
            return;
        }
        log::error!("the device says that it needs a reset");
        let returned = self.queues.iter().map(|queue| queue.state.lock().ring.returned()).fold(0, u32::wrapping_add);
        let futile = if self.returned_before.swap(returned, Ordering::Relaxed) == returned {
            self.futile.fetch_add(1, Ordering::Relaxed) + 1
        } else {
            self.futile.store(1, Ordering::Relaxed);
            1
        };
        if futile > FUTILE || !self.restart(Scope::Device) {
            self.stop(Error::Broken);
        }
    }

    fn in_scope(&self, scope: Scope) -> impl Iterator<Item = &Queue<P::Slot>> {
        self.queues.iter().filter(move |queue| match scope {
            Scope::Device => true,
            Scope::Queue(index) => queue.index == index,
        })
    }

    /// A restart's next step. Its bottom half.
    pub(super) fn service_restart(&self, cx: &BottomHalf) -> Turn {
        let phase = *self.phase.lock();
        match phase {
            Phase::Idle => Turn::Done,
            Phase::Asked(scope) => self.begin(scope),
            Phase::Draining(scope) => {
                for queue in self.in_scope(scope) {
                    match self.drain(cx, queue) {
                        Drained::All => {}
                        Drained::Budget => return Turn::Again,
                        Drained::Stopped => return Turn::Done,
                        Drained::Broken => {
                            self.stop(Error::Broken);
                            return Turn::Done;
                        }
                    }
                }
                self.revive(cx, scope)
            }
        }
    }

    fn begin(&self, scope: Scope) -> Turn {
        // A look at the configuration has it for a moment, or whoever stops the device.
        let Some(mut transport) = self.transport.lock().take() else { return self.later() };
        // Somebody else has reset the device: it has forgotten all its queues, and what was agreed on.
        if matches!(scope, Scope::Queue(_)) && !transport.status().contains(Status::DRIVER_OK) {
            *self.transport.lock() = Some(transport);
            self.restart(Scope::Device);
            return Turn::Again;
        }
        let done = match scope {
            Scope::Device => reset(&mut *transport),
            Scope::Queue(index) => transport.reset_queue(index),
        };
        *self.transport.lock() = Some(transport);
        match (done, scope) {
            (Ok(()), _) => {
                let mut phase = self.phase.lock();
                if *phase == Phase::Asked(scope) {
                    *phase = Phase::Draining(scope);
                }
                Turn::Again
            }
            (Err(error), Scope::Queue(_)) => {
                log::error!("{error}");
                self.restart(Scope::Device);
                Turn::Again
            }
            (Err(error), Scope::Device) => {
                log::error!("{error}");
                self.stop(Error::Broken);
                Turn::Done
            }
        }
    }

    /// Somebody else has the transport: come back, unless it is to stop the device.
    pub(super) fn later(&self) -> Turn {
        if self.stopping.load(Ordering::Acquire) { Turn::Done } else { Turn::Again }
    }

    /// Finishes what a queue that was reset had in flight.
    fn drain(&self, cx: &BottomHalf, queue: &Queue<P::Slot>) -> Drained {
        for _ in 0..BUDGET {
            let mut state = queue.state.lock();
            if state.life != Life::Restarting {
                return Drained::Stopped;
            }
            if let Some(slot) = state.done.pop_front() {
                drop(state);
                self.protocol.finish_idle(cx, slot);
                continue;
            }
            // What was returned before the reset is as good as ever: its answer was written before it.
            match state.ring.pop() {
                Ok(Some(used)) => {
                    let Some(slot) = state.slots.take(used.head) else { continue };
                    let mut aside = P::Aside::default();
                    let reply = self.protocol.reply(&state.frames, used, &slot, &mut aside);
                    drop(state);
                    match reply {
                        Ok(reply) => {
                            let from = From { device: self, queue: queue.index, aside: &aside };
                            self.protocol.finish(cx, from, slot, &reply);
                        }
                        Err(Breach) => {
                            self.protocol.end(cx, slot, Error::Broken);
                            return Drained::Broken;
                        }
                    }
                }
                Ok(None) => {
                    let Some((head, slot)) = state.slots.take_any() else { return Drained::All };
                    let told = state.ring.was_told(head) && !self.defects.has(Defect::ResetSaysNothingDone);
                    drop(state);
                    self.protocol.end(cx, slot, if told { Error::Reset } else { Error::NotStarted });
                }
                Err(error) => {
                    log::error!("queue {}: {error}", queue.index);
                    return Drained::Broken;
                }
            }
        }
        Drained::Budget
    }

    fn revive(&self, cx: &BottomHalf, scope: Scope) -> Turn {
        let Some(mut transport) = self.transport.lock().take() else { return self.later() };
        let revived = match scope {
            Scope::Device => self.rebuild(&mut *transport).map(|()| Some(self.protocol.look(&*transport))),
            Scope::Queue(index) => self.rebuild_queue(&mut *transport, index).map(|()| None),
        };
        *self.transport.lock() = Some(transport);
        let news = match revived {
            Ok(news) => news,
            Err(error) => {
                log::error!("the device does not start again: {error}");
                self.stop(Error::Broken);
                return Turn::Done;
            }
        };
        {
            let mut phase = self.phase.lock();
            if *phase != Phase::Draining(scope) {
                // All of the device was asked for meanwhile.
                return Turn::Again;
            }
            self.in_scope(scope).for_each(Queue::release);
            *phase = Phase::Idle;
        }
        log::info!("{scope:?} was restarted");
        if let Some(news) = news {
            self.protocol.restarted(cx, self, news);
        }
        for queue in self.in_scope(scope) {
            // What finished meanwhile raised an interrupt that found the queue held.
            queue.work.schedule();
            if core::mem::take(&mut queue.state.lock().starved) {
                self.protocol.room(cx, queue.index);
            }
        }
        Turn::Done
    }

    /// Initialises the device again, with the features that it had (3.1.1).
    fn rebuild(&self, transport: &mut dyn Transport) -> Result<(), ProbeError> {
        // In case a queue's restart put something in the device's hands since.
        reset(transport)?;
        agree(transport, self.plan.features, self.defects)?;
        self.protocol.prepare(transport)?;
        for queue in &self.queues {
            self.give(transport, queue)?;
        }
        if !bind(transport, self.queues.len() as u16, self.vectors.load(Ordering::Relaxed)) {
            return Err(ProbeError::QueueRefused(0));
        }
        for queue in &self.queues {
            transport.enable_queue(queue.index)?;
        }
        transport.set_status(running(transport));
        if transport.status().contains(Status::NEEDS_RESET) { Err(ProbeError::NeedsReset) } else { Ok(()) }
    }

    fn rebuild_queue(&self, transport: &mut dyn Transport, index: u16) -> Result<(), ProbeError> {
        let Some(queue) = self.queue(usize::from(index)) else { return Err(ProbeError::NoQueue(index)) };
        self.give(transport, queue)?;
        let vectors = self.vectors.load(Ordering::Relaxed);
        // Everything of the queue goes back to its default in a reset, its vector too.
        if vectors > 0 && !transport.bind_queue(index, Some((index + 1).min(vectors - 1))) {
            return Err(ProbeError::QueueRefused(index));
        }
        transport.enable_queue(index)
    }

    /// Gives the device an empty ring.
    fn give(&self, transport: &mut dyn Transport, queue: &Queue<P::Slot>) -> Result<(), ProbeError> {
        let (size, addresses) = {
            let mut state = queue.state.lock();
            state.ring.restart();
            queue.stop_serving();
            let _ = state.ring.enable_interrupts();
            (state.ring.size(), QueueAddresses::from(state.ring.addresses()))
        };
        // The device may offer less than it did, or it may not be the one that it was.
        if transport.queue_max_size(queue.index) < size {
            return Err(ProbeError::QueueRefused(queue.index));
        }
        transport.set_queue(queue.index, size, addresses)
    }
}
