//! A disk on each kind of bus: the model that is plugged in, the driver that is brought up, and what can go wrong between them.

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;

use undercroft_ata as ata;
use undercroft_block::BlockDevice;
use undercroft_block::scsi::{Host as ScsiHost, scan};
use undercroft_hal::hosted::ThisMachine;
use undercroft_hal::hyperv::Partition;
use undercroft_hal::{Task, cpu, pci};
use undercroft_hosts::scsi::{Lun, LunSettings, Target};
use undercroft_hosts::{Disk, Handle, Machine, ata as ide, hyperv, pvscsi, virtio};
use undercroft_storvsc::{Settings as Wishes, Storvsc, VmBus};
use undercroft_virtio::{Found, probe_mmio, probe_pci};

/// A kind of bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// virtio-blk on PCI, split rings.
    Blk,
    /// virtio-blk on PCI, packed rings.
    BlkPacked,
    /// virtio-blk behind MMIO.
    Mmio,
    /// virtio-scsi on PCI.
    Scsi,
    /// PVSCSI.
    Pvscsi,
    /// IDE, bus-master DMA.
    Ata,
    /// VMBus and storvsc.
    Storvsc,
}

enum Host {
    Blk(Handle<virtio::VirtioPci<virtio::Blk>>),
    Mmio(Handle<virtio::VirtioMmio<virtio::Blk>>),
    Scsi(Handle<virtio::VirtioPci<virtio::Scsi>>),
    Pvscsi(Handle<pvscsi::Pvscsi>),
    Ata(Handle<ide::Piix>),
    Storvsc(Handle<hyperv::Plugged>),
}

/// A device in a machine.
pub struct Plug {
    host: Host,
    /// Its serial number.
    serial: String,
}

/// A driver at work. What it is kept by goes last.
pub struct Up {
    /// The disk.
    pub device: Arc<dyn BlockDevice>,
    /// What is between.
    pub keeps: Vec<Box<dyn Any>>,
}

/// The feature bit of the packed ring (virtio 1.2, 6).
const RING_PACKED: u64 = 1 << 34;

impl Plug {
    /// Plugs a device in.
    pub fn new(machine: &Machine, kind: Kind, disk: &Disk, number: usize) -> Self {
        let serial = format!("S{number}");
        let lun = || Lun::new(disk.clone(), LunSettings { serial: serial.clone(), ..LunSettings::default() });
        let blk = || {
            let limits = virtio::BlkLimits { queue_size: 16, seg_max: 6, ..virtio::BlkLimits::default() };
            virtio::Virtio::new(virtio::Blk::with_limits(disk.clone(), limits))
        };
        let host = match kind {
            Kind::Blk => Host::Blk(machine.add_pci(virtio::VirtioPci::new(blk()))),
            Kind::BlkPacked => {
                let mut device = blk();
                device.knobs.with |= RING_PACKED;
                Host::Blk(machine.add_pci(virtio::VirtioPci::new(device)))
            }
            Kind::Mmio => Host::Mmio(machine.add_window(virtio::VirtioMmio::new(blk()), true)),
            Kind::Scsi => Host::Scsi(machine.add_virtio_pci(virtio::Scsi::new(Target::new().with(0, lun())))),
            Kind::Pvscsi => {
                let mut model = pvscsi::Pvscsi::new(pvscsi::Layout::MsiX, Target::new().with(0, lun()));
                model.knobs.max_targets = Some(1);
                Host::Pvscsi(machine.add_pci(model))
            }
            Kind::Ata => {
                let drive = ide::Drive::with_settings(disk.clone(), ide::Settings::default());
                let none = ide::Channel::new(None, None);
                Host::Ata(machine.add_pci(ide::Piix::new(ide::Channel::new(Some(drive), None), none)))
            }
            Kind::Storvsc => {
                let mut host = hyperv::Hyperv::new(hyperv::Settings::default());
                host.add_controller(hyperv::Controller::scsi(1, Target::new().with(0, lun())));
                Host::Storvsc(machine.add_window(hyperv::Plugged::new(host), true))
            }
        };
        Self { host, serial }
    }

