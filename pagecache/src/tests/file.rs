//! Files: holes, what was never written, ends, and layers that fail.

use undercroft_block::{Error, Op};
use undercroft_hal::heap::fail_nth;
use undercroft_hosts::Random;

use super::device::*;
use super::rig::*;
use crate::broken::{self, Hazard};
use crate::*;

const P: u64 = PAGE as u64;

const fn extent(pages: u64, place: Place) -> Extent {
    Extent { len: pages * P, place }
}

/// Two pages, a hole of two, two that were never written, two more.
const EXTENTS: [Extent; 4] = [
    extent(2, Place::Written(10 * P)),
    extent(2, Place::Hole),
    extent(2, Place::Unwritten(20 * P)),
    extent(2, Place::Written(40 * P)),
];
const SIZE: u64 = 7 * P + 1000;

fn file(rig: &Rig<'_>) -> File {
    File::new(rig.cx, rig.volume.another(rig.cx).unwrap(), &EXTENTS, SIZE).unwrap()
}

/// What the file is at first.
fn content() -> Vec<u8> {
    let page = |at: u64| (at * P) as usize..((at + 2) * P) as usize;
    let mut bytes: Vec<u8> = page(10).map(pattern).collect();
    bytes.resize(6 * PAGE, 0);
    bytes.extend(page(40).map(pattern));
    bytes.truncate(SIZE as usize);
    bytes
}

fn read(rig: &Rig<'_>, file: &File, at: u64, len: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0xee; len];
    let read = file.read(rig.cx, at, &mut bytes)?;
    assert!(bytes[read..].iter().all(|byte| *byte == 0xee), "more than it said");
    bytes.truncate(read);
    Ok(bytes)
}

/// Reads over an extent, a hole, what was never written and an extent: each allocation fails once, each block fails once. It ends
/// well or not, and then the next has it all.
fn layers_that_fail() -> Result<(), String> {
    let whole = content();
    let check = |rig: &Rig<'_>, file: &File, first: Result<Vec<u8>, Error>, what: &str| {
        if let Ok(bytes) = first {
            assert!(bytes == whole, "{what}: it read something else");
        }
        // Memory that was short is asked for again after a tick.
        rig.pass(SMALL.tick * 3);
        assert!(read(rig, file, 0, 9 * PAGE).unwrap() == whole, "{what}: the next read something else");
    };
    for nth in 0..8 {
        try_with(SMALL, |rig| {
            let file = file(rig);
            let mut bytes = vec![0xee; 9 * PAGE];
            let failed = fail_nth(nth, || file.read(rig.cx, 0, &mut bytes)).value;
            bytes.truncate(*failed.as_ref().unwrap_or(&0));
            check(rig, &file, failed.map(|_| bytes), &format!("allocation {nth}"));
        })?;
    }
    for block in [80, 87, 88, 95, 320, 327, 328, 335] {
        try_with(SMALL, |rig| {
            let file = file(rig);
            rig.device.fail(Op::Read, block, Error::Medium, 1);
            let first = read(rig, &file, 0, 9 * PAGE);
            check(rig, &file, first, &format!("block {block}"));
        })?;
    }
    Ok(())
}

#[test]
fn a_pc_15_every_layer_of_a_read_can_fail() {
    layers_that_fail().unwrap();
}

#[test]
fn a_pc_15_every_layer_of_a_read_can_fail_control() {
    let error = broken::with(Hazard::FailedReadStays, layers_that_fail).unwrap_err();
    assert!(error.contains("something else"), "{error}");
}

fn ends() -> Result<(), String> {
    try_with(SMALL, |rig| {
        let file = file(rig);
        let whole = content();
        for (at, len) in [
            (0, 9 * PAGE),
            (SIZE - 10, 100),
            (SIZE, 1),
            (SIZE + 1, 10),
            (u64::MAX, 10),
            (u64::MAX - 5, 10),
            (7 * P, PAGE),
        ] {
            let from = (at.min(SIZE)) as usize;
            let expected = &whole[from..(from + len).min(whole.len())];
            let bytes = read(rig, &file, at, len).unwrap();
            assert!(bytes == expected, "{len} bytes at {at}: {} were read, beyond the end or too few", bytes.len());
        }
        // Behind the end nothing is asked of the device.
        let before = rig.device.seen(Op::Read).len();
        assert_eq!(read(rig, &file, 8 * P, PAGE), Ok(Vec::new()));
        assert_eq!(read(rig, &file, 100 * P, PAGE), Ok(Vec::new()));
        assert_eq!(rig.device.seen(Op::Read).len(), before);
        // What was behind the end is not seen when the end has moved on.
        file.write(rig.cx, SIZE + 500, &[7; 8]).unwrap();
        let mut expected = whole.clone();
        expected.resize(SIZE as usize + 500, 0);
        expected.extend([7; 8]);
        assert!(read(rig, &file, 0, 9 * PAGE).unwrap() == expected, "beyond the end there was something");
        file.set_size(rig.cx, P).unwrap();
        file.set_size(rig.cx, 2 * P).unwrap();
        assert_eq!(read(rig, &file, P, PAGE).unwrap(), vec![0; PAGE], "what was cut off is back");
        assert_eq!(file.set_size(rig.cx, 9 * P), Err(Error::NoSpace));
        assert_eq!(file.write(rig.cx, 8 * P - 1, &[1; 2]), Err(Error::NoSpace));
        assert_eq!(file.write(rig.cx, u64::MAX, &[1; 2]), Err(Error::NoSpace));
        assert_eq!(file.write(rig.cx, 2 * P, &[1]), Err(Error::NoSpace), "a hole");
        assert_eq!(file.size(rig.cx), 2 * P);
    })
}

