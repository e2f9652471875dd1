//! A channel: two drives on one cable, and the one command that may be on it.
//!
//! # Who touches what
//! Submitters put requests into a [`Lane`] under the channel's lock (rank `QUEUE`). The [`Engine`], with the registers and the requests that it
//! works on, is taken out of the lock by whoever runs it, which is the channel's bottom half: there is one, so nobody else is ever at the
//! front (A-ATA-01), and no lock is held while it moves data or a completion runs.
//!
//! # Time
//! Nothing waits in place. A command that is out is looked at when its interrupt comes, or when somebody who watches the clock calls
//! [`Channel::expire`]. What a drive must do before it can interrupt (come out of a reset, take the first block of a write) is looked at
//! again in further turns of the bottom half, with a bound in time.

mod end;
mod engine;
mod issue;
mod lane;
mod look;
mod memory;
mod pieces;
mod plan;
mod reset;
mod signals;

#[cfg(all(loom, test))]
mod loom_tests;

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use undercroft_block::{Error, Event, Features, InFlight, Info, Refusal, Rejected, Request, Tag, Watcher};
use undercroft_hal::irq::Interrupt;
use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::work::{BottomHalfWork, Turn};
use undercroft_hal::{BottomHalf, Duration, Instant};

use crate::defect::Defects;
use crate::disk::Counters;
use crate::identify::Identified;
use crate::registers::Registers;
use crate::wire::Control;
pub(crate) use engine::Engine;
use lane::Lane;
pub(crate) use lane::{DEPTH, Life};
pub(crate) use memory::{MOST_TRIM, Memory};
pub(crate) use plan::SEGMENTS;
pub(crate) use reset::{LIMIT, PULSE, QUIET};
pub(crate) use signals::Signals;

/// Inside the channel's lock.
const INNER: Rank = Rank::new(34);
/// How soon a channel wants to be told the time again after something was late.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// No deadline.
const NEVER: u64 = u64::MAX;

/// A drive, as submitters see it.
pub(crate) struct Drive {
    /// All but whether it is read only.
    info: Info,
    pub(crate) identified: Identified,
    read_only: AtomicBool,
    watcher: IrqSpinLock<Option<Arc<dyn Watcher>>>,
}

impl Drive {
    pub(crate) fn new(info: Info, identified: Identified) -> Self {
        let watcher = IrqSpinLock::new(INNER, None);
        Self { info, identified, read_only: AtomicBool::new(false), watcher }
    }

    fn info(&self) -> Info {
        let mut info = self.info;
        info.features.set(Features::READ_ONLY, self.read_only.load(Ordering::Relaxed));
        info
    }

    fn tell(&self, cx: &BottomHalf, event: Event) {
        let watcher = self.watcher.lock().clone();
        if let Some(watcher) = watcher {
            watcher.event(cx, event);
        }
    }
}

/// What happens seldom, counted.
#[derive(Debug, Default)]
struct Tally {
    timeouts: AtomicU32,
    lost: AtomicU32,
    resets: AtomicU32,
    again: AtomicU32,
    early: AtomicU32,
}

fn count(counter: &AtomicU32) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What is under the channel's lock.
struct State {
    lanes: [Lane<InFlight>; 2],
    /// Absent while somebody runs it.
    engine: Option<Box<Engine>>,
    /// Some request that waits is cancelled, or may have passed its deadline.
    sweep: bool,
    /// The latest time that somebody who watches the clock told of.
    now: Option<Instant>,
    /// A reset is asked for.
    reset: bool,
    /// By that reset everything in flight ends, and until it has, nothing is taken.
    ending: bool,
    /// The command that is out is to be looked at once more: its interrupt may have been lost.
    doubted: bool,
    /// A drive was removed, and something of it is left.
    kept: Option<Arc<Channel>>,
}

