//! A host that breaks the contract: a typed end for every command, nothing believed, nothing left.

use undercroft_block::scsi::{Direction, Host, Response};
use undercroft_hosts::hyperv::{Breach, Fault, Faults, MessageFault};
use undercroft_hosts::{Schedule, Script};

use super::*;
use crate::defect::{Defect, Defects};

const SECTOR: usize = 512;

/// One lie in the middle of I/O: every command ends once.
fn lie(fault: Fault, schedule: Schedule, defects: Defects) -> Vec<Response> {
    let mut rig = Rig::schedule(schedule);
    // A channel that is closed because of its host is closed in the middle of what that had in hand.
    rig.allowed = |breach| matches!(breach, Breach::Memory(_));
    rig.run(defects, |task, driver| {
        let collector = Collector::new();
        ready(task, &*driver, &LUNS, &collector);
        rig.model(|host| host.set_packet_faults(Script::none().at(5, fault)));
        let mut sent = 0;
        for n in 0..20 {
            match go(&*driver, command(&collector, n, at(0, 0), read10(n as u16, 1), (Direction::In, SECTOR))) {
                Ok(_) => sent += 1,
                Err(refused) => drop(end(refused)),
            }
        }
        // What is never answered ends with the driver.
        settle(task);
        drop(driver);
        let answers = collector.spin(task, sent);
        let mut cookies: Vec<_> = answers.iter().map(|answer| answer.cookie).collect();
        cookies.sort_unstable();
        cookies.dedup();
        assert_eq!(cookies.len(), sent, "each once");
        answers.iter().map(|answer| answer.response).collect()
    })
}

const SCHEDULES: [Schedule; 3] = [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM];

/// Lies that end the controller: what is left is told so.
const FATAL: [Fault; 17] = [
    Fault::Kind(7),
    Fault::Kind(0xffff),
    Fault::Duplicate,
    Fault::BadTransaction(0),
    Fault::BadTransaction(u64::MAX),
    Fault::BadTransaction(1 << 32),
    Fault::StaleTransaction,
    Fault::Truncate(0),
    Fault::Truncate(24),
    Fault::SaysLength(0),
    Fault::SaysLength(0xffff),
    Fault::SaysOffset(0),
    Fault::SaysOffset(0xffff),
    Fault::Index(1),
    Fault::Index(u32::MAX),
    Fault::Index(0x7fff_fff8),
    Fault::Index(1 << 20),
];

#[test]
fn lies_that_end_the_controller() {
    for fault in FATAL {
        for schedule in SCHEDULES {
            let responses = lie(fault, schedule, GOOD);
            // A lie in the last packet may be found when everything else has ended.
            let ended = |response: &Response| {
                matches!(response, Response::Complete | Response::Broken | Response::Removed | Response::Failure)
            };
            assert!(responses.iter().all(ended), "{fault:?}: {responses:?}");
        }
        let responses = lie(fault, Schedule::Lazy, GOOD);
        assert!(responses.iter().any(|response| *response != Response::Complete) || matches!(fault, Fault::Duplicate));
    }
}

/// Lies that concern one command, and what nobody asked for.
#[test]
fn lies_that_the_controller_survives() {
    let faults = [
        Fault::Status(0, 0),
        Fault::Status(0x3f, 0xff),
        Fault::Status(0xff, 2),
        Fault::SaysMoved(u32::MAX),
        Fault::SaysMoved(513),
        Fault::SaysSense(255),
        Fault::Oversize(64),
        Fault::Operation(99),
        Fault::Spurious,
        Fault::Unsolicited(2),
        Fault::Unsolicited(11),
        Fault::Unsolicited(14),
        Fault::Unsolicited(u32::MAX),
    ];
    for fault in faults {
        for schedule in SCHEDULES {
            let responses = lie(fault, schedule, GOOD);
            let complete = responses.iter().filter(|response| **response == Response::Complete).count();
            assert!(complete >= responses.len() - 1, "{fault:?}: {responses:?}");
        }
    }
}