#[test]
fn p_31_a_file_ends_where_it_does() {
    ends().unwrap();
}

#[test]
fn p_31_a_file_ends_where_it_does_control() {
    let error = broken::with(Hazard::EndIgnored, ends).unwrap_err();
    assert!(error.contains("beyond the end"), "{error}");
}

/// First writes into what was never written: parts of pages, some of which fail. At every moment the file has what was written, and
/// zeroes; after every sync a power cut leaves that at the places that may be recorded.
fn first_writes(seed: u64) -> Result<(), String> {
    let config = Config { pages: 16, dirty_percent: 50, ..SMALL };
    try_with(config, |rig| {
        let mut random = Random::new(seed);
        let extents = [extent(5, Place::Unwritten(20 * P)), extent(3, Place::Unwritten(60 * P))];
        let file = File::new(rig.cx, rig.volume.another(rig.cx).unwrap(), &extents, 0).unwrap();
        let mut model: Vec<u8> = Vec::new();
        for step in 0..60 {
            let at = random.below(8 * PAGE - 1);
            let most = [10, 600, 5000][random.below(3)].min(8 * PAGE - at);
            let len = 1 + random.below(most);
            let bytes = vec![1 + random.below(250) as u8; len];
            // There is no memory for pages at first, and now and then one cannot be written.
            let nth = if step == 0 { 0 } else { u64::MAX };
            rig.pass(SMALL.tick * 3);
            let page = [20, 21, 22, 23, 24, 60, 61, 62][random.below(8)] * P;
            let aside = random.chance(40).then(|| rig.volume.set_aside(rig.cx, page..page + P).unwrap());
            if random.chance(30) {
                rig.volume.resize_cache(rig.cx, 16 * random.below(2) as u32);
            }
            let result = fail_nth(nth, || file.write(rig.cx, at as u64, &bytes)).value;
            drop(aside);
            rig.settle();
            let now = read(rig, &file, 0, 9 * PAGE).unwrap();
            if result.is_ok() {
                model.resize(model.len().max(at + len), 0);
                model[at..at + len].copy_from_slice(&bytes);
                assert!(now == model, "step {step}: something stale is there");
            } else {
                // Each page has what it had, or what was written.
                assert_eq!(now.len(), model.len());
                for (index, byte) in now.iter().enumerate() {
                    let new = (at..at + len).contains(&index) && *byte == bytes[0];
                    let gap = index >= model.len();
                    assert!(gap || new || *byte == model[index], "step {step}: something stale is there");
                }
                model.copy_from_slice(&now);
            }
            if random.chance(20) {
                let (extents, size) = file.sync(rig.cx).unwrap();
                let left = rig.device.cut(&mut random);
                let mut bytes = Vec::new();
                for extent in extents {
                    match extent.place {
                        Place::Written(at) => bytes.extend(&left[at as usize..][..extent.len as usize]),
                        _ => bytes.resize(bytes.len() + extent.len as usize, 0),
                    }
                }
                bytes.truncate(size as usize);
                assert!(bytes == model, "step {step}: something stale is left by a power cut");
            }
        }
    })
    .map_err(|error| format!("seed {seed}: {error}"))
}

#[test]
fn p_36_first_writes_leave_nothing_stale() {
    (0..30).try_for_each(first_writes).unwrap();
}

#[test]
fn p_36_first_writes_leave_nothing_stale_control() {
    let error = broken::with(Hazard::WrittenBefore, || (0..30).try_for_each(first_writes)).unwrap_err();
    assert!(error.contains("something stale is there"), "{error}");
}

#[test]
fn maps_that_cannot_be_are_refused() {
    with_rig(SMALL, |rig| {
        let new = |extents: &[Extent], size| {
            File::new(rig.cx, rig.volume.another(rig.cx).unwrap(), extents, size).map(drop).unwrap_err()
        };
        assert_eq!(new(&[], 1), Error::BadLength);
        assert_eq!(new(&[Extent { len: 100, place: Place::Hole }], 1), Error::BadLength);
        assert_eq!(new(&[extent(1, Place::Written(512))], 1), Error::BadLength);
        assert_eq!(new(&[extent(2, Place::Written(BYTES - P))], 1), Error::OutOfRange);
        rig.settle();
        assert_eq!(new(&[extent(1, Place::Unwritten(u64::MAX - P + 1))], 1), Error::OutOfRange);
        rig.settle();
    });
}
