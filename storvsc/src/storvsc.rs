//! [`Storvsc`]: a controller, as the SCSI layer sees it.

use alloc::format;
use alloc::sync::Arc;

use undercroft_block::scsi::{Command, Host, HostIdentity, HostInfo, HostWatcher, Managed, Management, Refused};
use undercroft_block::{Limits, Tag};
use undercroft_hal::Task;
use undercroft_hal::dma::DmaConstraints;
use undercroft_hal::work::TaskWork;

use crate::bus::Offer;
use crate::defect::Defects;
use crate::host::packet::head_bytes;
use crate::host::{Ask, Bounds, Controller, Counts, Place, farewell};
use crate::ring::Sender;
use crate::wire::vstor::{MAX_LUN, PACKET};
use crate::wire::{PAGE, ring};
use crate::{BusError, ProbeError, Settings, VmBus};

/// Bytes of one transfer at most: the driver's own limit.
const MAX_TRANSFER: u32 = 1 << 20;
/// The highest target that is looked at: no host is known to have others.
const MAX_TARGET: u16 = 2;

/// A storage controller on VMBus. One ring per channel; the path of a command allocates nothing.
///
/// Dropping it (task or bottom-half context, no lock held) closes its channels from the run queue of CPU 0; commands in flight then finish
/// with [`Response::Removed`](undercroft_block::scsi::Response::Removed) from a bottom half.
pub struct Storvsc {
    controller: Arc<Controller>,
    identity: HostIdentity,
    info: HostInfo,
    bounds: Bounds,
    farewell: Option<TaskWork>,
}

impl core::fmt::Debug for Storvsc {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Storvsc").field("identity", &self.identity).field("info", &self.info).finish()
    }
}

/// Pages that a packet carries at most, in a ring of `pages` pages.
fn most_pages(pages: u32) -> u32 {
    let longest = Sender::<crate::ring::Up>::longest(pages * PAGE as u32);
    (longest - head_bytes(0) - PACKET as u32 - ring::TRAILER as u32) / 8
}

impl Storvsc {
    /// Takes a controller that is offered into use. Task context.
    ///
    /// # Errors
    /// [`ProbeError`]; the controller is left closed.
    pub fn new(cx: &Task, bus: &VmBus, offer: &Offer, settings: Settings) -> Result<Self, ProbeError> {
        Self::with_defects(cx, bus, offer, settings, Defects::default())
    }

    pub(crate) fn with_defects(
        cx: &Task,
        bus: &VmBus,
        offer: &Offer,
        settings: Settings,
        defects: Defects,
    ) -> Result<Self, ProbeError> {
        let controller = Controller::new(Arc::clone(&bus.guard), *offer, settings, defects)?;
        let owned = Arc::clone(&controller);
        let work = TaskWork::new(0, move |cx: &Task| farewell(&owned, cx));
        let agreed = match controller.bring_up(cx) {
            Ok(agreed) => agreed,
            Err(error) => {
                // What the host does not let go of must outlive us.
                work.schedule();
                work.detach();
                return Err(error);
            }
        };
        let version = agreed.version;
        // One page more than the data has: it may begin in the middle of one.
        let by_ring = (most_pages(settings.pages_up.max(1)) - 1) * PAGE as u32;
        let by_host = if agreed.max_transfer == 0 { MAX_TRANSFER } else { agreed.max_transfer };
        let max_transfer = MAX_TRANSFER.min(by_ring).min(by_host) / 512 * 512;
        let lanes = u32::from(controller.open_lanes().max(1));
        let (max_target, max_lun) = match controller.place {
            Place::Scsi => (MAX_TARGET, MAX_LUN),
            Place::Ide(..) => (0, 0),
        };
        let identity = HostIdentity {
            driver: "storvsc",
            controller: match controller.place {
                Place::Scsi => format!("vmbus {}", offer.instance),
                Place::Ide(path, target) => format!("vmbus ide {path}:{target}"),
            },
            interrupts: format!("synic:{lanes}"),
            transport: format!("vmbus-{} vstor-{version}", bus.version()),
        };
        let info = HostInfo {
            max_target,
            max_lun,
            queues: lanes as u16,
            depth: lanes * u32::from(settings.depth.max(1)),
            depth_per_lun: 0,
            limits: Limits {
                max_segments: (max_transfer / 512).min(u32::from(u16::MAX)) as u16,
                max_segment_bytes: max_transfer,
                joint: PAGE as u32,
                max_transfer_bytes: max_transfer,
                max_discard_blocks: 0,
                max_write_zeroes_blocks: 0,
                dma: DmaConstraints::ANY,
            },
        };
        let bounds = Bounds { max_target, max_lun, max_transfer, version };
        Ok(Self { controller, identity, info, bounds, farewell: Some(work) })
    }

    /// What happened to the controller so far. Any context.
    pub fn counts(&self) -> Counts {
        self.controller.counters.read()
    }

    /// Channels in use.
    pub fn channels(&self) -> u16 {
        self.controller.open_lanes()
    }

    /// For an IDE disk's channel: which channel of the IDE controller, and which disk there. Whoever drives the IDE controller leaves that one
    /// alone: it is the same disk.
    pub fn ide_place(&self) -> Option<(u8, u8)> {
        match self.controller.place {
            Place::Ide(path, target) => Some((path, target)),
            Place::Scsi => None,
        }
    }

    /// Has the signals of channel `index` go to another CPU (VMBus 4.1 and later). Its bottom half stays where it is. Task context.
    ///
    /// # Errors
    /// [`BusError`]; the signals go where they went.
    pub fn move_channel(&self, cx: &Task, index: usize, cpu: usize) -> Result<(), BusError> {
        self.controller.move_to(cx, index, cpu)
    }
}

impl Drop for Storvsc {
    fn drop(&mut self) {
        self.controller.ask(Ask::STOP);
        let Some(farewell) = self.farewell.take() else { return };
        farewell.schedule();
        farewell.detach();
    }
}

impl Host for Storvsc {
    fn identity(&self) -> &HostIdentity {
        &self.identity
    }

    fn info(&self) -> &HostInfo {
        &self.info
    }

    fn submit(&self, command: Command) -> Result<Tag, Refused> {
        self.controller.submit(command, self.bounds)
    }

    fn commit(&self) {
        self.controller.commit();
    }

    fn cancel(&self, tag: Tag) -> bool {
        self.manage(Management::Abort(tag)) == Managed::Asked
    }

    fn manage(&self, what: Management) -> Managed {
        self.controller.manage(what)
    }

    fn watch(&self, watcher: Arc<dyn HostWatcher>) {
        self.controller.watch(watcher);
    }
}