/// A channel with its drives.
pub(crate) struct Channel {
    /// First, so that no interrupt comes while the rest goes.
    handler: IrqSpinLock<Option<Interrupt>>,
    state: IrqSpinLock<State>,
    drives: [Option<Drive>; 2],
    signals: Arc<Signals>,
    work: Arc<BottomHalfWork>,
    registers: Registers,
    tally: Tally,
    /// When the command that is out has had its time, in nanoseconds.
    due: AtomicU64,
    /// The function, which both channels keep.
    _function: Arc<dyn Send + Sync>,
}

impl Channel {
    /// A channel whose drives are known and do not interrupt yet.
    pub(crate) fn new(
        registers: Registers,
        drives: [Option<Drive>; 2],
        memory: Option<Memory>,
        function: Arc<dyn Send + Sync>,
        defects: Defects,
    ) -> Arc<Self> {
        let identified = drives.each_ref().map(|drive| drive.as_ref().map(|drive| &drive.identified));
        let engine = Some(Box::new(Engine::new(registers, identified, memory, defects)));
        Arc::new_cyclic(|this: &Weak<Self>| {
            let this = Weak::clone(this);
            Self {
                handler: IrqSpinLock::new(INNER, None),
                state: IrqSpinLock::new(
                    Rank::QUEUE,
                    State {
                        lanes: [Lane::new(), Lane::new()],
                        engine,
                        sweep: false,
                        now: None,
                        reset: false,
                        ending: false,
                        doubted: false,
                        kept: None,
                    },
                ),
                drives,
                signals: Arc::new(Signals::new(registers, defects)),
                work: Arc::new(BottomHalfWork::new(0, move |cx: &BottomHalf| {
                    this.upgrade().map_or(Turn::Done, |channel| channel.service(cx))
                })),
                registers,
                tally: Tally::default(),
                due: AtomicU64::new(NEVER),
                _function: function,
            }
        })
    }

    /// What an interrupt handler needs.
    pub(crate) fn wiring(&self) -> (Arc<Signals>, Arc<BottomHalfWork>) {
        (Arc::clone(&self.signals), Arc::clone(&self.work))
    }

    /// The handler is there: drives may interrupt.
    pub(crate) fn connect(&self, handler: Interrupt) {
        *self.handler.lock() = Some(handler);
        self.registers.control(Control::empty());
    }

    /// Runs the engine. The bottom half.
    fn service(&self, cx: &BottomHalf) -> Turn {
        let engine = self.state.lock().engine.take();
        let Some(mut engine) = engine else { return Turn::Done };
        let turn = engine.run(self, cx);
        let mut state = self.state.lock();
        state.engine = Some(engine);
        let over = state.lanes.iter().all(|lane| lane.life == Life::Running || lane.is_idle());
        let kept = if over { state.kept.take() } else { None };
        drop(state);
        // Perhaps the last but the caller's.
        drop(kept);
        turn
    }

    /// The drive's present shape. Any context.
    pub(crate) fn info(&self, drive: usize) -> Option<Info> {
        self.drives[drive].as_ref().map(Drive::info)
    }

    /// Takes a request, or gives it back. Any context.
    pub(crate) fn submit(&self, drive: usize, request: Request) -> Result<Tag, Rejected> {
        let refuse = |request, why| Err(Rejected { request, why });
        let Some(mut info) = self.info(drive) else { return refuse(request, Refusal::Gone(Error::Removed)) };
        // What the bus master does not reach goes through the bounce buffer.
        info.limits.dma.max_addr = u64::MAX;
        if let Err(error) = request.check(&info) {
            return refuse(request, Refusal::Invalid(error));
        }
        let mut state = self.state.lock();
        let ending = state.ending;
        let lane = &mut state.lanes[drive];
        if let Life::Gone(error) = lane.life {
            return refuse(request, Refusal::Gone(error));
        }
        if ending {
            lane.starved = true;
            return refuse(request, Refusal::Full);
        }
        lane.push(request.accept()).map_err(|flight| {
            lane.starved = true;
            Rejected { request: flight.give_back(), why: Refusal::Full }
        })
    }

