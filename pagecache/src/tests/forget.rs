//! Discards, truncation, invalidation, pins, memory, and devices that vanish.

use std::time::Duration;

use undercroft_block::{Error, Event, Op};
use undercroft_hal::work::{BottomHalfWork, Turn};

use super::device::*;
use super::rig::*;
use crate::broken::{self, Hazard};
use crate::*;

const P: u64 = PAGE as u64;

#[test]
fn a_discard_reaches_the_device_in_parts_and_forgets_the_pages() {
    with_rig(SMALL, |rig| {
        rig.write(1, 0, 10 * PAGE, 5);
        rig.settle();
        rig.volume.discard(rig.cx, 100..9 * P + 100, rig.done(2)).unwrap();
        rig.settle();
        assert_eq!(rig.result(2), Some(Ok(())));
        let seen: Vec<_> = rig.device.seen(Op::Discard).iter().map(|seen| (seen.lba, seen.blocks)).collect();
        assert_eq!(seen, [(8, 24), (32, 24), (56, 16)], "whole pages, in parts that the device takes");
        assert_eq!(rig.now(P, PAGE).unwrap(), vec![0xdd; PAGE]);
        assert_eq!(rig.now(0, PAGE).unwrap(), vec![5; PAGE]);
        assert_eq!(rig.now(9 * P, PAGE).unwrap(), vec![5; PAGE]);
        rig.volume.discard(rig.cx, 1..P, rig.done(3)).unwrap();
        rig.settle();
        assert_eq!(rig.result(3), Some(Ok(())), "no whole page: nothing to do");
    });
}

/// A write-back that is under way when its page is discarded must not reach the device after the discard; a write after the discard was
/// begun must not be thrown away by it.
fn races() -> Result<(), String> {
    for order in [Order::First, Order::Last] {
        try_with(SMALL, |rig| {
            rig.device.lock().order = order;
            rig.write(1, 0, PAGE, 1);
            rig.settle();
            rig.device.hold();
            rig.sync(2);
            rig.volume.discard(rig.cx, 0..P, rig.done(3)).unwrap();
            rig.write(4, 0, PAGE, 2);
            rig.sync(5);
            rig.settle();
            for _ in 0..8 {
                if !rig.device.lock().flights.is_empty() {
                    rig.answer_one();
                }
            }
            rig.device.release();
            rig.settle();
            for cookie in 2..6 {
                assert_eq!(rig.result(cookie), Some(Ok(())));
            }
            assert_eq!(rig.volume.sync_all_blocking(rig.cx), Ok(()));
            assert!(rig.store(0, PAGE) == [2; PAGE], "a write after the discard is lost: {:#x}", rig.store(0, 1)[0]);
            // And once more, with the discard at the device before the write comes.
            rig.device.hold();
            rig.volume.discard(rig.cx, 0..P, rig.done(6)).unwrap();
            rig.settle();
            rig.write(7, 0, PAGE, 3);
            rig.sync(8);
            rig.settle();
            rig.device.release();
            rig.settle();
            assert_eq!(rig.volume.sync_all_blocking(rig.cx), Ok(()));
            assert!(rig.store(0, PAGE) == [3; PAGE], "a write after the discard is lost: {:#x}", rig.store(0, 1)[0]);
        })?;
    }
    Ok(())
}

#[test]
fn a_discard_does_not_race_with_writes() {
    races().unwrap();
}

#[test]
fn a_discard_does_not_race_with_writes_control_no_fence() {
    let error = broken::with(Hazard::NoFence, races).unwrap_err();
    assert!(error.contains("a write after the discard is lost"), "{error}");
}

/// A-PC-16, A-PC-32: a page is discarded while it is read and while it is written: it is freed once, when the device is done.
fn in_flight() -> Result<(), String> {
    try_with(SMALL, |rig| {
        rig.device.hold();
        rig.read(1, 0, 10);
        rig.volume.invalidate(rig.cx, 0..P, rig.done(2)).unwrap();
        rig.read(3, 0, 10);
        rig.settle();
        assert_eq!((rig.result(2), rig.stats().reading), (None, 1));
        rig.device.release();
        rig.settle();
        assert!((1..4).all(|cookie| rig.result(cookie) == Some(Ok(()))));
        assert_eq!(rig.device.seen(Op::Read).len(), 2, "read again after it was forgotten");
        rig.write(4, 0, PAGE, 9);
        rig.settle();
        rig.device.hold();
        rig.sync(5);
        rig.write(6, 0, PAGE, 10);
        rig.volume.invalidate(rig.cx, 0..P, rig.done(7)).unwrap();
        rig.settle();
        assert_eq!(rig.result(7), None, "forgotten under the device");
        rig.device.release();
        rig.settle();
        assert!((4..8).all(|cookie| rig.result(cookie) == Some(Ok(()))));
        assert_eq!(rig.now(0, PAGE).unwrap(), vec![9; PAGE], "what was not written is gone");
    })
}

