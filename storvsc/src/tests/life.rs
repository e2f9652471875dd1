//! What comes and goes: units, controllers, channels, the bus, the driver; with I/O under way.

use std::sync::Mutex;
use undercroft_block::scsi::{Bus, Direction, Host, HostEvent, Managed, Management, Response, Status, scan};
use undercroft_block::{BlockDevice, Error, Event, Refusal, Watcher};
use undercroft_hal::hosted::ThisMachine;
use undercroft_hal::hyperv::Partition;
use undercroft_hal::{BottomHalf, Instant};
use undercroft_hosts::hyperv::{Absent, Controller, Event as HostsEvent, Fault, Faults};
use undercroft_hosts::scsi::Target;
use undercroft_hosts::{Schedule, Script};

use super::*;
use crate::defect::{Defect, Defects};
use crate::wire::message::Version;
use crate::{ProbeError, Settings, VmBus};

const SECTOR: usize = 512;

fn never(host: &mut undercroft_hosts::hyperv::Hyperv) {
    host.set_packet_faults(Script::none().every(1, Fault::Never));
}

fn submit_all(driver: &Storvsc, collector: &Arc<Collector>, count: u64) {
    for n in 0..count {
        driver.submit(command(collector, n, at(0, 0), read10(n as u16, 1), (Direction::In, SECTOR))).unwrap();
    }
    driver.commit();
}

/// A rescind with I/O outstanding, which never completes: every command ends once, as removed, and not before the host has let go.
fn rescinded(defects: Defects) {
    for (cpus, schedule) in [(1, Schedule::Eager), (1, Schedule::RANDOM), (2, Schedule::RANDOM)] {
        let rig = Rig::cpus(cpus, schedule, 7).with(|host| host.knobs.torn_down_after = 20_000);
        rig.run(defects, |task, driver| {
            let (collector, sink) = (Collector::new(), Sink::new());
            ready(task, &*driver, &LUNS, &collector);
            driver.watch(sink.clone());
            rig.model(never);
            submit_all(&driver, &collector, 20);
            rig.host.with(|plugged| plugged.pull_out(0));
            let first = Arc::new(Mutex::new(None));
            let (noted, begun) = (first.clone(), Instant::now());
            collector.on_answer(move |_| {
                noted.lock().unwrap().get_or_insert(Instant::now());
            });
            let answers = collector.spin(task, 20);
            collector.forget_hook();
            let after = first.lock().unwrap().expect("answers").as_nanos() - begun.as_nanos();
            assert!(after >= 2_000_000, "a command ended while the host had its memory");
            let mut cookies: Vec<_> = answers.iter().map(|answer| answer.cookie).collect();
            cookies.sort_unstable();
            assert!(cookies.into_iter().eq(0..20), "each once");
            assert!(answers.iter().all(|answer| answer.response == Response::Removed));
            settle(task);
            assert_eq!(sink.host_events().last(), Some(&HostEvent::Gone));
            let refused = driver.submit(command(&collector, 99, at(0, 0), TEST_UNIT_READY, NOTHING)).unwrap_err();
            assert_eq!(end(refused), Refusal::Gone(Error::Removed));
        });
    }
}

#[test]
fn a_rescind_ends_what_is_outstanding() {
    rescinded(GOOD);
}

#[test]
fn a_rescind_ends_what_is_outstanding_control() {
    let message = says(|| rescinded(Defects::one(Defect::EndsBeforeTorndown)));
    assert!(message.contains("while the host had its memory"), "{message}");
}

