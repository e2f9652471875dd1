//! Write-back and syncs: when pages go, what a sync covers, who is told of errors.

use std::time::Duration;

use undercroft_block::{Error, Features, Op};

use super::device::*;
use super::rig::*;
use crate::broken::{self, Hazard};
use crate::*;

const MS: Duration = Duration::from_millis(1);

/// X15: a sync waits for all that was written before, whatever ends last.
fn out_of_order() -> Result<(), String> {
    for order in [Order::First, Order::Last] {
        try_with(SMALL, |rig| {
            for page in [0, 10, 20, 30, 40] {
                rig.write(page, page * PAGE as u64, PAGE, 0xbb);
            }
            rig.settle();
            rig.device.lock().order = order;
            rig.device.hold();
            rig.sync(100);
            rig.settle();
            while rig.result(100).is_none() {
                let before = rig.device.lock().flights.len();
                assert!(before > 0, "the sync waits for nothing");
                rig.answer_one();
            }
            assert_eq!(rig.result(100), Some(Ok(())));
            let durable = rig.device.lock().durable.clone();
            for page in [0, 10, 20, 30, 40] {
                let at = page * PAGE;
                assert!(durable[at..at + PAGE] == [0xbb; PAGE], "the sync was over before page {page} was durable");
            }
        })?;
    }
    Ok(())
}

#[test]
fn x15_a_sync_waits_for_all_that_came_before() {
    out_of_order().unwrap();
}

#[test]
fn x15_a_sync_waits_for_all_that_came_before_control() {
    let error = broken::with(Hazard::NewestOnly, out_of_order).unwrap_err();
    assert!(error.contains("the sync was over before page"), "{error}");
}

/// What is written while a sync goes on is not the sync's: it neither waits for it nor has it written.
#[test]
fn a_sync_covers_what_came_before_and_nothing_else() {
    with_rig(SMALL, |rig| {
        rig.write(1, 0, PAGE, 1);
        rig.settle();
        rig.device.hold();
        rig.sync(2);
        // The same page, while it is on its way, and another.
        rig.write(3, 0, PAGE, 2);
        rig.write(4, 9 * PAGE as u64, PAGE, 3);
        rig.settle();
        assert_eq!((rig.result(2), rig.result(3), rig.result(4)), (None, Some(Ok(())), Some(Ok(()))));
        rig.device.release();
        rig.settle();
        assert_eq!(rig.result(2), Some(Ok(())));
        assert_eq!(rig.device.seen(Op::Write).len(), 1, "more than the sync covers was written");
        assert_eq!(rig.device.lock().durable[..PAGE], [1; PAGE]);
        assert_eq!(rig.stats().dirty, 2);
        rig.sync(5);
        rig.settle();
        assert_eq!(rig.device.lock().durable[..PAGE], [2; PAGE]);
        assert_eq!(rig.stats().dirty, 0);
    });
}

/// A page that is on its way with old bytes and has new ones: a sync begun then waits for both.
#[test]
fn a_sync_waits_for_a_page_that_is_written_twice() {
    with_rig(SMALL, |rig| {
        rig.write(1, 0, PAGE, 1);
        rig.settle();
        rig.device.hold();
        rig.sync(2);
        rig.write(3, 0, PAGE, 2);
        rig.sync(4);
        rig.volume.sync(rig.cx, 0..10, rig.done(5)).unwrap();
        rig.settle();
        rig.device.release();
        rig.settle();
        assert_eq!((rig.result(2), rig.result(4), rig.result(5)), (Some(Ok(())), Some(Ok(())), Some(Ok(()))));
        assert_eq!(rig.device.lock().durable[..PAGE], [2; PAGE]);
    });
}

#[test]
fn a_sync_of_a_range_writes_that_range() {
    for (range, pages) in [(0..1, 1), (PAGE as u64 - 1..PAGE as u64 + 1, 2), (40 * PAGE as u64..BYTES, 1), (0..0, 0)] {
        with_rig(SMALL, |rig| {
            // Not neighbours, which would go along.
            for page in [0, 2, 4, 6, 50] {
                rig.write(page, page * PAGE as u64, PAGE, 1);
            }
            rig.write(1, PAGE as u64, PAGE, 1);
            rig.settle();
            rig.device.lock().info.limits.max_transfer_bytes = 1 << 20;
            rig.volume.sync(rig.cx, range.clone(), rig.done(100)).unwrap();
            rig.settle();
            assert_eq!(rig.result(100), Some(Ok(())));
            let written: u32 = rig.device.seen(Op::Write).iter().map(|seen| seen.blocks / 8).sum();
            assert!(written >= pages && written <= 3 * pages, "{range:?}: {written} pages");
        });
    }
}

