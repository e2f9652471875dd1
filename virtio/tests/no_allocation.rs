//! From submit to completion the drivers take nothing from the heap: not in `submit`, not in the interrupt, not in the bottom half (A-VQ-04,
//! A-VBLK-02, A-VSCSI-03, A-VSCSI-12); nor does an event on its way to whoever hears of it, and its buffer back (A-VSCSI-01).
//!
//! Everything that the guest's side allocates or frees while requests are on their way is counted; what the device models allocate is theirs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use undercroft_block::scsi::{Host, HostEvent, HostWatcher, scan};
use undercroft_hal::hosted::{TrapAlloc, trap};
use undercroft_hal::{BottomHalf, cpu, pci};
use undercroft_hosts::rig::allocations;
use undercroft_hosts::scsi::{Lun, LunSettings, Target};
use undercroft_hosts::virtio::{Blk, Scsi, ScsiEvent};
use undercroft_hosts::{Config, Disk, Machine, Schedule};
use undercroft_virtio::{Found, probe_pci};

#[global_allocator]
static ALLOCATOR: TrapAlloc = TrapAlloc::strict();

fn on_blk(schedule: Schedule, allocates: bool) -> u64 {
    let machine = Machine::new(Config { schedule, ..Config::default() });
    machine.add_virtio_pci(Blk::new(Disk::new(4096)));
    machine.run(|task| {
        let Ok(Some(Found::Blk(blk))) = probe_pci(task, pci::devices(task)[0]) else { panic!("no disk") };
        allocations::count(task, &*blk, allocates)
    })
}

fn on_scsi(schedule: Schedule, allocates: bool) -> u64 {
    let machine = Machine::new(Config { schedule, ..Config::default() });
    let unit = Lun::new(Disk::new(4096), LunSettings::default());
    machine.add_virtio_pci(Scsi::new(Target::new().with(0, unit)));
    machine.run(|task| {
        let Ok(Some(Found::Scsi(host))) = probe_pci(task, pci::devices(task)[0]) else { panic!("no host") };
        let disk = scan(task, host).unwrap().disks.remove(0);
        allocations::count(task, &*disk, allocates)
    })
}

/// Counts what it is told. With `allocates` it does what it must not: the control.
struct Told {
    added: AtomicUsize,
    allocates: bool,
}

impl HostWatcher for Told {
    fn event(&self, _cx: &BottomHalf, event: HostEvent) {
        if self.allocates {
            drop(std::hint::black_box(Box::new(event)));
        }
        if matches!(event, HostEvent::Added(_)) {
            self.added.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Many more events than there are buffers, each told; what is allocated and freed meanwhile, and how many buffers came back.
fn events(schedule: Schedule, allocates: bool) -> u64 {
    const AT_ONCE: u16 = 8;
    const ROUNDS: u16 = 12;
    let machine = Machine::new(Config { schedule, ..Config::default() });
    let handle =
        machine.add_virtio_pci(Scsi::new(Target::new().with(0, Lun::new(Disk::new(64), LunSettings::default()))));
    machine.run(|task| {
        let Ok(Some(Found::Scsi(host))) = probe_pci(task, pci::devices(task)[0]) else { panic!("no host") };
        let told = Arc::new(Told { added: AtomicUsize::new(0), allocates });
        host.watch(told.clone());
        let mut allocated = 0;
        for round in 1..=ROUNDS {
            // What the model keeps is its own.
            handle.with(|host| (0..AT_ONCE).for_each(|lun| host.model().event(ScsiEvent::Rescan(0, lun + 1))));
            let wanted = usize::from(round * AT_ONCE);
            let arrive = || {
                task.wait_until(|| {
                    cpu::relax();
                    told.added.load(Ordering::Relaxed) == wanted
                })
            };
            allocated += trap::by_guest(arrive).1;
        }
        assert_eq!((host.event_counts().received, host.event_counts().missed), (u64::from(ROUNDS * AT_ONCE), 0));
        allocated
    })
}

const SCHEDULES: [Schedule; 3] = [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM];

#[test]
fn a_vq_04_a_vblk_02_blk_allocates_nothing() {
    for schedule in SCHEDULES {
        assert_eq!(on_blk(schedule, false), 0, "{schedule:?}");
    }
}

#[test]
fn a_vscsi_03_a_vscsi_12_scsi_allocates_nothing() {
    for schedule in SCHEDULES {
        assert_eq!(on_scsi(schedule, false), 0, "{schedule:?}");
    }
}

#[test]
fn a_vscsi_01_an_event_and_its_buffer_allocate_nothing() {
    for schedule in SCHEDULES {
        assert_eq!(events(schedule, false), 0, "{schedule:?}");
    }
}

#[test]
fn a_vscsi_01_control_a_bottom_half_that_allocates() {
    for schedule in SCHEDULES {
        assert!(events(schedule, true) > 0, "{schedule:?}: an allocation goes unseen");
    }
}

#[test]
fn a_vq_04_a_vblk_02_control_a_bottom_half_that_allocates() {
    for schedule in SCHEDULES {
        assert!(on_blk(schedule, true) > 0, "{schedule:?}: an allocation goes unseen");
    }
}

#[test]
fn a_vscsi_03_a_vscsi_12_control_a_bottom_half_that_allocates() {
    for schedule in SCHEDULES {
        assert!(on_scsi(schedule, true) > 0, "{schedule:?}: an allocation goes unseen");
    }
}