#[test]
fn a_pc_16_a_page_in_flight_is_forgotten_when_the_device_is_done() {
    in_flight().unwrap();
}

#[test]
fn a_pc_32_a_page_in_flight_is_forgotten_when_the_device_is_done_control() {
    let error = broken::with(Hazard::DiscardOvertakes, in_flight).unwrap_err();
    assert!(error.contains("forgotten under the device"), "{error}");
}

/// Who writes past the cache has it forget: what is read then is the device's, and a pinned page stays.
#[test]
fn a_task_forgets_what_was_written_past_the_cache() {
    with_rig(SMALL, |rig| {
        let before = rig.now(0, 3 * PAGE).unwrap();
        rig.device.lock().store[PAGE..2 * PAGE].fill(0xab);
        assert_eq!(rig.now(0, 3 * PAGE).unwrap(), before, "the cache does not look");
        rig.volume.invalidate_blocking(rig.cx, P..2 * P).unwrap();
        assert_eq!(rig.now(P, PAGE).unwrap(), vec![0xab; PAGE]);
        let pinned = rig.volume.pin_blocking(rig.cx, P).unwrap();
        assert_eq!(rig.volume.invalidate_blocking(rig.cx, 0..u64::MAX), Err(Error::Busy));
        pinned.unpin(rig.cx);
        rig.volume.invalidate_blocking(rig.cx, 0..u64::MAX).unwrap();
        assert_eq!(rig.stats().clean, 0);
    });
}

/// A sync that waits for pages that are thrown away does not wait for ever.
#[test]
fn a_sync_does_not_wait_for_what_is_gone() {
    with_rig(SMALL, |rig| {
        for page in 0..6 {
            rig.write(page, 3 * page * P, PAGE, 1);
        }
        rig.settle();
        rig.device.hold();
        rig.sync(10);
        rig.volume.sync(rig.cx, 0..8 * P, rig.done(11)).unwrap();
        rig.volume.invalidate(rig.cx, 0..u64::MAX, rig.done(12)).unwrap();
        rig.settle();
        rig.device.release();
        rig.settle();
        assert!((10..13).all(|cookie| rig.result(cookie) == Some(Ok(()))));
        assert_eq!(rig.stats().dirty, 0);
    });
}

#[test]
fn what_is_cut_off_is_gone_and_out_of_reach() {
    with_rig(SMALL, |rig| {
        rig.write(1, 3 * P, 2 * PAGE, 7);
        rig.settle();
        rig.volume.truncate(rig.cx, 4 * P + 10, rig.done(2)).unwrap();
        rig.settle();
        assert_eq!((rig.result(2), rig.volume.size(rig.cx)), (Some(Ok(())), 4 * P + 10));
        assert_eq!(rig.now(4 * P, 10).unwrap(), [7; 10]);
        assert_eq!(rig.now(4 * P, 11), Err(Error::OutOfRange));
        assert_eq!(rig.volume.write_blocking(rig.cx, 4 * P + 5, &[0; 6]), Err(Error::OutOfRange));
        assert_eq!(rig.volume.sync_all_blocking(rig.cx), Ok(()));
        assert_eq!(rig.device.seen(Op::Write).iter().map(|seen| seen.blocks).sum::<u32>(), 16);
    });
}

/// An end that was cut off while a page behind it is on its way: a sync begun then does not wait for ever.
#[test]
fn a_sync_after_a_cut_ends() {
    with_rig(SMALL, |rig| {
        rig.write(1, 9 * P, PAGE, 1);
        rig.settle();
        rig.device.hold();
        rig.sync(2);
        rig.write(3, 9 * P, PAGE, 2);
        rig.volume.truncate(rig.cx, 5 * P, rig.done(4)).unwrap();
        rig.sync(5);
        rig.settle();
        rig.device.release();
        rig.settle();
        assert!((2..6).all(|cookie| rig.result(cookie) == Some(Ok(()))));
    });
}

