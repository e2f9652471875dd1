//! The adapter under `block::scsi`: disks found, read, written.

use undercroft_block::scsi::{Response, Status, scan};
use undercroft_block::{BlockDevice, Op, Request};
use undercroft_hosts::Schedule;
use undercroft_hosts::pvscsi::{Count, Fault, FaultScript, Knobs};
use undercroft_hosts::virtio::Order;

use super::*;
use crate::defect::{Defect, Defects};

#[test]
fn disks_are_found_read_and_written() {
    for count in [Count::Success, Count::Underrun, Count::Uncounted] {
        for schedule in [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM] {
            let knobs = Knobs { order: Order::Random, count, no_chains: count == Count::Uncounted, ..Knobs::default() };
            let rig = Rig::knobs(schedule, knobs);
            rig.run(GOOD, |task, driver| {
                let found = scan(task, driver).unwrap();
                assert_eq!((found.disks.len(), found.others.len()), (4, 0), "{:?}", found.others);
                let sink = Sink::new();
                for (disk, seed) in found.disks.iter().zip([0u64, 5, 300, 3]) {
                    let info = disk.info();
                    let scale = u64::from(info.block_size) / 512;
                    disk.submit(read(3, 2, info.block_size, sink.to(1))).unwrap();
                    disk.commit();
                    let done = sink.wait(task, 1).remove(0);
                    assert_eq!((done.result, bytes(&done.request)), (Ok(()), pattern(seed, 3 * scale, 2 * scale)));
                    disk.submit(write(9, &vec![7; info.block_size as usize], info.block_size, sink.to(2))).unwrap();
                    disk.submit(Request::flush(sink.to(3))).unwrap();
                    disk.submit(Request::new(Op::WriteZeroes, 20, 4, undercroft_block::Data::None, sink.to(4)))
                        .unwrap();
                    disk.commit();
                    assert!(sink.wait(task, 3).iter().all(|done| done.result == Ok(())));
                    disk.submit(read(9, 1, info.block_size, sink.to(5))).unwrap();
                    disk.commit();
                    assert_eq!(bytes(&sink.wait(task, 1)[0].request), vec![7; info.block_size as usize]);
                }
            });
        }
    }
}

fn sparse_luns(defects: Defects) {
    let rig = Rig::schedule(Schedule::Eager);
    rig.run(defects, |task, driver| {
        let found = scan(task, driver).unwrap();
        let mut units: Vec<_> = found.disks.iter().map(|d| (d.address().target, d.address().lun.number())).collect();
        units.sort_unstable();
        assert_eq!(units, [(0, 0), (0, 5), (0, 300), (3, 0)], "units are missing");
    });
}

#[test]
fn x23_sparse_luns() {
    sparse_luns(GOOD);
}

#[test]
fn x23_sparse_luns_control() {
    let message = says(|| sparse_luns(Defects::one(Defect::OneByteLun)));
    assert!(message.contains("units are missing"), "{message}");
}

/// Section 3, 13: a host that tells every short answer as a run error, and counts nothing.
fn underruns_of_answers(defects: Defects) {
    for count in [Count::Underrun, Count::Uncounted] {
        let rig = Rig::knobs(Schedule::Eager, Knobs { count, ..Knobs::default() });
        rig.run(defects, |task, driver| {
            let found = scan(task, driver).unwrap();
            assert_eq!(found.disks.len(), 4, "disks are missing");
        });
    }
}

#[test]
fn p_13_an_underrun_of_report_luns_is_no_error() {
    underruns_of_answers(GOOD);
}

#[test]
fn p_13_an_underrun_of_report_luns_is_no_error_control() {
    let message = says(|| underruns_of_answers(Defects::one(Defect::UnderrunIsError)));
    assert!(message.contains("disks are missing"), "{message}");
}

/// Blocks that did not move are no blocks, however the host tells it.
fn underruns_of_blocks(defects: Defects) {
    for count in [Count::Success, Count::Underrun, Count::Uncounted] {
        let rig = Rig::knobs(Schedule::Eager, Knobs { count, ..Knobs::default() });
        rig.run(defects, |task, driver| {
            let disk = scan(task, driver).unwrap().disks.remove(0);
            let sink = Sink::new();
            for (cookie, short) in [(0, false), (1, true), (2, false)] {
                let script = if short { FaultScript::none().at(0, Fault::Short(512)) } else { FaultScript::none() };
                rig.model(|model| model.set_faults(script));
                disk.submit(read(4, 4, 512, sink.to(cookie))).unwrap();
                disk.commit();
                let result = sink.wait(task, 1)[0].result;
                let expected = if short { Err(undercroft_block::Error::ShortTransfer) } else { Ok(()) };
                assert_eq!(result, expected, "a short read passes for a whole one: {count:?}");
            }
        });
    }
}

#[test]
fn a_short_read_is_an_error() {
    underruns_of_blocks(GOOD);
}

#[test]
fn a_short_read_is_an_error_control() {
    let message = says(|| underruns_of_blocks(Defects::one(Defect::IgnoresUnderrun)));
    assert!(message.contains("passes for a whole one"), "{message}");
}

#[test]
fn absent_targets_and_units_are_told_apart_from_broken_ones() {
    let rig = Rig::schedule(Schedule::Eager);
    rig.run(GOOD, |task, driver| {
        let collector = Collector::new();
        go(&*driver, command(&collector, 1, at(2, 0), TEST_UNIT_READY, NOTHING)).unwrap();
        assert_eq!(collector.wait(task, 1)[0].response, Response::BadTarget);
        ready(task, &*driver, &LUNS, &collector);
        let into = undercroft_block::scsi::Direction::In;
        go(&*driver, command(&collector, 2, at(0, 0), read10(4, 1), (into, 512))).unwrap();
        let answer = collector.wait(task, 1).remove(0);
        assert_eq!((answer.response, answer.status, answer.residual), (Response::Complete, Status::GOOD, 0));
        assert_eq!(answer.data, pattern(0, 4, 1));
        // Half of what there is room for.
        go(&*driver, command(&collector, 3, at(0, 0), read10(4, 1), (into, 1024))).unwrap();
        assert_eq!(collector.wait(task, 1)[0].residual, 512);
        // More than there is room for.
        go(&*driver, command(&collector, 4, at(0, 0), read10(4, 2), (into, 512))).unwrap();
        assert_eq!(collector.wait(task, 1)[0].response, Response::Overrun);
    });
}
