//! What a disk knows and what becomes of its commands.

use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use arrayvec::ArrayVec;
use undercroft_hal::BottomHalf;
use undercroft_hal::dma::DmaBuf;
use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::work::BottomHalfWork;

use super::super::command::Step;
use super::super::verdict::{Notices, Verdict, judge};
use super::super::wire::OpCode;
use super::super::{Address, Command, Direction, Host, HostEvent, Initiator, Outcome, Response, Status};
use super::again::Parked;
use crate::broken::{self, Hazard};
use crate::{Error, Event, Features, Identity, Info, Limits, Op, Request, Watcher};

/// Discards and writes of zeroes in flight at most.
pub(in crate::scsi) const PARAMETER_BUFFERS: usize = 4;

/// How the device discards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scsi) enum DiscardBy {
    Unmap,
    WriteSame,
}

/// What the probe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scsi) struct Shape {
    pub capacity: u64,
    pub block_size: u32,
    pub physical_block_size: u32,
    pub features: Features,
    pub limits: Limits,
    pub discard: Option<DiscardBy>,
    /// What the caching page said, if there is one.
    pub write_cache: Option<bool>,
}

/// How to flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sync {
    Ten,
    Sixteen,
    /// The device knows neither command: it has no cache.
    NoCache,
}

/// A disk's state. Reference-counted, because each command in flight knows it.
pub(in crate::scsi) struct Unit {
    /// Weakly: a host has its commands in flight, and those their disk. One that never gives them back would keep itself alive.
    pub host: Weak<dyn Host>,
    /// All but the capacity.
    fixed: Info,
    /// In a control: as if it were not weakly.
    _kept: Option<Arc<dyn Host>>,
    pub address: Address,
    pub identity: Identity,
    pub shape: Shape,
    depth: u32,
    capacity: AtomicU64,
    /// Commands in flight, parked ones included.
    in_flight: AtomicU32,
    /// A submitter was refused and waits for room.
    refused: AtomicBool,
    gone: AtomicBool,
    /// A scan has not found it any more, and its watcher is to be told.
    vanished: AtomicBool,
    sync: AtomicU8,
    /// The caching page does not say that there is a cache (any more).
    may_have_no_cache: AtomicBool,
    /// Writes done, and how many of them a flush has covered.
    written: AtomicU64,
    flushed: AtomicU64,
    /// Writes were lost: the next flush must fail.
    lost: AtomicBool,
    /// Zero at rest.
    pub(super) parameter_buffers: IrqSpinLock<ArrayVec<DmaBuf, PARAMETER_BUFFERS>>,
    pub(super) parked: IrqSpinLock<VecDeque<Parked>>,
    /// How often the host has told of room.
    pub(super) rooms: AtomicU32,
    pub(super) pump: BottomHalfWork,
    pub(super) watcher: IrqSpinLock<Option<Arc<dyn Watcher>>>,
}

impl Unit {
    /// A disk of this shape. Allocates everything that its requests will need. Task context.
    pub fn new(
        host: &Arc<dyn Host>,
        address: Address,
        identity: Identity,
        shape: Shape,
        parameter_buffers: ArrayVec<DmaBuf, PARAMETER_BUFFERS>,
    ) -> Arc<Self> {
        let info = host.info();
        let depth = if info.depth_per_lun == 0 { info.depth } else { info.depth.min(info.depth_per_lun) }.max(1);
        Arc::new_cyclic(|this: &Weak<Self>| {
            let weak = Weak::clone(this);
            Self {
                host: Arc::downgrade(host),
                fixed: Info {
                    capacity: shape.capacity,
                    block_size: shape.block_size,
                    physical_block_size: shape.physical_block_size,
                    queues: info.queues,
                    depth,
                    features: shape.features,
                    limits: shape.limits,
                },
                _kept: broken::is(Hazard::UnitKeepsHost).then(|| Arc::clone(host)),
                address,
                identity,
                shape,
                depth,
                capacity: AtomicU64::new(shape.capacity),
                in_flight: AtomicU32::new(0),
                refused: AtomicBool::new(false),
                gone: AtomicBool::new(false),
                vanished: AtomicBool::new(false),
                sync: AtomicU8::new(Sync::Ten as u8),
                may_have_no_cache: AtomicBool::new(shape.write_cache != Some(true)),
                written: AtomicU64::new(0),
                flushed: AtomicU64::new(0),
                lost: AtomicBool::new(false),
                parameter_buffers: IrqSpinLock::new(Rank::BLOCK, parameter_buffers),
                parked: IrqSpinLock::new(Rank::BLOCK, VecDeque::with_capacity(depth as usize)),
                rooms: AtomicU32::new(0),
                pump: BottomHalfWork::new(undercroft_hal::cpu::current(), move |cx| Self::pump_weak(&weak, cx)),
                watcher: IrqSpinLock::new(Rank::BLOCK, None),
            }
        })
    }

