//! Task management: what recovery asks for, from a host that does it, refuses it or never answers.

use undercroft_block::scsi::{Managed, Management};

use super::*;
use crate::scsi::ManagementCounts;

/// Sends a command that is never answered.
fn stuck(driver: &VirtioScsi, collector: &Arc<Collector>, cookie: u64, to: Address) -> Tag {
    go(driver, command(collector, cookie, to, read10(1, 1), (Direction::In, 512))).unwrap()
}

fn cookies(answers: &[undercroft_hosts::rig::Answer]) -> Vec<(u64, Response)> {
    let mut all: Vec<_> = answers.iter().map(|answer| (answer.cookie, answer.response)).collect();
    all.sort_by_key(|(cookie, _)| *cookie);
    all
}

/// A command that is never answered is ended by each rung that means it, once, and by none that does not.
fn ladder(defects: Defects) {
    for schedule in [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM] {
        let rig = Rig::schedule(schedule).faults(FaultScript::none().from(3, Fault::Never));
        rig.run(defects, |task, driver| {
            let collector = Arc::new(Collector::default());
            ready(task, &*driver, &LUNS, &collector);
            let first = stuck(&driver, &collector, 1, at(0, 0));
            for (cookie, lun) in [(2, 0), (3, 300), (4, 0), (5, 5)] {
                stuck(&driver, &collector, cookie, at(0, lun));
            }
            let expect = |what: Management, ended: &[(u64, Response)]| {
                assert_eq!(driver.manage(what), Managed::Asked);
                settle(task);
                let answers = collector.take();
                assert_eq!(cookies(&answers), ended, "after {what:?}");
            };
            expect(Management::Abort(first), &[(1, Response::Aborted)]);
            assert_eq!(driver.manage(Management::Abort(first)), Managed::NoCommand);
            expect(Management::ResetUnit(at(0, 0)), &[(2, Response::Reset), (4, Response::Reset)]);
            expect(Management::ResetBus, &[(3, Response::Reset), (5, Response::Reset)]);
            assert_eq!(driver.manage(Management::ResetBus), Managed::NoCommand);
            assert_eq!(driver.management_counts(), ManagementCounts { asked: 3, done: 3, refused: 0 });
        });
        assert_eq!(rig.host.with(|host| host.model().managed()), 3);
    }
}

#[test]
fn a_vscsi_10_a_command_without_an_answer_is_ended_by_each_rung() {
    ladder(GOOD);
}

#[test]
#[should_panic(expected = "after Abort")]
fn a_vscsi_10_a_command_without_an_answer_is_ended_by_each_rung_control() {
    ladder(Defects::one(Defect::NoManagement));
}

/// The tag of a command that has ended names nothing, whatever uses its slot now.
#[test]
fn the_abort_of_a_command_that_has_ended_ends_no_other() {
    let rig = Rig::schedule(Schedule::Eager).faults(FaultScript::none().from(4, Fault::Never));
    rig.run(GOOD, |task, driver| {
        let collector = Arc::new(Collector::default());
        ready(task, &*driver, &LUNS, &collector);
        let ended = go(&*driver, command(&collector, 1, at(0, 0), TEST_UNIT_READY, NOTHING)).unwrap();
        collector.wait(task, 1);
        let next = stuck(&driver, &collector, 2, at(0, 0));
        assert_eq!((next.queue(), next.index()), (ended.queue(), ended.index()), "the same slot");
        assert!(!driver.cancel(ended));
        assert!(!driver.cancel(Tag::from_bits(u64::MAX)), "a tag that never was");
        assert!(!driver.cancel(Tag::from_bits(0)), "a tag of the control queue");
        settle(task);
        assert_eq!(collector.count(), 0);
        assert!(driver.cancel(next));
        assert_eq!(collector.wait(task, 1)[0].cookie, 2);
    });
}

/// A command that the device was not told of yet: the abort does not come before it.
#[test]
fn a_command_that_was_not_committed_is_told_of_before_it_is_aborted() {
    let rig = Rig::schedule(Schedule::Lazy).faults(FaultScript::none().from(3, Fault::Never));
    rig.run(GOOD, |task, driver| {
        let collector = Arc::new(Collector::default());
        ready(task, &*driver, &LUNS, &collector);
        let data = (Direction::In, 512);
        let tag = driver.submit(command(&collector, 1, at(0, 0), read10(1, 1), data)).unwrap();
        assert_eq!(driver.manage(Management::Abort(tag)), Managed::Asked);
        assert_eq!(collector.wait(task, 1)[0].response, Response::Aborted);
    });
}

