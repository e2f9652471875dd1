//! A volume as `async` functions.
//!
//! An operation has a slot, made once, and its data is its own: a future that is dropped leaves nothing behind that points to it. It is begun by the run
//! queue, and it ends there too, in task context; then its future is woken. Futures may be polled, and dropped, in any context that may free memory:
//! bottom half or task.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use core::future::{Future, poll_fn};
use core::ops::Range;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use undercroft_block::{Data, Error};
use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::work::{TaskWork, Turn};
use undercroft_hal::{Task, cpu};

use crate::broken::{self, Hazard};
use crate::memory::filled;
use crate::op::{Done, FinishInTask, Outcome};
use crate::pin::Pinned;
use crate::volume::Volume;

/// An operation that failed, with its data.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub error: Error,
    /// The data; what is in it after a failed read is not defined.
    pub data: Data,
}

impl core::fmt::Display for Failed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.error.fmt(f)
    }
}

impl core::error::Error for Failed {}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

/// What is asked of the volume.
#[derive(Debug)]
enum Ask {
    Read(u64, Data),
    Write(u64, Data),
    Sync(Range<u64>),
    Discard(Range<u64>),
    Pin(u64),
}

enum Slot {
    Free,
    /// To be begun. The waker is its future's, as in what follows.
    Asked(Ask, Option<Waker>),
    /// The volume has it; a sync, or something else.
    Begun(bool, Option<Waker>),
    /// The volume has it, and nobody waits for it any more.
    Left(bool),
    Over(bool, Outcome),
}

struct Table {
    slots: Box<[Slot]>,
    /// Who waits for a slot. Never grows.
    waiting: VecDeque<Waker>,
    /// What a sync would have told whose future was dropped.
    untold: Option<Error>,
}

struct Shared {
    this: Weak<Shared>,
    volume: Volume,
    table: IrqSpinLock<Table>,
    begin: TaskWork,
}

