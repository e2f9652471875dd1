//! A command's way to the device. Any context.

use undercroft_block::scsi::{Address, Command, Direction, Refused};
use undercroft_block::{Error, Refusal, Tag};

use super::protocol::{Scsi, Slot, frame};
use super::wire::{ANSWER_BYTES, COMMAND_HEAD_BYTES, CommandAnswer, CommandHead, ResponseCode};
use crate::defect::{Defect, Defects};
use crate::device::{Device, Frames, QueueState};
use crate::queue::{AddError, Buffer};

#[cold]
fn refuse(command: Command, why: Refusal) -> Refused {
    Refused { command, why }
}

/// Puts a command on queue `index`; `max_target` and `max_lun` are the host's.
pub(super) fn submit(
    device: &Device<Scsi>,
    index: usize,
    command: Command,
    (max_target, max_lun): (u16, u32),
) -> Result<Tag, Refused> {
    let address = command.address();
    if address.target > max_target || address.lun.number() > max_lun {
        return Err(refuse(command, Refusal::Invalid(Error::OutOfRange)));
    }
    let mut state = match device.admit(index) {
        Ok((_, state)) => state,
        Err(why) => return Err(refuse(command, why)),
    };
    match add(&mut state, &command, device.defects) {
        Ok(head) => Ok(state.slots.put(head, Slot::Command(command))),
        Err(error) => {
            let why = state.refusal(error);
            drop(state);
            Err(refuse(command, why))
        }
    }
}

/// A unit's address as commands carry it: 1, target, two bytes of a single-level LUN structure, zeroes (5.6.6.1).
#[inline]
pub(super) fn unit(address: Address, defects: Defects) -> [u8; 8] {
    let [high, low, ..] = address.lun.to_bytes();
    let high = if defects.has(Defect::OneByteLun) { 0 } else { high };
    [1, address.target as u8, high, low, 0, 0, 0, 0]
}

/// Writes the command's frame and chain: head, data out, answer, data in (5.6.6.1).
#[inline(always)]
fn add(state: &mut QueueState<Slot>, command: &Command, defects: Defects) -> Result<u16, AddError> {
    let [piece] = command.pieces() else { return add_any(state, command, defects) };
    let QueueState { ring, frames, slots, .. } = state;
    let (data, reads) = (piece.segment(), command.direction() == Direction::In);
    let data = Buffer { addr: data.addr, len: data.len, writable: reads };
    if !ring.has_room() {
        return Err(AddError::Full);
    }
    // Nearly all are like this.
    let head = ring.next_head();
    preset(frames, head, slots.next_tag(head), command, defects);
    let [first, answer] = ends(frames, head);
    let (buffers, extra) = if reads { ([first, answer, data], 0) } else { ([first, data, answer], data.len) };
    ring.add(buffers, extra)
}

/// Writes a command's head, and an answer that no device gives.
#[inline]
fn preset(frames: &Frames, head: u16, tag: Tag, command: &Command, defects: Defects) {
    let id = if defects.has(Defect::SameTag) { 0 } else { tag.to_bits() };
    frames.write(
        head,
        frame::HEAD,
        CommandHead {
            lun: unit(command.address(), defects),
            // Unique among all commands in flight on all queues: hosts tell commands apart by it.
            id: id.into(),
            task_attribute: 0,
            priority: 0,
            crn: 0,
            cdb: *command.cdb().padded(),
        },
    );
    let untouched = CommandAnswer {
        sense_len: 0.into(),
        residual: 0.into(),
        status_qualifier: 0.into(),
        status: 0,
        response: ResponseCode::UNTOUCHED.0,
    };
    if !defects.has(Defect::StatusNotPreset) {
        frames.write(head, frame::ANSWER, untouched);
    }
}

/// The buffers of the head and of the answer.
#[inline]
const fn ends(frames: &Frames, head: u16) -> [Buffer; 2] {
    [
        Buffer { addr: frames.addr(head, frame::HEAD), len: COMMAND_HEAD_BYTES as u32, writable: false },
        Buffer { addr: frames.addr(head, frame::ANSWER), len: ANSWER_BYTES as u32, writable: true },
    ]
}

/// As [`add`], of a command with any number of pieces.
fn add_any(state: &mut QueueState<Slot>, command: &Command, defects: Defects) -> Result<u16, AddError> {
    let QueueState { ring, frames, slots, .. } = state;
    let pieces = command.pieces();
    let mut chain = ring.chain(u16::try_from(pieces.len()).unwrap_or(u16::MAX - 2).saturating_add(2))?;
    let head = chain.head();
    preset(frames, head, slots.next_tag(head), command, defects);
    let [first, answer] = ends(frames, head);
    let writable = command.direction() == Direction::In;
    chain.push(first);
    if writable {
        chain.push(answer);
    }
    for piece in pieces {
        let segment = piece.segment();
        chain.push(Buffer { addr: segment.addr, len: segment.len, writable });
        if !writable {
            chain.counts_readable(segment.len);
        }
    }
    if !writable {
        chain.push(answer);
    }
    chain.finish()
}
