//! Packets to the host, word by word. Any context.

use undercroft_block::Piece;
use undercroft_block::scsi::{Cdb, Direction as Way};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

use crate::ring::{NoRoom, Sender, SenderMemory};
use crate::wire::PAGE;
use crate::wire::ring::{GpaRange, PacketFlags, PacketHeader, PacketType};
use crate::wire::vstor::{Direction, Head, OLD_PACKET, OLD_SRB, Operation, PACKET, Srb, SrbFlags, Version};

/// Seconds after which the host gives up a command by itself.
const TIMEOUT: u32 = 60;

/// A vstor packet; older versions send its beginning.
pub(crate) type Vstor = [u8; PACKET];

/// A packet without a body.
pub(crate) fn plain(operation: Operation) -> Vstor {
    let mut packet = [0; PACKET];
    packet[..12].copy_from_slice(Head::new(operation).as_bytes());
    packet
}

/// A packet with a number of 16 bits.
pub(crate) fn with_number(operation: Operation, number: u16) -> Vstor {
    let mut packet = plain(operation);
    packet[12..14].copy_from_slice(&number.to_le_bytes());
    packet
}

/// Where a command goes: bus, target, unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) path: u8,
    pub(crate) target: u8,
    pub(crate) lun: u8,
}

fn with_srb(operation: Operation, srb: &Srb) -> Vstor {
    let mut packet = plain(operation);
    packet[12..].copy_from_slice(srb.as_bytes());
    packet
}

/// A reset of a unit or of the bus.
pub(crate) fn reset(operation: Operation, unit: Unit) -> Vstor {
    let srb = srb(unit, &[], Way::None, 0, Version::WIN10);
    with_srb(
        operation,
        &Srb { length: U16::ZERO, sense_length: 0, direction: 0, flags: U32::ZERO, timeout: U32::ZERO, ..srb },
    )
}

fn srb(unit: Unit, cdb: &[u8], way: Way, transfer: u32, version: Version) -> Srb {
    let (direction, flags) = match way {
        Way::None => (Direction::NONE, SrbFlags::empty()),
        Way::In => (Direction::IN, SrbFlags::DATA_IN),
        Way::Out => (Direction::OUT, SrbFlags::DATA_OUT),
    };
    let mut bytes = [0; 20];
    for (to, from) in bytes.iter_mut().zip(cdb) {
        *to = *from;
    }
    let length = if version >= Version::WIN8 { size_of::<Srb>() as u16 } else { OLD_SRB };
    Srb {
        length: U16::new(length),
        srb_status: 0,
        scsi_status: 0,
        port: 0,
        path: unit.path,
        target: unit.target,
        lun: unit.lun,
        cdb_length: cdb.len() as u8,
        sense_length: version.sense_bytes(),
        direction: direction.0,
        reserved: 0,
        transfer_length: U32::new(transfer),
        bytes,
        reserved2: U16::ZERO,
        queue_tag: 0,
        queue_action: 0,
        flags: U32::new((flags | SrbFlags::DISABLE_SYNCH_TRANSFER).bits()),
        timeout: U32::new(TIMEOUT),
        sort_key: U32::ZERO,
    }
}

/// A SCSI command.
pub(crate) fn command(unit: Unit, cdb: &Cdb, way: Way, transfer: u32, version: Version) -> Vstor {
    with_srb(Operation::EXECUTE_SRB, &srb(unit, cdb.bytes(), way, transfer, version))
}

/// The memory of a command as one range: how long, from where in its first page, how many pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) length: u32,
    pub(crate) offset: u32,
    pub(crate) pages: u32,
}

impl Range {
    /// `None`: there is a hole, or nothing, or too much. All pieces but the first begin with a page, all but the last end with one.
    pub(crate) fn of(pieces: &[Piece], holes: bool) -> Option<Self> {
        let first = pieces.first()?.segment();
        let offset = first.addr % PAGE as u64;
        let mut length = 0u64;
        for piece in pieces {
            let segment = piece.segment();
            let follows = length == 0
                || segment.addr.is_multiple_of(PAGE as u64) && (offset + length).is_multiple_of(PAGE as u64);
            if segment.len == 0 || !follows && !holes {
                return None;
            }
            length += u64::from(segment.len);
        }
        Some(Self {
            length: u32::try_from(length).ok()?,
            offset: offset as u32,
            pages: u32::try_from((offset + length).div_ceil(PAGE as u64)).ok()?,
        })
    }

    /// Bytes of a packet that carries it, besides the vstor packet.
    pub(crate) const fn bytes(&self) -> u32 {
        head_bytes(self.pages)
    }
}

/// Bytes before the vstor packet in a packet with this many pages.
pub(crate) const fn head_bytes(pages: u32) -> u32 {
    (size_of::<PacketHeader>() + size_of::<GpaRange>()) as u32 + 8 * pages
}

/// The numbers of the pages that pieces lie in, in order.
fn pages(pieces: &[Piece]) -> impl Iterator<Item = u64> + '_ {
    pieces.iter().flat_map(|piece| {
        let segment = piece.segment();
        let last = segment.addr + u64::from(segment.len).saturating_sub(1);
        segment.addr / PAGE as u64..=last / PAGE as u64
    })
}

/// Writes a packet with its data in itself.
pub(crate) fn write_in_band<M: SenderMemory>(
    sender: &mut Sender<M>,
    (kind, flags, transaction): (PacketType, PacketFlags, u64),
    payload: &[u8],
) -> Result<(), NoRoom> {
    let head = size_of::<PacketHeader>();
    let length = (head + payload.len()) as u32;
    sender.write(length, |words| {
        words.put_bytes(
            PacketHeader {
                kind: U16::new(kind.0),
                payload: U16::new((head / 8) as u16),
                length: U16::new((length / 8) as u16),
                flags: U16::new(flags.bits()),
                transaction: U64::new(transaction),
            }
            .as_bytes(),
        );
        words.put_bytes(payload);
    })
}

/// Writes a packet with the data in these pieces.
pub(crate) fn write_direct<M: SenderMemory>(
    sender: &mut Sender<M>,
    transaction: u64,
    (range, pieces): (Range, &[Piece]),
    payload: &[u8],
) -> Result<(), NoRoom> {
    write_pages(sender, transaction, (range, pages(pieces)), payload)
}

/// Writes a packet with a list of pages.
pub(crate) fn write_pages<M: SenderMemory>(
    sender: &mut Sender<M>,
    transaction: u64,
    (range, pages): (Range, impl Iterator<Item = u64>),
    payload: &[u8],
) -> Result<(), NoRoom> {
    let head = range.bytes();
    let length = head + payload.len() as u32;
    sender.write(length, |words| {
        words.put_bytes(
            PacketHeader {
                kind: U16::new(PacketType::GPA_DIRECT.0),
                payload: U16::new((head / 8) as u16),
                length: U16::new((length / 8) as u16),
                flags: U16::new(PacketFlags::COMPLETION_WANTED.bits()),
                transaction: U64::new(transaction),
            }
            .as_bytes(),
        );
        words.put_bytes(
            GpaRange {
                reserved: U32::ZERO,
                ranges: U32::new(1),
                length: U32::new(range.length),
                offset: U32::new(range.offset),
            }
            .as_bytes(),
        );
        pages.take(range.pages as usize).for_each(|page| words.put(page));
        words.put_bytes(payload);
    })
}

const _: () = assert!(OLD_PACKET.is_multiple_of(8) && PACKET.is_multiple_of(8));
