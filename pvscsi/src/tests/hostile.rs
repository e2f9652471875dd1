//! A host that breaks its contract.

use undercroft_block::scsi::{Direction, Host, HostEvent, Response, Status};
use undercroft_block::{Error, Refusal};
use undercroft_hosts::Schedule;
use undercroft_hosts::pvscsi::{Fault, FaultScript};

use super::*;
use crate::defect::{Defect, Defects};

/// Lies after which the adapter is not used any more; each command ends once.
fn broken(defects: Defects, lies: &[Fault]) {
    for &fault in lies {
        let script = FaultScript::none().at(6, fault).from(8, Fault::Never);
        let rig = Rig::schedule(Schedule::RANDOM).faults(script);
        rig.run(defects, |task, driver| {
            let (collector, sink) = (Collector::new(), Sink::new());
            driver.watch(sink.clone());
            ready(task, &*driver, &LUNS, &collector);
            let mut submitted = 0;
            for n in 0..20 {
                match go(&*driver, command(&collector, n, at(0, 0), read10(0, 1), (Direction::In, 512))) {
                    Ok(_) => submitted += 1,
                    Err(refused) => assert!(matches!(end(refused), Refusal::Gone(_))),
                }
            }
            let answers = collector.wait(task, submitted);
            settle(task);
            assert_eq!(collector.count(), 0, "{fault:?}: once");
            assert!(answers.iter().any(|answer| answer.response == Response::Broken), "{fault:?} goes unseen");
            let late = go(&*driver, command(&collector, 0, at(0, 0), TEST_UNIT_READY, NOTHING)).unwrap_err();
            assert_eq!(end(late), Refusal::Gone(Error::Broken));
            assert_eq!(sink.host_events(), [HostEvent::Gone], "{fault:?}");
        });
    }
}

const CONTEXTS: [Fault; 7] = [
    Fault::Duplicate,
    Fault::StaleContext,
    Fault::OldContext,
    Fault::BadContext(0),
    Fault::BadContext(0xffff),
    Fault::BadContext(1 << 32 | 1),
    Fault::BadContext(u64::MAX),
];

#[test]
fn p_10_a_context_that_is_not_in_flight() {
    broken(GOOD, &CONTEXTS);
}

#[test]
fn p_10_a_context_that_is_not_in_flight_control() {
    let message = says(|| broken(Defects::one(Defect::TrustsContext), &[Fault::OldContext]));
    assert!(message.contains("goes unseen") || message.contains("never comes"), "{message}");
}

/// The host says that there is a completion, and has written none: neither the zeroes that the ring began with nor what an earlier use of the
/// place left there is an answer.
fn unwritten(defects: Defects) {
    const BATCH: u64 = 4;
    for batches in [0, 1, 300] {
        let last = 3 + BATCH * batches;
        let script = FaultScript::none().at(last, Fault::ProducerJump(1)).from(last + 1, Fault::Never);
        let rig = Rig::schedule(Schedule::Lazy).faults(script);
        rig.run(defects, |task, driver| {
            let collector = Collector::new();
            ready(task, &*driver, &LUNS, &collector);
            let send = || {
                for n in 0..BATCH {
                    driver.submit(command(&collector, n, at(0, 0), read10(0, 1), (Direction::In, 512))).unwrap();
                }
                driver.commit();
            };
            for _ in 0..batches {
                send();
                let answers = collector.wait(task, BATCH as usize);
                assert!(answers.iter().all(|answer| answer.response == Response::Complete));
            }
            send();
            let responses: Vec<_> = collector.wait(task, 2).iter().map(|answer| answer.response).collect();
            let right = [Response::Complete, Response::Broken];
            assert_eq!(responses[..2], right, "{batches}: what nobody wrote was taken for an answer");
            task.wait_until(|| responses.len() + collector.count() >= BATCH as usize);
        });
    }
}

#[test]
fn p_15_a_status_that_nobody_wrote() {
    unwritten(GOOD);
}

#[test]
fn p_15_a_status_that_nobody_wrote_control() {
    let message = says(|| unwritten(Defects::one(Defect::TrustsContext)));
    assert!(message.contains("what nobody wrote was taken for an answer"), "{message}");
}

