//! The host under `block::scsi`: disks found, read, written.

use undercroft_block::scsi::scan;
use undercroft_block::{BlockDevice, Refusal};

use super::*;
use undercroft_hosts::rig::{bytes, read, write};

fn pattern(seed: u64, sector: u64, sectors: u64) -> Vec<u8> {
    (sector..sector + sectors).flat_map(|sector| Disk::pattern(seed, sector)).collect()
}

#[test]
fn disks_are_found_read_and_written() {
    for schedule in [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM] {
        let rig = Rig::schedule(schedule);
        rig.run(GOOD, |task, driver| {
            let found = scan(task, driver).unwrap();
            assert_eq!(found.disks.len(), 3, "{:?}", found.others);
            let sink = Sink::new();
            for (disk, seed) in found.disks.iter().zip([0u64, 5, 300]) {
                let info = disk.info();
                let scale = u64::from(info.block_size) / 512;
                disk.submit(read(3, 2, info.block_size, sink.to(1))).unwrap();
                disk.commit();
                let done = sink.wait(task, 1).remove(0);
                assert_eq!((done.result, bytes(&done.request)), (Ok(()), pattern(seed, 3 * scale, 2 * scale)));
                disk.submit(write(9, &vec![7; info.block_size as usize], info.block_size, sink.to(2))).unwrap();
                disk.submit(Request::flush(sink.to(3))).unwrap();
                disk.commit();
                assert!(sink.wait(task, 2).iter().all(|done| done.result == Ok(())));
            }
        });
    }
}

fn sparse_luns(defects: Defects) {
    let rig = Rig::schedule(Schedule::Eager);
    rig.run(defects, |task, driver| {
        assert_eq!(driver.info().max_lun, 0x3fff);
        let found = scan(task, driver).unwrap();
        let mut luns: Vec<_> = found.disks.iter().map(|disk| disk.address().lun.number()).collect();
        luns.sort_unstable();
        assert_eq!(luns, [0, 5, 300]);
        for disk in &found.disks {
            let sink = Sink::new();
            disk.submit(read(1, 1, disk.info().block_size, sink.to(1))).unwrap();
            disk.commit();
            let done = sink.wait(task, 1).remove(0);
            let (seed, scale) = (u64::from(disk.address().lun.number()), u64::from(disk.info().block_size) / 512);
            assert_eq!((done.result, bytes(&done.request)), (Ok(()), pattern(seed, scale, scale)));
        }
    });
}

#[test]
fn x23_sparse_luns() {
    sparse_luns(GOOD);
}

#[test]
fn x23_sparse_luns_control() {
    assert!(caught(|| sparse_luns(Defects::one(Defect::OneByteLun))));
}

#[test]
fn says_who_it_is_and_refuses_what_it_cannot_address() {
    let limits = ScsiLimits { queues: 4, max_lun: 1 << 20, max_target: 999, seg_max: 3, ..ScsiLimits::default() };
    let rig = Rig::new(Config { cpus: 2, ..Config::default() }, limits);
    rig.run(GOOD, |_task, driver| {
        let identity = driver.identity();
        assert_eq!((identity.driver, &identity.interrupts[..]), ("virtio-scsi", "msi-x:5"));
        assert_eq!(&identity.transport[..], "event-idx indirect ring-reset");
        let info = *driver.info();
        assert_eq!((info.max_target, info.max_lun, info.queues, info.limits.max_segments), (255, 0x3fff, 2, 3));
        let collector = Arc::new(Collector::default());
        for to in [at(256, 0), at(0, 0x4000)] {
            let refused = go(&*driver, command(&collector, 0, to, TEST_UNIT_READY, NOTHING)).unwrap_err();
            assert_eq!(end(refused), Refusal::Invalid(Error::OutOfRange));
        }
    });
}

#[test]
fn absent_targets_and_units_are_told_apart_from_broken_ones() {
    let rig = Rig::schedule(Schedule::Eager);
    rig.run(GOOD, |task, driver| {
        let collector = Arc::new(Collector::default());
        go(&*driver, command(&collector, 1, at(2, 0), TEST_UNIT_READY, NOTHING)).unwrap();
        assert_eq!(collector.wait(task, 1)[0].response, Response::BadTarget);
        ready(task, &*driver, &LUNS, &collector);
        go(&*driver, command(&collector, 2, at(0, 0), read10(4, 1), (Direction::In, 512))).unwrap();
        let answer = collector.wait(task, 1).remove(0);
        assert_eq!((answer.response, answer.status, answer.residual), (Response::Complete, Status::GOOD, 0));
        assert_eq!(answer.data, pattern(0, 4, 1));
        // Half of what there is room for.
        go(&*driver, command(&collector, 3, at(0, 0), read10(4, 1), (Direction::In, 1024))).unwrap();
        assert_eq!(collector.wait(task, 1)[0].residual, 512);
    });
}
