//! Hazards by their ids, each with its control, and what has no other place.

use std::sync::Arc;
use std::time::Duration;

use undercroft_hal::dma::{DmaBuf, DmaConstraints};

use super::model::*;
use super::{Hazard, with};
use crate::partition::{Entry, Kind, Scheme, Table};
use crate::*;

const MS: Duration = Duration::from_millis(1);

fn list(lens: &[usize], fill: u8) -> Data {
    let piece = |len: &usize| {
        let mut buf = DmaBuf::new(*len, DmaConstraints::ANY).unwrap();
        buf.fill(fill);
        Piece::from(buf)
    };
    Data::List(lens.iter().map(piece).collect())
}

/// X05: whatever is asked, a part is what the device takes.
fn parts() -> Result<(), String> {
    try_with(2, Features::VOLATILE_CACHE, TIMES, |rig| {
        for (cookie, lens) in
            [&[40 * BLOCK][..], &[512, 1024, 512, 512, 512, 512, 8192], &[4096; 3], &[4096, 4096, 4096, 512]]
                .iter()
                .enumerate()
        {
            let blocks = lens.iter().sum::<usize>() / BLOCK;
            let mut request = rig.request(cookie as u64, Op::Write, 10, 1);
            (request.blocks, request.data) = (blocks as u32, list(lens, 0xa0 + cookie as u8));
            rig.queue.submit(request).unwrap();
            rig.queue.commit();
            for _ in 0..4 {
                rig.settle();
            }
            assert_eq!(rig.result(cookie as u64), Some(Ok(())), "a part was more than the device takes");
            let state = rig.model.lock();
            assert_eq!(state.store[10 * BLOCK..(10 + blocks) * BLOCK], vec![0xa0 + cookie as u8; blocks * BLOCK]);
        }
        for (cookie, op, blocks, most) in [(10, Op::Discard, 70, 16), (11, Op::WriteZeroes, 23, 5)] {
            rig.model.lock().seen.clear();
            rig.send(cookie, op, 100, blocks);
            rig.settle();
            rig.settle();
            assert_eq!(rig.result(cookie), Some(Ok(())));
            let seen: Vec<u32> = rig.model.lock().seen.iter().map(|seen| seen.blocks).collect();
            assert_eq!((seen.iter().sum::<u32>(), seen[0]), (blocks, most));
        }
    })
}

#[test]
fn x05_no_part_is_more_than_the_device_takes() {
    parts().unwrap();
}

#[test]
fn x05_no_part_is_more_than_the_device_takes_control() {
    let error = with(Hazard::PartTooLong, parts).unwrap_err();
    assert!(error.contains("a part was more than the device takes"), "{error}");
}

#[test]
fn what_can_never_be_sent_is_refused_whole() {
    with_rig(2, |rig| {
        let refuse = |request: Request, error: Error| {
            let rejected = rig.queue.submit(request).unwrap_err();
            assert_eq!(rejected.why, Refusal::Invalid(error));
            assert_eq!(format!("{:?}", rejected.request.completion()), "Some(Completion(0x1))");
        };
        refuse(rig.request(1, Op::Read, BLOCKS - 1, 2), Error::OutOfRange);
        refuse(rig.request(1, Op::Discard, 0, 0), Error::OutOfRange);
        let mut request = rig.request(1, Op::Write, 0, 40);
        request.data = buffer(39, 0);
        refuse(request, Error::BadLength);
        let mut request = rig.request(1, Op::Write, 0, 40);
        request.data = list(&[512; 39], 0);
        refuse(request, Error::BadLength);
        rig.model.lock().info.block_size = 4096;
        let mut request = rig.request(1, Op::Write, 0, 1);
        request.data = list(&[512; 8], 0);
        refuse(request, Error::TooLarge);
        rig.model.lock().info.block_size = 512;
        rig.model.lock().info.limits.max_write_zeroes_blocks = 0;
        refuse(rig.request(1, Op::WriteZeroes, 0, 1), Error::TooLarge);
    });
}

/// X33 and X18: a part that cannot be sent, after others were, ends the request.
fn half_way() -> Result<(), String> {
    try_with(2, Features::VOLATILE_CACHE, TIMES, |rig| {
        rig.script(&[Act::Do, Act::Stall, Act::Stall]);
        rig.send(1, Op::Read, 0, 40);
        rig.send(2, Op::Read, 200, 40);
        rig.settle();
        // The disk shrinks under them.
        rig.model.lock().info.capacity = 12;
        rig.model.end_stalled(Ok(()));
        rig.settle();
        rig.settle();
        assert!(rig.result(1).is_some() && rig.result(2).is_some(), "a request was forgotten half way");
        assert_eq!((rig.result(1), rig.result(2)), (Some(Err(Error::OutOfRange)), Some(Err(Error::OutOfRange))));
        let done = rig.sink.done.lock().unwrap();
        assert_eq!((done[&1].0.lba, done[&1].0.blocks, done[&1].0.data.len()), (0, 40, 40 * BLOCK));
    })
}

