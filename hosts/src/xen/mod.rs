//! Xen: the hypervisor interface, xenstore, and the back end of its disks.
//!
//! Source: Xen's public headers (`xen/include/public`): `event_channel.h`, `grant_table.h`, `memory.h`, `hvm/`, `vcpu.h`, `io/xs_wire.h`,
//! `io/xenbus.h`, `io/blkif.h`, `io/ring.h`; `docs/misc/xenstore.txt`; and the project's notes of runs under the real one. Written from the
//! host's side; nothing is shared with the driver.
//!
//! A [`Xen`] is a hypervisor with one guest, the server of xenstore and the back ends, all in one state machine without threads, that a
//! [`Machine`](crate::Machine) runs under by way of [`Plugged`]. It is honest by default, notes every breach of the interface by the guest
//! ([`Breach`]), counts what costs ([`Counts`]), and takes a script of faults ([`Faults`]).
//!
//! It looks at a ring only when it was notified: a guest that loses a notification hangs. What a back end maps it keeps as long as the
//! protocol lets it, and looks at each turn whether the guest has taken it away; it reads and writes pages at any time between a request and
//! its answer, and after that if it may.
//!
//! ```
//! use undercroft_hal::hosted::ThisMachine;
//! use undercroft_hal::xen::Domain;
//! use undercroft_hosts::xen::{Plugged, Settings, VbdSettings, Xen};
//! use undercroft_hosts::{Config, Disk, Machine};
//!
//! let machine = Machine::new(Config::default());
//! let mut host = Xen::new(Settings::default());
//! host.add_vbd(0, Disk::new(2048), VbdSettings::default());
//! let host = machine.add_window(Plugged::new(host), true);
//! machine.run(|task| {
//!     let domain = Domain::start(task, std::sync::Arc::new(ThisMachine)).unwrap();
//!     assert_eq!(domain.features().version, (4, 17));
//! });
//! host.with(|plugged| assert_eq!(plugged.host.breaches(), []));
//! ```

mod answers;
mod breach;
mod consts;
mod device;
mod events;
mod fault;
mod grants;
mod hypercalls;
mod memory;
mod plugged;
mod request;
mod ring;
mod store;
mod tree;
mod turn;

pub use breach::{Breach, Counts};
pub use device::VbdSettings;
pub use fault::{Event, Fault, Faults, Knobs, StoreFault};
pub use plugged::Plugged;

use crate::{Bus, Disk, Script};
use breach::Log;
use device::Vbd;
use events::{End, Ports};
use grants::Grants;
use store::Server;

/// Where the tool stack puts xenstore's page.
const STORE_FRAME: u64 = 0xf_effc;

/// What a hypervisor is like.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Virtual processors.
    pub vcpus: u32,
    /// Major and minor version.
    pub version: (u16, u16),
    /// The guest's number.
    pub domain: u16,
    /// Each processor can have its own vector for event channels.
    pub upcall_vector: bool,
    /// Bytes of a part of a list at most.
    pub part: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { vcpus: 1, version: (4, 17), domain: 1, upcall_vector: true, part: usize::MAX }
    }
}

/// A Xen host with one guest. See the module's example.
#[derive(Debug)]
pub struct Xen {
    /// What the hypervisor is like.
    pub settings: Settings,
    /// Differences that stay.
    pub knobs: Knobs,
    /// What goes wrong when.
    pub faults: Faults,
    log: Log,
    ports: Ports,
    grants: Grants,
    server: Server,
    store_port: u32,
    vbds: Vec<Vbd>,
    /// Changes in xenstore by the request that is being answered.
    fired: Vec<(String, Vec<String>)>,
    is_on: bool,
    now: u64,
}

impl Xen {
    /// A host as the tool stack has it ready, without disks.
    pub fn new(settings: Settings) -> Self {
        let mut ports = Ports::default();
        // Of xenstore and of the console.
        let store_port = ports.add(End::Store, 0, u32::MAX).unwrap_or(1);
        let _ = ports.add(End::Other, 0, u32::MAX);
        Self {
            server: Server::new(settings.domain, STORE_FRAME),
            settings,
            knobs: Knobs::default(),
            faults: Faults::default(),
            log: Log::default(),
            ports,
            grants: Grants::default(),
            store_port,
            vbds: Vec::new(),
            fired: Vec::new(),
            is_on: false,
            now: 0,
        }
    }

    /// The pages that are there before the guest runs.
    fn power_on(&mut self, bus: &Bus<'_>) {
        if !self.is_on {
            self.is_on = true;
            self.server.fail = self.knobs.transactions_fail;
            bus.frames().put(STORE_FRAME);
        }
        self.now = bus.now();
    }

    /// What the guest did wrong so far.
    pub fn breaches(&self) -> &[Breach] {
        &self.log.breaches
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        self.log.counts
    }

    /// References that are mapped now.
    pub fn mapped(&self) -> usize {
        self.grants.mapped()
    }

    /// References that the guest has granted and not taken back, but for the tool stack's.
    pub fn granted(&self) -> usize {
        self.grants.granted()
    }

    /// Event channels that the guest has, but for the tool stack's two.
    pub fn open_ports(&self) -> usize {
        self.ports.ports.len() - 2
    }

    /// Watches that the guest has.
    pub fn watches(&self) -> usize {
        self.server.watches.len()
    }

    /// Transactions that the guest has begun and not ended.
    pub fn transactions(&self) -> usize {
        self.server.transactions.len()
    }

    /// A disk.
    pub fn disk(&self, index: usize) -> Option<Disk> {
        self.vbds.get(index).map(|vbd| vbd.disk.clone())
    }

    /// The states of both ends of a disk: the back end's, `None` if nobody is there, and what the front end said last.
    pub fn states(&self, index: usize) -> Option<(Option<u64>, u64)> {
        self.vbds.get(index).map(|vbd| (vbd.state, vbd.front))
    }

    /// How many rings a disk has.
    pub fn rings(&self, index: usize) -> usize {
        self.vbds.get(index).map_or(0, |vbd| vbd.rings.len())
    }

    /// What xenstore holds at a path.
    pub fn read(&self, path: &str) -> Option<&[u8]> {
        self.server.tree.get(path)
    }

    /// Sets what xenstore holds, before the guest starts or as the tool stack does while it runs. A path without a slash first is below the
    /// guest's own.
    pub fn write(&mut self, path: &str, value: impl ToString) {
        let path = self.server.absolute(path);
        self.server.set(self.now, &path, value, &mut self.log);
    }

    /// Replaces the script of faults for disks' requests; they count from the next one on.
    pub fn set_request_faults(&mut self, faults: Script<Fault>) {
        self.faults.requests = faults;
    }
}
