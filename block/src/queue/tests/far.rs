//! Blocks beyond 2^32 (X27): parts of a request and requests of a partition keep every bit of their place.

use std::sync::Arc;

use super::model::*;
use super::{Hazard, with};
use crate::partition::{Entry, Kind, Scheme, Table};
use crate::*;

const EDGE: u64 = 1 << 32;

/// A request that is cut, on both sides of 2^32.
fn parts() -> Result<(), String> {
    try_with(2, Features::VOLATILE_CACHE, TIMES, |rig| {
        {
            let mut model = rig.model.lock();
            (model.info.capacity, model.hollow) = (1 << 33, true);
        }
        let (ops, first) = ([(Op::Read, 8), (Op::Write, 8), (Op::Discard, 16), (Op::WriteZeroes, 5)], EDGE - 16);
        for (cookie, (op, most)) in (0..).zip(ops) {
            rig.model.lock().seen.clear();
            rig.send(cookie, op, first, 32);
            for _ in 0..8 {
                rig.settle();
            }
            assert_eq!(rig.result(cookie), Some(Ok(())));
            let seen: Vec<_> = rig.model.lock().seen.iter().map(|seen| seen.lba).collect();
            let expected: Vec<_> = (0..32).step_by(most).map(|block| first + block).collect();
            assert_eq!(seen, expected, "{op:?}: a part went elsewhere");
        }
    })
}

#[test]
fn x27_parts_beyond_32_bits() {
    parts().unwrap();
}

#[test]
fn x27_parts_beyond_32_bits_control() {
    let error = with(Hazard::CutsBlocks, parts).unwrap_err();
    assert!(error.contains("a part went elsewhere"), "{error}");
}

/// Requests that are not cut, on partitions that begin before and behind 2^32.
fn partitions() -> Result<(), String> {
    try_with(2, Features::VOLATILE_CACHE, TIMES, |rig| {
        {
            let mut model = rig.model.lock();
            (model.info.capacity, model.hollow) = (1 << 34, true);
        }
        let queue = crate::queue::BlockQueue::new(rig.model.clone(), TIMES);
        let parent: Arc<dyn BlockDevice> = Arc::new(queue);
        let entry = |first, blocks| Entry { number: 1, first, blocks, kind: Kind::Mbr(0x83), name: String::new() };
        let mut cookie = 0;
        for (first, blocks, lbas) in [
            (EDGE - 100, 200, &[0, 99, 100, 196][..]),
            (EDGE, 1 << 33, &[0, EDGE - 1, EDGE, (1 << 33) - 4]),
            (1000, EDGE + 1000, &[EDGE - 1000, EDGE, EDGE + 996]),
        ] {
            let table = Table { scheme: Scheme::Mbr, entries: vec![entry(first, blocks)] };
            let part = crate::partition::open(&parent, &table).pop().unwrap();
            assert_eq!(part.info().capacity, blocks);
            for &lba in lbas {
                rig.model.lock().seen.clear();
                part.submit(rig.request(cookie, Op::Write, lba, 4)).unwrap();
                part.commit();
                rig.settle();
                assert_eq!(rig.result(cookie), Some(Ok(())));
                assert_eq!(rig.sink.done.lock().unwrap()[&cookie].0.lba, lba, "it came back changed");
                assert_eq!(rig.model.lock().seen[0].lba, first + lba, "a request of a partition went elsewhere");
                cookie += 1;
            }
        }
    })
}

#[test]
fn x27_partitions_beyond_32_bits() {
    partitions().unwrap();
}

#[test]
fn x27_partitions_beyond_32_bits_control() {
    let error = with(Hazard::CutsBlocks, partitions).unwrap_err();
    assert!(error.contains("a request of a partition went elsewhere"), "{error}");
}
