//! Random requests, limits and faults against a byte model: every request completes once, what is said to be written is, and what is read is
//! what was written.

use std::collections::BTreeSet;
use std::time::Duration;

use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hosts::Random;

use super::model::*;
use crate::scsi::Managed;
use crate::*;

/// One request at a time per block, so that the byte model knows the order; many at once over the disk.
fn run(seed: u64) {
    let random = std::cell::RefCell::new(Random::new(seed));
    let below = |most: u64| random.borrow_mut().below(most as usize) as u64;
    let depth = 1 + below(6) as u32;
    try_with(depth, Features::VOLATILE_CACHE, TIMES, |rig| {
        {
            let mut state = rig.model.lock();
            state.info.limits.max_segments = 1 + below(5) as u16;
            state.info.limits.max_segment_bytes = 512 * (1 + below(8) as u32);
            state.info.limits.max_transfer_bytes = 512 * (1 + below(12) as u32);
            state.info.physical_block_size = 512 << below(4);
            state.info.limits.dma.boundary = if below(2) == 0 { 0 } else { 2048 };
            state.depth = 1 + below(u64::from(depth)) as usize;
            state.rungs = [
                (Managed::Asked, below(2) == 0),
                (Managed::Asked, true),
                (Managed::Unsupported, false),
                (Managed::Asked, true),
            ];
        }
        let mut expected = rig.model.lock().store.clone();
        // What an operation that failed may have changed.
        let mut unsure = BTreeSet::new();
        for round in 0..60 {
            let faults = below(4) == 0;
            rig.model.lock().script.clear();
            let (mut at, mut sent) = (0, Vec::new());
            while at < BLOCKS {
                let blocks = (1 + below(40)).min(BLOCKS - at);
                let op = [Op::Read, Op::Write, Op::Read, Op::Write, Op::Discard, Op::WriteZeroes][below(6) as usize];
                let cookie = round * 1000 + at;
                let mut request = rig.request(cookie, op, at, blocks as u32);
                let fill = below(256) as u8;
                if !request.data.is_empty() {
                    request.data = pieces(blocks as usize, fill, &below);
                }
                request.fua = below(4) == 0;
                if faults {
                    let act = [
                        Act::Do,
                        Act::Do,
                        Act::Do,
                        Act::Fail(Error::Medium),
                        Act::Fail(Error::Busy),
                        Act::Stall,
                        Act::Fail(Error::Reset),
                    ];
                    rig.script(&[act[below(7) as usize]]);
                }
                match rig.queue.submit(request) {
                    Ok(_) => sent.push((cookie, op, at, blocks, fill)),
                    Err(rejected) => assert!(matches!(rejected.why, Refusal::Full), "{:?}", rejected.why),
                }
                if below(3) == 0 {
                    rig.queue.commit();
                    rig.cx.run_pending();
                }
                at += blocks + below(8);
            }
            rig.queue.commit();
            for _ in 0..400 {
                rig.pass(Duration::from_millis(1));
                if rig.sink.done.lock().unwrap().len() == sent.len() {
                    break;
                }
            }
            let done = std::mem::take(&mut *rig.sink.done.lock().unwrap());
            assert_eq!(done.len(), sent.len(), "seed {seed} round {round}: all complete, once");
            for (cookie, op, at, blocks, fill) in sent {
                let range = at as usize * BLOCK..(at + blocks) as usize * BLOCK;
                let (request, result, _) = &done[&cookie];
                assert!(faults || result.is_ok(), "seed {seed} round {round}: {op:?} of {blocks} at {at}: {result:?}");
                assert_eq!((request.op, request.lba, u64::from(request.blocks)), (op, at, blocks));
                match (op, result) {
                    (Op::Read, Ok(())) => {
                        let bytes: Vec<u8> =
                            request.data.pieces().iter().flat_map(|piece| piece.bytes().to_vec()).collect();
                        for (byte, offset) in bytes.iter().zip(range) {
                            assert!(
                                *byte == expected[offset] || unsure.contains(&(offset / BLOCK)),
                                "seed {seed} at {offset}"
                            );
                        }
                    }
                    (Op::Read, Err(_)) => {}
                    (_, Ok(())) => {
                        expected[range].fill(match op {
                            Op::Write => fill,
                            Op::Discard => 0xdd,
                            _ => 0,
                        });
                        (at..at + blocks).for_each(|block| _ = unsure.remove(&(block as usize)));
                    }
                    (_, Err(_)) => unsure.extend((at..at + blocks).map(|block| block as usize)),
                }
            }
        }
        let stats = rig.queue.stats();
        assert_eq!((stats.accepted, stats.at_device, stats.waiting, stats.orphans), (stats.completed, 0, 0, 0));
        let state = rig.model.lock();
        for (block, bytes) in state.store.chunks(BLOCK).enumerate() {
            assert!(
                unsure.contains(&block) || *bytes == expected[block * BLOCK..][..BLOCK],
                "seed {seed} block {block}"
            );
        }
    })
    .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
}

fn pieces(blocks: usize, fill: u8, below: &impl Fn(u64) -> u64) -> Data {
    let mut list = Vec::new();
    let mut left = blocks;
    while left > 0 {
        let some = (1 + below(12) as usize).min(left);
        let skip = below(3) as usize * 512;
        let mut buf = DmaBuf::new(skip + some * BLOCK, DmaConstraints::ANY).unwrap();
        buf.fill(fill);
        list.push(Piece::new(buf, skip, some * BLOCK));
        left -= some;
    }
    if list.len() == 1 { Data::One(list.pop().unwrap()) } else { Data::List(list) }
}

#[test]
fn random_requests_against_a_byte_model() {
    (0..40).for_each(run);
}
