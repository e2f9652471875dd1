//! A storage controller in use: commands in flight on its channels, its bottom halves, its life.
//!
//! # Life
//! ```text
//!           ┌───────────────── reopened ─────────────────┐
//! running ─ reset ─▶ closing ─▶ (torn down) ─▶ draining ─┘     what is left ends with `Reset`
//!    │
//!    └ rescinded, removed, broken ─▶ closing ─▶ (torn down) ─▶ draining ─▶ dead     what is left ends with the reason
//! ```
//! A command is finished when the host has answered it, or when the host has let go of the channel's pages and of everything that they
//! led to: a rescind says only that no answer will come, not that the data's memory is free. A host that does not let go keeps the
//! memory; the block layer's deadlines then answer for the device.
//!
//! # Contexts and locks
//! Each channel has a *lane*: its rings and its commands in flight under one lock of rank `QUEUE`, and one bottom half, which runs on one
//! CPU at a time ([`service`]). Submitters take the lock once per command and once per commit. Whatever waits for the host (opening, closing, the
//! initialisation) is done by the *keeper*, an item of the run queue of CPU 0 ([`life`]).

mod init;
mod lane;
mod life;
mod manage;
pub(crate) mod outcome;
pub(crate) mod packet;
mod service;
mod submit;

pub(crate) use lane::Lane;
pub(crate) use life::{Ask, farewell};
pub(crate) use submit::Bounds;

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};

use undercroft_block::Error;
use undercroft_block::scsi::{HostEvent, HostWatcher};
use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::work::{TaskWork, Turn};
use undercroft_hal::{BottomHalf, Task, cpu};

use crate::bus::{Client, Core, Guard, Offer};
use crate::defect::Defects;
use crate::wire::guid::Guid;
use crate::wire::vstor::Version;
use crate::{ProbeError, Settings};

/// What happened to a controller since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Commands that were answered.
    pub completions: u64,
    /// Batches in which answers were taken.
    pub batches: u64,
    /// Signals to the host because of commands, and because it waited for room.
    pub signals: u64,
    /// Times that the ring was full.
    pub full: u64,
    /// Packets from the host that nobody asked for: units that came and went.
    pub notices: u64,
    /// Of those, how many said something unknown.
    pub unclear: u64,
    /// Resets after which it went on.
    pub resets: u64,
    /// Resets of units and of the bus that the host said it has done.
    pub managed: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) completions: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) signals: AtomicU64,
    pub(crate) full: AtomicU64,
    pub(crate) notices: AtomicU64,
    pub(crate) unclear: AtomicU64,
    pub(crate) resets: AtomicU64,
    pub(crate) managed: AtomicU64,
}

impl Counters {
    pub(crate) fn read(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            completions: read(&self.completions),
            batches: read(&self.batches),
            signals: read(&self.signals),
            full: read(&self.full),
            notices: read(&self.notices),
            unclear: read(&self.unclear),
            resets: read(&self.resets),
            managed: read(&self.managed),
        }
    }

    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the initialisation found. Fixed from the first one on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Agreed {
    pub(crate) version: Version,
    /// Bytes of one transfer at most, as the host says.
    pub(crate) max_transfer: u32,
    /// Sub-channels that were asked for.
    pub(crate) sub_channels: u16,
}

/// Where the controller's units are, as its commands address them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A SCSI controller: targets and units are what they are called.
    Scsi,
    /// One disk of the emulated IDE controller: its channel and its number there. It is target 0, unit 0.
    Ide(u8, u8),
}

impl Place {
    pub(crate) fn of(offer: &Offer) -> Option<Self> {
        /// In the offer's own bytes: where the disk is, and that it is one of an IDE controller.
        const PATH: usize = 2;
        const TARGET: usize = 3;
        match offer.interface {
            Guid::SCSI => Some(Self::Scsi),
            Guid::IDE => Some(Self::Ide(offer.user[PATH], offer.user[TARGET])),
            _ => None,
        }
    }
}