/// A channel is taken back at every step of its life, and offered again: no step panics, hangs or leaks, and the device works afterwards.
#[test]
fn a_rescind_at_every_step() {
    for step in 0..60 {
        let events = Script::none().at(step, HostsEvent::Reoffer(1));
        let rig = Rig::schedule(Schedule::RANDOM)
            .with(|host| host.faults = Faults { events: events.clone(), ..Faults::default() });
        rig.on_bus(GOOD, |task, bus| {
            for _ in 0..3 {
                let Some(offer) = bus.offers().first().copied() else {
                    settle(task);
                    continue;
                };
                match crate::Storvsc::new(task, bus, &offer, Settings::default()) {
                    Ok(driver) => {
                        let driver = Arc::new(driver);
                        let _ = scan(task, driver.clone());
                        drop(driver);
                        settle(task);
                    }
                    Err(ProbeError::Bus(_) | ProbeError::Taken) => settle(task),
                    Err(error) => panic!("step {step}: {error}"),
                }
            }
        });
    }
}

/// A reset of the host with commands that are never answered: they end as reset, and the controller goes on, sub-channels and all.
#[test]
fn a_reset_brings_the_controller_back() {
    for (cpus, schedule) in [(1, Schedule::Eager), (1, Schedule::Lazy), (2, Schedule::RANDOM), (4, Schedule::RANDOM)] {
        let rig = Rig::cpus(cpus, schedule, 11);
        rig.run(GOOD, |task, driver| {
            let (collector, sink) = (Collector::new(), Sink::new());
            ready(task, &*driver, &LUNS, &collector);
            driver.watch(sink.clone());
            for round in 1..4 {
                rig.model(never);
                submit_all(&driver, &collector, 30);
                assert_eq!(driver.manage(Management::ResetHost), Managed::Asked);
                let refused = driver.submit(command(&collector, 99, at(0, 0), TEST_UNIT_READY, NOTHING)).unwrap_err();
                assert_eq!(end(refused), Refusal::Full);
                rig.model(|host| host.set_packet_faults(Script::none()));
                let answers = collector.spin(task, 30);
                // What the host had not taken before it was to answer again may have been done.
                let ended = |response| matches!(response, Response::Reset | Response::Complete);
                assert!(answers.iter().all(|answer| ended(answer.response)), "{answers:?}");
                // Whoever was refused is told when there is room again.
                for _ in 0..200_000 {
                    if sink.host_events().contains(&HostEvent::Room) {
                        break;
                    }
                    task.run_pending();
                    cpu::relax();
                }
                assert!(sink.host_events().contains(&HostEvent::Room), "nobody says that it goes on");
                sink.forget_events();
                go(&*driver, command(&collector, 1, at(0, 0), read10(3, 1), (Direction::In, SECTOR))).unwrap();
                assert_eq!(collector.spin(task, 1)[0].status, Status::GOOD);
                settle(task);
                assert_eq!((driver.counts().resets, usize::from(driver.channels())), (round, cpus));
            }
        });
    }
}

#[test]
fn resets_of_unit_and_bus() {
    let rig = Rig::schedule(Schedule::RANDOM);
    rig.run(GOOD, |task, driver| {
        let collector = Collector::new();
        ready(task, &*driver, &LUNS, &collector);
        rig.model(|host| host.set_packet_faults(Script::none().at(0, Fault::Never)));
        let tag = go(&*driver, command(&collector, 1, at(0, 0), read10(0, 1), (Direction::In, SECTOR))).unwrap();
        // Nothing is ended, but the host is asked to look.
        assert_eq!(driver.manage(Management::Abort(tag)), Managed::Asked);
        settle(task);
        assert_eq!(collector.count(), 0);
        assert_eq!(driver.manage(Management::ResetUnit(at(0, 0))), Managed::Asked);
        assert_eq!(collector.spin(task, 1)[0].response, Response::Aborted);
        assert_eq!(driver.manage(Management::Abort(tag)), Managed::NoCommand);
        assert_eq!(driver.manage(Management::ResetBus), Managed::Asked);
        settle(task);
        assert_eq!(driver.counts().managed, 2);
    });
}