    pub(super) fn info(&self) -> Info {
        Info { capacity: self.capacity.load(Ordering::Relaxed), ..self.fixed }
    }

    /// Whether the disk takes a request.
    #[inline]
    pub(super) fn check(&self, request: &Request) -> Result<(), Error> {
        request.check_within(&self.fixed, self.capacity.load(Ordering::Relaxed))
    }

    pub(super) const fn features(&self) -> Features {
        self.fixed.features
    }

    pub(super) fn watch(&self, watcher: Arc<dyn Watcher>) {
        let before = self.watcher.lock().replace(watcher);
        drop(before);
    }

    pub(super) fn gone(&self) -> Option<Error> {
        self.gone.load(Ordering::Acquire).then_some(Error::Removed)
    }

    /// Sets the capacity that a later READ CAPACITY found.
    pub fn resize(&self, capacity: u64) {
        self.capacity.store(capacity, Ordering::Relaxed);
    }

    /// Counts a command in; `false` when the disk's share of the host is used up.
    #[inline]
    pub(super) fn enter(&self) -> bool {
        self.try_enter() || {
            self.want_room();
            // A command may have ended just before its end could see that room is wanted.
            self.try_enter()
        }
    }

    #[inline]
    fn try_enter(&self) -> bool {
        let entered = self.in_flight.fetch_add(1, Ordering::SeqCst) < self.depth;
        if !entered {
            self.in_flight.fetch_sub(1, Ordering::SeqCst);
        }
        entered
    }