/// Pattern 33: a page that is pinned is filled.
fn pinned_and_filled() -> Result<(), String> {
    try_with(SMALL, |rig| {
        // There is memory.
        assert!(rig.now(60 * P, 1).is_ok());
        rig.device.hold();
        rig.volume.pin(rig.cx, 3 * P, rig.done(1)).unwrap();
        rig.settle();
        assert_eq!(rig.result(1), None, "pinned before it was read");
        rig.device.release();
        rig.settle();
        let pinned = rig.sink.ended.lock().unwrap().get_mut(&1).unwrap().outcome.pinned.take().unwrap();
        let mut bytes = vec![0; PAGE];
        pinned.read(rig.cx, 0, &mut bytes);
        assert!(bytes == (3 * PAGE..4 * PAGE).map(pattern).collect::<Vec<_>>());
    })
}

#[test]
fn p_33_a_pinned_page_is_filled() {
    pinned_and_filled().unwrap();
}

#[test]
fn p_33_a_pinned_page_is_filled_control() {
    let error = broken::with(Hazard::PinnedUnread, pinned_and_filled).unwrap_err();
    assert!(error.contains("pinned before it was read"), "{error}");
}

/// A-PC-08, A-PC-45: pins are handles: while one lives its page stays; when the last goes, in whatever context, it can go.
fn pins() -> Result<(), String> {
    try_with(Config { pages: 16, ..SMALL }, |rig| {
        let pinned = rig.volume.pin_blocking(rig.cx, 5 * P + 7).unwrap();
        let again = rig.volume.pin_blocking(rig.cx, 5 * P).unwrap();
        assert_eq!((pinned.index(rig.cx), again.addr(rig.cx)), (5, pinned.addr(rig.cx)));
        pinned.write(rig.cx, 4000, &[1; 96]).unwrap();
        assert_eq!(rig.volume.sync_all_blocking(rig.cx), Ok(()));
        assert_eq!(rig.store(5 * PAGE + 4000, 96), [1; 96]);
        for page in 10..60 {
            assert!(rig.now(page * P, 10).is_ok(), "a pin outlived its handles");
        }
        let reads = rig.device.seen(Op::Read).len();
        assert_eq!(rig.now(5 * P + 4000, 96).unwrap(), [1; 96]);
        assert_eq!(rig.device.seen(Op::Read).len(), reads, "a pinned page was evicted");
        rig.volume.discard(rig.cx, 5 * P..6 * P, rig.done(1)).unwrap();
        rig.settle();
        assert_eq!(rig.result(1), Some(Err(Error::Busy)));
        drop(pinned);
        again.unpin(rig.cx);
        rig.settle();
        rig.volume.discard(rig.cx, 5 * P..6 * P, rig.done(2)).unwrap();
        rig.settle();
        assert_eq!(rig.result(2), Some(Ok(())), "a pin outlived its handles");
    })
}

#[test]
fn a_pc_08_pins_balance() {
    pins().unwrap();
}

#[test]
fn a_pc_08_pins_balance_control() {
    let error = broken::with(Hazard::PinLost, pins).unwrap_err();
    assert!(error.contains("a pin outlived its handles"), "{error}");
}

#[test]
fn all_pages_pinned_is_no_memory_and_no_hang() {
    with_rig(Config { pages: 16, pins: 20, ..SMALL }, |rig| {
        let pins: Vec<_> = (0..16).map(|page| rig.volume.pin_blocking(rig.cx, page * P).unwrap()).collect();
        assert_eq!(rig.now(100 * P, 10), Err(Error::NoMemory));
        assert_eq!(rig.volume.write_blocking(rig.cx, 100 * P, &[0; PAGE]), Err(Error::NoMemory));
        assert!(rig.volume.write_blocking(rig.cx, 3 * P, &[0; PAGE]).is_ok());
        drop(pins);
        rig.settle();
        assert!(rig.now(100 * P, 10).is_ok());
    });
    with_rig(SMALL, |rig| {
        let pins: Vec<_> = (0..8).map(|page| rig.volume.pin_blocking(rig.cx, page * P).unwrap()).collect();
        assert_eq!(rig.volume.pin_blocking(rig.cx, 9 * P).map(drop), Err(Error::Busy));
        drop(pins);
    });
}