/// Functions without an answer fill the control queue and no more: the next is refused, and the commands go on.
#[test]
fn a_vscsi_10_management_that_is_never_answered_is_refused_at_last() {
    let rig = Rig::schedule(Schedule::Eager).faults(FaultScript::none().at(3, Fault::Never));
    rig.host.with(|host| host.model().management_deaf = true);
    rig.run(GOOD, |task, driver| {
        let collector = Arc::new(Collector::default());
        ready(task, &*driver, &LUNS, &collector);
        let tag = stuck(&driver, &collector, 1, at(0, 0));
        let asked: Vec<_> = (0..20).map(|_| driver.manage(Management::Abort(tag))).collect();
        let (taken, refused) = asked.split_at(8);
        assert!(taken.iter().all(|managed| *managed == Managed::Asked), "{asked:?}");
        assert!(refused.iter().all(|managed| *managed == Managed::Refused), "{asked:?}");
        assert_eq!(driver.manage(Management::ResetBus), Managed::Refused);
        settle(task);
        assert_eq!(collector.count(), 0);
        go(&*driver, command(&collector, 2, at(0, 0), read10(1, 1), (Direction::In, 512))).unwrap();
        assert_eq!(collector.wait(task, 1)[0].cookie, 2);
        // What is left ends with the driver, the command as well as the functions.
        drop(driver);
        assert_eq!(collector.wait(task, 1)[0].response, Response::Removed);
    });
}

#[test]
fn a_refusal_and_an_answer_from_nowhere_are_counted_and_harmless() {
    for answer in [2, 11, 12, 77] {
        let rig = Rig::schedule(Schedule::RANDOM).faults(FaultScript::none().at(3, Fault::Never));
        rig.host.with(|host| host.model().management_response = Some(answer));
        rig.run(GOOD, |task, driver| {
            let collector = Arc::new(Collector::default());
            ready(task, &*driver, &LUNS, &collector);
            stuck(&driver, &collector, 1, at(0, 0));
            assert_eq!(driver.manage(Management::ResetUnit(at(0, 0))), Managed::Asked);
            settle(task);
            assert_eq!(driver.management_counts(), ManagementCounts { asked: 1, done: 0, refused: 1 });
        });
    }
}

/// More targets than the control queue holds functions: the rest go out as it empties.
#[test]
fn a_reset_of_the_bus_reaches_every_target_with_a_command() {
    let rig = Rig::new(
        Config { schedule: Schedule::RANDOM, ..Config::default() },
        ScsiLimits { max_target: 200, ..ScsiLimits::default() },
    )
    .faults(FaultScript::none().from(0, Fault::Never));
    let targets: Vec<u8> = (0..40).map(|n| n * 5).collect();
    rig.host.with(|host| {
        for &target in &targets {
            host.model().targets.insert(target, Target::new().with(0, unit(0, 512)));
        }
    });
    rig.run(GOOD, |task, driver| {
        let collector = Arc::new(Collector::default());
        for &target in &targets {
            stuck(&driver, &collector, u64::from(target), at(u16::from(target), 0));
        }
        // The device takes them all first: what it has not seen it cannot end.
        settle(task);
        assert_eq!(driver.manage(Management::ResetBus), Managed::Asked);
        let answers = collector.wait(task, targets.len());
        assert_eq!(cookies(&answers), targets.iter().map(|&t| (u64::from(t), Response::Reset)).collect::<Vec<_>>());
        settle(task);
        assert_eq!(driver.management_counts().done, 40);
    });
}

/// The last rung, with a host that answers no function: the host is reset, everything ends, and it goes on, events too.
#[test]
fn a_vscsi_10_a_host_that_answers_nothing_is_reset() {
    for schedule in [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM] {
        let rig = Rig::schedule(schedule).faults(FaultScript::none().at(3, Fault::Never).at(4, Fault::Never));
        rig.host.with(|host| host.model().management_deaf = true);
        rig.run(GOOD, |task, driver| {
            let collector = Arc::new(Collector::default());
            let sink = Sink::new();
            driver.watch(sink.clone());
            ready(task, &*driver, &LUNS, &collector);
            let tag = stuck(&driver, &collector, 1, at(0, 0));
            stuck(&driver, &collector, 2, at(0, 5));
            settle(task);
            let late = command(&collector, 3, at(0, 0), read10(1, 1), (Direction::In, 512));
            driver.submit(late).unwrap();
            assert_eq!(driver.manage(Management::ResetHost), Managed::Asked);
            // Where it goes on at once there is room at once.
            let refused = driver.submit(command(&collector, 4, at(0, 0), TEST_UNIT_READY, NOTHING)).err().map(end);
            if let Some(why) = refused {
                assert_eq!(why, undercroft_block::Refusal::Full);
            }
            let ends = cookies(&collector.wait(task, 3));
            assert_eq!(ends, [(1, Response::Reset), (2, Response::Reset), (3, Response::Busy)]);
            settle(task);
            assert!(!driver.cancel(tag));
            let room = sink.host_events().contains(&HostEvent::Room);
            assert_eq!(room, refused.is_some());
            driver.commit();
            collector.wait(task, usize::from(refused.is_none()));
            assert!(sink.host_events().contains(&HostEvent::Rescan), "events were lost meanwhile");
            ready(task, &*driver, &LUNS, &collector);
            go(&*driver, command(&collector, 5, at(0, 0), read10(1, 1), (Direction::In, 512))).unwrap();
            assert_eq!(collector.wait(task, 1)[0].status, Status::GOOD);
            let before = driver.event_counts().received;
            rig.host.with(|host| (0..30).for_each(|_| host.model().event(ScsiEvent::HardReset(0, 0))));
            settle(task);
            assert!(driver.event_counts().received > before, "no event arrives any more");
        });
    }
}
