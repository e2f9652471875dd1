//! Disks of a machine under Hyper-V: the bus that they are on, and its controllers. Task context.

use alloc::sync::Arc;
use alloc::vec::Vec;

use undercroft_block::scsi::Host;
use undercroft_hal::hyperv::{Partition, StartError};
use undercroft_hal::{BottomHalf, Task};
use undercroft_storvsc::{BusWatcher, Settings, Storvsc, VmBus};

use crate::news::Attention;
use crate::report::Report;

/// Takes the hypervisor's interface into use.
pub type Start = fn(&Task) -> Result<Arc<Partition>, StartError>;

/// For a machine without it.
pub const NONE: Start = |_| Err(StartError::Unsupported);

/// The bus in use.
pub(crate) struct Vmbus {
    bus: VmBus,
    /// [`VmBus::changes`] when it was looked at last.
    seen: u32,
    /// Disks of IDE controllers that its controllers have.
    ide_disks: Vec<(u8, u8)>,
}

impl BusWatcher for Attention {
    fn changed(&self, _: &BottomHalf) {
        self.call();
    }
}

/// Connects with the host, if there is one.
pub(crate) fn connect(cx: &Task, start: Start, attention: &Arc<Attention>, report: &Report) -> Option<Vmbus> {
    let partition = match start(cx) {
        Ok(partition) => partition,
        Err(StartError::Unsupported) => return None,
        Err(error) => {
            report.problem(&format_args!("hyper-v: {error}"), None);
            return None;
        }
    };
    match VmBus::connect(cx, partition, &Settings::default()) {
        Ok(bus) => {
            bus.watch(Arc::clone(attention) as _);
            Some(Vmbus { bus, seen: 0, ide_disks: Vec::new() })
        }
        Err(error) => {
            report.problem(&format_args!("vmbus: {error}"), None);
            None
        }
    }
}

/// Ends the connection; the disks are gone.
pub(crate) fn leave(cx: &Task, vmbus: Option<Vmbus>, report: &Report) {
    if let Some(Vmbus { bus, .. }) = vmbus
        && !bus.close(cx)
    {
        report.problem(&"vmbus: the host does not let go", None);
    }
}

impl Vmbus {
    /// Whether the host offers something else than before.
    pub(crate) fn take_changes(&mut self) -> bool {
        let changes = self.bus.changes();
        core::mem::replace(&mut self.seen, changes) != changes
    }

    /// Takes the controllers into use that are offered.
    pub(crate) fn controllers(&mut self, cx: &Task, report: &Report) -> Vec<Arc<dyn Host>> {
        self.seen = self.bus.changes();
        let mut hosts: Vec<Arc<dyn Host>> = Vec::new();
        for offer in self.bus.offers() {
            match Storvsc::new(cx, &self.bus, &offer, Settings::default()) {
                Ok(host) => {
                    self.ide_disks.extend(host.ide_place());
                    hosts.push(Arc::new(host));
                }
                Err(error) => report.problem(&format_args!("vmbus {}: {error}", offer.instance), None),
            }
        }
        hosts
    }

    /// Disks that the driver of an IDE controller must leave alone: its channel, and the disk there.
    pub(crate) fn ide_disks(&self) -> &[(u8, u8)] {
        &self.ide_disks
    }
}