/// A handle to a volume with `async` functions, of which so many may be under way at once; further ones wait.
///
/// # Dropping a future
/// Is sound at any time. A read or a pin is given up. A write that was begun is done all the same, one that was not is not: as after any write whose end
/// nobody has seen, each of its pages is as before or as written. A sync goes on; an error that it would have told is told by the next one.
///
/// # Example
/// A kernel of one task, and a disk in its memory:
/// ```
/// # use std::sync::{Arc, Mutex};
/// use undercroft_block::{BlockDevice, Error};
/// use undercroft_hal::Task;
/// use undercroft_hal::dma::{DmaBuf, DmaConstraints};
/// use undercroft_pagecache::{Config, Futures, Volume};
/// # use undercroft_block::*;
/// # use undercroft_hal::work::{BottomHalfWork, Turn};
/// # struct Ram { identity: Identity, bytes: Mutex<Vec<u8>>, line: Mutex<Vec<InFlight>>, work: BottomHalfWork }
/// # impl Ram {
/// #     fn new() -> Arc<Self> {
/// #         Arc::new_cyclic(|this: &std::sync::Weak<Self>| {
/// #             let this = this.clone();
/// #             let work = BottomHalfWork::new(0, move |cx| {
/// #                 let Some(ram) = this.upgrade() else { return Turn::Done };
/// #                 let line = std::mem::take(&mut *ram.line.lock().unwrap());
/// #                 for mut flight in line {
/// #                     let (op, mut at) = (flight.request().op, flight.request().lba as usize * 512);
/// #                     for piece in flight.data_mut().pieces_mut() {
/// #                         let mut bytes = ram.bytes.lock().unwrap();
/// #                         let there = &mut bytes[at..at + piece.len()];
/// #                         if op == Op::Read { piece.bytes_mut().copy_from_slice(there) } else { there.copy_from_slice(piece.bytes()) }
/// #                         at += piece.len();
/// #                     }
/// #                     flight.finish(cx, Ok(()));
/// #                 }
/// #                 Turn::Done
/// #             });
/// #             let name = String::new;
/// #             let identity = Identity { driver: "ram", controller: name(), serial: name(), model: name(), interrupts: name(), transport: name() };
/// #             Self { identity, bytes: Mutex::new(vec![0; 1 << 20]), line: Mutex::default(), work }
/// #         })
/// #     }
/// # }
/// # impl BlockDevice for Ram {
/// #     fn identity(&self) -> &Identity { &self.identity }
/// #     fn info(&self) -> Info {
/// #         let limits = Limits { max_segments: 8, max_segment_bytes: 1 << 20, joint: 0, max_transfer_bytes: 1 << 20, max_discard_blocks: 0,
/// #             max_write_zeroes_blocks: 0, dma: DmaConstraints::ANY };
/// #         Info { capacity: 2048, block_size: 512, physical_block_size: 512, queues: 1, depth: 8, features: Features::VOLATILE_CACHE, limits }
/// #     }
/// #     fn submit(&self, request: Request) -> Result<Tag, Rejected> {
/// #         self.line.lock().unwrap().push(request.accept());
/// #         Ok(Tag::from_bits(0))
/// #     }
/// #     fn commit(&self) { self.work.schedule() }
/// #     fn watch(&self, _: Arc<dyn Watcher>) {}
/// # }
///
/// async fn add_a_line(disk: &Futures, at: u64, line: &[u8]) -> Result<(), Error> {
///     let mut data = DmaBuf::new(line.len(), DmaConstraints::ANY).map_err(|_| Error::NoMemory)?;
///     data.copy_from_slice(line);
///     disk.write(at, data).await?;
///     disk.sync(at..at + line.len() as u64).await // durable from here on
/// }
///
/// fn kernel(cx: &Task, device: Arc<dyn BlockDevice>) -> Result<(), Error> {
///     undercroft_timer::timers::start_service(cx);
///     let disk = Futures::new(Volume::open(cx, device, Config::default())?, 8)?;
///     cx.block_on(async {
///         add_a_line(&disk, 4090, b"across two pages").await?;
///         let data = DmaBuf::new(10, DmaConstraints::ANY).map_err(|_| Error::NoMemory)?;
///         let data = disk.read(4092, data).await?;
///         assert_eq!(data.pieces()[0].bytes(), b"ross two p");
///         Ok(())
///     })
/// }
/// # use undercroft_hosts::{Config as Machine_, Machine};
/// # Machine::new(Machine_::default()).run(|cx| kernel(cx, Ram::new()).unwrap());
/// ```
pub struct Futures {
    shared: Arc<Shared>,
}

impl Futures {
    /// Takes a handle of a volume: errors of write-back are told to it, by the next sync. Allocates all that it needs; its work is this CPU's.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn new(volume: Volume, slots: u16) -> Result<Self, Error> {
        let slots = filled(usize::from(slots.max(1)), |_| Slot::Free)?;
        let mut waiting = VecDeque::new();
        waiting.try_reserve_exact(slots.len() * 2).map_err(|_| Error::NoMemory)?;
        let table = IrqSpinLock::new(Rank::BLOCK, Table { slots, waiting, untold: None });
        let shared = Arc::new_cyclic(|this: &Weak<Shared>| {
            let (begins, this) = (Weak::clone(this), Weak::clone(this));
            let begin = TaskWork::new(cpu::current(), move |cx| match begins.upgrade() {
                Some(shared) => shared.begin(cx),
                None => Turn::Done,
            });
            Shared { this, volume, table, begin }
        });
        Ok(Self { shared })
    }

    /// The handle.
    pub fn volume(&self) -> &Volume {
        &self.shared.volume
    }

    /// Reads as many bytes as `data` has, from byte `start` on.
    ///
    /// # Errors
    /// [`Failed`], as [`Volume::read_blocking`].
    pub async fn read(&self, start: u64, data: impl Into<Data>) -> Result<Data, Failed> {
        with_data(self.run(Ask::Read(start, data.into())).await)
    }

    /// Writes `data` from byte `start` on.
    ///
    /// # Errors
    /// [`Failed`], as [`Volume::write_blocking`].
    pub async fn write(&self, start: u64, data: impl Into<Data>) -> Result<Data, Failed> {
        with_data(self.run(Ask::Write(start, data.into())).await)
    }

    /// Makes durable what was written to a range of bytes before the first poll, as [`Volume::sync`].
    ///
    /// # Errors
    /// Why that is not known to be durable, or what a sync would have told that was given up.
    pub async fn sync(&self, range: Range<u64>) -> Result<(), Error> {
        let result = self.run(Ask::Sync(range)).await.result;
        let untold = self.shared.table.lock().untold.take();
        result.and(untold.map_or(Ok(()), Err))
    }

    /// As [`Futures::sync`], of everything.
    ///
    /// # Errors
    /// As [`Futures::sync`].
    pub async fn sync_all(&self) -> Result<(), Error> {
        self.sync(0..u64::MAX).await
    }

    /// As [`Volume::discard`].
    ///
    /// # Errors
    /// [`Error::Busy`] at a pinned page, [`Error::ReadOnly`], or the device's.
    pub async fn discard(&self, range: Range<u64>) -> Result<(), Error> {
        self.run(Ask::Discard(range)).await.result
    }

    /// As [`Volume::pin`].
    ///
    /// # Errors
    /// As [`Volume::pin_blocking`].
    pub async fn pin(&self, at: u64) -> Result<Pinned, Error> {
        let outcome = self.run(Ask::Pin(at)).await;
        outcome.result.and(outcome.pinned.ok_or(Error::Busy))
    }

    async fn run(&self, ask: Ask) -> Outcome {
        let mut ask = Some(ask);
        let at = poll_fn(|cx| self.shared.ask(&mut ask, cx)).await;
        Operation { shared: &self.shared, at: Some(at) }.await
    }
}