#[test]
fn x33_a_request_that_fails_half_way_is_not_forgotten() {
    half_way().unwrap();
}

#[test]
fn x33_a_request_that_fails_half_way_is_not_forgotten_control() {
    let error = with(Hazard::ForgottenHalfWay, half_way).unwrap_err();
    assert!(error.contains("a request was forgotten half way"), "{error}");
}

/// X25: through a partition, in parts, with an error in one: the request comes back as it was submitted.
fn restored() -> Result<(), String> {
    try_with(2, Features::VOLATILE_CACHE, TIMES, |rig| {
        let queue = crate::queue::BlockQueue::new(rig.model.clone(), TIMES);
        let parent: Arc<dyn BlockDevice> = Arc::new(queue);
        let entry = Entry { number: 1, first: 100, blocks: 100, kind: Kind::Mbr(0x83), name: String::new() };
        let table = Table { scheme: Scheme::Mbr, entries: vec![entry] };
        let part = crate::partition::open(&parent, &table).pop().unwrap();
        rig.script(&[Act::Do, Act::Do, Act::Fail(Error::Medium)]);
        let mut request = rig.request(1, Op::Write, 7, 50);
        request.data = list(&[4096, 4096, 512, 16896], 1);
        part.submit(request).unwrap();
        part.commit();
        rig.settle();
        rig.settle();
        assert_eq!(rig.result(1), Some(Err(Error::Medium)), "the first error ends it");
        assert_eq!(rig.model.lock().seen.iter().map(|seen| seen.lba).collect::<Vec<_>>(), [107, 115, 123]);
        let done = rig.sink.done.lock().unwrap();
        let request = &done[&1].0;
        let lens: Vec<_> = request.data.pieces().iter().map(Piece::len).collect();
        assert_eq!((request.lba, request.blocks, lens), (7, 50, vec![4096, 4096, 512, 16896]), "it came back changed");
    })
}

#[test]
fn x25_a_request_in_parts_comes_back_unchanged() {
    restored().unwrap();
}

#[test]
fn x25_a_request_in_parts_comes_back_unchanged_control() {
    let error = with(Hazard::NotRestored, restored).unwrap_err();
    assert!(error.contains("it came back changed"), "{error}");
}

/// Pattern 21: a write that is to be durable survives a power cut at the moment of its completion.
fn durable() -> Result<(), String> {
    try_with(2, Features::VOLATILE_CACHE, TIMES, |rig| {
        let mut request = rig.request(1, Op::Write, 3, 20);
        request.fua = true;
        rig.queue.submit(request).unwrap();
        rig.queue.commit();
        rig.settle();
        assert_eq!(rig.result(1), Some(Ok(())));
        assert_eq!(rig.model.lock().durable[3 * BLOCK..23 * BLOCK], [1; 20 * BLOCK], "it was not durable");
        assert!(rig.model.lock().seen.iter().all(|seen| !seen.fua), "the device has no such writes");
        assert_eq!(rig.sink.done.lock().unwrap()[&1].0.data.len(), 20 * BLOCK);
        // A flush that fails fails the write.
        rig.script(&[Act::Do, Act::Fail(Error::Hardware)]);
        let mut request = rig.request(2, Op::Write, 3, 2);
        request.fua = true;
        rig.queue.submit(request).unwrap();
        rig.queue.commit();
        rig.settle();
        assert_eq!(rig.result(2), Some(Err(Error::Hardware)));
    })
}

#[test]
fn p_21_a_durable_write_is_flushed() {
    durable().unwrap();
}

#[test]
fn p_21_a_durable_write_is_flushed_control() {
    let error = with(Hazard::FakeDurable, durable).unwrap_err();
    assert!(error.contains("it was not durable"), "{error}");
}

#[test]
fn a_device_with_durable_writes_has_no_flush() {
    try_with(2, Features::VOLATILE_CACHE | Features::FUA, TIMES, |rig| {
        let mut request = rig.request(1, Op::Write, 3, 20);
        request.fua = true;
        rig.queue.submit(request).unwrap();
        rig.queue.commit();
        rig.settle();
        assert!(rig.model.lock().seen.iter().all(|seen| seen.fua && seen.op == Op::Write));
        assert_eq!(rig.model.lock().durable[3 * BLOCK..23 * BLOCK], [1; 20 * BLOCK]);
    })
    .unwrap();
}