const JUMPS: [Fault; 4] = [
    Fault::ProducerJump(300),
    Fault::ProducerJump(257),
    Fault::ProducerJump(u32::MAX - 4),
    Fault::ProducerJump(1 << 31),
];

#[test]
fn a_producer_that_jumps() {
    broken(GOOD, &JUMPS);
}

/// Lengths that cannot be: nothing is read outside of what is there, and the command ends as it would.
fn lengths(defects: Defects) {
    let lies = [
        Fault::SaysSense(97),
        Fault::SaysSense(u32::MAX),
        Fault::SaysMoved(u64::MAX),
        Fault::SaysMoved(513),
        Fault::SaysMoved(1 << 33),
    ];
    for lie in lies {
        let script = FaultScript::none().at(3, Fault::Sense(5, 0x20, 0)).at(3, lie).at(4, lie);
        let rig = Rig::schedule(Schedule::Eager).faults(script);
        rig.run(defects, |task, driver| {
            let collector = Collector::new();
            ready(task, &*driver, &LUNS, &collector);
            for cookie in [3, 4] {
                go(&*driver, command(&collector, cookie, at(0, 0), read10(1, 1), (Direction::In, 512))).unwrap();
                let answer = collector.wait(task, 1).remove(0);
                assert_eq!(answer.response, Response::Complete, "{lie:?}");
                assert!(answer.sense.len() <= 96 && answer.residual <= 512, "{lie:?}: {answer:?}");
                if cookie == 4 {
                    assert_eq!((answer.status, answer.residual, answer.sense.len()), (Status::GOOD, 0, 0), "{lie:?}");
                }
            }
        });
    }
}

#[test]
fn p_16_lengths_that_cannot_be() {
    lengths(GOOD);
}

#[test]
fn p_16_lengths_that_cannot_be_control_sense() {
    let message = says(|| lengths(Defects::one(Defect::TrustsSenseLength)));
    assert!(message.contains("out of range"), "{message}");
}

#[test]
fn p_16_lengths_that_cannot_be_control_data() {
    let message = says(|| lengths(Defects::one(Defect::TrustsDataLength)));
    assert!(message.contains("SaysMoved"), "{message}");
}

fn statuses(defects: Defects) {
    let expectations = [
        (0x00, Response::Complete),
        (0x0a, Response::Complete),
        (0x0b, Response::Complete),
        (0x0c, Response::Complete),
        (0x11, Response::BadTarget),
        (0x12, Response::Complete),
        (0x13, Response::TransportFailure),
        (0x14, Response::TransportFailure),
        (0x17, Response::Failure),
        (0x1a, Response::Failure),
        (0x1b, Response::Complete),
        (0x1c, Response::Failure),
        (0x1d, Response::Failure),
        (0x20, Response::Failure),
        (0x21, Response::TransportFailure),
        (0x22, Response::Reset),
        (0x23, Response::Reset),
        (0x24, Response::TransportFailure),
        (0x25, Response::Reset),
        (0x26, Response::Aborted),
        (0x27, Response::Failure),
        (0x30, Response::TransportFailure),
        (0x34, Response::TransportFailure),
        (0x99, Response::Failure),
        (0xffff, Response::Failure),
    ];
    for (code, response) in expectations {
        let script = FaultScript::none().at(3, Fault::HostStatus(code));
        let rig = Rig::schedule(Schedule::Eager).faults(script);
        rig.run(defects, |task, driver| {
            let collector = Collector::new();
            ready(task, &*driver, &LUNS, &collector);
            go(&*driver, command(&collector, 3, at(0, 0), TEST_UNIT_READY, NOTHING)).unwrap();
            assert_eq!(collector.wait(task, 1)[0].response, response, "{code:#x}");
        });
    }
    for (code, response) in [(0x08, Response::Complete), (0x28, Response::Complete), (0x102, Response::Failure)] {
        let rig = Rig::schedule(Schedule::Eager).faults(FaultScript::none().at(3, Fault::ScsiStatus(code)));
        rig.run(defects, |task, driver| {
            let collector = Collector::new();
            ready(task, &*driver, &LUNS, &collector);
            go(&*driver, command(&collector, 3, at(0, 0), TEST_UNIT_READY, NOTHING)).unwrap();
            let answer = collector.wait(task, 1).remove(0);
            let status = if response == Response::Complete { Status(code as u8) } else { Status::GOOD };
            assert_eq!((answer.response, answer.status), (response, status), "{code:#x}");
        });
    }
}

