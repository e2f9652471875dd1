//! What all handles of a volume share, and what is done with no lock held: requests are sent, memory is allocated, completions run.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};

use undercroft_block::{BlockDevice, Error, Event, Features, Watcher};
use undercroft_hal::context::NotHardIrq;
use undercroft_hal::dma::{DmaConstraints, DmaPages, Lender};
use undercroft_hal::sync::{IrqSpinLock, Rank, assert_unlocked};
use undercroft_hal::work::{BottomHalfWork, TaskWork, Turn};
use undercroft_hal::{BottomHalf, Instant, Task, cpu};
use undercroft_timer::Callout;

use super::state::State;
use crate::broken::{self, Hazard};
use crate::config::Config;
use crate::group::Share;
use crate::line::NOBODY;
use crate::memory::filled;
use crate::op::{Done, Outcome, To};
use crate::pin::Pinned;
use crate::shim::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, SpinLock};
use crate::table::Index;

/// Completions, and operations that go on, of one run of the bottom half.
const BATCH: usize = 32;
/// Steps that one of those operations takes before the next has its turn.
const STEPS: usize = 16;

pub(crate) struct Core {
    pub(super) this: Weak<Core>,
    pub(super) device: Arc<dyn BlockDevice>,
    pub(crate) state: SpinLock<State>,
    pub(super) bottom: BottomHalfWork,
    pub(super) task: TaskWork,
    callout: Callout<BottomHalf>,
    /// When the callout is to run, if it is.
    armed: AtomicU64,
    /// Operations whose waiting tasks may look at them.
    pub(super) ready: Box<[AtomicBool]>,
    /// Pins whose handles are gone.
    unpinned: Box<[AtomicU64]>,
    /// Parts that were set aside and whose owners are gone.
    pub(super) asides_gone: AtomicU32,
    /// Handles, and those of them that are gone.
    pub(super) handles: AtomicUsize,
    closed: Box<[AtomicBool]>,
    /// CPUs with a task that waits for a slot.
    pub(super) waiting: AtomicU64,
    /// Free slots for operations.
    pub(super) slots: AtomicUsize,
    /// The pages' index, for a look before the lock is taken; and pages in a chunk.
    pub(super) index: Arc<Index>,
    chunk: u32,
    /// Who lends pages to the device, and what memory that reaches.
    lender: Lender,
    reach: DmaConstraints,
    /// What it has of a budget that it shares, and the handle of who that is of.
    pub(crate) share: Option<Share>,
    observer: u16,
    /// Itself, while there is something to be written and nobody else has it.
    orphan: IrqSpinLock<Option<Arc<Core>>>,
}

/// Hears the device.
struct Ear(Weak<Core>);

impl Watcher for Ear {
    fn event(&self, cx: &BottomHalf, event: Event) {
        if let Some(core) = self.0.upgrade() {
            core.heard(cx, event);
        }
    }
}

