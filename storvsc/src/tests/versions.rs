//! Every version of both protocols, and hosts that are slow, busy or strange while the bus is connected.

use undercroft_block::BlockDevice;
use undercroft_block::scsi::{Host, scan};

use undercroft_hal::hosted::ThisMachine;
use undercroft_hal::hyperv::{Features, Partition, StartError};
use undercroft_hosts::hyperv::{Faults, MessageFault, PostFault, Stray};
use undercroft_hosts::{Schedule, Script};

use super::*;
use crate::defect::{Defect, Defects};
use crate::wire::message::Version as Bus;
use crate::wire::vstor::Version;
use crate::{BusError, VmBus};

/// Finds the three disks and reads a block of each.
fn works(rig: &Rig, defects: Defects, transport: &str) {
    rig.run(defects, |task, driver| {
        assert_eq!(driver.identity().transport, transport);
        let found = scan(task, driver).unwrap();
        assert_eq!(found.disks.len(), 3);
        let sink = Sink::new();
        for disk in &found.disks {
            disk.submit(read(0, 1, disk.info().block_size, sink.to(0))).unwrap();
            disk.commit();
            assert_eq!(sink.wait(task, 1)[0].result, Ok(()));
        }
    });
}

/// A host that goes up to a version gets that one; a guest that does too.
#[test]
fn every_version_of_the_bus() {
    for version in Bus::ALL {
        let rig = Rig::schedule(Schedule::RANDOM).with(|host| host.knobs.version = version.0);
        works(&rig, GOOD, &format!("vmbus-{version} vstor-6.0"));
        assert_eq!(rig.model(|host| host.counts().needless_eoms), 0);
        let rig = Rig::schedule(Schedule::Lazy).settings(|settings| settings.newest_bus = version);
        works(&rig, GOOD, &format!("vmbus-{version} vstor-6.0"));
    }
    for features in [0, 1, 2, 3, u32::MAX] {
        let rig = Rig::schedule(Schedule::Eager).with(|host| host.knobs.features = features);
        works(&rig, GOOD, "vmbus-6.0 vstor-6.0");
    }
}

#[test]
fn every_version_of_the_storage_protocol() {
    for (at, version) in Version::ALL.into_iter().enumerate() {
        let known: Vec<u16> = Version::ALL[at..].iter().map(|version| version.0).collect();
        let rig = Rig::schedule(Schedule::RANDOM).with(|host| host.knobs.stor_versions = known.clone());
        works(&rig, GOOD, &format!("vmbus-6.0 vstor-{version}"));
        let rig = Rig::schedule(Schedule::Eager)
            .with(|host| host.knobs.stor_versions = Version::ALL.map(|version| version.0).to_vec())
            .settings(|settings| settings.newest_storage = version);
        works(&rig, GOOD, &format!("vmbus-6.0 vstor-{version}"));
    }
    let rig = Rig::schedule(Schedule::Eager).with(|host| host.knobs.stor_versions = vec![0x0700]);
    rig.on_bus(GOOD, |task, bus| {
        assert_eq!(rig.probe(task, bus, GOOD).unwrap_err(), crate::ProbeError::NoVersion);
    });
}

fn connects(task: &Task, settings: &crate::Settings) -> Result<VmBus, BusError> {
    let partition = Partition::start(task, Arc::new(ThisMachine)).expect("starts");
    VmBus::connect(task, partition, settings)
}

#[test]
fn a_host_that_connects_nobody() {
    let rig = Rig::schedule(Schedule::Eager).with(|host| host.knobs.version = 0x7_0000);
    let old = Rig::schedule(Schedule::Eager).with(|host| host.knobs.version = 0x1_0001);
    let refuses = Rig::schedule(Schedule::Eager).with(|host| host.knobs.refuses_contact = 2);
    for (rig, error) in [(&old, BusError::NoVersion), (&refuses, BusError::Refused(2))] {
        rig.machine.run(|task| {
            assert_eq!(connects(task, &rig.settings).err(), Some(error));
            settle(task);
        });
        rig.check();
    }
    drop(rig);
}