/// A flush may name a range, which means nothing. It may have to wait, too, and be sent again.
fn flushes() -> Result<(), String> {
    try_with(1, Features::VOLATILE_CACHE, TIMES, |rig| {
        rig.script(&[Act::Do, Act::Fail(Error::Busy)]);
        rig.send(1, Op::Write, 0, 1);
        rig.send(2, Op::Flush, 1, 3);
        for _ in 0..10 {
            rig.pass(MS / 10);
        }
        assert_eq!(rig.result(2), Some(Ok(())));
        assert_eq!(rig.model.lock().seen.iter().filter(|seen| seen.op == Op::Flush).count(), 2);
        let done = rig.sink.done.lock().unwrap();
        assert_eq!((done[&2].0.lba, done[&2].0.blocks), (1, 3));
    })
}

#[test]
fn a_flush_that_waited_ends_once() {
    flushes().unwrap();
}

#[test]
fn a_flush_that_waited_ends_once_control() {
    let error = with(Hazard::FlushEndless, flushes).unwrap_err();
    assert!(error.contains("sent without end"), "{error}");
}

/// The device goes away with requests in line.
fn removed() -> Result<(), String> {
    try_with(1, Features::VOLATILE_CACHE, TIMES, |rig| {
        rig.queue.watch(rig.sink.clone());
        rig.script(&[Act::Stall]);
        for cookie in 1..=4 {
            rig.send(cookie, Op::Write, cookie, 12);
        }
        let model = rig.model.clone();
        let work = undercroft_hal::work::BottomHalfWork::new(0, move |cx| {
            model.tell(cx, Event::Resized);
            model.tell(cx, Event::Removed);
            model.end_stalled(Err(Error::Removed));
            undercroft_hal::work::Turn::Done
        });
        work.schedule();
        rig.settle();
        for cookie in 1..=4 {
            assert_eq!(rig.result(cookie), Some(Err(Error::Removed)), "a waiting request was forgotten at removal");
        }
        assert_eq!(*rig.sink.events.lock().unwrap(), [Event::Resized, Event::Removed]);
        let refused = rig.queue.submit(rig.request(6, Op::Read, 0, 1)).unwrap_err();
        assert_eq!(refused.why, Refusal::Gone(Error::Removed));
    })
}

#[test]
fn removal_ends_what_waits() {
    removed().unwrap();
}

#[test]
fn removal_ends_what_waits_control() {
    let error = with(Hazard::ForgetsAtRemoval, removed).unwrap_err();
    assert!(error.contains("a waiting request was forgotten at removal"), "{error}");
}

/// A-PC-42: errors are counted, each; reported, at most one a second.
fn reports() -> Result<(), String> {
    try_with(4, Features::VOLATILE_CACHE, TIMES, |rig| {
        for second in 0..3 {
            for cookie in 0..100 {
                rig.script(&[Act::Fail(Error::Medium)]);
                rig.send(second * 100 + cookie, Op::Read, 0, 1);
                rig.settle();
            }
            rig.pass(MS * 1001);
        }
        let stats = rig.queue.stats();
        assert_eq!((stats.errors[Error::Medium as usize], stats.failed()), (300, 300));
        assert_eq!((stats.reported, stats.suppressed), (3, 297), "more than one report a second");
    })
}

#[test]
fn a_pc_42_errors_are_counted_and_reported_now_and_then() {
    reports().unwrap();
}

#[test]
fn a_pc_42_errors_are_counted_and_reported_now_and_then_control() {
    let error = with(Hazard::ReportsAll, reports).unwrap_err();
    assert!(error.contains("more than one report a second"), "{error}");
}

#[test]
fn a_queue_that_is_dropped_ends_everything_once() {
    with_rig(1, |rig| {
        let model = Model::new(1, Features::VOLATILE_CACHE);
        let queue = crate::queue::BlockQueue::new(model.clone(), TIMES);
        model.lock().script.push_back(Act::Stall);
        for cookie in 1..=3 {
            queue.submit(rig.request(cookie, Op::Read, 0, 12)).unwrap();
        }
        drop(queue);
        assert_eq!(Arc::strong_count(&model), 1, "what the device has does not keep the device");
        rig.settle();
        assert_eq!(
            (rig.result(1), rig.result(2), rig.result(3)),
            (None, Some(Err(Error::Removed)), Some(Err(Error::Removed)))
        );
        model.end_stalled(Ok(()));
        rig.settle();
        assert_eq!(rig.result(1), Some(Err(Error::Removed)), "its other parts are not sent any more");
        assert_eq!(Arc::strong_count(&model), 1);
    });
}

#[test]
fn a_cancelled_request_ends_once() {
    with_rig(1, |rig| {
        rig.script(&[Act::Stall]);
        rig.send(1, Op::Read, 0, 12);
        let tag = rig.queue.submit(rig.request(2, Op::Read, 0, 12)).unwrap();
        assert!(rig.queue.cancel(tag));
        rig.settle();
        assert_eq!(rig.result(2), Some(Err(Error::Cancelled)));
        assert!(!rig.queue.cancel(tag), "it is over");
        rig.model.end_stalled(Ok(()));
        rig.settle();
        assert_eq!(rig.result(1), Some(Ok(())));
    });
}