/// The controller.
pub(crate) struct Controller {
    pub(crate) core: Arc<Core>,
    /// Its first channel. Another after a rescind: the device is then another too, so never here.
    pub(crate) offer: Offer,
    pub(crate) place: Place,
    pub(crate) settings: Settings,
    pub(crate) lanes: Box<[Lane]>,
    /// Lanes that take commands, from the first on.
    pub(crate) open: AtomicU16,
    pub(crate) agreed: IrqSpinLock<Option<Agreed>>,
    /// The storage protocol's version, for whoever has a lane's lock.
    pub(crate) version: AtomicU16,
    /// What the keeper is asked to do.
    asked: AtomicU32,
    /// The keeper is at work.
    busy: AtomicBool,
    pub(crate) over: AtomicBool,
    over_told: AtomicBool,
    /// Why, once nothing is taken any more.
    pub(crate) end: IrqSpinLock<Option<Error>>,
    /// Its channels are closed for good; and whether the host has let go of all of them.
    ended: AtomicBool,
    clean: AtomicBool,
    keeper: TaskWork,
    pub(crate) watcher: IrqSpinLock<Option<Arc<dyn HostWatcher>>>,
    pub(crate) counters: Counters,
    pub(crate) defects: Defects,
    /// Keeps the bus connected.
    _guard: Arc<Guard>,
}

impl Controller {
    /// A controller whose channels are not open yet. One lane per CPU that it may use, the first for its first channel.
    pub(crate) fn new(
        guard: Arc<Guard>,
        offer: Offer,
        settings: Settings,
        defects: Defects,
    ) -> Result<Arc<Self>, ProbeError> {
        let core = Arc::clone(guard.core());
        let place = Place::of(&offer).ok_or(ProbeError::Taken)?;
        let lanes = usize::from(settings.channels).clamp(1, cpu::count());
        let this = Arc::new_cyclic(|weak: &Weak<Self>| {
            let for_keeper = Weak::clone(weak);
            Self {
                core,
                offer,
                place,
                settings,
                lanes: (0..lanes).map(|index| Lane::new(index, weak, settings, defects)).collect::<Vec<_>>().into(),
                open: AtomicU16::new(0),
                agreed: IrqSpinLock::new(Rank::new(30), None),
                version: AtomicU16::new(Version::WIN10.0),
                asked: AtomicU32::new(0),
                busy: AtomicBool::new(false),
                over: AtomicBool::new(false),
                over_told: AtomicBool::new(false),
                end: IrqSpinLock::new(Rank::new(33), None),
                ended: AtomicBool::new(false),
                clean: AtomicBool::new(true),
                _guard: guard,
                keeper: TaskWork::new(0, move |cx: &Task| {
                    for_keeper.upgrade().map_or(Turn::Done, |controller| controller.keep(cx))
                }),
                watcher: IrqSpinLock::new(Rank::new(34), None),
                counters: Counters::default(),
                defects,
            }
        });
        let client: Weak<dyn Client> = Arc::downgrade(&this) as _;
        if this.core.claim(&offer, &client) { Ok(this) } else { Err(ProbeError::Taken) }
    }

    /// The lane of a CPU.
    #[inline]
    pub(crate) fn lane_here(&self) -> &Lane {
        let open = usize::from(self.open.load(Ordering::Acquire)).max(1);
        &self.lanes[cpu::current() % open]
    }

    pub(crate) fn version(&self) -> Version {
        Version(self.version.load(Ordering::Relaxed))
    }

    pub(crate) fn watch(&self, watcher: Arc<dyn HostWatcher>) {
        // Dropped after the lock: the last reference may run anything.
        let old = self.watcher.lock().replace(watcher);
        drop(old);
    }

    pub(crate) fn tell(&self, cx: &BottomHalf, event: HostEvent) {
        let watcher = self.watcher.lock().clone();
        if let Some(watcher) = watcher {
            watcher.event(cx, event);
        }
    }

    /// Signals the host, if that is due. No lock is held: the exit to the hypervisor may be long.
    pub(crate) fn signal(&self, connection: u32, due: bool) {
        if due {
            Counters::count(&self.counters.signals);
            if let Err(error) = self.core.partition.signal(connection, 0) {
                log::warn!("storvsc: a signal was refused: {error}");
            }
        }
    }
}

impl Client for Controller {
    fn rescinded(&self, channel: u32) {
        self.lanes.iter().for_each(|lane| lane.hold(channel));
        self.ask(Ask::LOOK);
    }

    fn offered(&self, _: &Offer) {
        self.ask(Ask::LOOK);
    }
}
