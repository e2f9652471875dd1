//! The audit's hazards, each with a twin of the driver that has it, and a host that breaks its contract.

use undercroft_block::Refusal;

use super::*;
use crate::scsi::wire::CommandHead;

/// Far more events than there are buffers: each is told, and each buffer goes back.
fn events(defects: Defects) {
    for schedule in [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM] {
        let rig = Rig::schedule(schedule);
        rig.run(defects, |task, driver| {
            let sink = Sink::new();
            driver.watch(sink.clone());
            for round in 0..20u16 {
                rig.host.with(|host| {
                    host.model().event(ScsiEvent::Rescan(0, 300 + round));
                    host.model().event(ScsiEvent::Removed(0, 5));
                    host.model().event(ScsiEvent::Changed(0, 0, 0x2a, 9));
                    host.model().event(ScsiEvent::HardReset(0, 0));
                });
                settle(task);
            }
            let told = sink.host_events();
            let expected = (0..20).flat_map(|round| {
                [
                    HostEvent::Added(at(0, 300 + round)),
                    HostEvent::Removed(at(0, 5)),
                    HostEvent::Changed(at(0, 0), 0x2a, 9),
                ]
            });
            assert!(told.iter().copied().eq(expected), "{told:?}");
            assert_eq!((driver.event_counts().received, driver.event_counts().missed), (80, 0));
        });
    }
}

#[test]
fn a_vscsi_02_every_event_is_acted_on_and_its_buffer_goes_back() {
    events(GOOD);
}

#[test]
fn a_vscsi_02_every_event_is_acted_on_and_its_buffer_goes_back_control() {
    assert!(caught(|| events(Defects::one(Defect::KeepsEventBuffers))));
}

#[test]
fn events_that_were_missed_ask_for_a_rescan() {
    let rig = Rig::schedule(Schedule::Lazy);
    rig.run(GOOD, |task, driver| {
        let sink = Sink::new();
        driver.watch(sink.clone());
        // More at once than there are buffers, with no chance for the driver to give one back.
        rig.host.with(|host| (0..40).for_each(|_| host.model().event(ScsiEvent::Removed(0, 5))));
        settle(task);
        rig.host.with(|host| host.model().event(ScsiEvent::Removed(0, 5)));
        settle(task);
        assert!(driver.event_counts().missed > 0);
        assert!(sink.host_events().contains(&HostEvent::Rescan));
    });
}

/// Commands and events with no DMA memory to be had.
fn works_without_memory(defects: Defects) {
    let rig = Rig::schedule(Schedule::Eager);
    rig.run(defects, |task, driver| {
        let collector = Arc::new(Collector::default());
        ready(task, &*driver, &LUNS, &collector);
        let commands: Vec<_> =
            (0..50).map(|n| command(&collector, n, at(0, 0), read10(n as u16, 1), (Direction::In, 512))).collect();
        rig.machine.fail_dma_after(0);
        let refused: Vec<_> = commands.into_iter().filter_map(|c| driver.submit(c).err()).map(end).collect();
        assert_eq!(refused, []);
        rig.host.with(|host| host.model().event(ScsiEvent::Removed(0, 5)));
        driver.commit();
        assert!(collector.wait(task, 50).iter().all(|answer| answer.status == Status::GOOD));
    });
}

#[test]
fn a_vscsi_03_a_command_allocates_nothing() {
    works_without_memory(GOOD);
}

#[test]
fn a_vscsi_03_a_command_allocates_nothing_control() {
    assert!(caught(|| works_without_memory(Defects::one(Defect::AllocatesPerRequest))));
}

/// A frame that held a good answer is used for a command that the device does not answer: that is no answer.
fn recycled(defects: Defects) {
    let rig = Rig::schedule(Schedule::Eager).faults(FaultScript::none().at(4, Fault::NoStatus));
    rig.run(defects, |task, driver| {
        let collector = Arc::new(Collector::default());
        ready(task, &*driver, &LUNS, &collector);
        let last = |n| {
            go(&*driver, command(&collector, n, at(0, 0), TEST_UNIT_READY, NOTHING)).unwrap();
            collector.wait(task, 1).remove(0)
        };
        let good = last(3);
        assert_eq!((good.response, good.status, &good.sense[..]), (Response::Complete, Status::GOOD, &[][..]));
        assert_eq!(last(4).response, Response::Broken, "the last command's answer");
    });
}

#[test]
fn a_vscsi_04_a_recycled_frame_carries_nothing_stale() {
    recycled(GOOD);
}

#[test]
fn a_vscsi_04_a_recycled_frame_carries_nothing_stale_control() {
    let message = undercroft_hosts::rig::says(|| recycled(Defects::one(Defect::StatusNotPreset)));
    assert!(message.contains("the last command's answer"), "{message}");
}

