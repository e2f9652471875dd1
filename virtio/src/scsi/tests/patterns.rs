//! Patterns of defects that were mended late elsewhere: each with a twin of the driver that has the defect.

use undercroft_block::scsi::Bus;
use undercroft_block::{BlockDevice, Event};

use super::*;
use undercroft_hosts::rig::{bytes, read, says};

/// Events of kinds and about units that nobody knows, more of them than there are buffers: the units that are there go on.
fn unasked_for(defects: Defects) {
    for schedule in [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM] {
        let rig = Rig::schedule(schedule);
        rig.run(defects, |task, driver| {
            let (collector, sink) = (Arc::new(Collector::default()), Sink::new());
            driver.watch(sink.clone());
            ready(task, &*driver, &LUNS, &collector);
            let (known, other) = ([1, 0, 0, 5, 0, 0, 0, 0], [1, 200, 0x7f, 0xff, 0, 0, 0, 0]);
            for round in 0..40u32 {
                rig.host.with(|host| {
                    for kind in [0, 2, 4, 77 + round, 0x7fff_ffff] {
                        host.model().event(ScsiEvent::Raw(kind, known, round));
                        host.model().event(ScsiEvent::Raw(kind, [0xff; 8], u32::MAX));
                    }
                    host.model().event(ScsiEvent::Raw(1, known, 3 + round));
                    host.model().event(ScsiEvent::Raw(1, other, 2));
                    host.model().event(ScsiEvent::Raw(3, other, u32::MAX));
                });
                settle(task);
                let next = command(&collector, 1, at(0, 0), read10(7, 1), (Direction::In, 512));
                if let Err(refused) = go(&*driver, next) {
                    panic!("stopped by an event that nobody asked for: {:?}", end(refused));
                }
                let answer = collector.wait(task, 1).remove(0);
                assert_eq!((answer.response, answer.status), (Response::Complete, Status::GOOD));
            }
            assert_eq!(driver.event_counts(), crate::scsi::EventCounts { received: 40 * 13, missed: 0 });
            let told = sink.host_events();
            let about = |event: &HostEvent| {
                matches!(event, HostEvent::Removed(unit) | HostEvent::Changed(unit, 0xff, 0xff)
                    if unit.target == 200)
            };
            assert!(told.iter().all(about) && told.len() == 80, "{told:?}");
        });
    }
}

#[test]
fn p_14_events_that_nobody_asked_for() {
    unasked_for(GOOD);
}

#[test]
fn p_14_events_that_nobody_asked_for_control() {
    let message = says(|| unasked_for(Defects::one(Defect::StopsAtUnknown)));
    assert!(message.contains("stopped by an event that nobody asked for"), "{message}");
}

/// Three disks come at once, at two targets; each is itself, and of them the one that goes is told so.
fn disks_come_and_go(defects: Defects) {
    for schedule in [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM] {
        let rig = Rig::schedule(schedule);
        rig.run(defects, |task, driver| {
            let bus = Bus::new(driver);
            let before = bus.scan(task).unwrap().disks;
            assert_eq!(before.len(), 3);
            rig.host.with(|host| {
                let target = host.model().target(0).unwrap();
                target.add(7, unit(7, 512));
                target.add(8, unit(8, 512));
                host.model().targets.insert(1, Target::new().with(0, unit(11, 512)));
                for (target, lun) in [(0, 7), (0, 8), (1, 0)] {
                    host.model().event(ScsiEvent::Rescan(target, lun));
                }
            });
            settle(task);
            let disks = bus.scan(task).unwrap().disks;
            let found: Vec<_> = disks.iter().map(|disk| disk.address()).collect();
            assert_eq!(found, [at(0, 7), at(0, 8), at(1, 0)], "not all were found");
            let watchers: Vec<_> = disks.iter().map(|_| Sink::new()).collect();
            for ((disk, sink), seed) in disks.iter().zip(&watchers).zip([7, 8, 11]) {
                disk.watch(sink.clone());
                disk.submit(read(seed, 1, 512, sink.to(0))).unwrap();
                disk.commit();
                assert_eq!(bytes(&sink.wait(task, 1)[0].request)[..], Disk::pattern(seed, seed));
            }
            rig.host.with(|host| {
                host.model().target(0).unwrap().remove(8);
                host.model().event(ScsiEvent::Removed(0, 8));
            });
            settle(task);
            let told: Vec<_> = watchers.iter().map(|sink| sink.events()).collect();
            assert_eq!(told, [vec![], vec![Event::Removed], vec![]], "who was told that it went");
        });
    }
}

#[test]
fn p_15_disks_come_at_once_and_one_goes() {
    disks_come_and_go(GOOD);
}

#[test]
fn p_15_disks_come_at_once_and_one_goes_control() {
    let message = says(|| disks_come_and_go(Defects::one(Defect::OneUnit)));
    assert!(message.contains("who was told that it went"), "{message}");
}

/// Lengths of sense data that cannot be: there is no more than the buffer, and never another command's.
fn sense_lengths(defects: Defects) {
    for (said, given) in
        [(0, 0), (7, 7), (18, 18), (96, 96), (97, 96), (255, 96), (256, 96), (1 << 16, 96), (u32::MAX, 96)]
    {
        let script = FaultScript::none().at(3, Fault::Sense(5, 0x20, 0)).at(3, Fault::SaysSense(said));
        let rig = Rig::schedule(Schedule::Eager).faults(script);
        rig.run(defects, |task, driver| {
            let collector = Arc::new(Collector::default());
            ready(task, &*driver, &LUNS, &collector);
            go(&*driver, command(&collector, 3, at(0, 0), TEST_UNIT_READY, NOTHING)).unwrap();
            let answer = collector.wait(task, 1).remove(0);
            assert_eq!((answer.response, answer.status), (Response::Complete, Status::CHECK_CONDITION));
            assert_eq!(answer.sense.len(), given, "{said} bytes of sense data said");
            assert!(given < 3 || answer.sense[2] == 5);
        });
    }
}

#[test]
fn p_16_lengths_of_sense_data() {
    sense_lengths(GOOD);
}

#[test]
fn p_16_lengths_of_sense_data_control() {
    let message = says(|| sense_lengths(Defects::one(Defect::TrustsSenseLength)));
    assert!(message.contains("out of range"), "{message}");
}
