//! How an operation begins, and how a task waits for one.

use alloc::sync::Arc;

use undercroft_block::{Data, Error};
use undercroft_hal::context::NotHardIrq;
use undercroft_hal::{Task, cpu};

use super::core::Core;
use crate::broken::{self, Hazard};
use crate::line::NOBODY;
use crate::op::{Done, Kind, To};
use crate::pin::Pinned;
use crate::shim::Ordering;

impl Core {
    /// Begins an operation of a handle: its number. Gives back what it was to own if there is no slot.
    #[expect(clippy::too_many_arguments, reason = "what an operation is")]
    pub(super) fn begin_op(
        &self,
        cx: &impl NotHardIrq,
        handle: u16,
        kind: Kind,
        start: u64,
        end: u64,
        data: Data,
        done: Done,
    ) -> Result<u16, (Data, Done)> {
        let id = {
            let mut state = self.state.lock(cx);
            let id = state.begin(kind, start, end, data, done)?;
            state.ops.get_mut(id).handle = handle;
            self.ready[usize::from(id)].store(false, Ordering::Release);
            self.slots.fetch_sub(1, Ordering::SeqCst);
            id
        };
        if broken::is(Hazard::Allocates) {
            drop(::core::hint::black_box(alloc::boxed::Box::new(id)));
        }
        self.run(cx, id);
        self.drive(cx);
        Ok(id)
    }

    /// Begins an operation that this task will [wait](Core::wait_until_over) for, once there is a slot for it.
    pub(crate) fn begin_waiting(&self, cx: &Task, handle: u16, kind: Kind, start: u64, end: u64) -> u16 {
        loop {
            match self.begin_op(cx, handle, kind, start, end, Data::None, Done(To::Cpu(cpu::current()))) {
                Ok(id) => return id,
                Err(_) => self.wait_for_room(cx),
            }
        }
    }

    /// Waits until there is a slot for an operation; another may be faster to take it.
    pub(super) fn wait_for_room(&self, cx: &Task) {
        cx.wait_until(|| {
            // Said before it looks: a slot that is freed after the look finds this CPU among those that wait.
            self.waiting.fetch_or(1 << cpu::current(), Ordering::SeqCst);
            self.slots.load(Ordering::SeqCst) > 0
        });
    }

    /// Waits until an operation is over: its pin.
    pub(crate) fn wait_until_over(self: &Arc<Self>, cx: &Task, id: u16) -> Result<Option<Pinned>, Error> {
        cx.wait_until(|| self.ready[usize::from(id)].load(Ordering::Acquire));
        let (_, _, result, pin) = self.state.lock(cx).ops.end(id);
        self.slot_is_free();
        let pinned = (pin != NOBODY).then(|| Pinned::new(Arc::clone(self), pin));
        result.map(|()| pinned)
    }
}
