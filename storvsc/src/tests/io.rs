//! Much I/O: out of order, over several channels, through the smallest ring, counted.

use undercroft_block::scsi::{Direction, Host, Response, Status};
use undercroft_block::{Data, Piece, Refusal};
use undercroft_hosts::hyperv::{Fault, Faults};
use undercroft_hosts::virtio::Order;
use undercroft_hosts::{Disk, Schedule, Script};

use super::*;

const SECTOR: usize = 512;

/// `total` reads of one sector, `depth` at a time, each compared with what is on the disk. Returns how many were refused for want of room.
fn reads(task: &Task, driver: &Arc<Storvsc>, total: u64, depth: usize) -> u64 {
    let collector = Collector::new();
    ready(task, &**driver, &LUNS, &collector);
    let (mut next, mut done, mut refused) = (0u64, 0u64, 0);
    let lba = |n: u64| (n * 7919 % 16_000) as u16;
    while done < total {
        while next < total && next - done < depth as u64 {
            match driver.submit(command(&collector, next, at(0, 0), read10(lba(next), 1), (Direction::In, SECTOR))) {
                Ok(_) => next += 1,
                Err(other) => {
                    assert_eq!(end(other), Refusal::Full);
                    refused += 1;
                    break;
                }
            }
        }
        driver.commit();
        if next == done {
            // All were refused: there is room when the host has read.
            task.run_pending();
            cpu::relax();
            continue;
        }
        for answer in collector.wait(task, 1) {
            assert_eq!((answer.response, answer.status), (Response::Complete, Status::GOOD));
            assert_eq!(answer.residual, 0);
            let right = Disk::pattern(0, lba(answer.cookie).into());
            assert!(answer.data == right, "other data than what is on the disk");
            done += 1;
        }
    }
    refused
}

#[test]
fn ten_thousand_over_one_two_and_four_channels() {
    for (cpus, schedule, order) in
        [(1, Schedule::RANDOM, Order::Random), (2, Schedule::RANDOM, Order::Random), (4, Schedule::Lazy, Order::Lifo)]
    {
        let rig = Rig::cpus(cpus, schedule, 3).with(|host| host.knobs.order = order);
        rig.run(GOOD, |task, driver| {
            assert_eq!(usize::from(driver.channels()), cpus);
            reads(task, &driver, 10_000, 64);
        });
    }
}

/// One data page each way: the ring fills, host and guest wait for room, and nothing is lost.
#[test]
fn x06_a_svsc_08_one_page_of_ring() {
    for (seed, schedule) in [(1, Schedule::RANDOM), (2, Schedule::Random { work: 5, deliver: 20 }), (3, Schedule::Lazy)]
    {
        let rig = Rig::cpus(1, schedule, seed).settings(|settings| (settings.pages_up, settings.pages_down) = (1, 1));
        rig.run(GOOD, |task, driver| {
            let refused = reads(task, &driver, 3000, 64);
            assert!(schedule != Schedule::Lazy || refused > 0, "the ring never was full");
        });
    }
}

/// A host that reads slowly and a poll mode that leaves requests behind slow ones.
#[test]
fn a_host_that_polls() {
    let rig = Rig::schedule(Schedule::RANDOM).with(|host| {
        host.knobs.poll_depth = Some(1);
        host.knobs.depth = 4;
        let packets = Script::none().sometimes(5, 10, &[Fault::Behind(3), Fault::Delay(50)]);
        host.faults = Faults { packets, ..Faults::default() };
    });
    rig.run(GOOD, |task, driver| {
        reads(task, &driver, 1000, 32);
    });
}

/// At most one hypercall for a batch, and none where the ring was not empty; at most one interrupt for a batch of completions.
#[test]
fn a_svsc_09_signals_and_interrupts_are_counted() {
    let rig = Rig::schedule(Schedule::Lazy);
    rig.run(GOOD, |task, driver| {
        let collector = Collector::new();
        ready(task, &*driver, &LUNS, &collector);
        let before = rig.model(|host| host.counts());
        for round in 0..10 {
            for n in 0..16 {
                driver.submit(command(&collector, n, at(0, 0), read10(n as u16, 1), (Direction::In, SECTOR))).unwrap();
            }
            driver.commit();
            driver.commit();
            collector.wait(task, 16);
            let now = rig.model(|host| host.counts());
            assert_eq!(now.signals - before.signals, round + 1, "one signal for each batch");
            assert_eq!(now.channel_signals - before.channel_signals, round + 1, "one interrupt for each batch");
        }
        let now = rig.model(|host| host.counts());
        assert_eq!(now.needless_signals, 0);
        assert_eq!(now.posts, before.posts, "no messages for I/O");
    });
}

