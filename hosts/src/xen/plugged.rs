//! The host as the hypervisor of a simulated machine: the glue between the two.

use undercroft_hal::mmio::Width;

use super::{Event, VbdSettings, Xen};
use crate::{Bus, Device, Disk, Space};

/// A host that a [`Machine`](crate::Machine) runs under: plug it in with [`Machine::add_window`](crate::Machine::add_window). It has as many virtual
/// processors as its settings say, which must be the machine's.
#[derive(Debug)]
pub struct Plugged {
    /// The host.
    pub host: Xen,
    /// What is to happen at its next turn.
    coming: Vec<Coming>,
}

#[derive(Debug)]
enum Coming {
    Disk(Disk, VbdSettings),
    Event(Event),
}

impl Plugged {
    /// A machine under `host`.
    pub fn new(host: Xen) -> Self {
        Self { host, coming: Vec::new() }
    }

    /// Adds a disk while the machine runs, at the host's next turn.
    pub fn plug_in(&mut self, disk: Disk, settings: VbdSettings) {
        self.coming.push(Coming::Disk(disk, settings));
    }

    /// Has something happen at the host's next turn.
    pub fn happen(&mut self, event: Event) {
        self.coming.push(Coming::Event(event));
    }
}

impl Device for Plugged {
    fn read(&mut self, _: &Bus<'_>, _: Space, _: u64, _: Width) -> u64 {
        u64::MAX
    }

    fn write(&mut self, _: &Bus<'_>, _: Space, _: u64, _: Width, _: u64) {}

    fn work(&mut self, bus: &Bus<'_>) -> bool {
        self.host.power_on(bus);
        let mut did = false;
        for coming in std::mem::take(&mut self.coming) {
            did = true;
            match coming {
                Coming::Disk(disk, settings) => drop(self.host.add_vbd(bus.now(), disk, settings)),
                Coming::Event(event) => self.host.happen(bus, event),
            }
        }
        did | self.host.work(bus, bus.budget())
    }

    fn due(&self) -> Option<u64> {
        self.host.due(self.host.now)
    }

    fn cpuid(&mut self, bus: &Bus<'_>, leaf: u32) -> Option<[u32; 4]> {
        /// Leaf 1, ECX: a hypervisor is present.
        const PRESENT: u32 = 1 << 31;
        if leaf == 1 { Some([0, 0, PRESENT, 0]) } else { self.host.cpuid(bus, leaf) }
    }

    fn xen_call(&mut self, bus: &Bus<'_>, number: u32, command: u32, argument: &mut [u8]) -> Option<i64> {
        self.host.power_on(bus);
        Some(self.host.call(bus, number, command, argument))
    }

    fn xen_vcpu_call(&mut self, bus: &Bus<'_>, command: u32, vcpu: u32, argument: &mut [u8]) -> Option<i64> {
        Some(self.host.vcpu_call(bus, command, vcpu, argument))
    }

    fn diagnose(&self, _: &Bus<'_>) -> String {
        self.host.words()
    }
}