fn with_data(outcome: Outcome) -> Result<Data, Failed> {
    let Outcome { data, result, .. } = outcome;
    match result {
        Ok(()) => Ok(data),
        Err(error) => Err(Failed { error, data }),
    }
}

/// An operation whose future lives. `None`: it is over.
struct Operation<'a> {
    shared: &'a Shared,
    at: Option<usize>,
}

impl Future for Operation<'_> {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let Some(at) = self.at else { return Poll::Pending };
        // Cloned, and dropped, with no lock held.
        let waker = cx.waker().clone();
        match self.shared.look(at, waker) {
            Some(outcome) => {
                self.at = None;
                Poll::Ready(outcome)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        if let Some(at) = self.at {
            self.shared.leave(at);
        }
    }
}

impl Shared {
    /// Takes a slot for what is asked; without one, the caller is woken when it may try again.
    fn ask(&self, ask: &mut Option<Ask>, cx: &Context<'_>) -> Poll<usize> {
        let waker = cx.waker().clone();
        let mut table = self.table.lock();
        let free = table.slots.iter().position(|slot| matches!(slot, Slot::Free));
        let Some((at, ask)) = free.and_then(|at| Some((at, ask.take()?))) else {
            // Too many wait: the longest-waiting one looks again, instead of being forgotten.
            let full = table.waiting.len() == table.waiting.capacity();
            let pushed_out = if full { table.waiting.pop_front() } else { None };
            table.waiting.push_back(waker);
            drop(table);
            pushed_out.into_iter().for_each(Waker::wake);
            return Poll::Pending;
        };
        table.slots[at] = Slot::Asked(ask, None);
        drop(table);
        self.begin.schedule();
        Poll::Ready(at)
    }

