//! The slots of operations under way, and who waits for them.
//!
//! Any context, except that completions and events come in bottom halves. Wakers are called, and requests dropped, with no lock held.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::{Context, Poll, Waker};

use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::work::{TaskWork, Turn};
use undercroft_hal::{BottomHalf, cpu};

use crate::{Blank, Complete, Data, Error, Event, Request, Slab, Tag, Watcher};

/// Who waits.
#[derive(Debug)]
pub(super) enum Waiter {
    Nobody,
    /// A future.
    Future(Waker),
    /// A task that halts on this CPU.
    Cpu(usize),
}

pub(super) type Finished = (Data, Result<(), Error>);

enum Slot {
    /// Not submitted, or in flight.
    Pending(Waiter),
    /// Nobody wants it any more; the device has it still.
    Abandoned,
    Finished(Request, Result<(), Error>),
}

struct Table {
    slots: Slab<Slot>,
    /// What the operations' requests are made of: one for each slot that is free, or about to be.
    spare: Vec<Blank>,
    /// Who waits for a slot or for room in the device. Never grows.
    waiting: VecDeque<Waiter>,
}

pub(super) struct Slots {
    table: IrqSpinLock<Table>,
    /// Counts what may have made room.
    epoch: AtomicU64,
    next: IrqSpinLock<Option<Arc<dyn Watcher>>>,
    /// Work that does nothing, per CPU: scheduling it ends a halt.
    nudges: Box<[TaskWork]>,
}

impl Slots {
    pub fn new(slots: u16) -> Self {
        Self {
            table: IrqSpinLock::new(
                Rank::BLOCK,
                Table {
                    slots: Slab::new(0, slots),
                    spare: (0..slots).map(|_| Blank::new()).collect(),
                    waiting: VecDeque::with_capacity(usize::from(slots) * 2),
                },
            ),
            epoch: AtomicU64::new(0),
            next: IrqSpinLock::new(Rank::BLOCK, None),
            nudges: (0..cpu::count()).map(|cpu| TaskWork::new(cpu, |_| Turn::Done)).collect(),
        }
    }

    pub fn set_next(&self, watcher: Arc<dyn Watcher>) {
        let before = self.next.lock().replace(watcher);
        drop(before);
    }

    fn wake(&self, waiter: Waiter) {
        match waiter {
            Waiter::Nobody => {}
            Waiter::Future(waker) => waker.wake(),
            Waiter::Cpu(cpu) => {
                if let Some(nudge) = self.nudges.get(cpu) {
                    nudge.schedule();
                }
            }
        }
    }

    /// What `change` and `changed` compare with: read it before the attempt that may be refused.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Something may have made room: everybody who waits for that tries again.
    fn made_room(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        // Those who come while we wake others have seen the new epoch: one round is enough.
        let mut round = self.table.lock().waiting.len();
        while round > 0 {
            round -= 1;
            #[cfg(test)]
            if super::tests::WALKS_UNTIL_EMPTY.get() {
                round += 1;
            }
            let Some(waiter) = self.table.lock().waiting.pop_front() else { return };
            self.wake(waiter);
        }
    }

    /// Whether something may have made room since `epoch`; if not, `waiter` will be woken.
    pub fn changed(&self, epoch: u64, waiter: Waiter) -> bool {
        let pushed_out = {
            let mut table = self.table.lock();
            // Under the lock: `made_room` counts before it takes the lock, so one of us sees the other.
            if self.epoch() != epoch {
                return true;
            }
            let full = table.waiting.len() == table.waiting.capacity();
            let pushed_out = if full { table.waiting.pop_front() } else { None };
            table.waiting.push_back(waiter);
            pushed_out
        };
        // Too many wait: the longest-waiting one looks again (and queues again) instead of being forgotten.
        if let Some(waiter) = pushed_out {
            self.wake(waiter);
        }
        false
    }

    /// Waits until something may have made room since `epoch`.
    pub fn change(&self, epoch: u64) -> impl Future<Output = ()> + '_ {
        poll_fn(
            move |cx| {
                if self.changed(epoch, Waiter::Future(cx.waker().clone())) { Poll::Ready(()) } else { Poll::Pending }
            },
        )
    }

    /// Takes a slot for an operation that is about to be submitted.
    pub fn reserve(self: &Arc<Self>) -> Option<Reserved> {
        let mut table = self.table.lock();
        let tag = table.slots.insert(Slot::Pending(Waiter::Nobody)).ok()?;
        let blank = table.spare.pop();
        Some(Reserved { slots: Some(Arc::clone(self)), tag, blank })
    }

    /// The data of a request that is over; what is left of it makes another.
    pub fn recycle(&self, request: Request) -> Data {
        self.table.lock().recycle(request)
    }

    fn free(&self, tag: Tag) {
        let before = self.table.lock().remove(tag);
        drop(before);
        self.made_room();
    }
}

