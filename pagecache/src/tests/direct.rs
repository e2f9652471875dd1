//! Reads go into the pages themselves: in the pieces that the device takes, and what it keeps is nobody else's.

use undercroft_block::*;
use undercroft_hal::dma::{DmaConstraints, Segment};

use super::device::*;
use super::rig::*;
use crate::broken::{self, Hazard};
use crate::*;

const P: u64 = PAGE as u64;

/// The pieces of all reads that the device has.
fn flights(rig: &Rig<'_>) -> Vec<Vec<Segment>> {
    rig.device.lock().flights.iter().map(|flight| flight.request().data.segments().collect()).collect()
}

#[test]
fn a_read_is_into_the_pages_themselves() {
    with_rig(SMALL, |rig| {
        rig.device.hold();
        rig.read(1, 2 * P, 4 * PAGE);
        rig.settle();
        let pieces = flights(rig);
        assert_eq!((pieces.len(), pieces[0].iter().map(|piece| piece.len).sum::<u32>()), (1, 4 * PAGE as u32));
        rig.device.release();
        rig.settle();
        let places = pieces[0].iter().flat_map(|piece| (0..u64::from(piece.len) / P).map(|page| piece.addr + page * P));
        for (page, place) in (2..).zip(places) {
            let pinned = rig.volume.pin_blocking(rig.cx, page * P).unwrap();
            assert_eq!((pinned.index(rig.cx), pinned.addr(rig.cx)), (page, place));
        }
    });
}

/// Pages that are not side by side go in several pieces, as many as the device takes, each within what it takes; all bytes are where they belong.
#[test]
fn the_pieces_are_those_that_the_device_takes() {
    let limits = info(BYTES, 512).limits;
    let boundary = |boundary| Limits { dma: DmaConstraints { boundary, ..limits.dma }, ..limits };
    for limits in [
        limits,
        Limits { max_segments: 1, ..limits },
        Limits { max_segments: 2, joint: 4096, ..limits },
        Limits { joint: 8192, ..limits },
        Limits { max_segment_bytes: 8192, ..limits },
        Limits { max_segment_bytes: 4096, max_segments: 3, ..limits },
        boundary(8192),
        boundary(4096),
    ] {
        let ended = try_on(Info { limits, ..info(BYTES, 512) }, SMALL, |rig| {
            // Pages all over the place, so that those that go lie apart.
            for step in 0..200 {
                assert!(rig.now(step * 37 % 256 * P, 1).is_ok());
            }
            for first in (0..250).step_by(3) {
                let bytes = rig.now(first * P, 6 * PAGE).unwrap();
                let start = first as usize * PAGE;
                assert!(
                    bytes == (start..start + 6 * PAGE).map(pattern).collect::<Vec<_>>(),
                    "{limits:?}: page {first}"
                );
            }
            assert_eq!(rig.stats().read_errors, 0);
        });
        ended.unwrap();
    }
}

/// A-PC-16: the device never gives the memory of a read back, and writes to it when it likes: no page has that memory afterwards.
fn kept() -> Result<(), String> {
    try_with(SMALL, |rig| {
        rig.device.lock().keeping = true;
        rig.device.fail(Op::Read, 80, Error::TimedOut, 1);
        rig.read(1, 10 * P, PAGE);
        rig.settle();
        assert_eq!(rig.result(1), Some(Err(Error::TimedOut)));
        rig.device.lock().keeping = false;
        for round in 0..3 {
            for page in 0..256 {
                let late =
                    |data: &mut Data| data.pieces_mut().iter_mut().for_each(|piece| piece.bytes_mut().fill(0x66));
                rig.device.lock().keeps.iter_mut().for_each(late);
                let bytes = rig.now(page * P, PAGE).unwrap();
                let start = page as usize * PAGE;
                assert!(bytes == (start..start + PAGE).map(pattern).collect::<Vec<_>>(), "round {round}, page {page}");
            }
        }
    })
}

#[test]
fn a_pc_16_what_a_device_keeps_is_nobody_elses() {
    kept().unwrap();
}

#[test]
fn a_pc_16_what_a_device_keeps_is_nobody_elses_control() {
    let error = broken::with(Hazard::KeptUsedAgain, kept).unwrap_err();
    assert!(error.contains("BadLength"), "{error}");
}