/// X06: a transaction id that was never issued, or whose use is over, is nobody's.
fn stale(defects: Defects) {
    for fault in [Fault::StaleTransaction, Fault::BadTransaction(1 << 32 | 77), Fault::Duplicate] {
        let rig = Rig::schedule(Schedule::Lazy);
        rig.run(defects, |task, driver| {
            let collector = Collector::new();
            ready(task, &*driver, &LUNS, &collector);
            rig.model(|host| host.set_packet_faults(Script::none().at(1, fault)));
            for n in 0..4 {
                driver.submit(command(&collector, n, at(0, 0), read10(n as u16, 1), (Direction::In, SECTOR))).unwrap();
            }
            driver.commit();
            settle(task);
            // Slots are used again meanwhile.
            for n in 4..8 {
                let next = command(&collector, n, at(0, 0), read10(n as u16, 1), (Direction::In, SECTOR));
                if let Err(refused) = go(&*driver, next) {
                    end(refused);
                }
            }
            settle(task);
            assert!(
                driver.submit(command(&collector, 9, at(0, 0), TEST_UNIT_READY, NOTHING)).map_err(end).is_err(),
                "{fault:?}: a stale id is believed"
            );
        });
    }
}

#[test]
fn x06_transactions_are_doubted() {
    stale(GOOD);
}

#[test]
fn x06_transactions_are_doubted_control() {
    let message = says(|| stale(Defects::one(Defect::TrustsTransaction)));
    assert!(message.contains("a stale id is believed") || message.contains("other than"), "{message}");
}

/// The SRB's status counts, and no more bytes are believed moved than there is room for.
fn doubted(defects: Defects) {
    for (fault, right) in [
        (Fault::Status(0x08, 0), Response::BadTarget),
        (Fault::Status(0x20, 2), Response::BadTarget),
        (Fault::Status(0x0e, 0), Response::Reset),
        (Fault::Status(0x05, 0), Response::Busy),
        (Fault::Status(0x02, 0), Response::Aborted),
        (Fault::Status(0x0b, 0), Response::TimedOut),
        (Fault::Status(0x0f, 0), Response::TransportFailure),
        (Fault::Status(0x25, 0), Response::NexusFailure),
        (Fault::Status(0x24, 0), Response::TargetFailure),
        (Fault::Status(0x04, 0), Response::Failure),
        (Fault::Status(0x15, 0), Response::Failure),
        (Fault::SaysMoved(1024), Response::Failure),
    ] {
        let rig = Rig::schedule(Schedule::Eager);
        rig.run(defects, |task, driver| {
            let collector = Collector::new();
            ready(task, &*driver, &LUNS, &collector);
            rig.model(|host| host.set_packet_faults(Script::none().at(0, fault)));
            go(&*driver, command(&collector, 1, at(0, 0), read10(0, 1), (Direction::In, SECTOR))).unwrap();
            let answer = collector.wait(task, 1).remove(0);
            assert_eq!(answer.response, right, "{fault:?} is believed");
            assert!(answer.residual <= SECTOR as u32, "{fault:?} is believed");
        });
    }
}

#[test]
fn outcomes_are_doubted() {
    doubted(GOOD);
}

#[test]
fn outcomes_are_doubted_control() {
    for defect in [Defect::IgnoresSrbStatus, Defect::TrustsTransferLength] {
        let message = says(|| doubted(Defects::one(defect)));
        assert!(message.contains("is believed"), "{message}");
    }
}

/// Messages cut, stretched, of other kinds, at every place: an error or none, and no panic.
#[test]
fn broken_messages() {
    for nth in [0, 1, 3, 4] {
        for fault in [
            MessageFault::Truncate(0),
            MessageFault::Truncate(11),
            MessageFault::Says(255),
            MessageFault::Kind(u32::MAX),
            MessageFault::SlotKind(0x8000_0010),
        ] {
            let messages = Script::none().at(nth, fault);
            let mut rig = Rig::schedule(Schedule::RANDOM)
                .with(|host| host.faults = Faults { messages: messages.clone(), ..Faults::default() });
            rig.leaks = true;
            rig.allowed = |_| true;
            let run = || {
                rig.machine.run(|task| {
                    let partition =
                        undercroft_hal::hyperv::Partition::start(task, Arc::new(undercroft_hal::hosted::ThisMachine));
                    let Ok(bus) = crate::VmBus::connect(task, partition.unwrap(), &rig.settings) else { return };
                    if let Some(offer) = bus.offers().first() {
                        let _ = crate::Storvsc::new(task, &bus, offer, rig.settings);
                    }
                    drop(bus);
                    settle(task);
                });
            };
            undercroft_hal::hosted::leaks::allowed(run);
        }
    }
}
