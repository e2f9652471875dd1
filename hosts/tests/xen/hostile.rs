//! A host that lies by chance, about everything at once: whatever it says, the driver neither panics nor touches what is not its own, and every request
//! ends, once the disk is closed at the latest.

use undercroft_block::BlockDevice;
use undercroft_hosts::xen::{Event, Fault, StoreFault};
use undercroft_hosts::{Random, Schedule, Script};

use super::faults::flood;
use super::rig::*;

const LIES: [Fault; 12] = [
    Fault::Id(3),
    Fault::IdBits(1 << 33),
    Fault::StaleId,
    Fault::Duplicate,
    Fault::Operation(7),
    Fault::Producer(77),
    Fault::NoEvent,
    Fault::Never,
    Fault::SaysStatus(-3),
    Fault::Delay(2_000),
    Fault::Spurious,
    Fault::TouchesLate,
];

const STORE_LIES: [StoreFault; 8] = [
    StoreFault::Twice,
    StoreFault::StrayReply,
    StoreFault::StrayEvent("0"),
    StoreFault::Delay(10_000),
    StoreFault::Garbage(b'7'),
    StoreFault::Refused("EIO"),
    StoreFault::Again,
    StoreFault::Truncate(2),
];

const EVENTS: [Event; 8] = [
    Event::Says(0, 0),
    Event::Says(0, 4),
    Event::Says(0, 5),
    Event::Says(0, 99),
    Event::Kill(0),
    Event::Vanish(0),
    Event::Resize(0, 1),
    Event::Notify(0),
];

fn endure(seed: u64, connects_honestly: bool) {
    let rig = Rig::scheduled(Schedule::RANDOM, seed);
    rig.machine.spins_take(1_000_000);
    let mut random = Random::new(seed);
    let percent = 1 + random.below(10) as u8;
    let lie = || {
        rig.model(|host| {
            host.faults.requests = Script::none().sometimes(seed, 3 * percent, &LIES);
            host.faults.replies = Script::none().sometimes(seed + 1, percent, &STORE_LIES);
            host.faults.events = Script::none().sometimes(seed + 2, percent, &EVENTS);
        });
    };
    if !connects_honestly {
        lie();
    }
    rig.wild(|task, domain, store| {
        let Ok(Some(disk)) = rig.connect(task, domain, store) else { return };
        lie();
        let sink = Sink::new();
        let mut sent = 0;
        for _ in 0..4 {
            sent += flood(&disk, &sink, 50);
            settle(task);
        }
        disk.close(task);
        task.wait_until(|| sink.count() == sent);
        assert!(disk.submit(read(1, 1, 512, sink.to(0))).is_err(), "a closed disk takes requests");
    });
}

#[test]
fn a_host_that_lies_from_the_beginning() {
    (0..20).for_each(|seed| endure(seed, false));
}

#[test]
fn a_host_that_lies_about_requests() {
    (100..130).for_each(|seed| endure(seed, true));
}
