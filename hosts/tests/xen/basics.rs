//! The driver does what it should, with hosts of every kind that there is.

use std::sync::Arc;

use undercroft_block::{BlockDevice, Data, Error, Event as DiskEvent, Features, Op, Request, Watcher};
use undercroft_hosts::xen::{Event, Knobs, VbdSettings};
use undercroft_hosts::{Config, Disk, Schedule};
use undercroft_xen::blk::{Config as Wishes, XenDisk, find};

use super::rig::*;

fn bare(op: Op, lba: u64, blocks: u32, sink: &Arc<Sink>) -> Request {
    Request::new(op, lba, blocks, Data::None, sink.to(0))
}

#[test]
fn a_disk_connects_reads_and_parts() {
    let rig = Rig::plain();
    rig.disk(|task, disk| rig.check_disk(task, disk, 7));
}

#[test]
fn it_comes_again_after_it_has_gone() {
    let rig = Rig::plain();
    rig.domain(|task, domain, store| {
        assert_eq!(find(task, store).unwrap(), [NUMBER]);
        for round in 0..3 {
            let disk = rig.connect(task, domain, store).unwrap().unwrap();
            rig.check_disk(task, &disk, round);
            assert!(disk.close(task));
            assert!(disk.submit(bare(Op::Flush, 0, 0, &Sink::new())).is_err());
        }
    });
}

#[test]
fn rings_of_every_number_and_size() {
    for cpus in [1, 2, 4] {
        for queues in [1, 2, 8] {
            for order in [None, Some(0), Some(1), Some(4), Some(9)] {
                let settings = VbdSettings { queues, ring_order: order, ..VbdSettings::default() };
                let mut rig = Rig::new(Config { cpus, ..Config::default() }, Knobs::default(), settings);
                rig.wishes = Wishes { ring_order: 9, ..Wishes::default() };
                rig.disk(|task, disk| {
                    assert_eq!(rig.model(|host| host.rings(0)), cpus.min(queues as usize));
                    let entries = 32 << order.unwrap_or(0).min(4);
                    assert_eq!(disk.info().depth, entries * cpus.min(queues as usize) as u32);
                    rig.check_disk(task, disk, 3);
                });
            }
        }
    }
}

#[test]
fn blocks_segments_and_grants_of_every_kind() {
    for sector_size in [512, 4096] {
        for indirect in [0, 11, 12, 32, 256] {
            for (persistent, most) in [(true, 1056), (true, 40), (false, 0)] {
                let settings = VbdSettings { sector_size, indirect, persistent, ..VbdSettings::default() };
                let knobs = Knobs { persistent_most: most, ..Knobs::default() };
                let rig = Rig::new(Config::default(), knobs, settings);
                rig.disk(|task, disk| {
                    let info = disk.info();
                    let most = info.limits.max_transfer_bytes;
                    assert_eq!(most, indirect.clamp(11, 32) * 4096);
                    assert_eq!((info.block_size, info.bytes()), (sector_size, SECTORS * 512));
                    let sink = Sink::new();
                    for blocks in [1, most / sector_size, most / 2 / sector_size] {
                        let fill: Vec<u8> = (0..blocks * sector_size).map(|at| (at * 7 + blocks) as u8).collect();
                        let done = one(task, &**disk, &sink, write(16, &fill, sector_size, sink.to(0)));
                        assert_eq!(done.result, Ok(()));
                        let lba = 16 * u64::from(sector_size / 512);
                        assert!(rig.expected(lba, fill.len() as u64 / 512) == fill, "other data than was written");
                        let done = one(task, &**disk, &sink, read(16, blocks, sector_size, sink.to(0)));
                        assert!(done.result == Ok(()) && bytes(&done.request) == fill, "other data than is there");
                    }
                });
                assert_eq!(rig.counts().indirect > 0, indirect > 11);
            }
        }
    }
}

#[test]
fn a_flush_makes_durable_and_a_barrier_stands_for_it() {
    for (flush, barrier, has) in [(true, true, true), (false, true, true), (false, false, false)] {
        let rig = Rig::with(VbdSettings { flush, barrier, ..VbdSettings::default() });
        rig.disk(|task, disk| {
            assert_eq!(disk.info().features.contains(Features::VOLATILE_CACHE), has);
            let sink = Sink::new();
            assert_eq!(one(task, &**disk, &sink, write(9, &[5; 4096], 512, sink.to(0))).result, Ok(()));
            assert!(rig.disk.volatile_sectors() > 0);
            if has {
                assert_eq!(one(task, &**disk, &sink, bare(Op::Flush, 0, 0, &sink)).result, Ok(()));
                assert_eq!((rig.disk.volatile_sectors(), rig.disk.flushes()), (0, 1));
            }
        });
    }
}