fn every_response(defects: Defects) {
    let responses = [
        (0, Response::Complete),
        (1, Response::Overrun),
        (2, Response::Aborted),
        (3, Response::BadTarget),
        (4, Response::Reset),
        (5, Response::Busy),
        (6, Response::TransportFailure),
        (7, Response::TargetFailure),
        (8, Response::NexusFailure),
        (9, Response::Failure),
        (10, Response::Failure),
        (200, Response::Failure),
    ];
    for (code, response) in responses {
        for fault in [Fault::ScsiStatus(0), Fault::ScsiStatus(8), Fault::ScsiStatus(0x28), Fault::Sense(5, 0x20, 0)] {
            let script = FaultScript::none().at(3, fault).at(4, Fault::Status(code));
            let rig = Rig::schedule(Schedule::RANDOM).faults(script);
            rig.run(defects, |task, driver| {
                let collector = Arc::new(Collector::default());
                ready(task, &*driver, &LUNS, &collector);
                for cookie in [3, 4] {
                    go(&*driver, command(&collector, cookie, at(0, 0), TEST_UNIT_READY, NOTHING)).unwrap();
                    let answer = collector.wait(task, 1).remove(0);
                    if cookie == 4 {
                        assert_eq!(answer.response, response, "{code}");
                        continue;
                    }
                    assert_eq!(answer.response, Response::Complete);
                    match fault {
                        Fault::ScsiStatus(status) => {
                            assert_eq!((answer.status, answer.sense.len()), (Status(status), 0));
                        }
                        _ => {
                            assert_eq!(answer.status, Status::CHECK_CONDITION);
                            let sense = (answer.sense[0], answer.sense[2] & 0xf, answer.sense[12]);
                            assert_eq!(sense, (0x70, 5, 0x20));
                        }
                    }
                }
                settle(task);
                assert_eq!(collector.count(), 0, "once");
            });
        }
    }
}

#[test]
fn a_vscsi_08_every_response_and_status() {
    every_response(GOOD);
}

#[test]
fn a_vscsi_08_every_response_and_status_control() {
    assert!(caught(|| every_response(Defects::one(Defect::IgnoresResponse))));
}

/// The tags of all commands in flight, on all queues, differ.
fn tags(defects: Defects) {
    let limits = ScsiLimits { queues: 2, ..ScsiLimits::default() };
    let rig = Rig::new(Config { cpus: 2, schedule: Schedule::Lazy, ..Config::default() }, limits);
    rig.run(defects, |task, driver| {
        let collector = Arc::new(Collector::default());
        let mut tags = Vec::new();
        for round in 0..3 {
            for index in [2, 3] {
                let device = &driver.running.device;
                for n in 0..10 {
                    let command = command(&collector, n, at(0, 0), TEST_UNIT_READY, NOTHING);
                    let tag = super::super::submit::submit(device, index, command, (0, 0)).unwrap();
                    let frames = device.queue(index).unwrap().state.lock();
                    let head: CommandHead = frames.frames.read(tag.index(), 0);
                    drop(frames);
                    assert!(round > 0 || head.id.get() == tag.to_bits());
                    tags.push(head.id.get());
                }
            }
        }
        let all = tags.len();
        tags.sort_unstable();
        tags.dedup();
        assert_eq!(tags.len(), all, "two commands in flight have the same tag");
        drop(driver);
        settle(task);
        assert_eq!(collector.count(), all);
    });
}

#[test]
fn commands_in_flight_have_different_tags() {
    tags(GOOD);
}

#[test]
fn commands_in_flight_have_different_tags_control() {
    assert!(caught(|| tags(Defects::one(Defect::SameTag))));
}

#[test]
fn removal_with_commands_in_flight() {
    let rig = Rig::schedule(Schedule::RANDOM).faults(FaultScript::none().from(3, Fault::Never));
    rig.run(GOOD, |task, driver| {
        let collector = Arc::new(Collector::default());
        ready(task, &*driver, &LUNS, &collector);
        for n in 0..20 {
            go(&*driver, command(&collector, n, at(0, 0), read10(0, 1), (Direction::In, 512))).unwrap();
        }
        drop(driver);
        let answers = collector.wait(task, 20);
        assert!(answers.iter().all(|answer| answer.response == Response::Removed));
        settle(task);
        assert_eq!(collector.count(), 0);
    });
}

#[test]
fn a_broken_contract_ends_every_command_once() {
    let lies = [Fault::Duplicate, Fault::BadId, Fault::IdleId, Fault::IndexJump(9), Fault::TooLong(1)];
    for fault in lies.into_iter().chain([Fault::NoStatus]) {
        let rig = Rig::schedule(Schedule::RANDOM).faults(FaultScript::none().at(6, fault).from(8, Fault::Never));
        rig.run(GOOD, |task, driver| {
            let (collector, sink) = (Arc::new(Collector::default()), Sink::new());
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
            assert!(answers.iter().any(|answer| answer.response == Response::Broken), "{fault:?}");
            let late = go(&*driver, command(&collector, 0, at(0, 0), TEST_UNIT_READY, NOTHING)).unwrap_err();
            assert_eq!(end(late), Refusal::Gone(Error::Broken));
            assert_eq!(sink.host_events()[..], [HostEvent::Gone], "{fault:?}");
        });
    }
}

#[test]
fn a_host_may_count_the_data_of_a_write_and_no_more() {
    // A write of 512 bytes: up to as many too many are taken for the data's, one more is a lie.
    for (more, response) in [(1, Response::Complete), (512, Response::Complete), (513, Response::Broken)] {
        let rig = Rig::schedule(Schedule::Eager).faults(FaultScript::none().at(3, Fault::TooLong(more)));
        rig.run(GOOD, |task, driver| {
            let collector = Arc::new(Collector::default());
            ready(task, &*driver, &LUNS, &collector);
            let write10 = [0x2a, 0, 0, 0, 0, 1, 0, 0, 1, 0];
            go(&*driver, command(&collector, 1, at(0, 0), write10, (Direction::Out, 512))).unwrap();
            assert_eq!(collector.wait(task, 1)[0].response, response, "{more}");
        });
    }
}
