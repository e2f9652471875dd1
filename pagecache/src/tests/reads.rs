//! Reads: what they see, who waits, what failures leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use undercroft_block::{Data, Error, Event, Op, Piece};
use undercroft_hal::context;
use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hal::hosted::trap;
use undercroft_hal::work::{BottomHalfWork, Turn};

use super::device::*;
use super::rig::*;
use crate::broken::{self, Hazard};
use crate::*;

fn original(start: usize, len: usize) -> Vec<u8> {
    (start..start + len).map(pattern).collect()
}

#[test]
fn reads_of_any_range_see_the_device_and_then_the_cache() {
    with_rig(SMALL, |rig| {
        let mut cookie = 0;
        for (start, len) in
            [(0, 1), (4095, 2), (0, 4096), (100, 20_000), (8192, 4096), (BYTES as usize - 5000, 5000), (7, 0)]
        {
            rig.read(cookie, start as u64, len);
            rig.settle();
            assert_eq!(rig.result(cookie), Some(Ok(())));
            assert_eq!(rig.bytes(cookie), original(start, len));
            let sent = rig.device.seen(Op::Read).len();
            rig.read(cookie + 1, start as u64, len);
            rig.settle();
            assert_eq!(rig.bytes(cookie + 1), original(start, len));
            assert_eq!(rig.device.seen(Op::Read).len(), sent, "what is here is not read again");
            cookie += 2;
        }
        let refused = rig.volume.read(rig.cx, BYTES - 1, filled(2, 0), rig.done(99)).unwrap_err();
        assert_eq!((refused.error, refused.data.len()), (Some(Error::OutOfRange), 2));
        assert_eq!(rig.now(4000, 300).unwrap(), original(4000, 300));
        assert_eq!(rig.now(BYTES, 1), Err(Error::OutOfRange));
    });
}

/// A large read begins all its transfers at once, each of as many pages as one takes.
#[test]
fn a_large_read_is_under_way_as_a_whole() {
    with_rig(SMALL, |rig| {
        rig.volume.resize_cache(rig.cx, 64);
        rig.device.hold();
        rig.read(1, 0, 12 * PAGE);
        rig.settle();
        let seen = rig.device.seen(Op::Read);
        assert_eq!(seen.iter().map(|seen| (seen.lba, seen.blocks)).collect::<Vec<_>>(), [(0, 32), (32, 32), (64, 32)]);
        rig.device.lock().order = Order::Last;
        rig.device.release();
        rig.settle();
        assert_eq!(rig.bytes(1), original(0, 12 * PAGE));
    });
}

/// A-PC-28, A-PC-11: reads and writes that wait for one page, for both contexts, in the order in which they came, each once.
fn in_order() -> Result<(), String> {
    try_with(SMALL, |rig| {
        rig.device.hold();
        rig.read(0, 0, 100);
        rig.write(1, 0, 50, 0xa1);
        rig.volume.read(rig.cx, 0, filled(100, 0), Done::in_task(rig.sink.clone(), 2)).unwrap();
        rig.write(3, 25, 50, 0xa3);
        rig.read(4, 0, 100);
        rig.settle();
        assert_eq!(rig.device.seen(Op::Read).len(), 1, "one read for all");
        rig.device.release();
        rig.settle();
        let mut expected = original(0, 100);
        let check = |cookie, expected: &[u8]| {
            assert_eq!(rig.result(cookie), Some(Ok(())));
            assert!(rig.bytes(cookie) == expected, "operation {cookie} was served out of order");
        };
        check(0, &expected);
        expected[..50].fill(0xa1);
        check(2, &expected);
        expected[25..75].fill(0xa3);
        check(4, &expected);
        assert!(rig.order(0) < rig.order(1) && rig.order(1) < rig.order(3) && rig.order(3) < rig.order(4));
        let ended = rig.sink.ended.lock().unwrap();
        assert_eq!(ended[&2].context, context::Kind::Task);
        assert_eq!(ended[&4].context, context::Kind::BottomHalf);
    })
}

#[test]
fn a_pc_28_waiters_of_both_contexts_in_order() {
    in_order().unwrap();
}

#[test]
fn a_pc_11_nobody_who_waits_is_lost_control() {
    let error = broken::with(Hazard::WaiterLost, in_order).unwrap_err();
    assert!(error.contains("left: None"), "{error}");
}

#[test]
fn a_pc_30_everybody_is_told_once_control() {
    let error = broken::with(Hazard::ToldTwice, in_order).unwrap_err();
    assert!(error.contains("completed twice"), "{error}");
}

