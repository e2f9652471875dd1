//! The situations in which drivers of VMBus have gone wrong, one after the other.

use undercroft_block::scsi::{Bus, Host, HostEvent, scan};
use undercroft_block::{BlockDevice, Error};
use undercroft_hosts::hyperv::{Absent, Event, Fault, Knobs, MessageFault, PostFault, Stray};
use undercroft_hosts::{Config, Disk, Schedule, Script};
use undercroft_storvsc::VmBus;

use super::rig::{Rig, Sink, bytes, lun, one, read, settle, write};

fn knobs(change: impl FnOnce(&mut Knobs)) -> Rig {
    let mut knobs = Knobs::default();
    change(&mut knobs);
    Rig::new(Config::default(), knobs)
}

const STRAYS: [Stray; 8] = [
    Stray::Unknown(1234),
    Stray::ForeignOffer,
    Stray::Rescind(77),
    Stray::OpenResult(1, 99_999),
    Stray::GpadlCreated(1, 99_999),
    Stray::TornDown(99_999),
    Stray::AllOffers,
    Stray::Short,
];

#[test]
fn other_messages_come_before_the_awaited_one() {
    for stray in STRAYS {
        for at in 0..8 {
            let rig = Rig::plain();
            rig.model(|host| host.faults.messages = Script::none().at(at, MessageFault::After(stray)));
            rig.check_reading();
        }
    }
}

#[test]
fn what_another_left_in_the_slot_is_skipped() {
    let message = |kind: u32| [kind.to_le_bytes(), [0; 4]].concat();
    let rig = knobs(|knobs| knobs.left_over = vec![message(17), message(4), vec![0xff; 12]]);
    rig.check_reading();
}

#[test]
fn rings_of_one_data_page() {
    let mut rig = Rig::scheduled(Schedule::RANDOM, 5);
    (rig.wishes.pages_up, rig.wishes.pages_down) = (1, 1);
    rig.disks(|task, disks| {
        let sink = Sink::new();
        for round in 0..40 {
            let mut taken = 0;
            for at in 0..64 {
                match disks[0].submit(read(round * 64 + at, 1, &sink, round * 64 + at)) {
                    Ok(_) => taken += 1,
                    // Full: the rest comes later.
                    Err(refused) => {
                        drop(refused.request);
                        break;
                    }
                }
            }
            disks[0].commit();
            assert!(taken > 8, "{taken} fit into a page");
            for (lba, result, request) in sink.wait(task, taken) {
                assert_eq!(result, Ok(()));
                assert!(bytes(&request) == rig.expected(lba, 1));
            }
        }
    });
}

#[test]
fn the_host_is_too_busy_for_messages() {
    let rig = Rig::plain();
    let busy = [PostFault::Status(0x13), PostFault::Status(0x12)];
    rig.model(|host| host.faults.posts = Script::none().sometimes(3, 60, &busy));
    rig.check_reading();
    assert!(rig.counts().posts > 12, "{:?}", rig.counts());
}

#[test]
fn messages_come_late() {
    for at in 0..8 {
        let rig = Rig::plain();
        rig.model(|host| host.faults.messages = Script::none().at(at, MessageFault::Delay(20_000)));
        rig.check_reading();
    }
}

#[test]
fn a_short_transfer_is_an_error_and_no_data() {
    let rig = Rig::plain();
    rig.disks(|task, disks| {
        let sink = Sink::new();
        rig.model(|host| host.set_packet_faults(Script::none().at(0, Fault::Short(512))));
        let done = one(task, &disks[0], &sink, read(3, 8, &sink, 0));
        assert_eq!(done.1, Err(Error::ShortTransfer));
        rig.check_disk(task, &disks[0], 3);
    });
}

#[test]
fn a_unit_attention_is_no_error() {
    let rig = Rig::plain();
    rig.disks(|task, disks| {
        let sink = Sink::new();
        rig.model(|host| host.controller(0).unwrap().targets.get_mut(&0).unwrap().reset());
        let done = one(task, &disks[0], &sink, read(3, 8, &sink, 0));
        assert!(matches!(done.1, Ok(()) | Err(Error::Reset)), "{:?}", done.1);
        rig.check_disk(task, &disks[0], 3);
    });
}