impl Core {
    pub(super) fn new(device: Arc<dyn BlockDevice>, config: Config, share: Option<Share>) -> Result<Arc<Self>, Error> {
        // The budget's owner has a handle of its own, which is not counted: it keeps no volume.
        let handles = config.handles.max(1).saturating_add(u16::from(share.is_some()));
        let config = Config { handles, ..config };
        let mut state = State::new(config, &device.info())?;
        let observer = share.as_ref().and_then(|_| state.errors.open()).unwrap_or(0);
        let ready = filled(state.ops.capacity(), |_| AtomicBool::new(false))?;
        let unpinned = filled(state.pins.len().div_ceil(64), |_| AtomicU64::new(0))?;
        let closed = filled(usize::from(handles), |_| AtomicBool::new(false))?;
        let slots = AtomicUsize::new(state.ops.capacity());
        let (index, chunk) = (Arc::clone(&state.table.index), state.table.chunk());
        let lender = Lender::new(state.table.chunks()).map_err(|_| Error::NoMemory)?;
        let reach = DmaConstraints { boundary: 0, ..device.info().limits.dma };
        let home = cpu::current();
        let core = Arc::new_cyclic(|this: &Weak<Self>| {
            let (ticks, bottom, task) = (Weak::clone(this), Weak::clone(this), Weak::clone(this));
            Self {
                this: Weak::clone(this),
                state: SpinLock::new(Rank::CACHE, state),
                bottom: BottomHalfWork::new(home, move |cx| bottom.upgrade().map_or(Turn::Done, |core| core.work(cx))),
                task: TaskWork::new(home, move |cx| task.upgrade().map_or(Turn::Done, |core| core.work_in_task(cx))),
                callout: Callout::new(home, move |cx: &BottomHalf, _: &_| {
                    if let Some(core) = ticks.upgrade() {
                        core.tick(cx);
                    }
                }),
                armed: AtomicU64::new(u64::MAX),
                ready,
                unpinned,
                asides_gone: AtomicU32::new(0),
                handles: AtomicUsize::new(0),
                closed,
                waiting: AtomicU64::new(0),
                slots,
                index,
                chunk,
                lender,
                reach,
                share,
                observer,
                orphan: IrqSpinLock::new(Rank::new(9), None),
                device,
            }
        });
        core.device.watch(Arc::new(Ear(Arc::downgrade(&core))));
        Ok(core)
    }

    /// Something happened to the device.
    fn heard(&self, cx: &BottomHalf, event: Event) {
        {
            let mut state = self.state.lock(cx);
            match event {
                Event::Room => (state.room, state.full) = (state.room + 1, false),
                Event::Removed => state.die(Error::Removed),
                Event::Resized => {
                    let end = self.device.info().bytes();
                    state.resized(end);
                }
                // What is here is another medium's: it must neither be read nor written to this one.
                Event::MediaChanged if !broken::is(Hazard::MediumIgnored) => {
                    state.stale = true;
                    state.die(Error::NotReady);
                }
                _ => {}
            }
        }
        self.drive(cx);
    }

    /// Steps an operation that is in no line until it waits or is over.
    pub(super) fn run(&self, cx: &impl NotHardIrq, id: u16) {
        // A lock for each step, which copies a page.
        while self.state.lock(cx).step(id) {}
        self.state.lock(cx).stepping -= 1;
    }

    /// Does what was left to be done with no lock held.
    pub(crate) fn drive(&self, cx: &impl NotHardIrq) {
        self.send_all(cx);
        let (bottom, task, alarm) = {
            let mut state = self.state.lock(cx);
            if state.is_stuck() {
                state.fail_stalled(Error::NoMemory);
            }
            let [bottom, task] = state.over.map(|line| !line.is_empty());
            let clean =
                state.back.hurry && state.ops.used() == 0 && (state.table.unwritten() == 0 || state.dead.is_some());
            (bottom || !state.runnable.is_empty() || clean && self.is_orphan(), task, state.alarm())
        };
        if bottom {
            self.bottom.schedule();
        }
        if task {
            self.task.schedule();
        }
        if let Some(at) = alarm {
            let at_nanos = at.as_nanos();
            if self.armed.fetch_min(at_nanos, Ordering::AcqRel) > at_nanos {
                // Closed: the volume is gone.
                let _ = self.callout.start_if_sooner(at);
            }
        }
    }

    /// Gets the pages that are wanted some memory.
    pub(super) fn grow(&self, cx: &impl NotHardIrq) {
        let held = broken::is(Hazard::AllocatesUnderLock).then(|| self.state.lock(cx));
        assert_unlocked("memory for pages is allocated");
        drop(held);
        let chunk = self.chunk(cx);
        if broken::is(Hazard::LockKept) && chunk.is_none() {
            ::core::mem::forget(self.state.lock(cx));
        }
        let back = self.state.lock(cx).grown(chunk);
        if back.is_some() {
            self.give_back(back);
        }
    }