    /// Has the volume begin what is asked. Waits where the volume has no room for another operation.
    fn begin(&self, cx: &Task) -> Turn {
        let next = |table: &mut Table| {
            let at = table.slots.iter().position(|slot| matches!(slot, Slot::Asked(..)))?;
            let Slot::Asked(ask, waker) = core::mem::replace(&mut table.slots[at], Slot::Free) else { return None };
            table.slots[at] = Slot::Begun(matches!(ask, Ask::Sync(_)), waker);
            Some((at, ask))
        };
        let Some(this) = self.this.upgrade() else { return Turn::Done };
        loop {
            let Some((at, mut ask)) = next(&mut self.table.lock()) else { return Turn::Done };
            loop {
                let done = Done::in_task(Arc::clone(&this) as Arc<dyn FinishInTask>, at as u64);
                let begun = match ask {
                    Ask::Read(start, data) => {
                        self.volume.read(cx, start, data, done).map_err(|no| (no.error, Ask::Read(start, no.data)))
                    }
                    Ask::Write(start, data) => {
                        self.volume.write(cx, start, data, done).map_err(|no| (no.error, Ask::Write(start, no.data)))
                    }
                    Ask::Sync(range) => {
                        self.volume.sync(cx, range.clone(), done).map_err(|no| (no.error, Ask::Sync(range)))
                    }
                    Ask::Discard(range) => {
                        self.volume.discard(cx, range.clone(), done).map_err(|no| (no.error, Ask::Discard(range)))
                    }
                    Ask::Pin(start) => self.volume.pin(cx, start, done).map_err(|no| (no.error, Ask::Pin(start))),
                };
                match begun {
                    Ok(()) => break,
                    Err((Some(error), Ask::Read(_, data) | Ask::Write(_, data))) => {
                        self.over(at, Outcome { data, result: Err(error), pinned: None });
                        break;
                    }
                    Err((Some(error), _)) => {
                        self.over(at, Outcome { data: Data::None, result: Err(error), pinned: None });
                        break;
                    }
                    Err((None, again)) => {
                        ask = again;
                        self.volume.wait_for_room(cx);
                    }
                }
            }
        }
    }

    /// What became of an operation: its future is woken, or nobody wants it any more.
    fn over(&self, at: usize, outcome: Outcome) {
        let mut table = self.table.lock();
        match core::mem::replace(&mut table.slots[at], Slot::Free) {
            Slot::Begun(sync, waker) => {
                table.slots[at] = Slot::Over(sync, outcome);
                drop(table);
                waker.into_iter().for_each(Waker::wake);
            }
            Slot::Left(sync) => {
                table.note(sync, &outcome);
                drop(table);
                drop(outcome);
                self.made_room();
            }
            // Each operation completes once.
            other => table.slots[at] = other,
        }
    }

    /// An operation's outcome; while there is none, `waker` is to be woken.
    fn look(&self, at: usize, waker: Waker) -> Option<Outcome> {
        let mut table = self.table.lock();
        let (outcome, before) = match &mut table.slots[at] {
            Slot::Asked(_, place) | Slot::Begun(_, place) => (None, place.replace(waker)),
            slot => match core::mem::replace(slot, Slot::Free) {
                Slot::Over(_, outcome) => (Some(outcome), Some(waker)),
                other => {
                    *slot = other;
                    (None, Some(waker))
                }
            },
        };
        drop(table);
        drop(before);
        if outcome.is_some() {
            self.made_room();
        }
        outcome
    }

    /// Nobody waits for an operation any more.
    fn leave(&self, at: usize) {
        let mut table = self.table.lock();
        let before = core::mem::replace(&mut table.slots[at], Slot::Free);
        match &before {
            Slot::Begun(sync, _) => table.slots[at] = Slot::Left(*sync),
            Slot::Over(sync, outcome) => table.note(*sync, outcome),
            Slot::Asked(..) | Slot::Free | Slot::Left(_) => {}
        }
        let free = matches!(table.slots[at], Slot::Free);
        drop(table);
        // Buffers, a pin, a waker: with no lock held.
        drop(before);
        if free {
            self.made_room();
        }
    }

    /// Everybody who waits for a slot looks again.
    fn made_room(&self) {
        let mut round = self.table.lock().waiting.len();
        while round > 0 {
            round -= 1;
            let Some(waker) = self.table.lock().waiting.pop_front() else { return };
            waker.wake();
        }
    }
}

impl Table {
    /// What a sync has to tell that nobody waits for is told by the next.
    fn note(&mut self, sync: bool, outcome: &Outcome) {
        if let (true, Err(error)) = (sync && !broken::is(Hazard::ErrorGoesWithItsFuture), outcome.result) {
            self.untold = Some(error);
        }
    }
}

impl FinishInTask for Shared {
    fn finish(&self, _cx: &Task, cookie: u64, outcome: Outcome) {
        self.over(cookie as usize, outcome);
    }
}

impl core::fmt::Debug for Futures {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Futures on {:?}", self.shared.volume)
    }
}