#[test]
fn the_capacity_changes() {
    let rig = Rig::plain();
    rig.disks(|task, disks| {
        let sink = Sink::new();
        rig.model(|host| host.resize(0, 0, 0, 9000));
        let _ = one(task, &disks[0], &sink, read(3, 8, &sink, 0));
        settle(task);
        let done = one(task, &disks[0], &sink, read(8999, 1, &sink, 0));
        assert_eq!(done.1, Ok(()));
    });
}

/// The host tells nobody that it still has them, and uses the memory until it says that the lists of pages are gone.
#[test]
fn a_rescind_with_requests_outstanding() {
    for slow in [0, 10_000] {
        let rig = knobs(|knobs| knobs.torn_down_after = slow);
        rig.driver(|task, _, driver| {
            let disks = scan(task, driver.clone()).unwrap().disks;
            let sink = Sink::new();
            rig.model(|host| host.set_packet_faults(Script::none().from(0, Fault::Never)));
            (0..20).for_each(|at| {
                disks[0].submit(read(at, 8, &sink, at)).unwrap();
            });
            disks[0].commit();
            settle(task);
            assert_eq!(sink.count(), 0);
            rig.host.with(|plugged| plugged.pull_out(0));
            let done = sink.wait(task, 20);
            // Who gets the memory back may use it: the model writes to it until the end.
            assert!(done.iter().all(|(_, result, _)| *result == Err(Error::Removed)), "{:?}", done[0].1);
            let before: Vec<_> = done.iter().map(|(_, _, request)| bytes(request)).collect();
            settle(task);
            assert!(done.iter().zip(&before).all(|((_, _, request), before)| bytes(request) == *before));
            assert!(disks[0].submit(read(1, 1, &sink, 0)).is_err());
        });
    }
}

#[test]
fn a_controller_that_was_rescinded_comes_back() {
    let rig = Rig::plain();
    rig.bus(|task, bus| {
        let driver = rig.probe(task, bus);
        let disks = scan(task, driver.clone()).unwrap().disks;
        rig.check_disk(task, &disks[0], 1);
        let changes = bus.changes();
        rig.model(|host| host.faults.events = Script::none().at(0, Event::Reoffer(1)));
        let sink = Sink::new();
        let done = one(task, &disks[0], &sink, read(1, 1, &sink, 0));
        assert!(matches!(done.1, Err(Error::Removed)), "{:?}", done.1);
        drop((done, disks, driver));
        task.wait_until(|| bus.changes() != changes && !bus.offers().is_empty());
        let driver = rig.probe(task, bus);
        rig.check_disk(task, &scan(task, driver).unwrap().disks[0], 2);
    });
}

#[test]
fn a_rescind_at_every_step() {
    let plain = Rig::plain();
    plain.check_reading();
    let steps = plain.counts().steps;
    assert!(steps > 20, "{steps}");
    for step in 0..steps {
        let rig = Rig::plain();
        rig.model(|host| host.faults.events = Script::none().at(step, Event::Rescind(1)));
        rig.partition(|task, partition| {
            let Ok(bus) = VmBus::connect(task, partition, &rig.wishes) else { return };
            let Some(offer) = bus.offers().first().copied() else { return };
            let Ok(driver) = undercroft_storvsc::Storvsc::new(task, &bus, &offer, rig.wishes) else { return };
            let Ok(found) = scan(task, std::sync::Arc::new(driver)) else { return };
            let Some(disk) = found.disks.first() else { return };
            let sink = Sink::new();
            if disk.submit(read(1, 1, &sink, 0)).is_ok() {
                disk.commit();
                sink.wait(task, 1);
            }
        });
    }
}

#[test]
fn sub_channels_are_used_and_go_with_their_primary() {
    for late in [0, 10_000] {
        let config = Config { cpus: 4, ..Config::default() };
        let rig = Rig::new(config, Knobs { sub_channels_after: late, ..Knobs::default() });
        rig.driver(|task, _, driver| {
            settle(task);
            assert_eq!(driver.channels(), 4);
            assert_eq!(rig.model(|host| host.open_channels()), [1, 2, 3, 4]);
            rig.check_disk(task, &scan(task, driver.clone()).unwrap().disks[0], 5);
        });
        assert_eq!(rig.model(|host| host.open_channels()), []);
    }
}

#[test]
fn unloaded_and_connected_again() {
    let rig = Rig::plain();
    for round in 0..3 {
        rig.bus(|task, bus| {
            let driver = rig.probe(task, bus);
            rig.check_disk(task, &scan(task, driver.clone()).unwrap().disks[0], round);
            assert!(bus.unload(task));
            assert_eq!(rig.model(|host| (host.agreed(), host.gpadls())), (None, 0));
        });
    }
}

