//! Writes: read-modify-write, what they wait for, what failures leave.

use undercroft_block::{Error, Op};

use super::device::*;
use super::rig::*;
use crate::broken::{self, Hazard};
use crate::*;

/// A-PC-19: writes of every alignment within three pages, against bytes; on the volume and, after a sync, on the device.
fn alignments() -> Result<(), String> {
    let edges = [0, 1, 511, 512, 4095, 4096, 4097, 6000, 8191, 8192, 8193, 12287, 12288];
    for start in edges {
        for end in edges.into_iter().filter(|end| *end > start) {
            try_with(SMALL, |rig| {
                rig.write(1, start as u64, end - start, 0xc3);
                rig.settle();
                assert_eq!(rig.result(1), Some(Ok(())));
                let mut expected: Vec<u8> = (0..5 * PAGE).map(pattern).collect();
                expected[start..end].fill(0xc3);
                assert!(rig.now(0, 5 * PAGE).unwrap() == expected, "what was not written changed");
                assert_eq!(rig.volume.sync_all_blocking(rig.cx), Ok(()));
                assert!(rig.store(0, 5 * PAGE) == expected, "what was not written changed");
            })?;
        }
    }
    Ok(())
}

#[test]
fn a_pc_19_parts_of_pages_are_read_before_they_are_written() {
    alignments().unwrap();
}

#[test]
fn a_pc_19_parts_of_pages_are_read_before_they_are_written_control() {
    let error = broken::with(Hazard::NotReadFirst, alignments).unwrap_err();
    assert!(error.contains("what was not written changed"), "{error}");
}

/// A-PC-20: the pages of a write are those that it covers, and only those that it covers in part are read.
fn pages_of_writes() -> Result<(), String> {
    try_with(SMALL, |rig| {
        for (start, end, pages, reads) in
            [(0, 4096, 1, 0), (8192, 16384, 2, 0), (20480, 24577, 2, 1), (32767, 36865, 3, 2), (45056, 45057, 1, 1)]
        {
            let before = (rig.stats(), rig.device.seen(Op::Read).len());
            rig.write(start, start, (end - start) as usize, 1);
            rig.settle();
            assert_eq!(rig.result(start), Some(Ok(())));
            assert_eq!(rig.stats().dirty - before.0.dirty, pages, "{start}..{end}");
            assert_eq!(rig.device.seen(Op::Read).len() - before.1, reads, "{start}..{end}");
        }
    })
}

#[test]
fn a_pc_20_the_pages_of_a_write() {
    pages_of_writes().unwrap();
}

#[test]
fn a_pc_20_the_pages_of_a_write_control() {
    let error = broken::with(Hazard::OnePageTooMany, pages_of_writes).unwrap_err();
    assert!(error.contains("failed: 0..4096"), "{error}");
}

/// A-PC-24, pattern 28: a read that was begun before a write does not overwrite it when it ends.
fn late_read() -> Result<(), String> {
    try_with(SMALL, |rig| {
        rig.device.hold();
        // Nobody waits for the second page itself.
        rig.read(1, 0, 2 * PAGE);
        rig.write(2, PAGE as u64, PAGE, 0x42);
        rig.settle();
        rig.device.release();
        rig.settle();
        assert_eq!((rig.result(1), rig.result(2)), (Some(Ok(())), Some(Ok(()))));
        assert!(rig.now(PAGE as u64, PAGE).unwrap() == vec![0x42; PAGE], "the read overwrote the write");
    })
}

#[test]
fn a_pc_24_a_late_read_does_not_overwrite_a_write() {
    late_read().unwrap();
}

#[test]
fn a_pc_24_a_late_read_does_not_overwrite_a_write_control() {
    let error = broken::with(Hazard::OverReading, late_read).unwrap_err();
    assert!(error.contains("page 1 cannot become"), "{error}");
}