#[test]
fn a_pc_28_waiters_of_both_contexts_in_order_control() {
    let error = broken::with(Hazard::LastFirst, in_order).unwrap_err();
    assert!(error.contains("was served out of order"), "{error}");
}

/// A-PC-42, X14: a read that fails reaches all who wait for it; nothing valid is left; the next one asks again.
fn failed_read() -> Result<(), String> {
    try_with(SMALL, |rig| {
        rig.device.fail(Op::Read, 3, Error::Medium, 1);
        rig.device.hold();
        for cookie in 0..3 {
            rig.read(cookie, 0, 100);
        }
        rig.volume.pin(rig.cx, 5, rig.done(3)).unwrap();
        rig.device.release();
        rig.settle();
        for cookie in 0..4 {
            assert_eq!(rig.result(cookie), Some(Err(Error::Medium)));
        }
        rig.read(9, 0, 100);
        rig.settle();
        assert_eq!(rig.result(9), Some(Ok(())));
        assert!(rig.bytes(9) == original(0, 100), "a failed read left a valid page");
        assert_eq!((rig.device.seen(Op::Read).len(), rig.stats().read_errors), (2, 1));
    })
}

#[test]
fn a_pc_42_a_failed_read_reaches_everybody_and_leaves_nothing() {
    failed_read().unwrap();
}

#[test]
fn x14_a_failed_read_reaches_everybody_and_leaves_nothing_control() {
    let error = broken::with(Hazard::FailedReadStays, failed_read).unwrap_err();
    assert!(error.contains("a failed read left a valid page"), "{error}");
}

/// One bad block fails those who want its page, not those who want its neighbours.
#[test]
fn a_bad_block_fails_its_own_page_only() {
    with_rig(SMALL, |rig| {
        rig.device.fail(Op::Read, 8, Error::Medium, 10);
        rig.device.hold();
        rig.read(0, 0, 4 * PAGE);
        rig.read(1, 0, 100);
        rig.read(2, 2 * PAGE as u64, 100);
        rig.device.release();
        rig.settle();
        assert_eq!(rig.result(0), Some(Err(Error::Medium)));
        assert_eq!(rig.bytes(1), original(0, 100));
        assert_eq!(rig.bytes(2), original(2 * PAGE, 100));
    });
}

/// X30, A-PC-38: pieces that begin within their buffers, of any length.
fn pieces() -> Result<(), String> {
    try_with(SMALL, |rig| {
        let list = |fill: u8| {
            let piece = |start: usize, len: usize| {
                let mut buf = DmaBuf::new(8192, DmaConstraints::ANY).unwrap();
                buf.fill(fill);
                Piece::new(buf, start, len)
            };
            Data::List(vec![piece(100, 5000), piece(8191, 1), piece(0, 0), piece(1, 700), piece(4096, 4096)])
        };
        let mut data = list(0);
        let len = data.len();
        let mut count = 0u32;
        for piece in data.pieces_mut() {
            piece.bytes_mut().iter_mut().for_each(|byte| {
                *byte = (count % 253) as u8;
                count += 1;
            });
        }
        let expected = bytes_of(&data);
        rig.volume.write(rig.cx, 1000, data, rig.done(1)).unwrap();
        rig.volume.read(rig.cx, 1000, list(9), rig.done(2)).unwrap();
        rig.settle();
        assert_eq!((rig.result(1), rig.result(2)), (Some(Ok(())), Some(Ok(()))));
        assert!(rig.bytes(2) == expected, "a piece was not copied from where it begins");
        assert!(rig.now(1000, len).unwrap() == expected, "a piece was not copied from where it begins");
    })
}

#[test]
fn x30_pieces_are_copied_from_where_they_begin() {
    pieces().unwrap();
}

#[test]
fn x30_pieces_are_copied_from_where_they_begin_control() {
    let error = broken::with(Hazard::OffsetIgnored, pieces).unwrap_err();
    assert!(error.contains("a piece was not copied from where it begins"), "{error}");
}

