//! [`VmBus`]: the connection with the host, as users see it.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use undercroft_hal::Task;
use undercroft_hal::hyperv::Partition;

use crate::bus::{BusCounts, BusWatcher, Core, Guard, Offer, PATIENCE, poll};
use crate::defect::Defects;
use crate::wire::guid::Guid;
use crate::wire::message::Version;
use crate::{BusError, Settings};

/// The connection with the host.
///
/// It lasts as long as anybody has it or a controller on it. After that it is unloaded and the hypervisor's interface is given back, from the
/// run queue of CPU 0; [`VmBus::unload`] does so at once.
pub struct VmBus {
    pub(crate) guard: Arc<Guard>,
}

impl core::fmt::Debug for VmBus {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("VmBus").field("version", &self.version()).field("counts", &self.counts()).finish()
    }
}

impl VmBus {
    /// Connects with the host, by the newest version that both know, and has it send its offers. Task context.
    ///
    /// # Errors
    /// [`BusError`]; the interface is given back where the host is not connected.
    pub fn connect(cx: &Task, partition: Arc<Partition>, settings: &Settings) -> Result<Self, BusError> {
        Self::with_defects(cx, partition, settings, Defects::default())
    }

    pub(crate) fn with_defects(
        cx: &Task,
        partition: Arc<Partition>,
        settings: &Settings,
        defects: Defects,
    ) -> Result<Self, BusError> {
        let core = Core::new(partition, defects);
        let connected = core.connect(cx, settings.newest_bus);
        match connected {
            Ok(()) => Ok(Self { guard: Guard::new(core) }),
            Err(error) => {
                core.leave(cx);
                Err(error)
            }
        }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        self.guard.core()
    }

    /// Storage controllers that the host offers and that nobody uses: SCSI controllers, and the fast channels of IDE disks. Allocates.
    pub fn offers(&self) -> Vec<Offer> {
        let mut offers = self.core().offers();
        offers.retain(|offer| matches!(offer.interface, Guid::SCSI | Guid::IDE));
        offers
    }

    /// How often [`VmBus::offers`] has changed by itself. Any context.
    pub fn changes(&self) -> u32 {
        self.core().changes.load(Ordering::Acquire)
    }

    /// Sets who is told of that, replacing the one before. Task or bottom-half context.
    pub fn watch(&self, watcher: Arc<dyn BusWatcher>) {
        self.core().watch(watcher);
    }

    /// The version that both speak.
    pub fn version(&self) -> Version {
        self.core().version()
    }

    /// The hypervisor's interface below.
    pub fn partition(&self) -> &Arc<Partition> {
        &self.core().partition
    }

    /// What happened so far.
    pub fn counts(&self) -> BusCounts {
        self.core().counts()
    }

    /// Ends the connection: controllers that are in use are gone ([`HostEvent::Gone`](undercroft_block::scsi::HostEvent::Gone)), their commands
    /// end with [`Response::Removed`](undercroft_block::scsi::Response::Removed), and the host uses no memory of this guest any more.
    /// `false`: it did not say so, and what it may use stays allocated. Task context.
    pub fn unload(&self, cx: &Task) -> bool {
        self.core().hold_all();
        self.core().leave(cx)
    }

    /// Waits until nobody has a controller any more, and ends the connection. `false`: somebody has one still, or the host did not say that it is
    /// over. Task context.
    pub fn close(self, cx: &Task) -> bool {
        poll(cx, PATIENCE, || Arc::strong_count(&self.guard) == 1) && self.core().leave(cx)
    }
}
