//! Commands about disks. Task context.

use core::fmt;

use sha2::{Digest, Sha256};
use undercroft_block::Op;

use super::{Bad, Session, Words};
use crate::cached;
use crate::disks::{self, Disk};
use crate::hotplug;
use crate::lanes::Lanes;
use crate::verify::{self, Sum, chunk_blocks};
use crate::{speed as measuring, write as writing};

/// Bytes that `read` reads at most, and that it shows.
const MOST: u32 = 1 << 20;
const SHOWN: usize = 256;

pub(super) fn list<'w>(session: &Session<'_>, mut words: Words<'w>) -> Result<(), Bad<'w>> {
    words.end()?;
    if session.disks.is_empty() {
        session.say(format_args!("no disks"));
    }
    session.disks.iter().for_each(|disk| disks::describe(session.cx, disk, session.report));
    Ok(())
}

pub(super) fn capacities<'w>(session: &Session<'_>, mut words: Words<'w>) -> Result<(), Bad<'w>> {
    words.end()?;
    for disk in session.disks.iter().filter(|disk| disk.scsi.is_some()) {
        hotplug::resized(session.cx, disk, session.report);
    }
    Ok(())
}

/// The blocks that the next words name, which are on the disk.
pub(super) fn range<'w>(disk: &Disk, lba: u64, blocks: u64) -> Result<(u64, u64), Bad<'w>> {
    let on_disk = blocks > 0 && lba.checked_add(blocks).is_some_and(|end| end <= disk.device.info().capacity);
    if on_disk { Ok((lba, blocks)) } else { Err(Bad::OutOfRange(lba, blocks)) }
}

/// A range in bytes.
pub(super) fn bytes(disk: &Disk, (lba, blocks): (u64, u64)) -> (u64, u64) {
    let size = u64::from(disk.device.info().block_size);
    // Within the capacity, whose bytes fit.
    (lba.saturating_mul(size), blocks.saturating_mul(size))
}

pub(super) fn read<'w>(session: &Session<'_>, mut words: Words<'w>) -> Result<(), Bad<'w>> {
    let disk = session.disk(&mut words)?;
    let lba = words.number("the first block")?;
    let (lba, blocks) = range(disk, lba, words.number_or("the number of blocks", 1)?)?;
    words.end()?;
    let most = chunk_blocks(&disk.device, MOST);
    let count = u32::try_from(blocks).ok().filter(|&count| count <= most);
    let count = count.ok_or(Bad::TooMany(blocks, u64::from(most)))?;
    let len = count as usize * disk.device.info().block_size as usize;
    let mut lanes = Lanes::new(&disk.device, 1, len).map_err(Bad::Failed)?;
    lanes.send(session.cx, 0, Op::Read, lba, count).map_err(Bad::Failed)?;
    lanes.wait(session.cx, 0).map_err(Bad::Failed)?;
    let Some(data) = lanes.buffer(0) else { return Ok(()) };
    let data = &data[..len.min(data.len())];
    for (at, row) in data[..data.len().min(SHOWN)].chunks(16).enumerate() {
        session.say(format_args!("{:08x}  {}", at * 16, Row(row)));
    }
    session.say(format_args!("{} bytes, sha256 {}", data.len(), Sum(Sha256::digest(data).into())));
    Ok(())
}

/// Sixteen bytes, as numbers and as characters.
pub(super) struct Row<'a>(pub(super) &'a [u8]);

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x} "))?;
        f.write_str(" ")?;
        let shown = |byte: u8| if (b' '..127).contains(&byte) { byte as char } else { '.' };
        self.0.iter().try_for_each(|&byte| write!(f, "{}", shown(byte)))
    }
}

pub(super) fn write<'w>(session: &Session<'_>, mut words: Words<'w>) -> Result<(), Bad<'w>> {
    let disk = session.disk(&mut words)?;
    let lba = words.number("the first block")?;
    let blocks = words.number("the number of blocks")?;
    let seed = words.number_or("the seed", session.options.seed)?;
    words.end()?;
    let (start, length) = bytes(disk, range(disk, lba, blocks)?);
    let allowed = allowed(session, disk).is_some_and(|(from, count)| start >= from && start + length <= from + count);
    if !allowed {
        return Err(Bad::NotAllowed(lba, blocks));
    }
    let written = writing::write_phase(session.cx, disk, (start, length), seed, session.report).map_err(Bad::Failed)?;
    cached::forget(session.cx, disk, start..start + length, session.report);
    let held = if written.verified { "read back equal" } else { "READ BACK DIFFERENT" };
    session.say(format_args!("{blocks} blocks from {lba} written with seed {seed}, flushed, {held}"));
    Ok(())
}

/// The bytes of a disk that may be overwritten.
pub(super) fn allowed(session: &Session<'_>, disk: &Disk) -> Option<(u64, u64)> {
    let serial = &disk.device.identity().serial;
    session.options.disks.iter().find(|rule| rule.serial == *serial)?.writable
}

pub(super) fn verify<'w>(session: &Session<'_>, mut words: Words<'w>) -> Result<(), Bad<'w>> {
    let disk = session.disk(&mut words)?;
    let Some(first) = words.clone().optional() else {
        let sum = verify::read_whole(session.cx, disk, session.report).map_err(Bad::Failed)?;
        session.say(format_args!("{} sha256 {sum}", disk.name));
        return Ok(());
    };
    debug_assert!(!first.is_empty());
    let lba = words.number("the first block")?;
    let blocks = words.number("the number of blocks")?;
    let seed = words.number_or("the seed", session.options.seed)?;
    words.end()?;
    let place = bytes(disk, range(disk, lba, blocks)?);
    let holds = writing::is_pattern(session.cx, disk, place, seed, session.report).map_err(Bad::Failed)?;
    let what = if holds { "hold" } else { "DO NOT HOLD" };
    session.say(format_args!("{blocks} blocks from {lba} {what} the pattern of seed {seed}"));
    Ok(())
}

pub(super) fn speed<'w>(session: &Session<'_>, mut words: Words<'w>) -> Result<(), Bad<'w>> {
    let disk = session.disk(&mut words)?;
    words.end()?;
    let how = (session.options.speed_ms, session.options.seed);
    measuring::measure(session.cx, disk, allowed(session, disk), how, session.report).map_err(Bad::Failed)?;
    if let Some((start, length)) = allowed(session, disk) {
        cached::forget(session.cx, disk, start..start + length, session.report);
    }
    Ok(())
}
