//! Task management: aborts, resets of units and bus, and of the adapter with requests in flight.

use undercroft_block::scsi::{Direction, Host, HostEvent, Managed, Management, Response, scan};
use undercroft_block::{BlockDevice, Refusal, Tag};
use undercroft_hosts::Schedule;
use undercroft_hosts::pvscsi::{Fault, FaultScript, Knobs};

use super::*;
use crate::Pvscsi;
use crate::defect::{Defect, Defects};

const SCHEDULES: [Schedule; 3] = [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM];

/// Twenty reads that the device never answers, ten of target 0 and ten of target 3.
fn stuck(task: &undercroft_hal::Task, driver: &Pvscsi, rig: &Rig, collector: &std::sync::Arc<Collector>) -> Vec<Tag> {
    ready(task, driver, &LUNS, collector);
    go(driver, command(collector, 0, at(3, 0), TEST_UNIT_READY, NOTHING)).unwrap();
    collector.wait(task, 1);
    rig.model(|model| model.set_faults(FaultScript::none().from(0, Fault::Never)));
    let one = |n: u64| command(collector, n, at(if n < 10 { 0 } else { 3 }, 0), read10(0, 1), (Direction::In, 512));
    (0..20).map(|n| go(driver, one(n)).unwrap()).collect()
}

#[test]
fn an_abort_ends_one_command() {
    for schedule in SCHEDULES {
        let rig = Rig::schedule(schedule);
        rig.run(GOOD, |task, driver| {
            let collector = Collector::new();
            let tags = stuck(task, &driver, &rig, &collector);
            assert_eq!(driver.manage(Management::Abort(tags[4])), Managed::Asked);
            let answers = collector.wait(task, 1);
            assert_eq!((answers[0].cookie, answers[0].response), (4, Response::Aborted));
            settle(task);
            assert_eq!((collector.count(), rig.model(|model| model.managed())), (0, 1));
            // A second time, and by another name: there is no such command.
            assert_eq!(driver.manage(Management::Abort(tags[4])), Managed::NoCommand);
            assert_eq!(driver.manage(Management::Abort(Tag::from_bits(u64::MAX))), Managed::NoCommand);
            assert!(driver.cancel(tags[5]));
            assert_eq!(collector.wait(task, 1)[0].cookie, 5);
            drop(driver);
            assert_eq!(collector.wait(task, 18).len(), 18);
        });
    }
}

#[test]
fn resets_end_what_they_should() {
    for schedule in SCHEDULES {
        let rig = Rig::schedule(schedule);
        rig.run(GOOD, |task, driver| {
            let collector = Collector::new();
            stuck(task, &driver, &rig, &collector);
            assert_eq!(driver.manage(Management::ResetUnit(at(3, 0))), Managed::Asked);
            let answers = collector.wait(task, 10);
            assert!(answers.iter().all(|answer| answer.response == Response::Reset && answer.cookie >= 10));
            assert_eq!(driver.manage(Management::ResetUnit(at(2, 0))), Managed::Refused, "there is no such target");
            assert_eq!(driver.manage(Management::ResetBus), Managed::Asked);
            let answers = collector.wait(task, 10);
            assert!(answers.iter().all(|answer| answer.response == Response::Reset && answer.cookie < 10));
            // It goes on.
            rig.model(|model| model.set_faults(FaultScript::none()));
            ready(task, &*driver, &LUNS, &collector);
        });
    }
}

/// What the device was not shown yet is ended too: commands that were submitted and not committed.
fn unpublished(defects: Defects) {
    let rig = Rig::schedule(Schedule::Lazy);
    rig.run(defects, |task, driver| {
        let collector = Collector::new();
        ready(task, &*driver, &LUNS, &collector);
        rig.model(|model| model.set_faults(FaultScript::none().from(0, Fault::Never)));
        let tag = driver.submit(command(&collector, 7, at(0, 0), TEST_UNIT_READY, NOTHING)).unwrap();
        assert_eq!(driver.manage(Management::Abort(tag)), Managed::Asked);
        settle(task);
        assert_eq!(collector.count(), 1, "the abort did not find its command");
        assert_eq!(collector.wait(task, 1)[0].response, Response::Aborted);
    });
}

#[test]
fn an_abort_of_a_command_that_was_not_shown_yet() {
    unpublished(GOOD);
}

#[test]
fn an_abort_of_a_command_that_was_not_shown_yet_control() {
    let message = says(|| unpublished(Defects::one(Defect::AbortsUnpublished)));
    assert!(message.contains("did not find its command"), "{message}");
}

