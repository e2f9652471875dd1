//! From submit to completion the driver takes nothing from the heap: not in `submit`, not in the interrupt, not in the bottom half, not when the
//! ring is full (A-XBLK-01, A-XBLK-02, X18).
//!
//! The program's allocator ends it on an allocation in a hard interrupt or under a spinlock; the others are counted.

use std::sync::Arc;

use undercroft_block::queue::{self, BlockQueue};
use undercroft_hal::hosted::{ThisMachine, TrapAlloc, trap};
use undercroft_hal::xen::Domain;
use undercroft_hosts::rig::{allocations, settle};
use undercroft_hosts::xen::{Fault, Plugged, Settings, VbdSettings, Xen};
use undercroft_hosts::{Config, Disk, Machine, Schedule, Script};
use undercroft_timer::timers;
use undercroft_xen::blk::{Config as Wishes, XenDisk};
use undercroft_xen::store::Store;

#[global_allocator]
static ALLOCATOR: TrapAlloc = TrapAlloc::new();

fn on_xen(schedule: Schedule, persistent: bool, allocates: bool) -> u64 {
    let machine = Machine::new(Config { schedule, ..Config::default() });
    let mut model = Xen::new(Settings::default());
    model.add_vbd(0, Disk::new(4096), VbdSettings { persistent, ..VbdSettings::default() });
    let host = machine.add_window(Plugged::new(model), true);
    machine.run(|task| {
        let domain = Arc::new(Domain::start(task, Arc::new(ThisMachine)).unwrap());
        let store = Store::connect(task, &domain).unwrap();
        let disk = XenDisk::connect(task, &domain, &store, "51712", Wishes::default()).unwrap().unwrap();
        timers::start_service(task);
        let device = Arc::new(BlockQueue::new(disk.clone(), queue::Config::default()));
        let odd = [Fault::Spurious, Fault::Behind(2)];
        host.with(|plugged| plugged.host.set_request_faults(Script::none().sometimes(5, 20, &odd)));
        // The disk's task looks at the states once it is connected.
        settle(task);
        let before = domain.counts();
        // What the task's own side allocates is not forbidden under a lock of its own; the driver's locks are no place for it.
        let count = trap::strict(|| allocations::count(task, &*device, allocates));
        let after = domain.counts();
        assert_eq!((before.granted, before.revoked), (after.granted, after.revoked), "a request made a grant");
        drop(device);
        assert!(disk.close(task));
        count
    })
}

const SCHEDULES: [Schedule; 3] = [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM];

#[test]
fn a_xblk_01_a_xblk_02_x18_nothing_is_allocated() {
    for schedule in SCHEDULES {
        for persistent in [true, false] {
            assert_eq!(on_xen(schedule, persistent, false), 0, "{schedule:?}");
        }
    }
}

#[test]
fn a_xblk_01_a_xblk_02_x18_nothing_is_allocated_control() {
    for schedule in SCHEDULES {
        assert!(on_xen(schedule, true, true) > 0, "{schedule:?}: an allocation goes unseen");
    }
}
