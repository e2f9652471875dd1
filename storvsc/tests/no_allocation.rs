//! From submit to completion the driver takes nothing from the heap: not in `submit`, not in the interrupt, not in the bottom half, not when the
//! ring is full, not for sense data (A-SVSC-02, A-SVSC-07, A-SVSC-08, X18).
//!
//! The program's allocator ends it on an allocation in a hard interrupt or under a spinlock; the others are counted.

use std::sync::Arc;

use undercroft_block::queue::{self, BlockQueue};
use undercroft_block::scsi::scan;
use undercroft_hal::hosted::{ThisMachine, TrapAlloc, trap};
use undercroft_hal::hyperv::Partition;
use undercroft_hosts::hyperv::{Controller, Fault, Hyperv, Plugged};
use undercroft_hosts::rig::allocations;
use undercroft_hosts::scsi::{Lun, LunSettings, Target};
use undercroft_hosts::{Config, Disk, Machine, Schedule, Script};
use undercroft_storvsc::{Settings, Storvsc, VmBus};
use undercroft_timer::timers;

#[global_allocator]
static ALLOCATOR: TrapAlloc = TrapAlloc::new();

fn on_storvsc(schedule: Schedule, pages: u32, allocates: bool) -> u64 {
    let machine = Machine::new(Config { schedule, ..Config::default() });
    let mut model = Hyperv::new(undercroft_hosts::hyperv::Settings::default());
    model.add_controller(Controller::scsi(1, Target::new().with(0, Lun::new(Disk::new(4096), LunSettings::default()))));
    let host = machine.add_window(Plugged::new(model), true);
    machine.run(|task| {
        let partition = Partition::start(task, Arc::new(ThisMachine)).unwrap();
        let settings = Settings { pages_up: pages, pages_down: pages, ..Settings::default() };
        let bus = VmBus::connect(task, partition, &settings).unwrap();
        let controller = Arc::new(Storvsc::new(task, &bus, &bus.offers()[0], settings).unwrap());
        let disk = scan(task, controller).unwrap().disks.remove(0);
        // A queue waits for a unit that is busy.
        timers::start_service(task);
        let device = Arc::new(BlockQueue::new(disk, queue::Config::default()));
        let odd = [Fault::Busy, Fault::Sense(6, 0x29, 3), Fault::Unsolicited(11)];
        host.with(|plugged| plugged.host.set_packet_faults(Script::none().sometimes(5, 20, &odd)));
        // What the task's own side allocates is not forbidden under a lock of its own; the driver's locks are no place for it.
        let count = trap::strict(|| allocations::count(task, &*device, allocates));
        drop(device);
        assert!(bus.close(task));
        count
    })
}

const SCHEDULES: [Schedule; 3] = [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM];

#[test]
fn a_svsc_02_a_svsc_07_a_svsc_08_x18_nothing_is_allocated() {
    for schedule in SCHEDULES {
        for pages in [1, 32] {
            assert_eq!(on_storvsc(schedule, pages, false), 0, "{schedule:?} {pages}");
        }
    }
}

#[test]
fn a_svsc_02_a_svsc_07_a_svsc_08_x18_nothing_is_allocated_control() {
    for schedule in SCHEDULES {
        assert!(on_storvsc(schedule, 8, true) > 0, "{schedule:?}: an allocation goes unseen");
    }
}
