//! The host as the hypervisor of a simulated machine: the glue between the two.

use undercroft_hal::hosted::slot_of_vector;
use undercroft_hal::mmio::Width;

use super::{BadGpa, Controller, Guest, Hyperv};
use crate::{Bus, Device, Space};

/// A host that a [`Machine`](crate::Machine) runs under: plug it in with [`Machine::add_window`](crate::Machine::add_window). It has as many virtual
/// processors as its settings say, which must be the machine's.
#[derive(Debug)]
pub struct Plugged {
    /// The host.
    pub host: Hyperv,
    /// Controllers to be taken out, and whether some were added, while the machine runs.
    leaving: Vec<usize>,
    added: bool,
}

/// The machine's memory and clock, as the host reaches them.
struct Reach<'a, 'b>(&'a Bus<'b>);

impl Guest for Reach<'_, '_> {
    fn read(&self, gpa: u64, into: &mut [u8]) -> Result<(), BadGpa> {
        self.0.read(gpa, into).map_err(|bad| BadGpa { gpa: bad.addr, len: bad.len })
    }

    fn write(&self, gpa: u64, bytes: &[u8]) -> Result<(), BadGpa> {
        self.0.write(gpa, bytes).map_err(|bad| BadGpa { gpa: bad.addr, len: bad.len })
    }

    fn now(&self) -> u64 {
        self.0.now() / 100
    }
}

impl Plugged {
    /// A machine under `host`.
    pub fn new(host: Hyperv) -> Self {
        Self { host, leaving: Vec::new(), added: false }
    }

    /// Adds a controller while the machine runs; its offer goes out at the host's next turn. Returns its index.
    pub fn plug_in(&mut self, controller: Controller) -> usize {
        self.added = true;
        self.host.add_controller(controller)
    }

    /// Takes a controller out while the machine runs, at the host's next turn.
    pub fn pull_out(&mut self, controller: usize) {
        self.leaving.push(controller);
    }

    fn deliver(&mut self, bus: &Bus<'_>) {
        for interrupt in self.host.take_interrupts() {
            if let Some(slot) = slot_of_vector(interrupt.vector) {
                bus.interrupt(interrupt.vp as usize, slot);
            }
        }
    }
}

impl Device for Plugged {
    fn read(&mut self, _: &Bus<'_>, _: Space, _: u64, _: Width) -> u64 {
        u64::MAX
    }

    fn write(&mut self, _: &Bus<'_>, _: Space, _: u64, _: Width, _: u64) {}

    fn work(&mut self, bus: &Bus<'_>) -> bool {
        if std::mem::take(&mut self.added) {
            self.host.offer_new(&Reach(bus));
        }
        for controller in std::mem::take(&mut self.leaving) {
            self.host.remove_controller(&Reach(bus), controller);
        }
        let did = self.host.work(&Reach(bus), bus.budget());
        self.deliver(bus);
        did
    }

    fn due(&self) -> Option<u64> {
        self.host.due().map(|units| units.saturating_mul(100))
    }

    fn cpuid(&mut self, _: &Bus<'_>, leaf: u32) -> Option<[u32; 4]> {
        /// Leaf 1, ECX: a hypervisor is present.
        const PRESENT: u32 = 1 << 31;
        if leaf == 1 { Some([0, 0, PRESENT, 0]) } else { self.host.cpuid(leaf, 0) }
    }

    fn read_msr(&mut self, bus: &Bus<'_>, cpu: usize, register: u32) -> Option<u64> {
        // A fault is a breach, and noted.
        Some(self.host.rdmsr(&Reach(bus), cpu as u32, register).unwrap_or(0))
    }

    fn write_msr(&mut self, bus: &Bus<'_>, cpu: usize, register: u32, value: u64) -> bool {
        let _ = self.host.wrmsr(&Reach(bus), cpu as u32, register, value);
        self.deliver(bus);
        true
    }

    fn hypercall(&mut self, bus: &Bus<'_>, cpu: usize, [control, input, output]: [u64; 3]) -> Option<u64> {
        let answer = self.host.hypercall(&Reach(bus), cpu as u32, control, input, output);
        self.deliver(bus);
        Some(answer)
    }

    fn diagnose(&self, _: &Bus<'_>) -> String {
        self.host.words()
    }
}