    /// Memory for a chunk, if there is any, and the budget allows it.
    fn chunk(&self, cx: &impl NotHardIrq) -> Option<DmaPages> {
        if self.share.as_ref().is_some_and(|share| !share.take(cx, self.chunk)) {
            return None;
        }
        let chunk = DmaPages::new(&self.lender, self.chunk as usize, self.reach).ok();
        if chunk.is_none() {
            self.give_back(None);
        }
        chunk
    }

    /// Frees a chunk's memory, and gives its part of the budget back.
    pub(super) fn give_back(&self, chunk: Option<DmaPages>) {
        drop(chunk);
        if let Some(share) = &self.share {
            share.give(self.chunk);
        }
    }

    /// Gives a chunk up, for another volume. `false`: it can spare none.
    pub(crate) fn give_up(&self, cx: &impl NotHardIrq) -> bool {
        let mut at = Some(0);
        while let Some(from) = at {
            let (chunk, next) = self.state.lock(cx).table.coldest_chunk(from);
            if chunk.is_some() {
                self.give_back(chunk);
                return true;
            }
            at = next;
        }
        false
    }

    pub(crate) const fn observer(&self) -> u16 {
        self.observer
    }

    pub(crate) const fn device(&self) -> &Arc<dyn BlockDevice> {
        &self.device
    }

    fn tick(&self, cx: &BottomHalf) {
        {
            let mut state = self.state.lock(cx);
            if !broken::is(Hazard::TickedOnce) {
                self.armed.store(u64::MAX, Ordering::Release);
            }
            state.ticked(Instant::now());
        }
        self.drive(cx);
    }

    fn work(&self, cx: &BottomHalf) -> Turn {
        self.collect(cx);
        for _ in 0..BATCH {
            let id = {
                let mut state = self.state.lock(cx);
                let mut line = state.runnable;
                let id = state.ops.pop(&mut line);
                state.runnable = line;
                state.stepping += u32::from(id.is_some());
                id
            };
            let Some(id) = id else { break };
            let mut steps = 0;
            while self.state.lock(cx).step(id) {
                steps += 1;
                if steps == STEPS {
                    let mut state = self.state.lock(cx);
                    let mut line = state.runnable;
                    state.ops.push(&mut line, id);
                    state.runnable = line;
                    break;
                }
            }
            self.state.lock(cx).stepping -= 1;
        }
        self.drive(cx);
        for _ in 0..BATCH {
            if !self.deliver(cx, 0, |to, outcome| match to {
                To::BottomHalf(who, cookie) => who.finish(cx, cookie, outcome),
                To::Task(..) | To::Cpu(_) => drop(outcome),
            }) {
                break;
            }
        }
        self.let_go_if_clean(cx);
        let state = self.state.lock(cx);
        if state.runnable.is_empty() && state.over[0].is_empty() { Turn::Done } else { Turn::Again }
    }

    fn work_in_task(&self, cx: &Task) -> Turn {
        for _ in 0..BATCH {
            if !self.deliver(cx, 1, |to, outcome| match to {
                To::Task(who, cookie) => who.finish(cx, cookie, outcome),
                To::BottomHalf(..) | To::Cpu(_) => drop(outcome),
            }) {
                return Turn::Done;
            }
        }
        Turn::Again
    }

