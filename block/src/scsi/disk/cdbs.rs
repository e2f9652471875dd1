//! From a block request to the command that does it. Any context.

use zerocopy::IntoBytes;
use zerocopy::big_endian::{U16, U32, U64};

use super::super::wire::{
    OpCode, ReadWrite10, ReadWrite16, SynchronizeCache10, SynchronizeCache16, TEST_UNIT_READY, Unmap, UnmapParameters,
    WriteSame16, rw,
};
use super::super::{Cdb, Direction};
use super::unit::{DiscardBy, Sync, Unit};
use crate::broken::{self, Hazard};
use crate::{Features, Op, Piece, Request};

impl Unit {
    /// The command for a checked request.
    pub(super) fn cdb(&self, request: &Request) -> (Cdb, Direction) {
        match request.op {
            Op::Read => (self.read_write(request, OpCode::READ_10, OpCode::READ_16), Direction::In),
            Op::Write => (self.read_write(request, OpCode::WRITE_10, OpCode::WRITE_16), Direction::Out),
            Op::Flush => (self.flush_cdb(), Direction::None),
            Op::Discard if self.shape.discard == Some(DiscardBy::Unmap) => {
                let cdb = Unmap {
                    op: OpCode::UNMAP,
                    flags: 0,
                    reserved: [0; 4],
                    group: 0,
                    parameters: U16::new(size_of::<UnmapParameters>() as u16),
                    control: 0,
                };
                (cdb.into(), Direction::Out)
            }
            Op::Discard | Op::WriteZeroes => {
                let cdb = WriteSame16 {
                    op: OpCode::WRITE_SAME_16,
                    flags: if request.op == Op::Discard { rw::UNMAP } else { 0 },
                    lba: U64::new(request.lba),
                    blocks: U32::new(request.blocks),
                    group: 0,
                    control: 0,
                };
                (cdb.into(), Direction::Out)
            }
        }
    }

    fn read_write(&self, request: &Request, ten: OpCode, sixteen: OpCode) -> Cdb {
        let fua = request.fua && request.op == Op::Write && self.features().contains(Features::FUA);
        let flags = if fua { rw::FUA } else { 0 };
        let reached = if broken::is(Hazard::CutsBlocks) { Ok(request.lba as u32) } else { u32::try_from(request.lba) };
        // The short form where it reaches: every device knows it.
        match (reached, u16::try_from(request.blocks)) {
            (Ok(lba), Ok(blocks)) => {
                ReadWrite10 { op: ten, flags, lba: U32::new(lba), group: 0, blocks: U16::new(blocks), control: 0 }
                    .into()
            }
            _ => ReadWrite16 {
                op: sixteen,
                flags,
                lba: U64::new(request.lba),
                blocks: U32::new(request.blocks),
                group: 0,
                control: 0,
            }
            .into(),
        }
    }

    /// The command that makes all finished writes durable.
    pub(super) fn flush_cdb(&self) -> Cdb {
        match self.sync() {
            Sync::Ten => SynchronizeCache10 {
                op: OpCode::SYNCHRONIZE_CACHE_10,
                flags: 0,
                lba: U32::ZERO,
                group: 0,
                blocks: U16::ZERO,
                control: 0,
            }
            .into(),
            Sync::Sixteen => Self::flush_16(),
            Sync::NoCache => Cdb::new(TEST_UNIT_READY),
        }
    }

    /// SYNCHRONIZE CACHE(16) of everything.
    pub(super) fn flush_16() -> Cdb {
        SynchronizeCache16 {
            op: OpCode::SYNCHRONIZE_CACHE_16,
            flags: 0,
            lba: U64::ZERO,
            blocks: U32::ZERO,
            group: 0,
            control: 0,
        }
        .into()
    }

    /// The parameter data of a discard or a write of zeroes; `None` when all of the disk's parameter buffers are on their way.
    pub(super) fn parameters(&self, request: &Request) -> Option<Piece> {
        let take = || self.parameter_buffers.lock().pop();
        let mut buffer = take().or_else(|| {
            self.want_room();
            take()
        })?;
        if request.op == Op::Discard && self.shape.discard == Some(DiscardBy::Unmap) {
            let list = UnmapParameters::one(request.lba, request.blocks);
            let bytes = list.as_bytes();
            buffer[..bytes.len()].copy_from_slice(bytes);
            return Some(Piece::new(buffer, 0, bytes.len()));
        }
        // The buffers are zero at rest: this is the block to write everywhere.
        Some(Piece::new(buffer, 0, self.shape.block_size as usize))
    }

    /// Takes a parameter buffer back.
    pub(super) fn give_parameters(&self, piece: Option<Piece>) {
        if let Some(piece) = piece {
            let mut buffer = piece.into_buf();
            buffer[..size_of::<UnmapParameters>()].fill(0);
            // There is room: the buffer came from here. One that did not fit would be freed after the lock.
            let excess = self.parameter_buffers.lock().try_push(buffer).err();
            drop(excess);
        }
    }
}