#[test]
fn every_status_of_the_adapter() {
    statuses(GOOD);
}

#[test]
fn every_status_of_the_adapter_control() {
    let message = says(|| statuses(Defects::one(Defect::IgnoresHostStatus)));
    assert!(message.contains("0x11"), "{message}");
}

/// Section 3, 4: sense data of one command is not the next one's. The host says that it wrote some and did not.
fn stale_sense(defects: Defects) {
    let script =
        FaultScript::none().at(3, Fault::Sense(3, 0x11, 0)).at(4, Fault::ScsiStatus(2)).at(4, Fault::SaysSense(18));
    let rig = Rig::schedule(Schedule::Eager).faults(script);
    rig.run(defects, |task, driver| {
        let collector = Collector::new();
        ready(task, &*driver, &LUNS, &collector);
        let mut senses = Vec::new();
        for n in [3, 4] {
            go(&*driver, command(&collector, n, at(0, 0), TEST_UNIT_READY, NOTHING)).unwrap();
            senses.push(collector.wait(task, 1).remove(0).sense);
        }
        assert_eq!((senses[0][0], senses[0][2]), (0x70, 3));
        assert!(senses[1].iter().all(|byte| *byte == 0), "sense data of another command: {:?}", senses[1]);
    });
}

#[test]
fn a_recycled_slot_carries_no_stale_sense() {
    stale_sense(GOOD);
}

#[test]
fn a_recycled_slot_carries_no_stale_sense_control() {
    let message = says(|| stale_sense(Defects::one(Defect::KeepsSense)));
    assert!(message.contains("sense data of another command"), "{message}");
}

/// A message ring that claims more than it holds.
fn message_jumps(defects: Defects) {
    for by in [33, 1000, u32::MAX] {
        let rig = Rig::schedule(Schedule::Lazy);
        rig.run(defects, |task, driver| {
            let (collector, sink) = (Collector::new(), Sink::new());
            driver.watch(sink.clone());
            ready(task, &*driver, &LUNS, &collector);
            rig.model(|model| model.jump_messages(by));
            settle(task);
            assert_eq!(sink.host_events(), [HostEvent::Gone], "{by}: messages that are none");
        });
    }
}

#[test]
fn a_message_producer_that_jumps() {
    message_jumps(GOOD);
}

#[test]
fn a_message_producer_that_jumps_control() {
    let message = says(|| message_jumps(Defects::one(Defect::TrustsProducer)));
    assert!(message.contains("messages that are none"), "{message}");
}

/// Whatever goes wrong, in any order: each command ends once, and nothing is left.
#[test]
fn everything_at_once() {
    let faults = [
        Fault::Delay(5000),
        Fault::Behind(7),
        Fault::HostStatus(0x13),
        Fault::ScsiStatus(8),
        Fault::Sense(6, 0x29, 0),
        Fault::Short(100),
        Fault::SaysMoved(1 << 40),
        Fault::SaysSense(400),
        Fault::Spurious,
    ];
    for seed in 0..8 {
        let config = undercroft_hosts::Config { schedule: Schedule::RANDOM, seed, ..Default::default() };
        let knobs =
            undercroft_hosts::pvscsi::Knobs { order: undercroft_hosts::virtio::Order::Random, ..Default::default() };
        let rig = Rig::new(config, undercroft_hosts::pvscsi::Layout::Msi, knobs)
            .faults(FaultScript::none().sometimes(seed, 40, &faults));
        rig.run(GOOD, |task, driver| {
            let collector = Collector::new();
            let mut submitted = 0;
            for n in 0..600 {
                let next = command(&collector, n, at(0, 0), read10(n as u16, 2), (Direction::In, 1024));
                match go(&*driver, next) {
                    Ok(_) => submitted += 1,
                    Err(refused) => {
                        assert_eq!(end(refused), Refusal::Full);
                        task.run_pending();
                        undercroft_hal::cpu::relax();
                    }
                }
            }
            collector.wait(task, submitted);
            settle(task);
            assert_eq!(collector.count(), 0);
        });
    }
}
