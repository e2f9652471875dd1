//! Commands about what a device does beside reading and writing. Task context.

use undercroft_block::scsi::Managed;
use undercroft_block::{Error, Op, Recovery, Reset, Tag};

use super::disk::{allowed, bytes, range};
use super::{Bad, Session, Words};
use crate::cached;
use crate::disks::Disk;
use crate::lanes::Lanes;

/// Requests in flight at a reset.
const IN_FLIGHT: usize = 8;
const BYTES: u32 = 4096;

pub(super) fn discard<'w>(session: &Session<'_>, words: Words<'w>) -> Result<(), Bad<'w>> {
    clear(session, words, Op::Discard, "discarded")
}

pub(super) fn zero<'w>(session: &Session<'_>, words: Words<'w>) -> Result<(), Bad<'w>> {
    clear(session, words, Op::WriteZeroes, "zeroed")
}

/// A range without data, in pieces that the device takes, and a flush.
fn clear<'w>(session: &Session<'_>, mut words: Words<'w>, op: Op, done: &str) -> Result<(), Bad<'w>> {
    let disk = session.disk(&mut words)?;
    let lba = words.number("the first block")?;
    let blocks = words.number("the number of blocks")?;
    words.end()?;
    let (lba, blocks) = range(disk, lba, blocks)?;
    let (start, length) = bytes(disk, (lba, blocks));
    if !allowed(session, disk).is_some_and(|(from, count)| start >= from && start + length <= from + count) {
        return Err(Bad::NotAllowed(lba, blocks));
    }
    let limits = disk.device.info().limits;
    let most = if op == Op::Discard { limits.max_discard_blocks } else { limits.max_write_zeroes_blocks };
    let mut lanes = Lanes::new(&disk.device, 1, BYTES as usize).map_err(Bad::Failed)?;
    let (mut at, end) = (lba, lba + blocks);
    while at < end {
        // None at a time is refused by the device, as it should be.
        let count = (end - at).min(u64::from(most.max(1))) as u32;
        lanes.send(session.cx, 0, op, at, count).map_err(Bad::Failed)?;
        lanes.wait(session.cx, 0).map_err(Bad::Failed)?;
        at += u64::from(count);
    }
    lanes.flush(session.cx).map_err(Bad::Failed)?;
    cached::forget(session.cx, disk, start..start + length, session.report);
    session.say(format_args!("{blocks} blocks from {lba} {done}, flushed"));
    Ok(())
}

/// Switches a disk's own write cache: `word` is `on` or `off`.
pub(super) fn switch_cache<'w>(session: &Session<'_>, disk: &Disk, word: &'w str) -> Result<(), Bad<'w>> {
    let on = match word {
        "on" => true,
        "off" => false,
        other => return Err(Bad::Unexpected(other)),
    };
    let Some(switch) = &disk.cache else { return Err(Bad::Failed(Error::Unsupported)) };
    switch.set_write_cache(session.cx, on).map_err(Bad::Failed)?;
    let volatile = disk.device.info().features.contains(undercroft_block::Features::VOLATILE_CACHE);
    session.say(format_args!("the cache is {}", if volatile { "volatile" } else { "off: what is written is durable" }));
    Ok(())
}

pub(super) fn reset<'w>(session: &Session<'_>, mut words: Words<'w>) -> Result<(), Bad<'w>> {
    let disk = session.disk(&mut words)?;
    let what = match words.optional() {
        None | Some("controller") => Some(Recovery::ResetController),
        Some("unit") => Some(Recovery::ResetUnit),
        Some("queue") => None,
        Some(other) => return Err(Bad::Unexpected(other)),
    };
    words.end()?;
    let (answered, ended) = with_reads_in_flight(session, disk, what).map_err(Bad::Failed)?;
    session.say(format_args!("{answered} answered, {ended} ended by the reset, and reading goes on"));
    Ok(())
}

/// Resets with reads in flight (without `what` a queue, with none: not every device ends them): how many were answered, and how many the reset
/// ended.
fn with_reads_in_flight(session: &Session<'_>, disk: &Disk, what: Option<Recovery>) -> Result<(usize, usize), Error> {
    let info = disk.device.info();
    let blocks = (BYTES / info.block_size).max(1);
    let mut lanes = Lanes::new(&disk.device, IN_FLIGHT, (blocks * info.block_size) as usize)?;
    let count = lanes.count();
    for lane in 0..count {
        let places = info.capacity / u64::from(blocks);
        lanes.send(session.cx, lane, Op::Read, lane as u64 % places.max(1) * u64::from(blocks), blocks)?;
    }
    let mut asked = what.is_some_and(|what| disk.device.recover(what) == Managed::Asked);
    let (mut answered, mut ended) = (0, 0);
    for lane in 0..count {
        match lanes.wait(session.cx, lane) {
            Ok(()) => answered += 1,
            Err(Error::Reset | Error::NotStarted | Error::Cancelled) => ended += 1,
            Err(error) => return Err(error),
        }
    }
    if what.is_none() {
        // That of the CPU that this runs on, which is the first.
        asked = disk.queue.device().reset(Reset::Queue(Tag::from_bits(0)));
    }
    if !asked {
        return Err(Error::Unsupported);
    }
    for lane in 0..count {
        lanes.send(session.cx, lane, Op::Read, 0, blocks)?;
        // A unit says once that it was reset.
        match lanes.wait(session.cx, lane) {
            Err(Error::Reset | Error::NotStarted) if lane == 0 => {}
            result => result?,
        }
    }
    Ok((answered, ended))
}
