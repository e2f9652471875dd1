//! What virtio-blk keeps and does per request (virtio 1.2, 5.2.6). Bottom-half context unless said otherwise.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use undercroft_block::{Error, Event, Features, InFlight, Info, Request, Watcher};
use undercroft_hal::BottomHalf;
use undercroft_hal::sync::{IrqSpinLock, Rank};

use super::cache::Switch;
use super::config::read_changing;
use super::wire::{BlkFeatures, ID_BYTES, RequestStatus};
use crate::ProbeError;
use crate::device::{Breach, Device, Frames, From, Protocol};
use crate::queue::Used;
use crate::transport::Transport;

/// Offsets in a chain's frame, in bytes.
pub(super) mod frame {
    /// The request's header.
    pub(in crate::blk) const HEADER: usize = 0;
    /// The status byte, and what is preset with it.
    pub(in crate::blk) const STATUS: usize = 16;
    /// The range of a discard, or the answer to `GET_ID`.
    pub(in crate::blk) const DATA: usize = 24;
    /// All of it.
    pub(in crate::blk) const BYTES: usize = 64;
}

/// What a chain in flight carries.
#[derive(Debug)]
pub(super) enum Slot {
    /// A submitter's request.
    Request(InFlight),
    /// The question for the serial number.
    Identify,
}

/// The answer to the question for the serial number.
#[derive(Debug, Clone, Copy)]
pub(super) enum Serial {
    /// Not there yet.
    Pending,
    /// The device has none.
    None,
    /// As the device wrote it.
    Bytes([u8; ID_BYTES]),
}

/// virtio-blk.
pub(super) struct Blk {
    /// All but the capacity and the cache's state.
    fixed: Info,
    features: BlkFeatures,
    pub(super) shift: u32,
    capacity: AtomicU64,
    writeback: AtomicBool,
    pub(super) serial: IrqSpinLock<Serial>,
    watcher: IrqSpinLock<Option<Arc<dyn Watcher>>>,
    pub(super) switch: Switch,
}

/// Inside a queue's lock.
const INNER: Rank = Rank::new(34);

impl Blk {
    pub(super) fn new(info: Info, features: BlkFeatures, shift: u32) -> Self {
        Self {
            fixed: info,
            features,
            shift,
            capacity: AtomicU64::new(info.capacity),
            writeback: AtomicBool::new(info.features.contains(Features::VOLATILE_CACHE)),
            serial: IrqSpinLock::new(INNER, Serial::Pending),
            watcher: IrqSpinLock::new(INNER, None),
            switch: Switch::default(),
        }
    }

    /// The device's present shape. Any context.
    #[inline]
    pub(super) fn info(&self) -> Info {
        let mut info = self.fixed;
        info.capacity = self.capacity.load(Ordering::Relaxed);
        let volatile = self.writeback.load(Ordering::Relaxed) || self.switch.keeps_volatile();
        info.features.set(Features::VOLATILE_CACHE, volatile);
        info
    }

    /// Whether the device takes a request. Any context.
    #[inline]
    pub(super) fn check(&self, request: &Request) -> Result<(), Error> {
        request.check_within(&self.fixed, self.capacity.load(Ordering::Relaxed))
    }

    /// Whether all of these features are agreed on. Any context.
    pub(super) const fn has(&self, features: BlkFeatures) -> bool {
        self.features.contains(features)
    }

    /// Whether the device takes flushes. Any context.
    pub(super) const fn flushes(&self) -> bool {
        self.has(BlkFeatures::FLUSH)
    }

    pub(super) fn watch(&self, watcher: Arc<dyn Watcher>) {
        // Dropped after the lock: the last reference may run anything.
        let old = self.watcher.lock().replace(watcher);
        drop(old);
    }

    fn tell(&self, cx: &BottomHalf, event: Event) {
        let watcher = self.watcher.lock().clone();
        if let Some(watcher) = watcher {
            watcher.event(cx, event);
        }
    }
}

impl Protocol for Blk {
    type Slot = Slot;
    type Reply = RequestStatus;
    type Aside = ();
    /// Capacity in blocks and whether the cache is volatile; `None` if the configuration never stayed the same.
    type News = Option<(u64, bool)>;
    const FRAME: usize = frame::BYTES;

    #[inline]
    fn reply(&self, frames: &Frames, used: Used, slot: &Slot, (): &mut ()) -> Result<RequestStatus, Breach> {
        // The used index was loaded with acquire before: this is what the device wrote before it returned the chain.
        let status = RequestStatus(frames.read(used.head, frame::STATUS));
        if let Slot::Identify = slot {
            *self.serial.lock() = match status {
                RequestStatus::OK => Serial::Bytes(frames.read(used.head, frame::DATA)),
                _ => Serial::None,
            };
        }
        // A device that returns a chain without a status has not carried it out, and may still do so.
        if status == RequestStatus::UNTOUCHED { Err(Breach) } else { Ok(status) }
    }

    #[inline]
    fn finish(&self, cx: &BottomHalf, _from: From<'_, Self>, slot: Slot, reply: &RequestStatus) {
        let Slot::Request(request) = slot else { return };
        let result = match *reply {
            RequestStatus::OK => Ok(()),
            RequestStatus::UNSUPP => Err(Error::Unsupported),
            // IOERR, and what a later revision may add: an error is never reported as success.
            _ => Err(Error::Medium),
        };
        request.finish(cx, result);
    }

    fn finish_idle(&self, cx: &BottomHalf, slot: Slot) {
        if let Slot::Request(request) = slot {
            request.finish(cx, Ok(()));
        }
    }

    fn end(&self, cx: &BottomHalf, slot: Slot, error: Error) {
        match slot {
            Slot::Request(request) => request.finish(cx, Err(error)),
            // A device that was reset while it was asked who it is stays without a name.
            Slot::Identify if matches!(error, Error::Reset | Error::NotStarted) => *self.serial.lock() = Serial::None,
            Slot::Identify => {}
        }
    }

    fn room(&self, cx: &BottomHalf, _queue: u16) {
        self.tell(cx, Event::Room);
    }

    fn prepare(&self, transport: &mut dyn Transport) -> Result<(), ProbeError> {
        self.switch.apply(transport);
        Ok(())
    }

    fn settings(&self, transport: &mut dyn Transport) {
        self.switch.apply(transport);
    }

    fn restarted(&self, cx: &BottomHalf, _device: &Device<Self>, news: Self::News) {
        self.config_changed(cx, news);
    }

    fn look(&self, transport: &dyn Transport) -> Self::News {
        read_changing(transport, self.features, self.shift).ok()
    }

    fn config_changed(&self, cx: &BottomHalf, news: Self::News) {
        let Some((capacity, writeback)) = news else { return };
        self.writeback.store(writeback, Ordering::Relaxed);
        if self.capacity.swap(capacity, Ordering::Relaxed) != capacity {
            self.tell(cx, Event::Resized);
        }
    }

    fn over(&self, cx: &BottomHalf) {
        self.tell(cx, Event::Removed);
    }
}
