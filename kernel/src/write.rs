//! The write phase: a seeded pattern over the region that may be overwritten, flushed and read back. Task context.

use alloc::vec::Vec;

use undercroft_block::{Error, Op};
use undercroft_hal::Task;

use crate::account::Stretch;
use crate::disks::Disk;
use crate::lanes::Lanes;
use crate::pattern::{self, Random};
use crate::report::Report;
use crate::verify::chunk_blocks;

const LANES: usize = 8;
const LARGEST: u32 = 1 << 20;

/// What came of it.
pub(crate) struct Written {
    pub(crate) flushed: bool,
    pub(crate) verified: bool,
}

/// One write: first block and blocks.
#[derive(Clone, Copy)]
struct Extent {
    lba: u64,
    blocks: u32,
}

/// Cuts the region into writes of 1, 2, 4, … blocks up to the largest, again and again, and shuffles them.
fn plan(first: u64, count: u64, largest: u32, seed: u64) -> Vec<Extent> {
    let (mut extents, mut at, mut size) = (Vec::new(), 0, 1u32);
    while at < count {
        let blocks = u64::from(size).min(count - at) as u32;
        extents.push(Extent { lba: first + at, blocks });
        at += u64::from(blocks);
        size = if size >= largest { 1 } else { (size * 2).min(largest) };
    }
    let mut random = Random::new(seed);
    for last in (1..extents.len()).rev() {
        extents.swap(last, random.below(last as u64 + 1) as usize);
    }
    extents
}

/// Sends every extent through the lanes. `filled` prepares a buffer before it is sent, `arrived` looks at it afterwards; both are told the
/// byte offset on the disk.
fn each(
    cx: &Task,
    lanes: &mut Lanes,
    op: Op,
    block_size: u32,
    extents: &[Extent],
    mut fill: impl FnMut(&mut [u8], u64),
    mut arrived: impl FnMut(&[u8], u64),
) -> Result<(), Error> {
    let bytes = |extent: Extent| extent.blocks as usize * block_size as usize;
    let offset = |extent: Extent| extent.lba * u64::from(block_size);
    let (mut sent, mut result) = (0, Ok(()));
    for done in 0..extents.len() {
        while result.is_ok() && sent < extents.len() && sent < done + lanes.count() {
            let (lane, extent) = (sent % lanes.count(), extents[sent]);
            if let Some(buffer) = lanes.buffer(lane) {
                fill(&mut buffer[..bytes(extent)], offset(extent));
            }
            result = lanes.send(cx, lane, op, extent.lba, extent.blocks);
            sent += usize::from(result.is_ok());
        }
        if done == sent {
            break;
        }
        let lane = done % lanes.count();
        result = result.and(lanes.wait(cx, lane));
        if result.is_ok()
            && let Some(buffer) = lanes.buffer(lane)
        {
            arrived(&buffer[..bytes(extents[done])], offset(extents[done]));
        }
    }
    result
}

/// Writes, flushes and reads back the bytes `start..start + length` of the disk.
///
/// # Errors
/// A region that is not on the disk or not of whole blocks; the first request's that fails.
pub(crate) fn write_phase(
    cx: &Task,
    disk: &Disk,
    (start, length): (u64, u64),
    seed: u64,
    report: &Report,
) -> Result<Written, Error> {
    let info = disk.device.info();
    let block = u64::from(info.block_size);
    if !start.is_multiple_of(block) || !length.is_multiple_of(block) {
        return Err(Error::BadLength);
    }
    if start.checked_add(length).is_none_or(|end| end > info.bytes()) {
        return Err(Error::OutOfRange);
    }
    let largest = chunk_blocks(&disk.device, LARGEST);
    let extents = plan(start / block, length / block, largest, seed);
    let mut lanes = Lanes::new(&disk.device, LANES, largest as usize * info.block_size as usize)?;

    let mut progress = report.progress(&disk.name, "write", length);
    let stretch = Stretch::begin();
    each(
        cx,
        &mut lanes,
        Op::Write,
        info.block_size,
        &extents,
        |bytes, at| pattern::fill(bytes, seed, at),
        |bytes, _| progress.advance(bytes.len() as u64),
    )?;
    let flushed = lanes.flush(cx);
    let mut progress = report.progress(&disk.name, "verify", length);
    let mut verified = true;
    each(
        cx,
        &mut lanes,
        Op::Read,
        info.block_size,
        &extents,
        // What a read does not fill must not look right.
        |bytes, _| bytes.fill(0xee),
        |bytes, at| {
            verified &= pattern::matches(bytes, seed, at);
            progress.advance(bytes.len() as u64);
        },
    )?;
    drop(stretch);
    flushed?;
    Ok(Written { flushed: true, verified })
}

/// Whether the bytes `start..start + length` of the disk are the pattern.
///
/// # Errors
/// As [`write_phase`].
pub(crate) fn is_pattern(
    cx: &Task,
    disk: &Disk,
    (start, length): (u64, u64),
    seed: u64,
    report: &Report,
) -> Result<bool, Error> {
    let info = disk.device.info();
    let block = u64::from(info.block_size);
    let largest = chunk_blocks(&disk.device, LARGEST);
    let extents = plan(start / block, length / block, largest, seed);
    let mut lanes = Lanes::new(&disk.device, LANES, largest as usize * info.block_size as usize)?;
    let mut progress = report.progress(&disk.name, "verify", length);
    let mut holds = true;
    let arrived = |bytes: &[u8], at| {
        holds &= pattern::matches(bytes, seed, at);
        progress.advance(bytes.len() as u64);
    };
    each(cx, &mut lanes, Op::Read, info.block_size, &extents, |bytes, _| bytes.fill(0xee), arrived)?;
    Ok(holds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_covers_the_region_once_with_every_size() {
        for (count, largest) in [(1, 8), (100, 8), (5000, 2048), (77, 1), (1000, 24)] {
            let extents = plan(10, count, largest, 3);
            let mut seen = alloc::vec![false; count as usize];
            for extent in &extents {
                assert!(extent.blocks >= 1 && extent.blocks <= largest);
                for block in extent.lba..extent.lba + u64::from(extent.blocks) {
                    assert!(!core::mem::replace(&mut seen[(block - 10) as usize], true), "block {block} twice");
                }
            }
            assert!(seen.iter().all(|&seen| seen));
            let sizes = |blocks| extents.iter().any(|extent| extent.blocks == blocks);
            assert!(count < u64::from(largest) * 2 || (sizes(1) && sizes(largest)));
        }
    }
}
