//! A host that is reached by functions and works on a thread of its own.

use std::ptr::NonNull;
use std::sync::{Arc, mpsc};
use std::thread;

use undercroft_hosts::Disk;
use undercroft_hosts::hyperv::{Controller, Hyperv, Settings};
use undercroft_hosts::scsi::{Lun, LunSettings, Target};
use undercroft_vmm::clock::Clock;
use undercroft_vmm::host::Host;
use undercroft_vmm::memory::Ram;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

const MEMORY: usize = 64 << 20;
/// Leaf 1, ECX: there is a hypervisor.
const PRESENT: u32 = 1 << 31;

/// The host with one disk, and the guest's memory.
pub struct Model {
    host: Arc<Host>,
    pub disk: Disk,
}

impl Model {
    /// A host at work, and the vectors that it raises on processor 0.
    pub fn start() -> (Arc<Self>, mpsc::Receiver<u8>) {
        let disk = Disk::patterned(1 << 14, 7);
        let mut model = Hyperv::new(Settings::default());
        model
            .add_controller(Controller::scsi(1, Target::new().with(0, Lun::new(disk.clone(), LunSettings::default()))));
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).expect("memory");
        let ram = Ram { memory: Arc::new(memory), clock: Clock::start() };
        let (raise, raised) = mpsc::channel();
        // Nobody listens any more when the test is over.
        let host = Host::new(model, ram, Box::new(move |interrupt| _ = raise.send(interrupt.vector)));
        let host = Arc::new(host);
        let served = Arc::clone(&host);
        thread::spawn(move || served.serve());
        (Arc::new(Self { host, disk }), raised)
    }

    pub fn with<R>(&self, f: impl FnOnce(&mut Hyperv) -> R) -> R {
        self.host.with(|model, _| f(model))
    }

    pub fn cpuid(&self, leaf: u32) -> [u32; 4] {
        let unknown = [0, 0, if leaf == 1 { PRESENT } else { 0 }, 0];
        self.with(|model| model.cpuid(leaf, 0)).unwrap_or(unknown)
    }

    pub fn rdmsr(&self, register: u32) -> u64 {
        self.host.with(|model, guest| model.rdmsr(guest, 0, register)).expect("a register")
    }

    pub fn wrmsr(&self, register: u32, value: u64) {
        self.host.with(|model, guest| model.wrmsr(guest, 0, register, value)).expect("a register");
    }

    pub fn hypercall(&self, control: u64, input: u64, output: u64) -> u64 {
        self.host.with(|model, guest| model.hypercall(guest, 0, control, input, output))
    }

    pub fn zeroed_guest_memory(&self, addr: u64, len: usize) -> Option<NonNull<u8>> {
        let memory = &self.host.ram.memory;
        memory.write_slice(&vec![0; len], GuestAddress(addr)).ok()?;
        NonNull::new(memory.get_host_address(GuestAddress(addr)).ok()?)
    }
}
