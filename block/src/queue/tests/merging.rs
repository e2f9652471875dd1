//! Requests that wait and continue one another go to the device together.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use undercroft_hosts::Random;

use super::model::*;
use super::{Hazard, with};
use crate::scsi::Managed;
use crate::*;

const MS: Duration = Duration::from_millis(1);

/// What the device saw, but for the first, which keeps it busy.
fn seen(rig: &Rig<'_>) -> Vec<(Op, u64, u32)> {
    rig.model.lock().seen[1..].iter().map(|seen| (seen.op, seen.lba, seen.blocks)).collect()
}

/// Runs a test with a device of one request, which is busy, and limits that are far.
fn busy(test: impl FnOnce(&Rig<'_>)) {
    try_with(1, Features::VOLATILE_CACHE | Features::FUA, TIMES, |rig| {
        {
            let mut state = rig.model.lock();
            state.info.limits.max_segments = 64;
            state.info.limits.max_transfer_bytes = 1 << 20;
        }
        rig.script(&[Act::Stall]);
        rig.send(1000, Op::Read, 200, 1);
        test(rig);
    })
    .unwrap();
}

#[test]
fn adjacent_requests_that_wait_are_one_to_the_device() {
    busy(|rig| {
        for cookie in 0..10 {
            rig.send(cookie, Op::Write, 10 + cookie * 2, 2);
        }
        rig.model.end_stalled(Ok(()));
        rig.settle();
        assert_eq!(seen(rig), [(Op::Write, 10, 16), (Op::Write, 26, 4)], "eight at most");
        assert_eq!(*rig.sink.order.lock().unwrap(), [1000, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        for cookie in 0..10 {
            let done = rig.sink.done.lock().unwrap();
            let (request, result, _) = &done[&cookie];
            assert_eq!((*result, request.lba, request.blocks), (Ok(()), 10 + cookie * 2, 2));
            assert_eq!(request.data.pieces()[0].bytes(), [cookie as u8; 2 * BLOCK], "its own data");
            let at = (10 + cookie as usize * 2) * BLOCK;
            assert_eq!(rig.model.lock().store[at..at + 2 * BLOCK], [cookie as u8; 2 * BLOCK]);
        }
        let stats = rig.queue.stats();
        assert_eq!((stats.merged, stats.accepted, stats.completed, stats.parts), (8, 11, 11, 0));
    });
}

#[test]
fn what_does_not_belong_together_goes_by_itself() {
    busy(|rig| {
        rig.send(0, Op::Read, 10, 1);
        rig.send(1, Op::Write, 11, 1);
        rig.send(2, Op::Flush, 0, 0);
        rig.send(3, Op::Write, 12, 1);
        let mut durable = rig.request(4, Op::Write, 13, 1);
        durable.fua = true;
        rig.queue.submit(durable).unwrap();
        rig.send(5, Op::Write, 14, 1);
        rig.send(6, Op::Write, 16, 1);
        rig.send(7, Op::Write, 15, 1);
        rig.send(8, Op::Discard, 16, 1);
        rig.send(9, Op::Discard, 17, 1);
        rig.model.end_stalled(Ok(()));
        rig.settle();
        let (read, write, discard) = (Op::Read, Op::Write, Op::Discard);
        assert_eq!(
            seen(rig),
            [
                (read, 10, 1),
                (write, 11, 1),
                (Op::Flush, 0, 0),
                (write, 12, 1),
                (write, 13, 1),
                (write, 14, 1),
                (write, 16, 1),
                (write, 15, 1),
                (discard, 16, 1),
                (discard, 17, 1)
            ]
        );
        assert_eq!(rig.queue.stats().merged, 0);
    });
}

#[test]
fn together_they_keep_the_devices_limits() {
    for (segments, bytes, expected) in [(3, 1 << 20, vec![3, 3, 2]), (64, 5 * BLOCK as u32, vec![5, 3])] {
        busy(|rig| {
            {
                let limits = &mut rig.model.lock().info.limits;
                (limits.max_segments, limits.max_transfer_bytes) = (segments, bytes);
            }
            (0..8).for_each(|cookie| rig.send(cookie, Op::Read, cookie, 1));
            rig.model.end_stalled(Ok(()));
            rig.settle();
            assert_eq!(seen(rig).iter().map(|seen| seen.2).collect::<Vec<_>>(), expected);
            assert!((0..8).all(|cookie| rig.result(cookie) == Some(Ok(()))));
        });
    }
}

/// What fails together is sent again one by one: each has its own error.
#[test]
fn an_error_is_of_its_own_request() {
    for error in [Error::Medium, Error::Busy, Error::Reset, Error::Cancelled, Error::Removed] {
        busy(|rig| {
            (0..4).for_each(|cookie| rig.send(cookie, Op::Write, cookie, 1));
            rig.script(&[Act::Fail(error), Act::Do, Act::Fail(Error::Medium)]);
            rig.model.end_stalled(Ok(()));
            (0..4).for_each(|_| rig.pass(MS));
            let blocks: Vec<_> = seen(rig).iter().map(|seen| (seen.1, seen.2)).collect();
            assert_eq!(blocks, [(0, 4), (0, 1), (1, 1), (2, 1), (3, 1)], "{error:?}");
            let results = [0, 1, 2, 3].map(|cookie| rig.result(cookie).unwrap());
            assert_eq!(results, [Ok(()), Err(Error::Medium), Ok(()), Ok(())], "{error:?}");
        });
    }
}

#[test]
fn what_the_device_refuses_together_it_is_asked_one_by_one() {
    for why in [Refusal::Full, Refusal::Invalid(Error::Unsupported), Refusal::Gone(Error::Broken)] {
        busy(|rig| {
            (0..4).for_each(|cookie| rig.send(cookie, Op::Write, cookie, 1));
            rig.script(&[Act::Refuse(why)]);
            rig.model.end_stalled(Ok(()));
            (0..4).for_each(|_| rig.pass(MS));
            let expected = if why == Refusal::Full { vec![4] } else { vec![1; 4] };
            assert_eq!(seen(rig).iter().map(|seen| seen.2).collect::<Vec<_>>(), expected, "{why:?}");
            assert!((0..4).all(|cookie| rig.result(cookie) == Some(Ok(()))), "{why:?}");
        });
    }
}

/// The device keeps them: a rung brings them back, or none does.
#[test]
fn together_on_the_ladder() {
    for last in 0..5 {
        busy(|rig| {
            for at in 0..4 {
                rig.model.lock().rungs[at] = (Managed::Asked, at == last);
            }
            rig.script(&[Act::Stall]);
            (0..4).for_each(|cookie| rig.send(cookie, Op::Write, cookie, 1));
            rig.model.end_stalled(Ok(()));
            (0..100).for_each(|_| rig.pass(MS * 4));
            for cookie in 0..4 {
                let error = if last == 4 && cookie > 0 { Error::Broken } else { Error::TimedOut };
                let result = rig.result(cookie);
                // A member's time is over, too, or it was sent again.
                assert!(result == Some(Err(error)) || cookie > 0 && result.is_some(), "{last} {cookie} {result:?}");
            }
            rig.model.end_stalled(Ok(()));
            rig.settle();
            let stats = rig.queue.stats();
            assert_eq!((stats.accepted, stats.at_device, stats.waiting), (stats.completed, 0, 0));
            assert_eq!(stats.orphans, stats.orphans_returned);
        });
    }
}

#[test]
fn one_of_them_is_cancelled() {
    busy(|rig| {
        rig.script(&[Act::Stall]);
        let tags: Vec<_> =
            (0..3).map(|cookie| rig.queue.submit(rig.request(cookie, Op::Read, cookie, 1)).unwrap()).collect();
        rig.model.end_stalled(Ok(()));
        rig.settle();
        assert!(!rig.queue.cancel(tags[1]), "it is with the device, under another's name");
        rig.model.end_stalled(Err(Error::Medium));
        rig.settle();
        assert_eq!([0, 1, 2].map(|cookie| rig.result(cookie).unwrap()), [Ok(()), Err(Error::Cancelled), Ok(())]);
    });
}

/// Small requests, most of them next to each other, against a byte model, with faults; how many were merged.
fn run(seed: u64) -> Result<u64, String> {
    let random = std::cell::RefCell::new(Random::new(seed));
    let below = |most: u64| random.borrow_mut().below(most as usize) as u64;
    let depth = 1 + below(3) as u32;
    let mut merged = 0;
    let config = crate::queue::Config { waiting: 64, ..TIMES };
    try_with(depth, Features::VOLATILE_CACHE, config, |rig| {
        {
            let mut state = rig.model.lock();
            state.info.limits.max_segments = 1 + below(10) as u16;
            state.info.limits.max_transfer_bytes = 512 * (1 + below(30) as u32);
            state.info.limits.dma.boundary = if below(2) == 0 { 0 } else { 4096 };
            state.rungs = [
                (Managed::Asked, below(2) == 0),
                (Managed::Asked, true),
                (Managed::Asked, true),
                (Managed::Asked, true),
            ];
        }
        let mut expected = rig.model.lock().store.clone();
        let mut unsure = BTreeSet::new();
        for round in 0..30 {
            let faults = below(3) == 0;
            let (mut at, mut op, mut sent) = (0, Op::Read, BTreeMap::new());
            rig.model.lock().script.clear();
            while at < BLOCKS {
                let blocks = (1 + below(4)).min(BLOCKS - at);
                if below(6) == 0 {
                    op = [Op::Read, Op::Write, Op::WriteZeroes][below(3) as usize];
                }
                let cookie = round * 1000 + at;
                let mut request = rig.request(cookie, op, at, blocks as u32);
                request.fua = below(10) == 0;
                if faults {
                    let acts = [Act::Do, Act::Do, Act::Fail(Error::Medium), Act::Fail(Error::Reset), Act::Stall];
                    rig.script(&[acts[below(5) as usize]]);
                }
                if rig.queue.submit(request).is_ok() {
                    sent.insert(cookie, (op, at, blocks));
                }
                if below(12) == 0 {
                    rig.queue.commit();
                    rig.cx.run_pending();
                }
                at += blocks + if below(3) == 0 { below(3) } else { 0 };
            }
            rig.queue.commit();
            for _ in 0..400 {
                rig.pass(MS);
                if rig.sink.done.lock().unwrap().len() == sent.len() {
                    break;
                }
            }
            let done = std::mem::take(&mut *rig.sink.done.lock().unwrap());
            assert_eq!(done.len(), sent.len(), "round {round}: all complete, once");
            for (cookie, (op, at, blocks)) in sent {
                let range = at as usize * BLOCK..(at + blocks) as usize * BLOCK;
                let (request, result, _) = &done[&cookie];
                assert!(faults || result.is_ok(), "round {round}: {op:?} of {blocks} at {at}: {result:?}");
                assert_eq!((request.op, request.lba, u64::from(request.blocks)), (op, at, blocks));
                let bytes: Vec<u8> = request.data.pieces().iter().flat_map(|piece| piece.bytes().to_vec()).collect();
                assert_eq!(bytes.len(), if op == Op::WriteZeroes { 0 } else { range.len() }, "its own buffers");
                let known = !(at..at + blocks).any(|block| unsure.contains(&block));
                match (op, result) {
                    (Op::Read, Ok(())) => {
                        assert!(
                            !known || bytes == expected[range],
                            "round {round} at {at}: other data than was written"
                        );
                    }
                    (Op::Read, Err(_)) => {}
                    (_, Ok(())) => {
                        assert!(op != Op::Write || bytes == vec![cookie as u8; range.len()], "its own data");
                        expected[range].fill(if op == Op::Write { cookie as u8 } else { 0 });
                        (at..at + blocks).for_each(|block| _ = unsure.remove(&block));
                    }
                    (_, Err(_)) => unsure.extend(at..at + blocks),
                }
            }
        }
        let stats = rig.queue.stats();
        assert_eq!((stats.accepted, stats.at_device, stats.waiting, stats.orphans), (stats.completed, 0, 0, 0));
        merged = stats.merged;
        let state = rig.model.lock();
        for (block, bytes) in state.store.chunks(BLOCK).enumerate() {
            let known = !unsure.contains(&(block as u64));
            assert!(
                !known || *bytes == expected[block * BLOCK..][..BLOCK],
                "block {block}: other data than was written"
            );
        }
    })
    .map_err(|error| format!("seed {seed}: {error}"))?;
    Ok(merged)
}

fn runs() -> Result<u64, String> {
    (0..30).map(run).sum()
}

#[test]
fn merged_requests_against_a_byte_model() {
    let merged = runs().unwrap();
    assert!(merged > 1000, "{merged}");
}

#[test]
fn merged_requests_against_a_byte_model_control() {
    let error = with(Hazard::MergesGaps, runs).unwrap_err();
    assert!(error.contains("other data than was written"), "{error}");
}
