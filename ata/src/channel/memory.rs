//! A channel's memory that the bus master sees: the table of regions, a bounce buffer, and the ranges of a TRIM. Bottom half; made in task
//! context.
//!
//! The bounce buffer is [`Given`] while a command uses it, so that nobody can look into it, or free it, before the engine was stopped.

use undercroft_block::Data;
use undercroft_hal::dma::{Bidirectional, Coherent, DmaBuf, DmaConstraints, DmaError, Given, Segment, Streaming};

use super::pieces;
use crate::defect::{Defect, Defects};
use crate::wire::{BOUNDARY, LAST, Region, trim_range};

/// Regions of a table.
pub(crate) const ENTRIES: usize = 256;
/// Bytes of the bounce buffer: one region.
pub(crate) const BOUNCE: usize = BOUNDARY as usize;
/// Bytes of a block of TRIM ranges, and ranges in it.
const RANGES_BYTES: usize = 512;
const RANGES: u32 = 64;
/// Blocks that one TRIM can name.
pub(crate) const MOST_TRIM: u32 = RANGES * 0xffff;

const TABLE_BYTES: usize = ENTRIES * size_of::<Region>();

/// What the bus master reaches with one region.
const REACH: DmaConstraints = DmaConstraints { max_addr: u32::MAX as u64, align: 4096, boundary: BOUNDARY };

/// The bounce buffer, and who has it.
#[derive(Debug)]
enum Bounce {
    Here(DmaBuf),
    Given(Given<Bidirectional>),
    /// Between two of the others.
    Moving,
}

/// What the bus master sees.
#[derive(Debug)]
pub(crate) struct Memory {
    /// The table, and behind it the ranges.
    shared: Coherent,
    bounce: Bounce,
}

/// Whether the bus master reaches a segment by itself.
pub(super) fn reaches(segment: Segment, defects: Defects) -> bool {
    let last = segment.addr.checked_add(u64::from(segment.len));
    let low = last.is_some_and(|end| end <= 1 << 32) || defects.has(Defect::CutsAddresses);
    low && segment.addr.is_multiple_of(2) && segment.len.is_multiple_of(2)
}

impl Memory {
    /// Takes the memory of a channel.
    ///
    /// # Errors
    /// [`DmaError`].
    pub(crate) fn new() -> Result<Self, DmaError> {
        let shared = Coherent::new(TABLE_BYTES + RANGES_BYTES, REACH)?;
        Ok(Self { shared, bounce: Bounce::Here(DmaBuf::new(BOUNCE, REACH)?) })
    }

    /// Where the table is.
    pub(super) fn table(&self) -> u32 {
        self.shared.addr(0) as u32
    }

    fn set(&self, entry: usize, segment: Segment, last: bool) {
        let flags = if last { LAST } else { 0 };
        // 64 KiB is 0.
        let region =
            Region { addr: (segment.addr as u32).into(), count: (segment.len as u16).into(), flags: flags.into() };
        self.shared.write(entry * size_of::<Region>(), region);
    }

    /// Fills the table with the `bytes` bytes of `data` from `skip`. [`pieces::fit`] said that they fit.
    pub(super) fn describe(&self, data: &Data, skip: usize, bytes: usize, defects: Defects) {
        let (mut left, mut entry) = (bytes, 0);
        for run in pieces::runs(data, skip, defects) {
            if left == 0 || entry == ENTRIES {
                break;
            }
            let len = left.min(run.len as usize);
            left -= len;
            let last = left == 0 || entry + 1 == ENTRIES;
            self.set(entry, Segment { addr: run.addr, len: len as u32 }, last);
            entry += 1;
        }
    }

    /// Has the bounce buffer carry `bytes` bytes of `data` from `skip`: filled, given to the engine, and the table's only region.
    /// Whether that worked.
    pub(super) fn bounce(&mut self, data: &Data, skip: usize, bytes: usize, to_memory: bool) -> bool {
        let Bounce::Here(mut buf) = core::mem::replace(&mut self.bounce, Bounce::Moving) else { return false };
        if to_memory {
            // What another request left in it is none of this drive's business.
            buf[..bytes].fill(0);
        } else {
            pieces::gather(data, skip, &mut buf[..bytes]);
        }
        match Streaming::<Bidirectional>::map(buf, 0..bytes, REACH) {
            Ok(mapped) => {
                let given = mapped.give();
                self.set(0, given.segment(), true);
                self.bounce = Bounce::Given(given);
                true
            }
            Err(refused) => {
                self.bounce = Bounce::Here(refused.buffer);
                false
            }
        }
    }

    /// The engine was stopped: the bounce buffer is ours again.
    pub(super) fn take_back(&mut self) {
        self.bounce = match core::mem::replace(&mut self.bounce, Bounce::Moving) {
            Bounce::Given(given) => {
                let len = given.segment().len as usize;
                Bounce::Here(given.finish(len))
            }
            other => other,
        };
    }

    /// Copies what came into the bounce buffer to its place.
    pub(super) fn deliver(&self, data: &mut Data, skip: usize, bytes: usize) {
        if let Bounce::Here(buf) = &self.bounce {
            pieces::scatter(data, skip, &buf[..bytes]);
        }
    }

    /// Writes the ranges of a TRIM, and makes them the table's only region. Returns their bytes.
    pub(super) fn ranges(&self, lba: u64, blocks: u32) -> usize {
        let (mut lba, mut left) = (lba, blocks);
        for range in 0..RANGES as usize {
            let count = left.min(0xffff) as u16;
            let value = if count == 0 { 0 } else { trim_range(lba, count) };
            self.shared.write(TABLE_BYTES + 8 * range, value.to_le());
            lba += u64::from(count);
            left -= u32::from(count);
        }
        self.set(0, Segment { addr: self.shared.addr(TABLE_BYTES), len: RANGES_BYTES as u32 }, true);
        RANGES_BYTES
    }
}
