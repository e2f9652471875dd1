//! Units that come and go while the adapter is in use.

use undercroft_block::scsi::{Bus, Direction, Host, HostEvent, Response};
use undercroft_block::{BlockDevice, Error};
use undercroft_hosts::Schedule;
use undercroft_hosts::pvscsi::{Fault, FaultScript};
use undercroft_hosts::scsi::Target;

use super::rig::unit;
use super::*;
use crate::defect::{Defect, Defects};

/// Far more messages than the ring holds: each is told, and its place given back.
fn messages(defects: Defects) {
    for schedule in [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM] {
        let rig = Rig::schedule(schedule);
        rig.run(defects, |task, driver| {
            let sink = Sink::new();
            driver.watch(sink.clone());
            for round in 0..40u32 {
                rig.model(|model| {
                    model.message(0, 0, round % 8, [0; 8]);
                    model.message(1, 0, 3, [0x41, 0x2c, 0, 0, 0, 0, 0, 0]);
                });
                settle(task);
            }
            let expected = (0..40)
                .flat_map(|n| [HostEvent::Added(at(n % 8, 0)), HostEvent::Removed(at(3, 300))])
                .collect::<Vec<_>>();
            assert_eq!(sink.host_events(), expected, "messages were lost");
            assert_eq!((driver.counts().messages, driver.counts().unclear), (80, 0));
            assert_eq!(rig.model(|model| model.lost_messages()), 0);
        });
    }
}

#[test]
fn every_message_is_acted_on_and_its_place_given_back() {
    messages(GOOD);
}

#[test]
fn every_message_is_acted_on_and_its_place_given_back_control() {
    let message = says(|| messages(Defects::one(Defect::KeepsMessages)));
    assert!(message.contains("messages were lost"), "{message}");
}

/// Messages of kinds, and about buses, targets and units, that there are none of: each asks for a look at everything, and commands go on.
fn unasked_for(defects: Defects) {
    for schedule in [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM] {
        let rig = Rig::schedule(schedule);
        rig.run(defects, |task, driver| {
            let (collector, sink) = (Collector::new(), Sink::new());
            driver.watch(sink.clone());
            ready(task, &*driver, &LUNS, &collector);
            for round in 0..20 {
                rig.model(|model| {
                    model.message(2 + round, 0, 1, [0; 8]);
                    model.message(u32::MAX, u32::MAX, u32::MAX, [0xff; 8]);
                    model.message(0, 1, 1, [0; 8]);
                    model.message(1, 0, 256, [0; 8]);
                    model.message(0, 0, 1, [0xff; 8]);
                    // This one says something, about a target that is not there.
                    model.message(1, 0, 77, [0; 8]);
                });
                settle(task);
                let next = command(&collector, 1, at(0, 0), read10(7, 1), (Direction::In, 512));
                if let Err(refused) = go(&*driver, next) {
                    panic!("stopped by a message that nobody asked for: {:?}", end(refused));
                }
                assert_eq!(collector.wait(task, 1)[0].response, Response::Complete);
            }
            let one = [vec![HostEvent::Rescan; 5], vec![HostEvent::Removed(at(77, 0))]].concat();
            assert_eq!(sink.host_events(), one.repeat(20));
            assert_eq!((driver.counts().messages, driver.counts().unclear), (120, 100));
        });
    }
}

#[test]
fn p_14_messages_that_nobody_asked_for() {
    unasked_for(GOOD);
}

#[test]
fn p_14_messages_that_nobody_asked_for_control() {
    let message = says(|| unasked_for(Defects::one(Defect::StopsAtUnknown)));
    assert!(message.contains("stopped by a message that nobody asked for"), "{message}");
}

#[test]
fn a_disk_comes_and_goes_while_another_works() {
    for schedule in [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM] {
        let rig = Rig::schedule(schedule);
        rig.run(GOOD, |task, driver| {
            let bus = Bus::new(driver);
            let first = bus.scan(task).unwrap();
            assert_eq!(first.disks.len(), 4);
            let sink = Sink::new();
            rig.model(|model| model.plug(6, Target::new().with(0, unit(6, 512))));
            settle(task);
            let second = bus.scan(task).unwrap();
            assert_eq!(second.disks.len(), 1);
            let new = &second.disks[0];
            assert_eq!(new.address(), at(6, 0));
            // The one works, the other goes with requests in flight.
            rig.model(|model| model.set_faults(FaultScript::none().every(2, Fault::Delay(3000))));
            for n in 0..10 {
                first.disks[0].submit(read(n, 1, 512, sink.to(n))).unwrap();
                new.submit(read(n, 1, 512, sink.to(100 + n))).unwrap();
            }
            new.commit();
            rig.model(|model| drop(model.unplug(6)));
            let done = sink.wait(task, 20);
            for done in &done {
                if done.cookie < 100 {
                    assert_eq!(done.result, Ok(()));
                } else {
                    assert!(matches!(done.result, Ok(()) | Err(Error::Cancelled | Error::Removed)), "{done:?}");
                }
            }
            settle(task);
            assert_eq!(sink.count(), 0, "once");
            let refused = new.submit(read(1, 1, 512, sink.to(1))).unwrap_err();
            assert_eq!(refused.error(), Some(Error::Removed));
            drop(second);
            // The place is used again by another disk.
            rig.model(|model| model.plug(6, Target::new().with(0, unit(66, 512))));
            settle(task);
            assert_eq!(bus.scan(task).unwrap().disks.len(), 1);
        });
    }
}

/// The adapter is removed with commands in flight.
fn removal(defects: Defects) {
    let rig = Rig::schedule(Schedule::RANDOM).faults(FaultScript::none().from(3, Fault::Never));
    rig.run(defects, |task, driver| {
        let (collector, sink) = (Collector::new(), Sink::new());
        driver.watch(sink.clone());
        ready(task, &*driver, &LUNS, &collector);
        for n in 0..200 {
            go(&*driver, command(&collector, n, at(0, 0), read10(0, 1), (Direction::In, 512))).unwrap();
        }
        drop(driver);
        let answers = collector.wait(task, 200);
        assert!(answers.iter().all(|answer| answer.response == Response::Removed));
        settle(task);
        assert_eq!((collector.count(), sink.host_events()), (0, vec![HostEvent::Gone]));
    });
}

#[test]
fn removal_with_commands_in_flight() {
    removal(GOOD);
}

#[test]
fn removal_with_commands_in_flight_control() {
    let message = says(|| removal(Defects::one(Defect::ForgetsAtRemoval)));
    assert!(message.contains("never comes"), "{message}");
}

/// The function is pulled out without a word: nothing answers any more, and all ends when the driver lets go.
#[test]
fn surprise_removal() {
    for layout in [undercroft_hosts::pvscsi::Layout::MsiX, undercroft_hosts::pvscsi::Layout::Line] {
        let rig =
            Rig::new(Default::default(), layout, Default::default()).faults(FaultScript::none().from(3, Fault::Never));
        rig.run(GOOD, |task, driver| {
            let collector = Collector::new();
            ready(task, &*driver, &LUNS, &collector);
            for n in 0..10 {
                go(&*driver, command(&collector, n, at(0, 0), TEST_UNIT_READY, NOTHING)).unwrap();
            }
            rig.machine.unplug(&rig.host);
            settle(task);
            assert_eq!(collector.count(), 0);
            drop(driver);
            assert!(collector.wait(task, 10).iter().all(|answer| answer.response == Response::Removed));
        });
    }
}