/// Dropped with commands that are never answered: they end as removed.
#[test]
fn the_driver_goes_with_commands_in_flight() {
    for schedule in [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM] {
        let rig = Rig::cpus(2, schedule, 5);
        rig.on_bus(GOOD, |task, bus| {
            let driver = Arc::new(rig.probe(task, bus, GOOD).unwrap());
            let collector = Collector::new();
            ready(task, &*driver, &LUNS, &collector);
            rig.model(never);
            submit_all(&driver, &collector, 25);
            drop(driver);
            let answers = collector.spin(task, 25);
            assert!(answers.iter().all(|answer| answer.response == Response::Removed));
            // It can be taken into use again.
            rig.model(|host| host.set_packet_faults(Script::none()));
            settle(task);
            let again = Arc::new(rig.probe(task, bus, GOOD).unwrap());
            assert_eq!(scan(task, again).unwrap().disks.len(), 3);
        });
    }
}

/// The bus is unloaded with I/O outstanding, and connected again.
#[test]
fn unload_and_reconnect_under_load() {
    for schedule in [Schedule::Eager, Schedule::RANDOM] {
        let rig = Rig::cpus(2, schedule, 9);
        rig.machine.run(|task| {
            for _ in 0..4 {
                let partition = Partition::start(task, Arc::new(ThisMachine)).unwrap();
                let bus = VmBus::connect(task, partition, &rig.settings).unwrap();
                let driver = Arc::new(rig.probe(task, &bus, GOOD).unwrap());
                let collector = Collector::new();
                ready(task, &*driver, &LUNS, &collector);
                rig.model(never);
                submit_all(&driver, &collector, 25);
                assert!(bus.unload(task), "the host says that it is over");
                let answers = collector.spin(task, 25);
                assert!(answers.iter().all(|answer| answer.response == Response::Removed));
                assert!(rig.model(|host| host.open_channels().is_empty() && host.gpadls() == 0));
                rig.model(|host| host.set_packet_faults(Script::none()));
                drop((driver, bus));
                settle(task);
            }
        });
        rig.check();
    }
}

/// Events of a disk.
#[derive(Default)]
struct Events(Mutex<Vec<Event>>);

