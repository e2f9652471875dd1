//! From submit to completion the driver takes nothing from the heap: not in `submit`, not in the interrupt, not in the bottom half, not for a
//! table, not for sense data, not when a busy unit is asked again (A-PVS-01, A-PVS-04, A-PVS-05, X18).
//!
//! The program's allocator ends it on an allocation in a hard interrupt or under a spinlock; the others are counted.

use std::sync::Arc;

use undercroft_block::queue::{self, BlockQueue};
use undercroft_block::scsi::scan;
use undercroft_hal::hosted::{TrapAlloc, trap};
use undercroft_hal::pci;
use undercroft_hosts::pvscsi::{Fault, FaultScript, Knobs, Layout, Pvscsi};
use undercroft_hosts::rig::allocations;
use undercroft_hosts::scsi::{Lun, LunSettings, Target};
use undercroft_hosts::{Config, Disk, Machine, Schedule};
use undercroft_pvscsi::probe;
use undercroft_timer::timers;

#[global_allocator]
static ALLOCATOR: TrapAlloc = TrapAlloc::new();

fn on_pvscsi(schedule: Schedule, layout: Layout, allocates: bool) -> u64 {
    let machine = Machine::new(Config { schedule, ..Config::default() });
    let unit = Lun::new(Disk::new(4096), LunSettings::default());
    let mut model = Pvscsi::new(layout, Target::new().with(0, unit));
    model.knobs = Knobs { max_targets: Some(1), ..Knobs::default() };
    let host = machine.add_pci(model);
    machine.run(|task| {
        let adapter = probe(task, pci::devices(task)[0]).unwrap().expect("an adapter");
        let disk = scan(task, adapter).unwrap().disks.remove(0);
        // A queue waits for a unit that is busy.
        timers::start_service(task);
        let device = Arc::new(BlockQueue::new(disk, queue::Config::default()));
        let odd = [Fault::ScsiStatus(8), Fault::Sense(6, 0x29, 3), Fault::Spurious];
        host.with(|model| model.set_faults(FaultScript::none().sometimes(5, 20, &odd)));
        // What the task's own side allocates is not forbidden under a lock of its own; the driver's locks are no place for it.
        trap::strict(|| allocations::count(task, &*device, allocates))
    })
}

const SCHEDULES: [Schedule; 3] = [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM];

#[test]
fn a_pvs_01_a_pvs_04_x18_nothing_is_allocated() {
    for schedule in SCHEDULES {
        for layout in [Layout::MsiX, Layout::Msi, Layout::Line] {
            assert_eq!(on_pvscsi(schedule, layout, false), 0, "{schedule:?} {layout:?}");
        }
    }
}

#[test]
fn a_pvs_01_a_pvs_04_x18_nothing_is_allocated_control() {
    for schedule in SCHEDULES {
        assert!(on_pvscsi(schedule, Layout::MsiX, true) > 0, "{schedule:?}: an allocation goes unseen");
    }
}
