//! The splitter: how much of a request a device takes at once. Pure functions.

use super::broken::{self, Hazard};
use crate::{Error, Info, Op, Request};

/// Blocks that the device takes of a request of which `done` are done; at least 1. Ends at a physical block where it can.
///
/// # Errors
/// [`Error::TooLarge`]: not even one block fits in the device's segments. [`Error::Unreachable`]: the next one lies beyond its addresses.
pub(super) fn next(request: &Request, done: u32, info: &Info) -> Result<u32, Error> {
    let left = request.blocks.saturating_sub(done);
    let limits = &info.limits;
    let most = match request.op {
        // Whatever range it names: that has no meaning, and it has no parts.
        Op::Flush => return Ok(if broken::is(Hazard::FlushEndless) { 0 } else { left }),
        Op::Discard => left.min(limits.max_discard_blocks),
        Op::WriteZeroes => left.min(limits.max_write_zeroes_blocks),
        Op::Read | Op::Write => bytes(request, done, left, info)? / info.block_size.max(1),
    };
    if most == 0 {
        return Err(Error::TooLarge);
    }
    let physical = u64::from((info.physical_block_size / info.block_size.max(1)).max(1));
    let over = ((request.lba + u64::from(done) + u64::from(most)) % physical) as u32;
    Ok(if most < left && over < most { most - over } else { most })
}

/// Bytes that fit from block `done` on, within `left` blocks.
fn bytes(request: &Request, done: u32, left: u32, info: &Info) -> Result<u32, Error> {
    let limits = &info.limits;
    let wanted = u64::from(left) * u64::from(info.block_size);
    let most = wanted.min(u64::from(limits.max_transfer_bytes)) as u32;
    let mut skip = u64::from(done) * u64::from(info.block_size);
    let (mut bytes, mut segments, mut end) = (0, 0, None);
    for segment in request.data.segments() {
        if skip >= u64::from(segment.len) {
            skip -= u64::from(segment.len);
            continue;
        }
        let (addr, len) = (segment.addr + skip, segment.len - skip as u32);
        skip = 0;
        if segments == limits.max_segments || bytes == most || end.is_some_and(|end| !limits.may_meet(end, addr)) {
            break;
        }
        let mut run = len.min(most - bytes).min(limits.max_segment_bytes);
        if limits.dma.boundary != 0 {
            run = u64::from(run).min(limits.dma.boundary - addr % limits.dma.boundary) as u32;
        }
        if run == 0 {
            break;
        }
        if addr.saturating_add(u64::from(run) - 1) > limits.dma.max_addr {
            return Err(Error::Unreachable);
        }
        bytes += run;
        segments += 1;
        end = addr.checked_add(u64::from(run));
        if run < len {
            break;
        }
    }
    Ok(bytes)
}

/// Whether the device takes the request, whole or in parts.
///
/// # Errors
/// Why it never will.
pub(super) fn possible(request: &Request, info: &Info) -> Result<(), Error> {
    match request.check(info) {
        Err(Error::TooLarge) => {}
        result => return result,
    }
    if matches!(request.op, Op::Read | Op::Write) {
        let wanted = u64::from(request.blocks) * u64::from(info.block_size);
        let mut total = 0;
        for segment in request.data.segments() {
            if segment.len == 0 || !segment.len.is_multiple_of(512) {
                return Err(Error::BadLength);
            }
            total += u64::from(segment.len);
        }
        if total != wanted {
            return Err(Error::BadLength);
        }
    }
    let mut done = 0;
    while done < request.blocks {
        done += next(request, done, info)?;
        if !matches!(request.op, Op::Read | Op::Write) {
            // All parts are like the first.
            break;
        }
    }
    Ok(())
}