#[test]
fn discarded_sectors_are_gone_and_a_refusal_is_remembered() {
    for refuses in [&[][..], &[5]] {
        let knobs = Knobs { refuses, ..Knobs::default() };
        let rig = Rig::new(Config::default(), knobs, VbdSettings::default());
        rig.disk(|task, disk| {
            let sink = Sink::new();
            assert!(disk.info().features.contains(Features::DISCARD));
            let done = one(task, &**disk, &sink, bare(Op::Discard, 8, 16, &sink));
            if refuses.is_empty() {
                assert_eq!(done.result, Ok(()));
                assert_eq!(rig.expected(8, 16), [0; 16 * 512]);
            } else {
                assert_eq!(done.result, Err(Error::Unsupported));
                assert!(!disk.info().features.contains(Features::DISCARD));
            }
        });
    }
}

#[test]
fn a_disk_that_is_read_only_is_not_written_to() {
    let rig = Rig::with(VbdSettings { read_only: true, ..VbdSettings::default() });
    rig.disk(|task, disk| {
        assert!(disk.info().features.contains(Features::READ_ONLY));
        assert!(disk.submit(write(0, &[1; 512], 512, Sink::new().to(0))).is_err());
        rig.check_disk(task, disk, 3);
    });
}

#[test]
fn a_new_size_is_told() {
    let rig = Rig::plain();
    rig.disk(|task, disk| {
        let sink = Sink::new();
        disk.watch(Arc::clone(&sink) as Arc<dyn Watcher>);
        rig.happen(Event::Resize(0, 2 * SECTORS));
        task.wait_until(|| sink.events().contains(&DiskEvent::Resized));
        assert_eq!(disk.info().capacity, 2 * SECTORS);
        assert_eq!(one(task, &**disk, &sink, read(2 * SECTORS - 1, 1, 512, sink.to(0))).result, Ok(()));
    });
}

#[test]
fn what_is_no_disk_is_left_alone() {
    let rig = Rig::with(VbdSettings { kind: "cdrom", ..VbdSettings::default() });
    rig.domain(|task, domain, store| assert!(rig.connect(task, domain, store).unwrap().is_none()));
}

#[test]
fn an_indirect_request_may_be_answered_as_either() {
    for answers_indirect in [false, true] {
        let knobs = Knobs { answers_indirect, ..Knobs::default() };
        let rig = Rig::new(Config::default(), knobs, VbdSettings::default());
        rig.disk(|task, disk| {
            let sink = Sink::new();
            assert_eq!(one(task, &**disk, &sink, read(0, 200, 512, sink.to(0))).result, Ok(()));
        });
    }
}

#[test]
fn several_disks_of_one_domain() {
    let rig = Rig::scheduled(Schedule::RANDOM, 3);
    let other = Disk::patterned(SECTORS, 2);
    rig.model(|host| host.add_vbd(0, other.clone(), VbdSettings { number: 51728, ..VbdSettings::default() }));
    rig.domain(|task, domain, store| {
        let mut found = find(task, store).unwrap();
        found.sort();
        assert_eq!(found, ["51712", "51728"]);
        let disks: Vec<_> = found
            .iter()
            .map(|number| XenDisk::connect(task, domain, store, number, rig.wishes).unwrap().unwrap())
            .collect();
        rig.check_disk(task, &disks[0], 1);
        let sink = Sink::new();
        let done = one(task, &*disks[1], &sink, read(5, 1, 512, sink.to(0)));
        assert_eq!(bytes(&done.request), other.read_sector(5));
        disks.iter().for_each(|disk| assert!(disk.close(task)));
    });
}

/// With grants that stay mapped a request costs no grant operation, on neither side; without, none on ours.
#[test]
fn no_grant_operation_on_the_path_of_a_request() {
    for persistent in [true, false] {
        let rig = Rig::with(VbdSettings { persistent, ..VbdSettings::default() });
        rig.domain(|task, domain, store| {
            let disk = rig.connect(task, domain, store).unwrap().unwrap();
            let sink = Sink::new();
            let round = |count: u64| {
                for at in 0..count {
                    disk.submit(read(at * 64, 64, 512, sink.to(at))).expect("room");
                }
                disk.commit();
                sink.wait(task, count as usize);
            };
            // All pages of the pool have been used.
            (0..80).for_each(|_| round(50));
            let (before, maps) = (domain.counts(), rig.counts().maps);
            (0..40).for_each(|_| round(50));
            let after = domain.counts();
            assert_eq!((before.granted, before.revoked), (after.granted, after.revoked), "a request made a grant");
            assert_eq!(rig.counts().maps - maps > 0, !persistent);
            assert!(disk.close(task));
        });
    }
}