/// A device that is deaf to all but the last rung.
#[test]
fn the_whole_ladder() {
    for reset_forgets in [false, true] {
        let rig = Rig::knobs(Schedule::RANDOM, Knobs { deaf: true, reset_forgets, ..Knobs::default() });
        rig.run(GOOD, |task, driver| {
            let collector = Collector::new();
            let tags = stuck(task, &driver, &rig, &collector);
            let unit = Management::ResetUnit(at(0, 0));
            for rung in [Management::Abort(tags[0]), unit, Management::ResetBus] {
                assert_eq!(driver.manage(rung), Managed::Asked);
                settle(task);
                assert_eq!(collector.count(), 0);
            }
            assert_eq!(driver.manage(Management::ResetHost), Managed::Asked);
            let answers = collector.wait(task, 20);
            assert!(answers.iter().all(|answer| answer.response == Response::Reset));
        });
    }
}

/// The adapter is reset in the middle of everything: what was answered counts, the rest ends with a reset, and it goes on.
fn adapter_reset(defects: Defects) {
    for schedule in SCHEDULES {
        for reset_forgets in [false, true] {
            let rig = Rig::knobs(schedule, Knobs { reset_forgets, ..Knobs::default() });
            rig.run(defects, |task, driver| {
                let (collector, sink) = (Collector::new(), Sink::new());
                driver.watch(sink.clone());
                for round in 1..=20 {
                    rig.model(|model| model.set_faults(FaultScript::none().every(3, Fault::Never)));
                    let mut submitted = 0;
                    for n in 0..30 {
                        let next = command(&collector, n, at(0, 0), read10(0, 1), (Direction::In, 512));
                        match driver.submit(next) {
                            Ok(_) => submitted += 1,
                            Err(refused) => assert_eq!(end(refused), Refusal::Full),
                        }
                        if n % 7 == 0 {
                            driver.commit();
                        }
                    }
                    // What is sent from now on is answered.
                    rig.model(|model| model.set_faults(FaultScript::none()));
                    assert_eq!(driver.manage(Management::ResetHost), Managed::Asked);
                    let late = go(&*driver, command(&collector, 99, at(0, 0), TEST_UNIT_READY, NOTHING));
                    if let Err(refused) = late {
                        assert_eq!(end(refused), Refusal::Full, "it will go on");
                    } else {
                        submitted += 1;
                    }
                    let answers = collector.wait(task, submitted);
                    let known = |answer: &undercroft_hosts::rig::Answer| {
                        matches!(answer.response, Response::Complete | Response::Reset)
                    };
                    assert!(answers.iter().all(known), "{answers:?}");
                    settle(task);
                    assert_eq!((collector.count(), driver.counts().resets), (0, round));
                }
                ready(task, &*driver, &LUNS, &collector);
                assert!(sink.host_events().contains(&HostEvent::Rescan), "messages may have been lost");
            });
        }
    }
}

#[test]
fn a_reset_of_the_adapter_with_commands_in_flight() {
    adapter_reset(GOOD);
}

#[test]
fn a_reset_of_the_adapter_with_commands_in_flight_control() {
    let message = says(|| adapter_reset(Defects::one(Defect::ForgetsAtReset)));
    assert!(message.contains("never comes") || message.contains("left behind"), "{message}");
}

#[test]
fn disks_go_on_after_a_reset_of_their_adapter() {
    for schedule in SCHEDULES {
        let rig = Rig::schedule(schedule);
        rig.run(GOOD, |task, driver| {
            let disks = scan(task, driver.clone()).unwrap().disks;
            let sink = Sink::new();
            rig.model(|model| model.set_faults(FaultScript::none().at(3, Fault::Never).at(5, Fault::Never)));
            for n in 0..20 {
                disks[0].submit(read(n, 1, 512, sink.to(n))).unwrap();
            }
            disks[0].commit();
            settle(task);
            assert_eq!(driver.manage(Management::ResetHost), Managed::Asked);
            for done in sink.wait(task, 20) {
                // Sent again by the disk.
                assert_eq!((done.result, bytes(&done.request)), (Ok(()), pattern(0, done.cookie, 1)));
            }
        });
    }
}

#[test]
fn a_reset_that_fails_is_the_end() {
    let rig = Rig::schedule(Schedule::RANDOM);
    rig.run(GOOD, |task, driver| {
        let (collector, sink) = (Collector::new(), Sink::new());
        driver.watch(sink.clone());
        stuck(task, &driver, &rig, &collector);
        rig.model(|model| model.knobs.refuses = 1 << 3);
        assert_eq!(driver.manage(Management::ResetHost), Managed::Asked);
        assert!(collector.wait(task, 20).iter().all(|answer| answer.response == Response::Reset));
        settle(task);
        assert_eq!(sink.host_events(), [HostEvent::Gone]);
        assert_eq!(driver.manage(Management::ResetBus), Managed::Refused);
        assert_eq!(driver.manage(Management::ResetHost), Managed::Refused);
    });
}