#[test]
fn every_version_of_both_protocols() {
    const BUS: [u32; 9] = [0x2_0004, 0x3_0000, 0x4_0000, 0x4_0001, 0x5_0000, 0x5_0001, 0x5_0002, 0x5_0003, 0x6_0000];
    const STORAGE: [u16; 5] = [0x0200, 0x0402, 0x0501, 0x0600, 0x0602];
    for bus in BUS {
        for storage in STORAGE {
            let rig = knobs(|knobs| {
                knobs.version = bus;
                knobs.stor_versions = STORAGE.into_iter().filter(|version| *version <= storage).collect();
            });
            rig.disks(|task, disks| {
                rig.check_disk(task, &disks[0], 9);
                assert_eq!(rig.model(|host| host.agreed().unwrap().0), bus);
                assert_eq!(rig.model(|host| host.controller(0).unwrap().version()), storage);
            });
        }
    }
}

#[test]
fn features_of_6_0_on_and_off() {
    for features in 0..16 {
        knobs(|knobs| knobs.features = features).check_reading();
    }
}

#[test]
fn sparse_units_and_absent_ones_in_both_styles() {
    for absent in [Absent::Invalid, Absent::InvalidWithSense] {
        let rig = knobs(|knobs| knobs.absent = absent);
        let other = Disk::patterned(1 << 14, 2);
        rig.model(|host| {
            let target = host.controller(0).unwrap().targets.get_mut(&0).unwrap();
            target.add(5, lun(&other, 4096, "S5"));
            target.add(40, lun(&other, 512, "S40"));
        });
        rig.disks(|_, disks| {
            let found: Vec<_> = disks.iter().map(|disk| disk.address().lun.number()).collect();
            assert_eq!(found, [0, 5, 40]);
            assert_eq!(disks[1].info().block_size, 4096);
        });
    }
}

#[test]
fn disks_are_plugged_in_and_pulled_out() {
    for tells_removal in [false, true] {
        let rig = knobs(|knobs| knobs.tells_removal = tells_removal);
        let other = Disk::patterned(1 << 14, 2);
        rig.driver(|task, _, driver| {
            let bus = Bus::new(driver.clone());
            let first = bus.scan(task).unwrap().disks;
            assert_eq!(first.len(), 1);
            let changes = bus.changes();
            rig.model(|host| host.add_lun(0, 0, 7, lun(&other, 512, "S7")));
            task.wait_until(|| bus.changes() != changes);
            let found = bus.scan(task).unwrap().disks;
            assert_eq!(found.iter().map(|disk| disk.identity().serial.clone()).collect::<Vec<_>>(), ["S7"]);
            let changes = bus.changes();
            rig.model(|host| host.remove_lun(0, 0, 7));
            task.wait_until(|| bus.changes() != changes);
            bus.scan(task).unwrap();
            let sink = Sink::new();
            match found[0].submit(read(1, 1, &sink, 0)) {
                Ok(_) => {
                    found[0].commit();
                    assert!(sink.wait(task, 1)[0].1.is_err());
                }
                Err(refused) => drop(refused.request),
            }
            rig.check_disk(task, &first[0], 3);
        });
    }
}

#[test]
fn a_rescan_that_nobody_asked_for() {
    let rig = Rig::plain();
    rig.driver(|task, _, driver| {
        let sink = Sink::new();
        driver.watch(sink.clone());
        rig.model(|host| host.enumerate(0));
        task.wait_until(|| sink.events.lock().unwrap().contains(&HostEvent::Rescan));
    });
}

#[test]
fn a_write_is_on_the_disk_and_busy_ones_come_back() {
    let rig = Rig::plain();
    rig.disks(|task, disks| {
        let sink = Sink::new();
        assert_eq!(one(task, &disks[0], &sink, write(40, &[0x5a; 2048], &sink, 0)).1, Ok(()));
        assert_eq!(rig.expected(40, 4), [0x5a; 2048]);
        for fault in [Fault::Busy, Fault::Status(4, 0x28), Fault::Status(9, 0), Fault::Sense(3, 0x11, 0)] {
            rig.model(|host| host.set_packet_faults(Script::none().at(0, fault)));
            let done = one(task, &disks[0], &sink, read(1, 8, &sink, 0));
            assert!(done.1.is_err(), "{fault:?}: {:?}", done.1);
            rig.check_disk(task, &disks[0], 1);
        }
    });
}
