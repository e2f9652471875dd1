//! The system panics with the bus connected and I/O under way: the host is told, and uses no page of the guest's any more.

use undercroft_block::scsi::Direction;
use undercroft_hal::hosted::ThisMachine;
use undercroft_hal::hyperv::{Partition, last_words};
use undercroft_hosts::Script;
use undercroft_hosts::hyperv::{Fault, Hyperv, MessageFault, PostFault, Stray};

use super::*;
use crate::VmBus;
use crate::defect::{Defect, Defects};

/// The state of the host after the last words of a guest with ten commands under way, and messages posted meanwhile.
fn panics(change: impl FnOnce(&mut Hyperv), defects: Defects) -> (bool, u64) {
    let rig = Rig::cpus(1, undercroft_hosts::Schedule::Lazy, 1);
    // Nothing is tidied up: the system is no more.
    undercroft_hal::hosted::leaks::allowed(|| {
        rig.machine.run(|task| {
            let partition = Partition::start(task, Arc::new(ThisMachine)).unwrap();
            let bus = VmBus::with_defects(task, partition, &rig.settings, defects).unwrap();
            let driver = rig.probe(task, &bus, defects).unwrap();
            let collector = Collector::new();
            rig.model(|host| host.set_packet_faults(Script::none().every(1, Fault::Never)));
            for n in 0..10 {
                go(&driver, command(&collector, n, at(0, 0), read10(0, 1), (Direction::In, 512))).unwrap();
            }
            settle(task);
            assert!(
                rig.model(|host| host.gpadls() > 0 && host.agreed().is_some()),
                "the host has memory of the guest's"
            );
            rig.model(change);
            let before = rig.model(|host| host.counts().posts);
            {
                let _nothing_arrives = undercroft_hal::cpu::IrqGuard::new();
                last_words();
            }
            let after = rig.model(|host| {
                let let_go = host.gpadls() == 0 && host.agreed().is_none() && host.open_channels().is_empty();
                (let_go, host.counts().posts - before)
            });
            core::mem::forget((driver, bus, collector));
            after
        })
    })
}

fn unloads(defects: Defects) {
    let (let_go, posts) = panics(|_| (), defects);
    assert!(let_go, "the host uses memory of a system that is no more");
    assert_eq!(posts, 1);
    // It is behind, and sends others first.
    let (let_go, posts) = panics(
        |host| {
            host.faults.posts = Script::none().at(0, PostFault::Status(0x13)).at(1, PostFault::Status(0x12));
            host.faults.messages = Script::none().at(0, MessageFault::After(Stray::Unknown(99)));
        },
        defects,
    );
    assert!(let_go);
    assert_eq!(posts, 3);
}

#[test]
fn a_panic_unloads() {
    unloads(GOOD);
}

#[test]
fn a_panic_unloads_control() {
    let message = says(|| unloads(Defects::one(Defect::NoLastWords)));
    assert!(message.contains("the host uses memory of a system that is no more"), "{message}");
}

/// A host that takes no message, or never answers, does not keep the system from its end.
#[test]
fn a_panic_waits_for_no_host() {
    let (let_go, posts) = panics(|host| host.faults.posts = Script::none().every(1, PostFault::Status(0x13)), GOOD);
    assert!(!let_go && posts == 100, "{posts}");
    let (let_go, _) = panics(|host| host.faults.messages = Script::none().every(1, MessageFault::Drop), GOOD);
    assert!(let_go, "it was told");
}

/// What has ended its connection has nothing to say.
#[test]
fn a_panic_after_the_end_says_nothing() {
    let rig = Rig::cpus(1, undercroft_hosts::Schedule::Eager, 1);
    rig.on_bus(GOOD, |task, bus| {
        assert!(bus.unload(task));
        let before = rig.model(|host| host.counts().posts);
        last_words();
        assert_eq!(rig.model(|host| host.counts().posts), before);
    });
}
