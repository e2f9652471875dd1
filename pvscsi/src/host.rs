//! [`Pvscsi`], and finding it.

use alloc::format;
use alloc::string::ToString;
use alloc::sync::Arc;

use undercroft_block::scsi::{Command, Host, HostIdentity, HostInfo, HostWatcher, Managed, Management, Refused};
use undercroft_block::{Limits, Tag};
use undercroft_hal::Task;
use undercroft_hal::dma::DmaConstraints;
use undercroft_hal::pci::Function;

use crate::adapter::{Counts, MAX_TRANSFER, Running, start};
use crate::defect::Defects;
use crate::tables::MAX_PIECES;
use crate::{ProbeError, wire};

/// The highest LUN that flat addressing carries (SAM-5 4.7.7.3).
const MAX_LUN: u32 = 0x3fff;

/// A PVSCSI host adapter. One ring for all CPUs; the path of a command allocates nothing.
///
/// Dropping it (task or bottom-half context, no lock held) resets the adapter; commands in flight then finish with
/// [`Response::Removed`](undercroft_block::scsi::Response::Removed) from a bottom half.
pub struct Pvscsi {
    running: Running,
    identity: HostIdentity,
    info: HostInfo,
}

impl core::fmt::Debug for Pvscsi {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Pvscsi").field("identity", &self.identity).field("info", &self.info).finish()
    }
}

/// Takes a PCI function into use. `None` if it is no PVSCSI adapter. Task context.
///
/// # Errors
/// [`ProbeError`]; the adapter is left reset.
pub fn probe(cx: &Task, function: Function) -> Result<Option<Arc<Pvscsi>>, ProbeError> {
    if (function.vendor, function.device) != (wire::VENDOR, wire::DEVICE) {
        return Ok(None);
    }
    Pvscsi::new(cx, function).map(|host| Some(Arc::new(host)))
}

impl Pvscsi {
    /// Takes an adapter into use. Task context.
    ///
    /// # Errors
    /// [`ProbeError`]; the adapter is left reset.
    pub fn new(cx: &Task, function: Function) -> Result<Self, ProbeError> {
        Self::with_defects(cx, function, Defects::default())
    }

    pub(crate) fn with_defects(cx: &Task, function: Function, defects: Defects) -> Result<Self, ProbeError> {
        let running = start(cx, function, defects)?;
        let identity = HostIdentity {
            driver: "pvscsi",
            controller: format!("pci {}", function.address),
            interrupts: running.interrupts.to_string(),
            transport: running.features().to_string(),
        };
        let info = HostInfo {
            max_target: running.max_target,
            max_lun: MAX_LUN,
            queues: 1,
            depth: running.depth,
            depth_per_lun: 0,
            limits: Limits {
                max_segments: MAX_PIECES as u16,
                max_segment_bytes: MAX_TRANSFER,
                joint: 0,
                max_transfer_bytes: MAX_TRANSFER,
                max_discard_blocks: 0,
                max_write_zeroes_blocks: 0,
                dma: DmaConstraints::ANY,
            },
        };
        Ok(Self { running, identity, info })
    }

    /// What happened to the adapter so far. Any context.
    pub fn counts(&self) -> Counts {
        self.running.adapter.counters.read()
    }
}

impl Host for Pvscsi {
    fn identity(&self) -> &HostIdentity {
        &self.identity
    }

    fn info(&self) -> &HostInfo {
        &self.info
    }

    fn submit(&self, command: Command) -> Result<Tag, Refused> {
        self.running.adapter.submit(command, (self.info.max_target, self.info.max_lun))
    }

    fn commit(&self) {
        self.running.adapter.commit();
    }

    fn cancel(&self, tag: Tag) -> bool {
        self.manage(Management::Abort(tag)) == Managed::Asked
    }

    fn manage(&self, what: Management) -> Managed {
        self.running.adapter.manage(what)
    }

    fn watch(&self, watcher: Arc<dyn HostWatcher>) {
        self.running.adapter.watch(watcher);
    }
}