/// Pattern 25: what the device does not have of its last page is zeroes in memory that may be looked at, whatever was there before.
fn last_page() -> Result<(), String> {
    for block_size in [512, 4096] {
        let bytes = if block_size == 512 { 40 * 4096 + 512 * 3 } else { 40 * 4096 };
        try_on(info(bytes, block_size), Config { pages: 16, ..SMALL }, |rig| {
            for index in 0..20 {
                rig.write(index, index * PAGE as u64, PAGE, 0x5a);
                rig.settle();
            }
            assert_eq!(rig.volume.sync_all_blocking(rig.cx), Ok(()));
            let index = (bytes - 1) / PAGE as u64;
            let len = (bytes - index * PAGE as u64) as usize;
            let pinned = rig.volume.pin_blocking(rig.cx, bytes - 1).unwrap();
            let mut page = vec![1; PAGE];
            pinned.read(rig.cx, 0, &mut page);
            assert_eq!(page[..len], original(index as usize * PAGE, len));
            assert!(page[len..].iter().all(|byte| *byte == 0), "bytes of another page behind the end");
            assert_eq!(pinned.write(rig.cx, len, &[0]), Err(Error::OutOfRange));
            drop(pinned);
            rig.write(100, bytes - len as u64, len, 0x77);
            assert_eq!(rig.volume.sync_all_blocking(rig.cx), Ok(()));
            assert_eq!(rig.store(bytes as usize - len, len), vec![0x77; len]);
        })?;
    }
    Ok(())
}

#[test]
fn p_25_what_is_behind_the_end_is_zeroes() {
    last_page().unwrap();
}

#[test]
fn p_25_what_is_behind_the_end_is_zeroes_control() {
    let error = broken::with(Hazard::StaleTail, last_page).unwrap_err();
    assert!(error.contains("bytes of another page behind the end"), "{error}");
}

/// A-PC-41, A-GEN-04: completions run with no lock held, also where no I/O was needed.
fn unlocked() -> Result<(), String> {
    try_with(SMALL, |rig| {
        rig.read(1, 0, 0);
        rig.write(2, 0, PAGE, 3);
        rig.settle();
        assert_eq!((rig.result(1), rig.result(2)), (Some(Ok(())), Some(Ok(()))));
    })
}

#[test]
fn a_pc_41_completions_hold_no_lock() {
    unlocked().unwrap();
}

#[test]
fn a_pc_41_completions_hold_no_lock_control() {
    let error = broken::with(Hazard::CompletesUnderLock, unlocked).unwrap_err();
    assert!(error.contains("an operation completes while a lock of rank 8"), "{error}");
}

/// A-PC-10, A-PC-25: an operation that needs no I/O completes after the call all the same. Begun in a bottom half, where no other can come between.
fn not_inside() -> Result<(), String> {
    try_with(SMALL, |rig| {
        rig.write(0, 0, PAGE, 1);
        rig.settle();
        let (sink, volume) = (rig.sink.clone(), Arc::new(rig.volume.another(rig.cx).unwrap()));
        let inside = Arc::new(AtomicUsize::new(0));
        let count = inside.clone();
        let work = BottomHalfWork::new(0, move |cx| {
            let done = |cookie| Done::in_bottom_half(sink.clone(), cookie);
            volume.read(cx, 0, Data::None, done(1)).unwrap();
            volume.read(cx, 0, trap::outside(|| filled(8, 0)), done(2)).unwrap();
            volume.write(cx, 0, trap::outside(|| filled(8, 0)), done(3)).unwrap();
            count.store(sink.ended.lock().unwrap().len() - 1, Ordering::SeqCst);
            Turn::Done
        });
        work.schedule();
        rig.settle();
        assert_eq!(inside.load(Ordering::SeqCst), 0, "completions inside the call");
        assert!((1..4).all(|cookie| rig.result(cookie) == Some(Ok(()))));
    })
}

#[test]
fn a_pc_10_no_completion_inside_the_call() {
    not_inside().unwrap();
}

/// A device that says "full" is asked again when it has room; nothing is lost.
#[test]
fn a_full_device_is_asked_again() {
    with_rig(SMALL, |rig| {
        rig.device.lock().refusals = 1;
        rig.read(1, 0, 100);
        rig.settle();
        assert_eq!((rig.result(1), rig.device.seen(Op::Read).len()), (None, 0));
        let device = rig.device.clone();
        let room = BottomHalfWork::new(0, move |cx| {
            device.tell(cx, Event::Room);
            Turn::Done
        });
        room.schedule();
        rig.settle();
        assert_eq!(rig.bytes(1), original(0, 100));
    });
}

#[test]
fn operations_beyond_the_slots_are_refused_whole() {
    with_rig(SMALL, |rig| {
        rig.device.hold();
        (0..16).for_each(|cookie| rig.read(cookie, cookie * PAGE as u64, 10));
        let refused = rig.volume.read(rig.cx, 0, filled(7, 0), rig.done(99)).unwrap_err();
        assert_eq!((refused.error, refused.data.len()), (None, 7));
        rig.device.release();
        rig.settle();
        assert!((0..16).all(|cookie| rig.result(cookie) == Some(Ok(()))));
    });
}