    /// Finds the device and its disk. The device is honest so far, so both are there.
    pub fn bring_up(&self, task: &Task) -> Up {
        let function = |address| pci::devices(task).into_iter().find(|f| f.address == address).expect("is on its bus");
        match &self.host {
            Host::Blk(handle) => Self::virtio(task, probe_pci(task, function(handle.address()))),
            Host::Mmio(handle) => {
                let (base, len) = handle.window();
                Self::virtio(task, probe_mmio(task, base, len, handle.line()))
            }
            Host::Scsi(handle) => Self::virtio(task, probe_pci(task, function(handle.address()))),
            Host::Pvscsi(handle) => {
                let driver = undercroft_pvscsi::probe(task, function(handle.address())).expect("is taken into use");
                Self::on_scsi(task, driver.expect("is a PVSCSI adapter"), Vec::new())
            }
            Host::Ata(handle) => {
                let found = ata::probe(task, function(handle.address())).expect("is taken into use");
                let mut found = found.expect("is an IDE controller");
                let device: Arc<dyn BlockDevice> = found.disks.remove(0);
                Up { device, keeps: Vec::new() }
            }
            Host::Storvsc(_) => {
                let partition = Partition::start(task, Arc::new(ThisMachine)).expect("the interface starts");
                let bus = VmBus::connect(task, partition, &Wishes::default()).expect("connects");
                task.wait_until(|| !bus.offers().is_empty());
                let offer = bus.offers()[0];
                let driver = Arc::new(Storvsc::new(task, &bus, &offer, Wishes::default()).expect("is taken into use"));
                Self::on_scsi(task, driver, vec![Box::new(bus)])
            }
        }
    }

    fn virtio(task: &Task, found: Result<Option<Found>, undercroft_virtio::ProbeError>) -> Up {
        match found.expect("is taken into use") {
            Some(Found::Blk(device)) => Up { device, keeps: Vec::new() },
            Some(Found::Scsi(driver)) => Self::on_scsi(task, driver, Vec::new()),
            other => panic!("found {other:?}"),
        }
    }

