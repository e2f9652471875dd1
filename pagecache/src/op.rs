//! Operations: what was asked for, how far it has come, and who is told. Made once, used again; under the volume's lock.

use alloc::boxed::Box;
use alloc::sync::Arc;

use undercroft_block::{Data, Error};
use undercroft_hal::{BottomHalf, Task};

use crate::copy::Cursor;
use crate::line::{Line, NOBODY};
use crate::memory::filled;
use crate::pin::Pinned;

/// What became of an operation.
#[derive(Debug)]
pub struct Outcome {
    /// The data that was given with it. After a failed read, what is in it is not defined.
    pub data: Data,
    /// Whether it was done. A write that failed may have changed any part of its range, page by page.
    pub result: Result<(), Error>,
    /// The page, if it was to be pinned and that went well.
    pub pinned: Option<Pinned>,
}

/// Who is told, in a bottom half. Made once, not per operation: the cookie tells them apart.
pub trait Finish: Send + Sync {
    /// An operation is over. No lock is held; it may begin others.
    fn finish(&self, cx: &BottomHalf, cookie: u64, outcome: Outcome);
}

/// Who is told, by the run queue.
pub trait FinishInTask: Send + Sync {
    /// An operation is over. No lock is held; it may begin others, and wait.
    fn finish(&self, cx: &Task, cookie: u64, outcome: Outcome);
}

/// Where an operation's outcome goes.
#[derive(Clone)]
pub struct Done(pub(crate) To);

#[derive(Clone)]
pub(crate) enum To {
    BottomHalf(Arc<dyn Finish>, u64),
    Task(Arc<dyn FinishInTask>, u64),
    /// A task that waits on this CPU: it looks for itself.
    Cpu(usize),
}

impl Done {
    /// To `who`, in a bottom half, with `cookie`.
    pub fn in_bottom_half(who: Arc<dyn Finish>, cookie: u64) -> Self {
        Self(To::BottomHalf(who, cookie))
    }

    /// To `who`, in task context, with `cookie`.
    pub fn in_task(who: Arc<dyn FinishInTask>, cookie: u64) -> Self {
        Self(To::Task(who, cookie))
    }
}

impl core::fmt::Debug for Done {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match &self.0 {
            To::BottomHalf(_, cookie) => write!(f, "Done(bottom half, {cookie:#x})"),
            To::Task(_, cookie) => write!(f, "Done(task, {cookie:#x})"),
            To::Cpu(cpu) => write!(f, "Done(cpu {cpu})"),
        }
    }
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing: the slot is free, or its operation is over.
    Idle,
    Read,
    Write,
    /// Brings a page in and pins it.
    Pin,
    /// Waits until a page can be written by its caller, and pins it if that takes its bytes.
    Ready,
    Sync,
    /// Forgets pages, and tells the device if that is wanted.
    Discard {
        device: bool,
    },
}

/// Where a sync or a discard is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Begin,
    /// Going through the pages of its range.
    Scan,
    /// Waits for write-backs.
    Written,
    /// In line for a flush, or for the device's discard.
    Device,
    /// The device has it.
    Sent,
}

/// An operation. It is in one line at most.
#[derive(Debug)]
pub(crate) struct Op {
    next: u16,
    pub(crate) kind: Kind,
    pub(crate) phase: Phase,
    /// The next byte; for discards and syncs what comes next in their scan.
    pub(crate) at: u64,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) data: Data,
    pub(crate) cursor: Cursor,
    pub(crate) done: Option<Done>,
    pub(crate) result: Result<(), Error>,
    /// It has waited for the page that it is at.
    pub(crate) waited: bool,
    /// A read of several pages failed: it is to be read alone.
    pub(crate) alone: bool,
    /// The read-ahead knows of it.
    pub(crate) noted: bool,
    /// The scan goes by slot, not by index.
    pub(crate) by_slot: bool,
    /// The last epoch that a sync covers.
    pub(crate) covers: u32,
    /// Attempts that a sync waits for.
    pub(crate) left: u32,
    /// The flush that a sync waits for.
    pub(crate) flush: u64,
    pub(crate) handle: u16,
    pub(crate) pin: u16,
    pub(crate) error: Option<Error>,
}

impl Op {
    fn blank() -> Self {
        Self {
            next: NOBODY,
            kind: Kind::Idle,
            phase: Phase::Begin,
            at: 0,
            start: 0,
            end: 0,
            data: Data::None,
            cursor: Cursor::default(),
            done: None,
            result: Ok(()),
            waited: false,
            alone: false,
            noted: false,
            by_slot: false,
            covers: 0,
            left: 0,
            flush: 0,
            handle: 0,
            pin: NOBODY,
            error: None,
        }
    }
}

/// The operations of a volume.
#[derive(Debug)]
pub(crate) struct Ops {
    slots: Box<[Op]>,
    free: Line,
    used: u16,
}

impl Ops {
    pub(crate) fn new(count: u16) -> Result<Self, Error> {
        let count = count.clamp(1, NOBODY - 1);
        let mut ops = Self { slots: filled(usize::from(count), |_| Op::blank())?, free: Line::EMPTY, used: 0 };
        let mut free = Line::EMPTY;
        (0..count).for_each(|id| ops.push(&mut free, id));
        ops.free = free;
        Ok(ops)
    }

    /// Begins an operation on the bytes from `start` to `end`. Gives back what it was to own if there is no slot.
    pub(crate) fn begin(
        &mut self,
        kind: Kind,
        start: u64,
        end: u64,
        data: Data,
        done: Done,
    ) -> Result<u16, (Data, Done)> {
        let mut free = self.free;
        let Some(id) = self.pop(&mut free) else { return Err((data, done)) };
        self.free = free;
        self.used += 1;
        self.slots[usize::from(id)] = Op { kind, at: start, start, end, data, done: Some(done), ..Op::blank() };
        Ok(id)
    }

    /// Ends an operation: what it owned, its result and its pin.
    pub(crate) fn end(&mut self, id: u16) -> (Data, Option<Done>, Result<(), Error>, u16) {
        let op = core::mem::replace(&mut self.slots[usize::from(id)], Op::blank());
        let mut free = self.free;
        self.push(&mut free, id);
        self.free = free;
        self.used -= 1;
        (op.data, op.done, op.result, op.pin)
    }

    pub(crate) const fn used(&self) -> u16 {
        self.used
    }

    #[inline]
    pub(crate) fn get(&self, id: u16) -> &Op {
        &self.slots[usize::from(id)]
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: u16) -> &mut Op {
        &mut self.slots[usize::from(id)]
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (u16, &Op)> {
        self.slots.iter().enumerate().map(|(id, op)| (id as u16, op))
    }

    pub(crate) const fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Puts an operation at the end of a line.
    pub(crate) fn push(&mut self, line: &mut Line, id: u16) {
        self.slots[usize::from(id)].next = NOBODY;
        match line.tail {
            NOBODY => line.head = id,
            tail => self.slots[usize::from(tail)].next = id,
        }
        line.tail = id;
    }

    /// Takes the first of a line.
    pub(crate) fn pop(&mut self, line: &mut Line) -> Option<u16> {
        let id = line.head;
        if id == NOBODY {
            return None;
        }
        line.head = self.slots[usize::from(id)].next;
        if line.head == NOBODY {
            line.tail = NOBODY;
        }
        Some(id)
    }
}
