//! One queue in use. Any context.

use alloc::collections::VecDeque;
use alloc::sync::Arc;

use undercroft_block::{Error, Refusal};
use undercroft_hal::sync::IrqSpinLock;
use undercroft_hal::work::BottomHalfWork;

use super::serving::Serving;
use super::{Frames, Slots};
use crate::queue::{AddError, Ring};
use crate::transport::Doorbell;

/// Where a queue is in its device's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// Requests go in and out.
    Running,
    /// The device or the queue is being reset, to go on: nothing goes in for now.
    Restarting,
    /// The device is being reset for good: nothing goes in, nothing is given back yet.
    Stopping,
    /// The device was reset: everything ends with this.
    Dead(Error),
}

/// A queue: its state under a lock, and what needs none.
pub(crate) struct Queue<S> {
    pub(crate) state: IrqSpinLock<QueueState<S>>,
    doorbell: Doorbell,
    pub(crate) index: u16,
    serving: Serving,
    /// The queue's bottom half; its interrupt handler has a reference.
    pub(crate) work: Arc<BottomHalfWork>,
}

/// What the queue's lock protects.
pub(crate) struct QueueState<S> {
    pub(crate) ring: Ring,
    pub(crate) frames: Frames,
    pub(crate) slots: Slots<S>,
    pub(crate) life: Life,
    /// A submitter was refused for want of room.
    pub(crate) starved: bool,
    /// Done without the device; waits for the bottom half. Its capacity is fixed.
    pub(crate) done: VecDeque<S>,
}

/// Requests that may wait in [`QueueState::done`].
const DONE_CAPACITY: usize = 16;

impl<S> Queue<S> {
    pub(crate) fn new(
        state: IrqSpinLock<QueueState<S>>,
        doorbell: Doorbell,
        index: u16,
        work: Arc<BottomHalfWork>,
    ) -> Self {
        Self { state, doorbell, index, serving: Serving::new(), work }
    }

    /// Rings the doorbell, if so. No lock is held: the exit to the host may be long.
    #[inline]
    pub(crate) fn kick_if(&self, wanted: bool) {
        if wanted {
            self.doorbell.ring();
        }
    }

    /// Lets nothing in for now.
    pub(super) fn hold(&self) {
        let mut state = self.state.lock();
        if state.life == Life::Running {
            state.life = Life::Restarting;
        }
    }

    /// Lets requests in again, unless the device was stopped meanwhile.
    pub(super) fn release(&self) {
        let mut state = self.state.lock();
        if state.life == Life::Restarting {
            state.life = Life::Running;
        }
    }

    /// Starts what was added.
    #[inline]
    pub(crate) fn commit(&self) {
        // Completions that submit again get one doorbell for the whole batch, at its end.
        if self.serving.is_on() {
            return;
        }
        let mut state = self.state.lock();
        if self.serving.is_on() || state.life != Life::Running {
            return;
        }
        let kick = state.ring.publish();
        drop(state);
        self.kick_if(kick);
    }

    /// The bottom half is at work.
    #[inline]
    pub(super) fn begin_service(&self, state: &mut QueueState<S>) {
        if !self.serving.is_on() {
            self.serving.set(true);
            state.ring.disable_interrupts();
        }
    }

    /// The ring is new: nobody is at work on it. With the lock held.
    pub(super) fn stop_serving(&self) {
        self.serving.set(false);
    }

    /// The bottom half ends its batch: publishes what its completions added. `true` if the device wants a kick for it.
    #[must_use]
    pub(super) fn end_service(&self, state: &mut QueueState<S>) -> bool {
        self.serving.set(false);
        state.ring.publish()
    }
}

impl<S> QueueState<S> {
    pub(crate) fn new(ring: Ring, frames: Frames, slots: Slots<S>) -> Self {
        let done = VecDeque::with_capacity(DONE_CAPACITY);
        Self { ring, frames, slots, life: Life::Running, starved: false, done }
    }

    /// What a submitter is told of a queue that takes nothing now.
    #[cold]
    pub(super) const fn not_running(&mut self) -> Refusal {
        match self.life {
            Life::Running | Life::Restarting => {
                self.starved = true;
                Refusal::Full
            }
            Life::Stopping => Refusal::Gone(Error::Reset),
            Life::Dead(error) => Refusal::Gone(error),
        }
    }

    /// What a submitter is told of a chain that was not added.
    #[cold]
    pub(crate) fn refusal(&mut self, error: AddError) -> Refusal {
        match error {
            AddError::Full => {
                self.starved = true;
                Refusal::Full
            }
            AddError::BadChain => Refusal::Invalid(Error::TooLarge),
            AddError::Broken(_) => Refusal::Gone(Error::Broken),
        }
    }

    /// Whether [`QueueState::finish_without_device`] has room.
    pub(crate) fn has_room_without_device(&self) -> bool {
        self.done.len() < self.done.capacity()
    }

    /// Notes a request that is done without the device; there must be room. The caller schedules the bottom half.
    pub(crate) fn finish_without_device(&mut self, slot: S) {
        self.done.push_back(slot);
    }
}