    fn on_scsi<H: ScsiHost + 'static>(task: &Task, driver: Arc<H>, mut keeps: Vec<Box<dyn Any>>) -> Up {
        let mut disks = scan(task, Arc::clone(&driver) as Arc<dyn ScsiHost>).expect("is scanned").disks;
        // Drivers go before the bus that they are on.
        keeps.insert(0, Box::new(driver));
        Up { device: disks.remove(0), keeps }
    }

    /// Has so many percent of the requests go wrong from now on; with lies, if `lies`.
    pub fn set_faults(&self, seed: u64, percent: u8, lies: bool) {
        match &self.host {
            Host::Blk(handle) => handle.with(|device| device.set_faults(virtio_faults(seed, percent, lies, false))),
            Host::Mmio(handle) => handle.with(|device| device.set_faults(virtio_faults(seed, percent, lies, false))),
            Host::Scsi(handle) => handle.with(|device| device.set_faults(virtio_faults(seed, percent, lies, true))),
            Host::Pvscsi(handle) => {
                use pvscsi::Fault as F;
                let mut all = vec![
                    F::Delay(30_000),
                    F::Delay(2_000_000),
                    F::Behind(3),
                    F::HostStatus(0x04),
                    F::ScsiStatus(8),
                    F::ScsiStatus(0x28),
                    F::Sense(3, 0x11, 0),
                    F::Sense(6, 0x29, 0),
                    F::Short(256),
                    F::Spurious,
                    F::Never,
                ];
                if lies {
                    all.extend([
                        F::SaysMoved(u64::MAX),
                        F::SaysSense(255),
                        F::Duplicate,
                        F::BadContext(7),
                        F::BadContext(u64::MAX),
                        F::OldContext,
                        F::StaleContext,
                        F::ProducerJump(3),
                        F::ProducerJump(1 << 31),
                    ]);
                }
                handle.with(|device| device.set_faults(pvscsi::FaultScript::none().sometimes(seed, percent, &all)));
            }
            Host::Ata(handle) => {
                use ide::Fault as F;
                let mut all = vec![
                    F::Delay(30_000),
                    F::Delay(2_000_000),
                    F::Error(0x40),
                    F::ErrorAfter(1, 0x40),
                    F::DeviceFault,
                    F::InterruptLost,
                    F::NoInterrupt,
                    F::Spurious,
                    F::Extra,
                    F::BusError,
                ];
                // A drive that rests in silence half way, and an interrupt of nobody's: no driver can tell that from an end.
                if lies {
                    all.extend([F::Stalls(512), F::Glitch, F::Short(512), F::DrqStuck, F::StuckBusy, F::Wedged]);
                }
                let script = ide::FaultScript::none().sometimes(seed, percent, &all);
                handle.with(|device| device.channels[0].set_faults(script));
            }
            Host::Storvsc(handle) => {
                use hyperv::Fault as F;
                let mut all = vec![
                    F::Delay(300),
                    F::Delay(20_000),
                    F::Behind(3),
                    F::Busy,
                    F::Status(4, 0),
                    F::Sense(3, 0x11, 0),
                    F::Sense(6, 0x29, 0),
                    F::Short(256),
                    F::Spurious,
                ];
                if lies {
                    all.extend([
                        F::SaysMoved(u32::MAX),
                        F::SaysSense(255),
                        F::Duplicate,
                        F::BadTransaction(3),
                        F::StaleTransaction,
                    ]);
                }
                let script = undercroft_hosts::Script::none().sometimes(seed, percent, &all);
                handle.with(|plugged| plugged.host.set_packet_faults(script));
            }
        }
    }

    /// Whether zeroes are written whenever the device says so: a host that moves less of the command's parameters says so in a number that
    /// means nothing for the blocks.
    pub const fn zeroes_are_sure(&self) -> bool {
        !matches!(self.host, Host::Pvscsi(_) | Host::Storvsc(_))
    }

    /// Pulls the device out.
    pub fn pull(&self, machine: &Rc<Machine>) {
        // Who waits in vain for it does so with a bound in time: fewer spins are as good.
        machine.spins_take(20_000);
        match &self.host {
            Host::Blk(handle) => machine.unplug(handle),
            Host::Mmio(handle) => machine.unplug(handle),
            Host::Scsi(handle) => machine.unplug(handle),
            Host::Pvscsi(handle) => machine.unplug(handle),
            Host::Ata(handle) => machine.unplug(handle),
            Host::Storvsc(handle) => machine.unplug(handle),
        }
    }

    /// What the driver did against the device's specification.
    pub fn breaches(&self) -> String {
        let words = match &self.host {
            Host::Blk(handle) => format!("{:?}", handle.with(|device| device.breaches())),
            Host::Mmio(handle) => format!("{:?}", handle.with(|device| device.breaches())),
            Host::Scsi(handle) => format!("{:?}", handle.with(|device| device.breaches())),
            Host::Pvscsi(handle) => format!("{:?}", handle.with(|device| device.breaches())),
            Host::Ata(handle) => format!("{:?}", handle.with(|device| device.breaches())),
            Host::Storvsc(handle) => format!("{:?}", handle.with(|plugged| plugged.host.breaches().to_vec())),
        };
        if words == "[]" { String::new() } else { format!("{}: {words}", self.serial) }
    }
}

fn virtio_faults(seed: u64, percent: u8, lies: bool, scsi: bool) -> virtio::FaultScript {
    use virtio::Fault as F;
    let mut all =
        vec![F::Delay(30_000), F::Delay(2_000_000), F::Behind(3), F::Error, F::Spurious, F::NeedsReset, F::Never];
    if scsi {
        all.extend([F::Sense(3, 0x11, 0), F::Sense(6, 0x29, 0), F::ScsiStatus(8), F::ScsiStatus(0x28)]);
    }
    if lies {
        all.extend([
            F::Status(77),
            F::NoStatus,
            F::Short(512),
            F::TooLong(1),
            F::TooLong(1 << 31),
            F::Duplicate,
            F::BadId,
            F::IdleId,
            F::IndexJump(2),
            F::IndexJump(1 << 15),
            F::SaysSense(255),
        ]);
    }
    virtio::FaultScript::none().sometimes(seed, percent, &all)
}

/// Lets everything that is pending happen.
pub fn settle(task: &Task, rounds: usize) {
    for _ in 0..rounds {
        task.run_pending();
        cpu::relax();
    }
}