/// A flush that was under way when the last write ended may not have covered it: another is sent.
fn late_flush() -> Result<(), String> {
    try_with(SMALL, |rig| {
        rig.write(1, 0, PAGE, 1);
        rig.settle();
        rig.device.hold();
        rig.sync(2);
        rig.settle();
        rig.answer(0);
        // The first sync's flush is at the device now; it is answered from what the device had when it took it.
        assert_eq!(rig.device.seen(Op::Flush).len(), 1);
        let had = rig.device.lock().store.clone();
        rig.write(3, 9 * PAGE as u64, PAGE, 2);
        rig.sync(4);
        rig.settle();
        rig.answer(1);
        rig.answer(0);
        if rig.result(4).is_some() {
            // All that this flush is known to have made durable.
            assert!(had[9 * PAGE..10 * PAGE] == [2; PAGE], "a sync was content with a flush that began too early");
        }
        rig.device.release();
        rig.settle();
        assert_eq!((rig.result(2), rig.result(4)), (Some(Ok(())), Some(Ok(()))));
        assert_eq!(rig.device.seen(Op::Flush).len(), 2);
    })
}

#[test]
fn a_flush_that_began_before_is_not_enough() {
    late_flush().unwrap();
}

#[test]
fn a_flush_that_began_before_is_not_enough_control() {
    let error = broken::with(Hazard::AnyFlush, late_flush).unwrap_err();
    assert!(error.contains("content with a flush that began too early"), "{error}");
}

#[test]
fn a_device_without_a_volatile_cache_is_not_flushed() {
    let mut info = info(BYTES, 512);
    info.features = Features::empty();
    try_on(info, SMALL, |rig| {
        rig.write(1, 0, 10, 1);
        rig.sync(2);
        rig.settle();
        assert_eq!(rig.result(2), Some(Ok(())));
        assert_eq!((rig.device.seen(Op::Flush).len(), rig.device.seen(Op::Write).len()), (0, 1));
    })
    .unwrap();
}

/// A-PC-17, pattern 32: what failed is told to every handle once, the data is kept, tried again with pauses that grow, and written in the end.
fn errors() -> Result<(), String> {
    try_with(SMALL, |rig| {
        let other = rig.volume.another(rig.cx).unwrap();
        rig.device.fail(Op::Write, 0, Error::Medium, 3);
        rig.write(1, 0, PAGE, 0x66);
        rig.pass(45 * MS);
        rig.pass(4 * MS);
        assert_eq!(rig.device.seen(Op::Write).len(), 1, "written when it was old, and not at once again");
        rig.pass(2 * MS);
        assert_eq!(rig.stats().dirty, 1, "the data is lost");
        assert_eq!(rig.device.seen(Op::Write).len(), 2, "not tried again after the pause");
        assert_eq!(rig.now(0, PAGE).unwrap(), vec![0x66; PAGE]);
        // This one tries it for the third time.
        assert_eq!(rig.volume.sync_all_blocking(rig.cx), Err(Error::Medium));
        assert_eq!(rig.volume.sync_all_blocking(rig.cx), Ok(()), "the error was told twice");
        assert_eq!(other.sync_all_blocking(rig.cx), Err(Error::Medium), "a handle was not told");
        assert_eq!(other.sync_all_blocking(rig.cx), Ok(()));
        assert_eq!(rig.store(0, PAGE), vec![0x66; PAGE]);
        let later = rig.volume.another(rig.cx).unwrap();
        assert_eq!(later.sync_all_blocking(rig.cx), Ok(()));
    })
}

#[test]
fn a_pc_17_errors_are_told_once() {
    errors().unwrap();
}

#[test]
fn a_pc_17_errors_are_told_once_control() {
    let error = broken::with(Hazard::StickyError, errors).unwrap_err();
    assert!(error.contains("the error was told twice"), "{error}");
}

#[test]
fn p_32_a_failed_write_back_keeps_the_data_control() {
    let error = broken::with(Hazard::FailedWriteClean, errors).unwrap_err();
    assert!(error.contains("the data is lost"), "{error}");
}

#[test]
fn a_failed_flush_fails_its_syncs_and_is_news_to_others() {
    with_rig(SMALL, |rig| {
        let other = rig.volume.another(rig.cx).unwrap();
        rig.write(1, 0, PAGE, 1);
        rig.device.fail(Op::Flush, 0, Error::Hardware, 1);
        rig.sync(2);
        rig.settle();
        assert_eq!(rig.result(2), Some(Err(Error::Hardware)));
        assert_eq!(rig.volume.sync_all_blocking(rig.cx), Ok(()));
        assert_eq!(other.sync_all_blocking(rig.cx), Err(Error::Hardware));
    });
}

