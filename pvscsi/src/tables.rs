//! What each command in flight has besides its place in the ring: a scatter-gather table and room for sense data. Any context, under the
//! adapter's lock.
//!
//! A table is one page: a segment of 128 elements, the last of which chains to the second segment, right behind it. A host that does not know
//! chains (QEMU) finds an element without data there and goes on to the next, which is the same.

use undercroft_block::Piece;
use undercroft_hal::dma::DmaError;

use crate::pages::Array;
use crate::wire::PAGE;
use crate::wire::rings::{SG_CHAIN, SG_SEGMENT, SgElement};

/// Bytes of sense data that a command has room for.
pub(crate) const SENSE: usize = 96;
/// Bytes from one command's room to the next's.
const SENSE_STRIDE: usize = 128;
/// Elements of a table, chains included.
const ELEMENTS: usize = PAGE / size_of::<SgElement>();
/// Pieces of data that a command may have: a table's elements but its chain.
pub(crate) const MAX_PIECES: usize = ELEMENTS - 1;

const _: () = assert!(ELEMENTS == 2 * SG_SEGMENT && SENSE <= SENSE_STRIDE);

/// Tables and sense buffers of all commands.
#[derive(Debug)]
pub(crate) struct Tables {
    tables: Array,
    sense: Array,
}

impl Tables {
    /// Those of `commands` commands, a power of two.
    pub(crate) fn new(commands: usize) -> Result<Self, DmaError> {
        let sense_pages = (commands * SENSE_STRIDE).div_ceil(PAGE);
        Ok(Self { tables: Array::new(commands, PAGE)?, sense: Array::new(sense_pages, SENSE_STRIDE)? })
    }

    /// Fills a command's table, and gives its address. At most [`MAX_PIECES`] pieces.
    pub(crate) fn fill(&self, command: u16, pieces: &[Piece]) -> u64 {
        let table = u32::from(command);
        let chained = pieces.len() > SG_SEGMENT;
        for (at, piece) in pieces.iter().enumerate() {
            // Behind the chain everything is one further on.
            let at = if chained && at >= SG_SEGMENT - 1 { at + 1 } else { at };
            let segment = piece.segment();
            let element = SgElement { addr: segment.addr.into(), len: segment.len.into(), flags: 0.into() };
            self.tables.write(table, at * size_of::<SgElement>(), element);
        }
        if chained {
            let next = self.tables.addr(table, SG_SEGMENT * size_of::<SgElement>());
            let chain = SgElement { addr: next.into(), len: 0.into(), flags: SG_CHAIN.into() };
            self.tables.write(table, (SG_SEGMENT - 1) * size_of::<SgElement>(), chain);
        }
        self.tables.addr(table, 0)
    }

    /// Where a command's sense data goes.
    #[inline]
    pub(crate) fn sense_addr(&self, command: u16) -> u64 {
        self.sense.addr(u32::from(command), 0)
    }

    /// Copies a command's sense data out; none of it is left for the next.
    #[cold]
    pub(crate) fn take_sense(&self, command: u16, keep: bool) -> [u8; SENSE] {
        let sense = self.sense.read(u32::from(command), 0);
        if !keep {
            self.sense.write(u32::from(command), 0, [0u8; SENSE]);
        }
        sense
    }
}