/// A-PC-27, X29: the read of the first page of a write fails, then that of the last: the write fails once, the page is not valid, and a second
/// try does it.
fn failed_rmw() -> Result<(), String> {
    for bad in [1, 17] {
        try_with(SMALL, |rig| {
            rig.device.fail(Op::Read, bad, Error::Medium, 1);
            rig.write(1, 100, 2 * PAGE, 0x99);
            rig.settle();
            assert_eq!(rig.result(1), Some(Err(Error::Medium)), "the write was not told");
            assert_eq!(rig.stats().operations, 0);
            rig.write(2, 100, 2 * PAGE, 0x98);
            rig.settle();
            assert_eq!(rig.result(2), Some(Ok(())));
            let mut expected: Vec<u8> = (0..3 * PAGE).map(pattern).collect();
            expected[100..100 + 2 * PAGE].fill(0x98);
            assert_eq!(rig.now(0, 3 * PAGE).unwrap(), expected);
        })?;
    }
    Ok(())
}

#[test]
fn a_pc_27_a_failed_read_within_a_write_ends_it_once() {
    failed_rmw().unwrap();
}

#[test]
fn x29_a_failed_read_within_a_write_ends_it_once_control() {
    let error = broken::with(Hazard::ForgottenReader, failed_rmw).unwrap_err();
    assert!(error.contains("the write was not told"), "{error}");
}

#[test]
fn blocking_writes_are_as_others() {
    with_rig(SMALL, |rig| {
        let bytes: Vec<u8> = (0..20_000).map(|at| (at % 247) as u8).collect();
        rig.volume.write_blocking(rig.cx, 777, &bytes).unwrap();
        assert_eq!(rig.now(777, bytes.len()).unwrap(), bytes);
        assert_eq!(rig.now(0, 777).unwrap(), (0..777).map(pattern).collect::<Vec<_>>());
        rig.volume.sync_all_blocking(rig.cx).unwrap();
        assert_eq!(rig.store(777, bytes.len()), bytes);
        rig.device.fail(Op::Read, 800, Error::Medium, 1);
        assert_eq!(rig.volume.write_blocking(rig.cx, 800 * 512 + 1, &[1]), Err(Error::Medium));
        assert_eq!(rig.volume.write_blocking(rig.cx, 800 * 512 + 1, &[1]), Ok(()));
    });
}

/// Writers wait while too much is dirty, and go on as it is written; none is lost.
fn throttled() -> Result<(), String> {
    let config = Config { dirty_percent: 25, background_percent: 10, ..SMALL };
    try_with(config, |rig| {
        rig.device.hold();
        for cookie in 0..15 {
            rig.write(cookie, cookie * 4 * PAGE as u64, 4 * PAGE, cookie as u8 + 1);
        }
        rig.settle();
        let stats = rig.stats();
        assert!(
            stats.dirty + stats.writing <= 17,
            "{} pages are dirty: writers did not wait",
            stats.dirty + stats.writing
        );
        assert!(stats.throttled > 0);
        rig.device.release();
        rig.settle();
        for cookie in 0..15 {
            assert_eq!(rig.result(cookie), Some(Ok(())));
            assert_eq!(rig.now(cookie * 4 * PAGE as u64, 4 * PAGE).unwrap(), vec![cookie as u8 + 1; 4 * PAGE]);
        }
    })
}

#[test]
fn writers_wait_while_too_much_is_dirty() {
    throttled().unwrap();
}

#[test]
fn writers_wait_while_too_much_is_dirty_control() {
    let error = broken::with(Hazard::NoLimit, throttled).unwrap_err();
    assert!(error.contains("writers did not wait"), "{error}");
}

#[test]
fn a_read_only_device_is_not_written() {
    let mut info = info(BYTES, 512);
    info.features = undercroft_block::Features::READ_ONLY;
    try_on(info, SMALL, |rig| {
        let refused = rig.volume.write(rig.cx, 0, filled(9, 0), rig.done(1)).unwrap_err();
        assert_eq!((refused.error, refused.data.len()), (Some(Error::ReadOnly), 9));
        assert_eq!(rig.volume.write_blocking(rig.cx, 0, &[1]), Err(Error::ReadOnly));
        let pinned = rig.volume.pin_blocking(rig.cx, 0).unwrap();
        assert_eq!(pinned.write(rig.cx, 0, &[1]), Err(Error::ReadOnly));
        assert_eq!(rig.volume.sync_all_blocking(rig.cx), Ok(()));
        assert_eq!(rig.now(0, 5).unwrap(), (0..5).map(pattern).collect::<Vec<_>>());
    })
    .unwrap();
}