#[test]
fn a_hypervisor_without_what_vmbus_needs() {
    for (word, bits) in [(1, 0), (0, 0), (1, 0x30 | 1 << 22)] {
        let rig = Rig::schedule(Schedule::Eager).with(|host| host.settings.privileges[word] = bits);
        rig.machine.run(|task| {
            let expected = if bits == 0 { StartError::Unsupported } else { StartError::Isolated };
            assert_eq!(Partition::start(task, Arc::new(ThisMachine)).err(), Some(expected));
        });
        rig.check();
    }
    let rig = Rig::schedule(Schedule::Eager);
    rig.on_bus(GOOD, |_, bus| {
        assert!(bus.partition().features().contains(Features::VMBUS));
        assert!(bus.partition().reference_time().is_some());
    });
}

/// The host is behind with messages, in both ways that it says so.
fn throttled(defects: Defects) {
    for status in [0x13, 0x12, 0x0b] {
        let posts = Script::none().sometimes(status.into(), 60, &[PostFault::Status(status)]);
        let rig = Rig::schedule(Schedule::RANDOM)
            .with(|host| host.faults = Faults { posts: posts.clone(), ..Faults::default() });
        works(&rig, defects, "vmbus-6.0 vstor-6.0");
    }
}

#[test]
fn posts_are_tried_again() {
    throttled(GOOD);
}

#[test]
fn posts_are_tried_again_control() {
    let message = says(|| throttled(Defects::one(Defect::PostsOnce)));
    assert!(message.contains("connects") || message.contains("probes"), "{message}");
}

/// Offers and nonsense between a question and its answer; answers twice; what an earlier guest left in the slot.
fn interleaved(defects: Defects) {
    let strays = [
        Stray::Unknown(99),
        Stray::ForeignOffer,
        Stray::BadOffer(0),
        Stray::BadOffer(5000),
        Stray::BadOffer(1),
        Stray::Rescind(77),
        Stray::OpenResult(1, 7),
        Stray::GpadlCreated(1, 7),
        Stray::TornDown(7),
        Stray::Version,
        Stray::Unloaded,
        Stray::AllOffers,
        Stray::Short,
    ];
    for (seed, stray) in (1..).zip(strays) {
        let messages = Script::none().sometimes(seed, 50, &[MessageFault::After(stray), MessageFault::Twice]);
        let rig = Rig::schedule(Schedule::RANDOM).with(|host| {
            host.faults = Faults { messages: messages.clone(), ..Faults::default() };
            host.knobs.left_over = vec![vec![17, 0, 0, 0, 0, 0, 0, 0], vec![1; 240], vec![2]];
        });
        works(&rig, defects, "vmbus-6.0 vstor-6.0");
    }
}

#[test]
fn messages_that_nobody_waits_for() {
    interleaved(GOOD);
}

#[test]
fn messages_that_nobody_waits_for_control() {
    let message = says(|| interleaved(Defects::one(Defect::DropsUnawaited)));
    assert!(message.contains("index out of bounds"), "{message}");
}

/// Answers that do not come: a typed error after a while, and nothing is left.
#[test]
fn a_host_that_does_not_answer() {
    for nth in 1..6 {
        let messages = Script::none().at(nth, MessageFault::Drop);
        let mut rig = Rig::schedule(Schedule::Eager)
            .with(|host| host.faults = Faults { messages: messages.clone(), ..Faults::default() });
        rig.leaks = true;
        // Long waits in vain.
        rig.machine.spins_take(100_000);
        let run = || {
            rig.machine.run(|task| {
                let bus = connects(task, &rig.settings);
                if let Ok(bus) = &bus
                    && let Some(offer) = bus.offers().first()
                {
                    let probed = crate::Storvsc::new(task, bus, offer, rig.settings);
                    assert!(matches!(probed, Err(crate::ProbeError::Bus(BusError::NoAnswer)) | Ok(_)), "{probed:?}");
                }
                drop(bus);
                settle(task);
            });
        };
        undercroft_hal::hosted::leaks::allowed(run);
    }
}