    /// Counts a command out.
    pub(super) fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
    }

    pub(super) fn want_room(&self) {
        // SeqCst, as in `end`: of a refused submitter and the end of the last command one sees the other.
        self.refused.store(true, Ordering::SeqCst);
    }

    pub(super) fn sync(&self) -> Sync {
        match self.sync.load(Ordering::Relaxed) {
            0 => Sync::Ten,
            1 => Sync::Sixteen,
            _ => Sync::NoCache,
        }
    }

    /// Makes a command the flush of all writes finished so far.
    pub(super) fn begin_flush(&self, command: &mut Command) {
        command.frame_mut().step = Step::Flush;
        command.frame_mut().mark = self.written.load(Ordering::Acquire);
        command.frame_mut().cdb = self.flush_cdb();
        command.frame_mut().direction = Direction::None;
    }

    /// Ends a command and its request.
    fn end(&self, cx: &BottomHalf, mut command: Command, result: Result<(), Error>) {
        if command.frame().parameters.is_some() {
            self.give_parameters(command.frame_mut().parameters.take());
        }
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        command.request.finish(cx, result);
        if self.refused.load(Ordering::SeqCst) && self.refused.swap(false, Ordering::SeqCst) {
            self.tell(cx, Event::Room);
        }
    }

    pub(super) fn fail(&self, cx: &BottomHalf, command: Command, error: Error) {
        self.end(cx, command, Err(error));
    }

    /// The device did what the command asked.
    fn succeeded(self: Arc<Self>, cx: &BottomHalf, mut command: Command, residual: u32) {
        if command.frame().step == Step::Flush {
            self.flushed.fetch_max(command.frame().mark, Ordering::AcqRel);
            let result = if self.lost.swap(false, Ordering::AcqRel) { Err(Error::Reset) } else { Ok(()) };
            return self.end(cx, command, result);
        }
        let request = command.request.request();
        // UNMAP and WRITE SAME move parameters, whose residual says nothing of the blocks.
        if residual != 0 && matches!(request.op, Op::Read | Op::Write) {
            return self.end(cx, command, Err(Error::ShortTransfer));
        }
        let through = request.op == Op::Write && request.fua && self.features().contains(Features::FUA);
        if request.op == Op::Read || through {
            return self.end(cx, command, Ok(()));
        }
        self.written.fetch_add(1, Ordering::AcqRel);
        if !request.fua {
            return self.end(cx, command, Ok(()));
        }
        // Durable on completion, on a device that has no such flag: a flush follows.
        self.begin_flush(&mut command);
        command.frame_mut().attempts = 0;
        self.send_again(cx, command, Error::Busy);
    }

    /// The device refused a flush: is there another way, or nothing to do?
    fn flush_refused(self: Arc<Self>, cx: &BottomHalf, mut command: Command, unknown_command: bool) {
        if command.frame().cdb.opcode() == OpCode::SYNCHRONIZE_CACHE_10.0 {
            if unknown_command {
                self.sync.store(Sync::Sixteen as u8, Ordering::Relaxed);
            }
            command.frame_mut().cdb = Self::flush_16();
            return self.send_again(cx, command, Error::Busy);
        }
        if unknown_command && self.sync() != Sync::Ten && self.may_have_no_cache.load(Ordering::Relaxed) {
            self.sync.store(Sync::NoCache as u8, Ordering::Relaxed);
            return self.succeeded(cx, command, 0);
        }
        if broken::is(Hazard::RefusedFlushIsDone) {
            return self.succeeded(cx, command, 0);
        }
        self.end(cx, command, Err(Error::Unsupported));
    }

    /// Acts on what an outcome told of the unit.
    fn note(&self, cx: &BottomHalf, notices: Notices) {
        if notices.contains(Notices::CACHE_LOST)
            && self.shape.write_cache != Some(false)
            && self.written.load(Ordering::Acquire) > self.flushed.load(Ordering::Acquire)
        {
            self.lost.store(true, Ordering::Release);
        }
        if notices.contains(Notices::MODE) {
            // There may be a cache now: the next flush asks again.
            self.sync.store(Sync::Ten as u8, Ordering::Relaxed);
        }
        if notices.contains(Notices::MEDIUM) {
            self.tell(cx, Event::MediaChanged);
        }
        if notices.contains(Notices::CAPACITY) {
            self.tell(cx, Event::Resized);
        }
    }

    /// The unit is not there any more, as a scan found: takes nothing any more, and tells its watcher from a bottom half. Any context.
    pub fn vanish(&self) {
        if !self.gone.swap(true, Ordering::AcqRel) {
            self.vanished.store(true, Ordering::Release);
            self.pump.schedule();
        }
    }

    /// Tells of [`Unit::vanish`], once.
    pub(super) fn tell_vanished(&self, cx: &BottomHalf) {
        if self.vanished.swap(false, Ordering::AcqRel) {
            self.tell(cx, Event::Removed);
        }
    }

    /// Something happened to the host.
    pub fn host_event(&self, cx: &BottomHalf, event: HostEvent) {
        match event {
            HostEvent::Room => {
                // Who waits already goes first.
                self.room();
                if self.refused.swap(false, Ordering::SeqCst) {
                    self.tell(cx, Event::Room);
                }
            }
            HostEvent::Removed(address) if address != self.address => {}
            HostEvent::Removed(_) | HostEvent::Gone => {
                self.gone.store(true, Ordering::Release);
                self.room();
                self.tell(cx, Event::Removed);
            }
            HostEvent::Changed(address, 0x2a, 0x09) if address == self.address => self.tell(cx, Event::Resized),
            HostEvent::Changed(..) | HostEvent::Added(_) | HostEvent::Rescan => {}
        }
    }
}

impl Initiator for Unit {
    fn done(self: Arc<Self>, cx: &BottomHalf, command: Command, outcome: &Outcome<'_>) {
        if outcome.response == Response::Complete && outcome.status == Status::GOOD {
            return self.succeeded(cx, command, outcome.residual);
        }
        let (verdict, notices) = judge(outcome);
        if !notices.is_empty() {
            self.note(cx, notices);
        }
        match verdict {
            Verdict::Done => self.succeeded(cx, command, outcome.residual),
            Verdict::Again(error) => self.again(cx, command, error),
            Verdict::Later(error) => self.later(cx, command, error),
            Verdict::Failed(Error::Unsupported) if command.frame().step == Step::Flush => {
                self.flush_refused(cx, command, notices.contains(Notices::NO_SUCH_COMMAND));
            }
            Verdict::Failed(error) => self.end(cx, command, Err(error)),
        }
    }
}