    /// Has what was submitted looked at. Any context.
    pub(crate) fn commit(&self) {
        self.work.schedule();
    }

    /// Asks that a request end soon. Any context.
    pub(crate) fn cancel(&self, drive: usize, tag: Tag) -> bool {
        let mut state = self.state.lock();
        let known = state.lanes[drive].cancel(tag);
        state.sweep |= known;
        drop(state);
        if known {
            self.work.schedule();
        }
        known
    }

    /// Asks that an overdue request end: as [`Channel::cancel`], and if it is the one that is out, it is looked at once more. Any context.
    pub(crate) fn abort(&self, drive: usize, tag: Tag) -> bool {
        {
            let mut state = self.state.lock();
            state.doubted |= state.lanes[drive].front == Some(tag);
        }
        self.cancel(drive, tag)
    }

    /// Tells the channel what time it is. What has passed its deadline is dealt with by the bottom half. Returns when to call next, at the
    /// latest. Any context.
    pub(crate) fn expire(&self, now: Instant) -> Option<Instant> {
        let due = Some(self.due.load(Ordering::Relaxed)).filter(|due| *due != NEVER).map(Instant::from_nanos);
        let mut state = self.state.lock();
        let waiting = state.lanes.iter().flat_map(Lane::iter).filter_map(|flight| flight.request().deadline);
        let next = waiting.chain(due).min()?;
        if next > now {
            return Some(next);
        }
        state.now = state.now.max(Some(now));
        state.sweep = true;
        drop(state);
        self.work.schedule();
        // What is going to be out by then is not known yet.
        Some(now + LOOK_AGAIN)
    }

    /// Resets both drives, and has what was out issued again. Any context.
    pub(crate) fn reset(&self) {
        self.state.lock().reset = true;
        self.work.schedule();
    }

    /// Resets both drives and ends everything in flight, of either. Whether it will. Any context.
    pub(crate) fn reset_and_end(&self) -> bool {
        let mut state = self.state.lock();
        if state.lanes.iter().all(|lane| lane.life != Life::Running) {
            return false;
        }
        (state.reset, state.ending) = (true, true);
        drop(state);
        self.work.schedule();
        true
    }

    /// Ends a drive: what is in flight finishes with `error` from the bottom half. Bottom half or task context.
    pub(crate) fn end(&self, drive: usize, error: Error) {
        let mut state = self.state.lock();
        if state.lanes[drive].life == Life::Running {
            state.lanes[drive].life = Life::Gone(error);
        }
        drop(state);
        self.work.schedule();
    }

    /// Ends a drive that nobody holds any more, and keeps the channel until nothing of it is left. Bottom half or task context.
    pub(crate) fn remove(self: &Arc<Self>, drive: usize) {
        self.state.lock().kept = Some(Arc::clone(self));
        self.end(drive, Error::Removed);
    }

    pub(crate) fn watch(&self, drive: usize, watcher: Arc<dyn Watcher>) {
        if let Some(drive) = &self.drives[drive] {
            // Dropped after the lock: the last reference may run anything.
            let old = drive.watcher.lock().replace(watcher);
            drop(old);
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        let read = |counter: &AtomicU32| counter.load(Ordering::Relaxed);
        Counters {
            timeouts: read(&self.tally.timeouts),
            lost_interrupts: read(&self.tally.lost),
            resets: read(&self.tally.resets),
            issued_again: read(&self.tally.again),
            early_interrupts: read(&self.tally.early),
            foreign_interrupts: self.signals.foreign(),
        }
    }

    /// Lets a drive's watcher know; no lock is held.
    fn tell(&self, cx: &BottomHalf, drive: usize, event: Event) {
        if let Some(drive) = &self.drives[drive] {
            drive.tell(cx, event);
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // Nothing is in flight: every drive has ended. The next driver finds a quiet channel.
        self.registers.control(Control::NIEN);
        self.registers.master_stop();
    }
}
