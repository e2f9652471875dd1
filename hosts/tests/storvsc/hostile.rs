//! A host that lies: whatever it says, the driver neither panics nor touches what is not its own; every request ends, and the memory comes back
//! once the host has let go of it.

use std::sync::Arc;

use undercroft_block::BlockDevice;
use undercroft_block::scsi::scan;
use undercroft_hal::hosted::ThisMachine;
use undercroft_hal::hyperv::Partition;
use undercroft_hosts::hyperv::{Fault, MessageFault, Stray};
use undercroft_hosts::{Random, Schedule, Script};
use undercroft_storvsc::{Storvsc, VmBus};

use super::rig::{Rig, Sink, read, settle};

const LIES: [Fault; 16] = [
    Fault::SaysMoved(u32::MAX),
    Fault::SaysMoved(513),
    Fault::SaysSense(255),
    Fault::Duplicate,
    Fault::BadTransaction(0),
    Fault::BadTransaction(u64::MAX),
    Fault::StaleTransaction,
    Fault::Truncate(0),
    Fault::Truncate(20),
    Fault::Oversize(120),
    Fault::SaysLength(0),
    Fault::SaysLength(u16::MAX),
    Fault::SaysOffset(u16::MAX),
    Fault::Kind(7),
    Fault::Operation(77),
    Fault::Unsolicited(12),
];

const INDICES: [Fault; 4] = [Fault::Index(4), Fault::Index(u32::MAX), Fault::Index(0x8000), Fault::Index(1 << 31)];

/// Goes as far as the host lets it, and ends in any case. The host may break every promise, so what the driver left with it is not counted.
fn endure(rig: &Rig, later: &Script<Fault>) {
    // It may wait in vain, and for long.
    rig.machine.spins_take(20_000_000);
    undercroft_hal::hosted::leaks::allowed(|| {
        rig.machine.run(|task| {
            let partition = Partition::start(task, Arc::new(ThisMachine)).expect("the interface starts");
            let Ok(bus) = VmBus::connect(task, partition, &rig.wishes) else { return };
            for offer in bus.offers() {
                let Ok(driver) = Storvsc::new(task, &bus, &offer, rig.wishes) else { continue };
                let driver = Arc::new(driver);
                let Ok(found) = scan(task, driver.clone()) else { continue };
                let sink = Sink::new();
                let mut sent = 0;
                rig.model(|host| host.set_packet_faults(later.clone()));
                for disk in &found.disks {
                    for at in 0..20 {
                        match disk.submit(read(at, 1, &sink, at)) {
                            Ok(_) => sent += 1,
                            Err(refused) => drop(refused.request),
                        }
                    }
                    disk.commit();
                }
                settle(task);
                let lost = sent - sink.count();
                // What was never answered ends with the controller.
                drop(found);
                driver.manage_all();
                settle(task);
                assert!(sink.count() == sent || lost > 0);
            }
            settle(task);
        });
    });
}

trait ManageAll {
    fn manage_all(&self);
}

impl ManageAll for Storvsc {
    fn manage_all(&self) {
        use undercroft_block::scsi::{Host, Management};
        self.manage(Management::ResetHost);
    }
}

#[test]
fn lies_about_requests() {
    for lie in &LIES {
        // A scan has no deadlines of its own: what it asks is answered honestly.
        for at in [0, 2] {
            let rig = Rig::plain();
            rig.model(|host| host.faults.packets = Script::none().at(at, *lie));
            endure(&rig, &Script::none());
        }
        endure(&Rig::plain(), &Script::none().at(7, *lie));
    }
}

#[test]
fn indices_that_cannot_be() {
    for lie in INDICES {
        let rig = Rig::plain();
        rig.model(|host| host.faults.packets = Script::none().at(0, lie));
        endure(&rig, &Script::none());
    }
}

#[test]
fn lies_in_messages() {
    let lies = [
        MessageFault::Twice,
        MessageFault::Kind(99),
        MessageFault::Kind(1),
        MessageFault::Kind(15),
        MessageFault::Truncate(0),
        MessageFault::Truncate(9),
        MessageFault::Says(255),
        MessageFault::SlotKind(0x8000_0010),
        MessageFault::SlotKind(9),
        MessageFault::After(Stray::Version),
        MessageFault::After(Stray::Unloaded),
        MessageFault::After(Stray::BadOffer(0)),
        MessageFault::After(Stray::BadOffer(1)),
        MessageFault::After(Stray::BadOffer(u32::MAX)),
        MessageFault::After(Stray::Rescind(1)),
        MessageFault::After(Stray::Rescind(u32::MAX)),
    ];
    for lie in lies {
        for at in 0..7 {
            let rig = Rig::plain();
            rig.model(|host| host.faults.messages = Script::none().at(at, lie));
            endure(&rig, &Script::none());
        }
    }
}

#[test]
fn any_lies_together() {
    for seed in 0..20 {
        let rig = Rig::scheduled(Schedule::RANDOM, seed);
        let mut random = Random::new(seed);
        let mut later = Script::none();
        rig.model(|host| {
            let lies: Vec<Fault> = (0..4).map(|_| LIES[random.below(LIES.len())]).collect();
            later = Script::none().sometimes(seed, 10, &lies);
            let messages = [MessageFault::Twice, MessageFault::After(Stray::Short), MessageFault::Delay(500)];
            host.faults.messages = Script::none().sometimes(seed, 20, &messages);
        });
        endure(&rig, &later);
    }
}
