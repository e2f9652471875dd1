//! virtio-scsi (virtio 1.2, 5.6): a SCSI host for [`undercroft_block::scsi`].
//!
//! Request queues are one per CPU as far as the device has them. The event queue's buffers are posted at the start and go back at once
//! when one was used. The control queue carries task management: aborts and resets. The path of a command allocates nothing.
//!
//! Made in task context; used as [`Host`] says.

mod config;
mod events;
mod manage;
mod protocol;
mod submit;
pub mod wire;

#[cfg(all(not(loom), test))]
mod tests;

use alloc::boxed::Box;
use alloc::sync::Arc;

use undercroft_block::Tag;
use undercroft_block::scsi::{Command, Host, HostIdentity, HostInfo, HostWatcher, Managed, Management, Refused};
use undercroft_hal::Task;
use undercroft_hal::cpu::{self, MAX_CPUS};
use undercroft_hal::dma::DmaConstraints;

use crate::ProbeError;
use crate::defect::Defects;
use crate::device::{Plan, RING_FEATURES, RequestQueues, Running, feature_names, route, start};
use crate::transport::{Transport, setup_with};
pub use manage::ManagementCounts;
pub use protocol::EventCounts;
use protocol::Scsi;
use wire::{ScsiFeatures, queue};

/// What the driver takes of what a device offers.
const WANTED: u64 = ScsiFeatures::HOTPLUG.union(ScsiFeatures::CHANGE).bits() | RING_FEATURES;

/// A virtio SCSI host.
///
/// Dropping it (task or bottom-half context, no lock held) resets the device; commands in flight then finish with
/// [`Response::Removed`](undercroft_block::scsi::Response::Removed) from a bottom half.
pub struct VirtioScsi {
    running: Running<Scsi>,
    identity: HostIdentity,
    info: HostInfo,
    /// The queue of each CPU.
    route: [u16; MAX_CPUS],
}

impl core::fmt::Debug for VirtioScsi {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("VirtioScsi").field("identity", &self.identity).field("info", &self.info).finish()
    }
}

impl VirtioScsi {
    /// Takes a SCSI host into use, of which `reach` says what memory it reaches.
    ///
    /// # Errors
    /// [`ProbeError`]; the device is left reset.
    pub fn new(cx: &Task, transport: Box<dyn Transport>, reach: DmaConstraints) -> Result<Self, ProbeError> {
        Self::with_defects(cx, transport, reach, Defects::default())
    }

    pub(crate) fn with_defects(
        cx: &Task,
        mut transport: Box<dyn Transport>,
        reach: DmaConstraints,
        defects: Defects,
    ) -> Result<Self, ProbeError> {
        let bits = setup_with(&mut *transport, WANTED, defects)?;
        config::fix_sizes(&mut *transport)?;
        let mut shape = config::read_shape(&*transport)?;
        shape.info.limits.dma = reach;
        let special = queue::REQUEST;
        let queues = RequestQueues::plan(&mut *transport, bits, special, shape.queues, &mut shape.info.limits);
        (shape.info.queues, shape.info.depth) = (queues.count, queues.depth);
        let plan =
            Plan { features: bits, queues: special + queues.count, special, max_size: queues.max_size, reach, defects };
        let (controller, legacy) = (transport.place(), transport.is_legacy());
        let running = start(cx, transport, plan, Scsi::new(shape.event_bytes))?;
        events::post_all(&running.device);
        let identity = HostIdentity {
            driver: "virtio-scsi",
            controller,
            interrupts: running.interrupts.clone(),
            transport: feature_names(legacy, bits),
        };
        Ok(Self { running, identity, info: shape.info, route: route(special, queues.count) })
    }

    /// What became of task management so far. Any context.
    pub fn management_counts(&self) -> ManagementCounts {
        self.running.device.protocol.management.counts()
    }

    /// What happened to the host's events so far. Any context.
    pub fn event_counts(&self) -> EventCounts {
        self.running.device.protocol.counts()
    }

    #[inline]
    fn here(&self) -> usize {
        usize::from(self.route[cpu::current() % MAX_CPUS])
    }
}

impl Host for VirtioScsi {
    fn identity(&self) -> &HostIdentity {
        &self.identity
    }

    fn info(&self) -> &HostInfo {
        &self.info
    }

    fn submit(&self, command: Command) -> Result<Tag, Refused> {
        let most = (self.info.max_target, self.info.max_lun);
        submit::submit(&self.running.device, self.here(), command, most)
    }

    fn commit(&self) {
        if let Some(queue) = self.running.device.queue(self.here()) {
            queue.commit();
        }
    }

    fn cancel(&self, tag: Tag) -> bool {
        self.manage(Management::Abort(tag)) == Managed::Asked
    }

    fn manage(&self, what: Management) -> Managed {
        manage::manage(&self.running.device, what)
    }

    fn watch(&self, watcher: Arc<dyn HostWatcher>) {
        self.running.device.protocol.watch(watcher);
    }
}