/// A-SVSC-07: one range of many pages: where it may begin and end, and how much it may be.
#[test]
fn a_svsc_07_segments_at_their_limits() {
    let rig = Rig::schedule(Schedule::RANDOM);
    rig.run(GOOD, |task, driver| {
        let collector = Collector::new();
        ready(task, &*driver, &LUNS, &collector);
        let most = driver.info().limits.max_transfer_bytes as usize;
        assert_eq!(most, 0x4_0000);
        let page = |len: usize| -> Piece { buffer(len).into() };
        let cases: Vec<(Vec<Piece>, bool)> = vec![
            (vec![page(SECTOR)], true),
            (vec![page(most)], true),
            (vec![page(most + SECTOR)], false),
            // An unaligned head and tail: one page more.
            (vec![Piece::new(buffer(most + 4096), 512, most)], true),
            (vec![Piece::new(buffer(8192), 3584, 1024)], true),
            (vec![Piece::new(buffer(4096), 3584, 512), page(4096), page(512)], true),
            ((0..64).map(|_| page(4096)).collect(), true),
            (vec![page(512), page(512)], false),
            (vec![page(4096), Piece::new(buffer(4096), 512, 512)], false),
        ];
        for (n, (data, taken)) in cases.into_iter().enumerate() {
            let sectors: usize = data.iter().map(Piece::len).sum::<usize>() / SECTOR;
            let data = Data::List(data);
            let command = with_data(&collector, n as u64, at(0, 0), read10(3, sectors as u16), Direction::In, data);
            match go(&*driver, command) {
                Ok(_) => {
                    assert!(taken, "case {n} is taken");
                    let answer = collector.wait(task, 1).remove(0);
                    assert_eq!((answer.response, answer.status), (Response::Complete, Status::GOOD), "case {n}");
                    for (sector, bytes) in answer.data.chunks(SECTOR).enumerate() {
                        assert!(bytes == Disk::pattern(0, 3 + sector as u64), "case {n}: sector {sector}");
                    }
                }
                Err(refused) => {
                    assert!(!taken, "case {n} is refused");
                    assert!(matches!(end(refused), Refusal::Invalid(_)));
                }
            }
        }
    });
}

/// What a unit says reaches the command: sense, busy, short transfers, lengths that do not fit.
#[test]
fn outcomes_are_what_the_unit_said() {
    let rig = Rig::schedule(Schedule::Eager);
    rig.run(GOOD, |task, driver| {
        let collector = Collector::new();
        let once = |to, cdb, data| {
            go(&*driver, command(&collector, 1, to, cdb, data)).unwrap();
            collector.wait(task, 1).remove(0)
        };
        // The first command finds the attention of power-on.
        let answer = once(at(0, 0), TEST_UNIT_READY, NOTHING);
        assert_eq!((answer.status, answer.sense[2], answer.sense[12]), (Status::CHECK_CONDITION, 6, 0x29));
        assert_eq!(once(at(0, 0), TEST_UNIT_READY, NOTHING).status, Status::GOOD);
        let answer = once(at(0, 0), read10(0xffff, 1), (Direction::In, SECTOR));
        assert_eq!((answer.status, answer.sense[2], answer.sense[12]), (Status::CHECK_CONDITION, 5, 0x21));
        // More room than the command wants.
        let answer = once(at(0, 0), read10(0, 1), (Direction::In, 4096));
        assert_eq!((answer.status, answer.residual), (Status::GOOD, 4096 - 512));
        // No such unit, no such target.
        assert_eq!(once(at(0, 9), read10(0, 1), (Direction::In, SECTOR)).response, Response::BadTarget);
        assert_eq!(once(at(1, 0), read10(0, 1), (Direction::In, SECTOR)).response, Response::BadTarget);
    });
}