/// Memory pressure: clean pages go, what is dirty stays and is written, and the cache grows again when it may.
#[test]
fn x28_the_budget_shrinks_and_grows() {
    with_rig(SMALL, |rig| {
        for page in 0..64 {
            assert!(rig.now(page * P, 1).is_ok());
        }
        rig.write(1, 0, PAGE, 3);
        rig.settle();
        assert_eq!(rig.stats().pages, 64);
        assert_eq!(rig.volume.resize_cache(rig.cx, 16), 16);
        assert_eq!(rig.now(0, PAGE).unwrap(), vec![3; PAGE]);
        for page in 0..64 {
            assert!(rig.now(page * P, 1).is_ok());
        }
        assert_eq!(rig.stats().pages, 16);
        rig.volume.resize_cache(rig.cx, 1000);
        for page in 0..64 {
            assert!(rig.now(page * P, 1).is_ok());
        }
        assert_eq!(rig.stats().pages, 64);
    });
}

#[test]
fn a_device_that_vanishes_ends_everything_once() {
    with_rig(Config { dirty_percent: 10, ..SMALL }, |rig| {
        rig.device.hold();
        for page in 0..6 {
            rig.write(page, page * P, PAGE, 1);
        }
        rig.settle();
        rig.read(10, 50 * P, 10);
        rig.read(11, 50 * P, 10);
        rig.write(12, 60 * P, PAGE, 1);
        rig.write(13, 51 * P + 1, 1, 1);
        rig.sync(14);
        rig.volume.sync(rig.cx, 0..P, rig.done(15)).unwrap();
        rig.volume.discard(rig.cx, 0..2 * P, rig.done(16)).unwrap();
        rig.settle();
        rig.device.remove();
        rig.settle();
        for cookie in 10..17 {
            assert!(rig.result(cookie).is_some(), "{cookie} hangs");
            assert!(rig.result(cookie) != Some(Ok(())) || cookie == 16, "{cookie}");
        }
        assert_eq!(rig.volume.write_blocking(rig.cx, 0, &[1]), Err(Error::Removed));
        assert_eq!(rig.volume.sync_all_blocking(rig.cx), Err(Error::Removed));
        assert_eq!(rig.now(5 * P, 3), Ok(vec![1; 3]), "what is here can be read");
        assert_eq!(rig.now(90 * P, 3), Err(Error::Removed));
        rig.pass(Duration::from_secs(1));
    });
}

/// Another medium is in the drive: what was of the one before is neither read from here nor written there.
fn medium_changed() -> Result<(), String> {
    try_with(SMALL, |rig| {
        assert!(rig.now(9 * P, 1).is_ok());
        rig.write(1, 0, PAGE, 1);
        rig.settle();
        let device = rig.device.clone();
        let change = BottomHalfWork::new(0, move |cx| {
            device.tell(cx, Event::MediaChanged);
            Turn::Done
        });
        change.schedule();
        rig.settle();
        let _ = rig.volume.sync_all_blocking(rig.cx);
        assert!(rig.store(0, PAGE) != vec![1; PAGE], "written to another medium");
        for at in [0, 9 * P, 20 * P] {
            assert_eq!(rig.now(at, 1), Err(Error::NotReady));
        }
        assert_eq!(rig.volume.pin_blocking(rig.cx, 0).map(drop), Err(Error::NotReady));
        assert_eq!(rig.volume.write_blocking(rig.cx, 0, &[1]), Err(Error::NotReady));
        assert_eq!(rig.volume.sync_all_blocking(rig.cx), Err(Error::NotReady));
    })
}

#[test]
fn a_changed_medium_is_another() {
    medium_changed().unwrap();
}

#[test]
fn a_changed_medium_is_another_control() {
    let error = broken::with(Hazard::MediumIgnored, medium_changed).unwrap_err();
    assert!(error.contains("written to another medium"), "{error}");
}

/// A device that never gives its buffers back takes transfers, not pages; when none is left nothing hangs.
#[test]
fn buffers_that_do_not_come_back() {
    with_rig(SMALL, |rig| {
        rig.write(1, 0, PAGE, 1);
        rig.settle();
        rig.device.lock().keeping = true;
        for page in 10..16 {
            rig.device.fail(Op::Read, page * 8, Error::TimedOut, 1);
            rig.read(page, page * P, 10);
            rig.pass(Duration::from_millis(1));
            assert!(matches!(rig.result(page), Some(Err(Error::TimedOut | Error::NoMemory))), "{:?}", rig.result(page));
        }
        assert_eq!(rig.now(0, 3).unwrap(), [1; 3]);
    });
}