impl Watcher for Events {
    fn event(&self, _: &BottomHalf, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

/// Units come, go and change their size while the machine runs.
#[test]
fn units_come_go_and_grow() {
    for tells in [false, true] {
        let rig = Rig::schedule(Schedule::RANDOM).with(|host| host.knobs.tells_removal = tells);
        rig.run(GOOD, |task, driver| {
            let bus = Bus::new(driver.clone());
            let disks = bus.scan(task).unwrap().disks;
            assert_eq!(disks.len(), 3);
            let seen = bus.changes();
            rig.model(|host| host.add_lun(0, 0, 7, unit(7, 512)));
            task.wait_until(|| bus.changes() != seen);
            let new = bus.scan(task).unwrap().disks;
            assert_eq!(new.iter().map(|disk| disk.address()).collect::<Vec<_>>(), [at(0, 7)]);
            let events = Arc::new(Events::default());
            new[0].watch(events.clone());
            let seen = bus.changes();
            rig.model(|host| host.remove_lun(0, 0, 7));
            task.wait_until(|| bus.changes() != seen);
            settle(task);
            assert_eq!(bus.scan(task).unwrap().disks.len(), 0);
            assert_eq!(*events.0.lock().unwrap(), [Event::Removed]);
            assert_eq!(driver.counts().unclear, 0);
            // A new size is told by the first command that meets the unit attention.
            let events = Arc::new(Events::default());
            disks[0].watch(events.clone());
            rig.model(|host| host.resize(0, 0, 0, 1 << 15));
            let sink = Sink::new();
            disks[0].submit(read(0, 1, 512, sink.to(1))).unwrap();
            disks[0].commit();
            assert_eq!(sink.wait(task, 1)[0].result, Ok(()));
            assert_eq!(*events.0.lock().unwrap(), [Event::Resized]);
            bus.refresh(task, &disks[0]).unwrap();
            assert_eq!(disks[0].info().capacity, 1 << 15);
        });
    }
}

/// A controller comes while the machine runs, and goes again.
#[test]
fn controllers_come_and_go() {
    let rig = Rig::schedule(Schedule::RANDOM);
    rig.on_bus(GOOD, |task, bus| {
        let first = Arc::new(rig.probe(task, bus, GOOD).unwrap());
        assert_eq!((bus.offers().len(), bus.version()), (0, Version::V6_0));
        let seen = bus.changes();
        let index = rig.host.with(|plugged| plugged.plug_in(Controller::scsi(2, Target::new().with(0, unit(2, 512)))));
        for _ in 0..10_000 {
            task.run_pending();
            cpu::relax();
        }
        assert!(bus.changes() != seen && bus.offers().len() == 1);
        let second = Arc::new(rig.probe(task, bus, GOOD).unwrap());
        assert_eq!(scan(task, second.clone()).unwrap().disks.len(), 1);
        rig.host.with(|plugged| plugged.pull_out(index));
        settle(task);
        let collector = Collector::new();
        let refused = second.submit(command(&collector, 1, at(0, 0), TEST_UNIT_READY, NOTHING)).unwrap_err();
        assert_eq!(end(refused), Refusal::Gone(Error::Removed));
        assert_eq!(scan(task, first).unwrap().disks.len(), 3);
    });
}

/// Absent units, in both ways that hosts have; and REPORT LUNS with holes.
#[test]
fn absent_units_in_both_styles() {
    for absent in [Absent::Invalid, Absent::InvalidWithSense] {
        let rig = Rig::schedule(Schedule::Eager).with(|host| host.knobs.absent = absent);
        rig.run(GOOD, |task, driver| {
            let found = scan(task, driver.clone()).unwrap();
            assert_eq!(found.disks.len(), 3);
            let collector = Collector::new();
            for cdb in [[0x12, 0, 0, 0, 36, 0, 0, 0, 0, 0], read10(0, 1)] {
                go(&*driver, command(&collector, 1, at(0, 1), cdb, (Direction::In, SECTOR))).unwrap();
                let answer = collector.wait(task, 1).remove(0);
                assert!(answer.response == Response::BadTarget || answer.data[0] == 0x7f, "{answer:?}");
            }
        });
    }
}

/// A disk of an IDE controller by its storage channel.
#[test]
fn ide_disks_by_their_channels() {
    let rig = Rig::schedule(Schedule::RANDOM)
        .with(|host| _ = host.add_controller(Controller::ide(1, 0, Target::new().with(0, unit(4, 512)))));
    rig.on_bus(GOOD, |task, bus| {
        let offer = bus.offers().into_iter().find(|offer| offer.interface == crate::wire::guid::Guid::IDE).unwrap();
        let driver = Arc::new(crate::Storvsc::new(task, bus, &offer, Settings::default()).unwrap());
        assert_eq!(driver.ide_place(), Some((1, 0)));
        assert_eq!(driver.identity().controller, "vmbus ide 1:0");
        let disks = scan(task, driver).unwrap().disks;
        assert_eq!(disks.iter().map(|disk| disk.identity().serial.as_str()).collect::<Vec<_>>(), ["S4"]);
    });
}

/// Sub-channels that come late, one CPU each; a channel's signals go to another CPU.
#[test]
fn sub_channels_late_and_moved() {
    let rig = Rig::cpus(4, Schedule::RANDOM, 2).with(|host| host.knobs.sub_channels_after = 80_000);
    rig.run(GOOD, |task, driver| {
        assert_eq!(driver.channels(), 1, "not there yet");
        for _ in 0..200_000 {
            if driver.channels() == 4 {
                break;
            }
            task.run_pending();
            cpu::relax();
        }
        assert_eq!(driver.channels(), 4);
        let collector = Collector::new();
        ready(task, &*driver, &LUNS, &collector);
        driver.move_channel(task, 0, 2).unwrap();
        go(&*driver, command(&collector, 1, at(0, 0), read10(3, 1), (Direction::In, SECTOR))).unwrap();
        assert_eq!(collector.wait(task, 1)[0].status, Status::GOOD);
        driver.move_channel(task, 0, 0).unwrap();
    });
}