/// Two syncs at once that a failure concerns are both told.
#[test]
fn every_sync_that_waited_for_what_failed_is_told() {
    with_rig(SMALL, |rig| {
        rig.write(1, 0, PAGE, 1);
        rig.settle();
        rig.device.hold();
        rig.device.fail(Op::Write, 0, Error::Medium, 1);
        rig.sync(2);
        rig.sync(3);
        rig.device.release();
        rig.settle();
        assert_eq!((rig.result(2), rig.result(3)), (Some(Err(Error::Medium)), Some(Err(Error::Medium))));
        assert_eq!(rig.volume.sync_all_blocking(rig.cx), Ok(()));
        assert_eq!(rig.store(0, PAGE), vec![1; PAGE]);
    });
}

/// X13: pages go by age, again and again, and not before.
fn ages() -> Result<(), String> {
    try_with(SMALL, |rig| {
        for round in 0..4u64 {
            rig.write(round, 0, PAGE, round as u8);
            // The third tick after it: at most 30 ms, and more than 20.
            rig.pass(19 * MS);
            assert_eq!(rig.device.seen(Op::Write).len() as u64, round, "written before its time");
            for _ in 0..4 {
                rig.pass(10 * MS);
            }
            assert_eq!(rig.device.seen(Op::Write).len() as u64, round + 1, "not written when it was old");
            assert_eq!(rig.store(0, PAGE), vec![round as u8; PAGE]);
            // Nothing is dirty: the callout rests.
            rig.pass(100 * MS);
        }
    })
}

#[test]
fn x13_age_is_looked_at_again_and_again() {
    ages().unwrap();
}

#[test]
fn x13_age_is_looked_at_again_and_again_control() {
    let error = broken::with(Hazard::TickedOnce, ages).unwrap_err();
    assert!(error.contains("not written when it was old"), "{error}");
}

#[test]
fn pauses_grow_to_their_bound_and_end_with_success() {
    with_rig(SMALL, |rig| {
        rig.device.fail(Op::Write, 0, Error::Medium, 1000);
        rig.write(1, 0, PAGE, 1);
        let mut counts = Vec::new();
        for _ in 0..10 {
            rig.pass(40 * MS);
            counts.push(rig.device.seen(Op::Write).len());
        }
        assert!(counts[9] - counts[4] <= 6, "{counts:?}");
        assert!(counts[9] > counts[4] + 2, "{counts:?}");
        rig.device.lock().faults.clear();
        rig.pass(41 * MS);
        assert_eq!((rig.stats().dirty, rig.store(0, 1)[0]), (0, 1));
    });
}

/// Neighbours go in one request, whatever the order in which they were written.
#[test]
fn neighbours_go_together() {
    with_rig(SMALL, |rig| {
        for page in [3, 1, 2, 0, 7, 6] {
            rig.write(page, page * PAGE as u64, PAGE, 1);
        }
        rig.sync(100);
        rig.settle();
        let mut written: Vec<_> = rig.device.seen(Op::Write).iter().map(|seen| (seen.lba, seen.blocks)).collect();
        written.sort_unstable();
        assert_eq!(written, [(0, 32), (48, 16)]);
    });
}

#[test]
fn closing_writes_all() {
    with_rig(SMALL, |rig| {
        let other = rig.volume.another(rig.cx).unwrap();
        other.write_blocking(rig.cx, 5, &[7; 9]).unwrap();
        other.close(rig.cx).unwrap();
        assert_eq!(rig.store(5, 9), [7; 9]);
    });
}

/// A device that fails for good: what is dirty stays, within the budget; writers are told instead of hanging; the owner ends it.
#[test]
fn a_device_that_fails_for_good() {
    let config = Config { pages: 16, dirty_percent: 50, background_percent: 10, ..SMALL };
    with_rig(config, |rig| {
        rig.device.fail(Op::Write, 0, Error::Hardware, u32::MAX);
        for page in 0..32 {
            rig.device.fail(Op::Write, page * 8, Error::Hardware, u32::MAX);
        }
        let mut failed = 0;
        for page in 0..32 {
            rig.write(page, page * PAGE as u64, PAGE, 9);
            rig.pass(MS);
            match rig.result(page) {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    assert_eq!(error, Error::Hardware);
                    failed += 1;
                }
                None => panic!("a writer hangs"),
            }
        }
        assert!(failed >= 20, "{failed}");
        let stats = rig.stats();
        assert!(stats.dirty <= 8 && stats.dirty >= 7, "{stats:?}");
        assert_eq!(rig.now(0, PAGE).unwrap(), vec![9; PAGE], "what was written is still read");
        assert!(rig.now(100 * PAGE as u64, PAGE).is_ok(), "and others can be read");
        assert_eq!(rig.volume.sync_all_blocking(rig.cx), Err(Error::Hardware));
        rig.volume.invalidate(rig.cx, 0..u64::MAX, rig.done(100)).unwrap();
        rig.settle();
        assert_eq!((rig.result(100), rig.stats().dirty), (Some(Ok(())), 0));
    });
}
