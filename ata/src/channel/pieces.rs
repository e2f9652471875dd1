//! Walking a request's data: runs for the bus master's table, slices for the CPU. Bottom half.

use undercroft_block::Data;
use undercroft_hal::dma::Segment;

use super::memory::{BOUNCE, ENTRIES, reaches};
use crate::defect::{Defect, Defects};
use crate::wire::BOUNDARY;

/// The data's memory from byte `skip` on, cut at every 64 KiB.
pub(super) fn runs(data: &Data, skip: usize, defects: Defects) -> impl Iterator<Item = Segment> {
    let mut skip = skip as u64;
    let mut segments = data.segments();
    let mut rest: Option<Segment> = None;
    let boundary = if defects.has(Defect::CrossesBoundary) { BOUNDARY * 2 } else { BOUNDARY };
    core::iter::from_fn(move || {
        loop {
            let segment = rest.take().or_else(|| segments.next())?;
            if skip >= u64::from(segment.len) {
                skip -= u64::from(segment.len);
                continue;
            }
            let addr = segment.addr + core::mem::take(&mut skip);
            let len = segment.len - (addr - segment.addr) as u32;
            let room = (boundary - addr % boundary).min(BOUNDARY);
            let now = u64::from(len).min(room) as u32;
            if now < len {
                rest = Some(Segment { addr: addr + u64::from(now), len: len - now });
            }
            return Some(Segment { addr, len: now });
        }
    })
}

/// How many bytes from `skip` on one table can describe, in whole blocks, `most` at most; and whether they have to go through the bounce
/// buffer instead. `most` is a multiple of `block` and is there.
pub(super) fn fit(data: &Data, skip: usize, most: usize, block: usize, defects: Defects) -> (usize, bool) {
    if defects.has(Defect::IssuesBeyondTable) {
        return (most, false);
    }
    let reached = runs(data, skip, defects).take(ENTRIES).take_while(|run| reaches(*run, defects));
    let bytes: usize = reached.map(|run| run.len as usize).sum();
    let whole = bytes.min(most) / block * block;
    // A block of which a part is out of reach, or in more regions than a table has, goes through the bounce buffer.
    if whole == 0 { (most.min(BOUNCE / block * block), true) } else { (whole, false) }
}

/// Calls `f` with the slices of `len` bytes from `skip` on, and how far into these each is.
pub(super) fn each(data: &Data, skip: usize, len: usize, mut f: impl FnMut(usize, &[u8])) {
    let (mut before, mut done) = (0, 0);
    for piece in data.pieces() {
        let bytes = piece.bytes();
        let from = (skip + done).saturating_sub(before).min(bytes.len());
        let now = (bytes.len() - from).min(len - done);
        if now > 0 {
            f(done, &bytes[from..from + now]);
        }
        done += now;
        before += bytes.len();
    }
}

/// As [`each`], with slices to fill.
pub(super) fn each_mut(data: &mut Data, skip: usize, len: usize, mut f: impl FnMut(usize, &mut [u8])) {
    let (mut before, mut done) = (0, 0);
    for piece in data.pieces_mut() {
        let bytes = piece.bytes_mut();
        let from = (skip + done).saturating_sub(before).min(bytes.len());
        let now = (bytes.len() - from).min(len - done);
        if now > 0 {
            f(done, &mut bytes[from..from + now]);
        }
        done += now;
        before += bytes.len();
    }
}

/// Copies bytes of the data out.
pub(super) fn gather(data: &Data, skip: usize, to: &mut [u8]) {
    let len = to.len();
    each(data, skip, len, |at, bytes| to[at..at + bytes.len()].copy_from_slice(bytes));
}

/// Copies bytes into the data.
pub(super) fn scatter(data: &mut Data, skip: usize, from: &[u8]) {
    each_mut(data, skip, from.len(), |at, bytes| {
        let len = bytes.len();
        bytes.copy_from_slice(&from[at..at + len]);
    });
}