    /// Completes the first operation that is over in a context. `false`: there is none.
    fn deliver<C: NotHardIrq>(&self, cx: &C, context: usize, tell: impl Fn(To, Outcome)) -> bool {
        let (data, done, result, pin) = {
            let mut state = self.state.lock(cx);
            let mut line = state.over[context];
            let id = state.ops.pop(&mut line);
            state.over[context] = line;
            let Some(id) = id else { return false };
            if let Some(Done(To::Cpu(waiter))) = state.ops.get(id).done {
                drop(state);
                self.ready[usize::from(id)].store(true, Ordering::Release);
                cpu::kick(waiter);
                return true;
            }
            state.ops.end(id)
        };
        self.slot_is_free();
        let pinned = self.this.upgrade().filter(|_| pin != NOBODY).map(|core| Pinned::new(core, pin));
        let outcome = Outcome { data, result, pinned };
        let lock = broken::is(Hazard::CompletesUnderLock).then(|| self.state.lock(cx));
        assert_unlocked("an operation completes");
        drop(lock);
        if let Some(Done(to)) = done {
            #[cfg(test)]
            if let (To::BottomHalf(who, cookie), true) = (&to, broken::is(Hazard::ToldTwice)) {
                let outcome = Outcome { data: undercroft_block::Data::None, result, pinned: None };
                tell(To::BottomHalf(who.clone(), *cookie), outcome);
            }
            tell(to, outcome);
        }
        true
    }

    /// A slot is free: whoever waits for one looks again.
    pub(super) fn slot_is_free(&self) {
        self.slots.fetch_add(1, Ordering::SeqCst);
        let mut waiting = self.waiting.swap(0, Ordering::SeqCst);
        while waiting != 0 {
            cpu::kick(waiting.trailing_zeros() as usize);
            waiting &= waiting - 1;
        }
    }

    pub(crate) fn unpin_now(&self, cx: &impl NotHardIrq, pin: u16) {
        self.state.lock(cx).unpin(usize::from(pin));
        self.drive(cx);
    }

    /// Has the bottom half unpin. Any context.
    pub(crate) fn unpin_later(&self, pin: u16) {
        let pin = usize::from(pin);
        self.unpinned[pin / 64].fetch_or(1 << (pin % 64), Ordering::AcqRel);
        self.bottom.schedule();
    }

    /// A handle is gone. Any context.
    pub(super) fn handle_gone(&self, handle: u16) {
        self.closed[usize::from(handle)].store(true, Ordering::Release);
        if self.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            *self.orphan.lock() = self.this.upgrade().filter(|_| !broken::is(Hazard::DirtyDropped));
        }
        self.bottom.schedule();
    }

    /// Does what those left behind that had no context for it.
    fn collect(&self, cx: &BottomHalf) {
        self.collect_asides(&mut self.state.lock(cx));
        for (word, bits) in self.unpinned.iter().enumerate() {
            let mut bits = bits.swap(0, Ordering::AcqRel);
            while bits != 0 {
                self.state.lock(cx).unpin(word * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
        for (handle, closed) in self.closed.iter().enumerate() {
            if closed.swap(false, Ordering::AcqRel) {
                self.state.lock(cx).errors.close(handle as u16);
            }
        }
        let orphaned = self.handles.load(Ordering::Acquire) == 0;
        self.state.lock(cx).back.hurry = orphaned;
    }

    fn is_orphan(&self) -> bool {
        self.handles.load(Ordering::Acquire) == 0 && self.orphan.lock().is_some()
    }

    /// Nobody has the volume any more: when all is written, or never can be, it goes.
    fn let_go_if_clean(&self, cx: &BottomHalf) {
        if self.handles.load(Ordering::Acquire) > 0 {
            return;
        }
        let (unwritten, dead, busy) = {
            let state = self.state.lock(cx);
            (state.table.unwritten(), state.dead.is_some(), state.ops.used() > 0)
        };
        if busy || unwritten > 0 && !dead {
            return;
        }
        let orphan = self.orphan.lock().take();
        if broken::is(Hazard::OrphanKept) {
            return ::core::mem::forget(orphan);
        }
        if orphan.is_some() && unwritten > 0 {
            log::error!("{}: gone with {unwritten} pages that were not written", self.device.identity().controller);
        }
        drop(orphan);
    }

    /// Whether the device can be written to at all.
    pub(super) fn is_read_only(&self) -> bool {
        self.device.info().features.contains(Features::READ_ONLY)
    }
}