impl Table {
    /// With the lock held nothing is freed here: whoever has the slots has the last reference to them, and the data is handed out.
    fn recycle(&mut self, request: Request) -> Data {
        let (data, blank) = request.retire();
        // Never more than there are slots: they all came from here.
        self.spare.push(blank);
        data
    }

    /// Takes what is in a slot out.
    fn remove(&mut self, tag: Tag) -> Option<Removed> {
        Some(match self.slots.remove(tag)? {
            Slot::Finished(request, result) => Removed::Finished((self.recycle(request), result)),
            Slot::Pending(waiter) => Removed::Waiter(waiter),
            Slot::Abandoned => Removed::Waiter(Waiter::Nobody),
        })
    }
}

/// What was in a slot. Dropped with no lock held.
enum Removed {
    Finished(Finished),
    Waiter(#[expect(dead_code, reason = "kept to be dropped later")] Waiter),
}

impl Complete for Slots {
    fn complete(&self, _cx: &BottomHalf, cookie: u64, request: Request, result: Result<(), Error>) {
        let tag = Tag::from_bits(cookie);
        let mut table = self.table.lock();
        let before = match table.slots.get_mut(tag) {
            Some(slot @ Slot::Pending(_)) => core::mem::replace(slot, Slot::Finished(request, result)),
            _ => {
                // Nobody waits: here the abandoned buffers are freed, now that the device has given them back.
                let (slot, data) = (table.remove(tag), table.recycle(request));
                drop(table);
                drop((slot, data));
                return self.made_room();
            }
        };
        drop(table);
        if let Slot::Pending(waiter) = before {
            self.wake(waiter);
        }
        self.made_room();
    }
}

impl Watcher for Slots {
    fn event(&self, cx: &BottomHalf, event: Event) {
        // Removal, too: whoever waits for room learns that there is none.
        self.made_room();
        let next = self.next.lock().clone();
        if let Some(next) = next {
            next.event(cx, event);
        }
    }
}

/// A slot whose operation has not been submitted; dropped, it is free again.
pub(super) struct Reserved {
    slots: Option<Arc<Slots>>,
    tag: Tag,
    /// What its request is made of.
    blank: Option<Blank>,
}

impl Reserved {
    /// What its request is made of, once.
    pub fn blank(&mut self) -> Blank {
        // There is one for each slot, unless a future was dropped with a request that was refused.
        self.blank.take().unwrap_or_default()
    }

    pub fn cookie(&self) -> u64 {
        self.tag.to_bits()
    }

    /// The device has accepted the operation.
    pub fn submitted(mut self) -> Operation {
        Operation { slots: self.slots.take(), tag: self.tag }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(slots) = self.slots.take() {
            slots.table.lock().spare.extend(self.blank.take());
            slots.free(self.tag);
        }
    }
}

/// An operation in flight: a future of its end. Dropped early, it leaves its buffers to the completion.
pub(super) struct Operation {
    slots: Option<Arc<Slots>>,
    tag: Tag,
}

impl Operation {
    /// The end, if it has come; else `waiter` will be woken.
    pub fn poll_with(&mut self, waiter: Waiter) -> Option<Finished> {
        let slots = self.slots.as_ref()?;
        let mut table = slots.table.lock();
        let before = match table.slots.get_mut(self.tag)? {
            Slot::Pending(before) => core::mem::replace(before, waiter),
            _ => {
                let slot = table.remove(self.tag);
                drop(table);
                if let Some(slots) = self.slots.take() {
                    slots.made_room();
                }
                return if let Some(Removed::Finished(finished)) = slot { Some(finished) } else { None };
            }
        };
        drop(table);
        drop(before);
        None
    }
}

impl Future for Operation {
    type Output = Finished;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Finished> {
        self.poll_with(Waiter::Future(cx.waker().clone())).map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        let Some(slots) = self.slots.take() else { return };
        let mut table = slots.table.lock();
        let before = match table.slots.get_mut(self.tag) {
            Some(slot @ Slot::Pending(_)) => {
                let before = core::mem::replace(slot, Slot::Abandoned);
                if let Slot::Pending(waiter) = before { Some(Removed::Waiter(waiter)) } else { None }
            }
            _ => table.remove(self.tag),
        };
        drop(table);
        let ended = matches!(before, Some(Removed::Finished(_)));
        drop(before);
        if ended {
            slots.made_room();
        }
    }
}
