//! A request's way to the device. Any context.

use undercroft_block::{Op, Refusal, Rejected, Request, Tag};

use super::protocol::{Blk, Slot, frame};
use super::wire::{Header, ID_BYTES, Range, RequestStatus, RequestType};
use crate::defect::{Defect, Defects};
use crate::device::{Device, QueueState};
use crate::queue::{AddError, Buffer};

#[cold]
fn refuse(request: Request, why: Refusal) -> Rejected {
    Rejected { request, why }
}

/// Puts a request on queue `index`.
pub(super) fn submit(device: &Device<Blk>, index: usize, request: Request) -> Result<Tag, Rejected> {
    if let Err(error) = request.check(&device.protocol.info()) {
        return Err(refuse(request, Refusal::Invalid(error)));
    }
    let (queue, mut state) = match device.admit(index) {
        Ok(admitted) => admitted,
        Err(why) => return Err(refuse(request, why)),
    };
    if request.op == Op::Flush && (!device.protocol.flushes() || device.defects.has(Defect::FakesFlush)) {
        // Nothing is cached: what was written is durable. The completion still comes from the bottom half.
        if !state.has_room_without_device() {
            state.starved = true;
            return Err(refuse(request, Refusal::Full));
        }
        state.finish_without_device(Slot::Request(request.accept()));
        drop(state);
        queue.work.schedule();
        return Ok(Tag::from_bits(0));
    }
    match add(&mut state, &request, device.protocol.shift, device.defects) {
        Ok(head) => Ok(state.slots.put(head, Slot::Request(request.accept()))),
        Err(error) => {
            let why = state.refusal(error);
            drop(state);
            Err(refuse(request, why))
        }
    }
}

/// Writes the request's frame and chain.
#[inline]
fn add(state: &mut QueueState<Slot>, request: &Request, shift: u32, defects: Defects) -> Result<u16, AddError> {
    let QueueState { ring, frames, .. } = state;
    let pieces = request.data.pieces();
    let (kind, writable, ranged) = match request.op {
        Op::Read => (RequestType::IN, true, false),
        Op::Write => (RequestType::OUT, false, false),
        Op::Flush => (RequestType::FLUSH, false, false),
        Op::Discard => (RequestType::DISCARD, false, true),
        Op::WriteZeroes => (RequestType::WRITE_ZEROES, false, true),
    };
    let mut sector = request.lba << shift;
    if defects.has(Defect::CutsSectors) {
        sector &= u64::from(u32::MAX);
    }
    let mut chain = ring.chain(pieces.len() as u16 + if ranged { 3 } else { 2 })?;
    let head = chain.head();
    // Sector of a command without data, and of a flush, is zero (5.2.6).
    let at = if ranged || request.op == Op::Flush { 0 } else { sector };
    frames.write(head, frame::HEADER, Header { kind, reserved: 0.into(), sector: at.into() });
    if !defects.has(Defect::StatusNotPreset) {
        frames.write(head, frame::STATUS, RequestStatus::UNTOUCHED.0);
    }
    chain.push(Buffer { addr: frames.addr(head, frame::HEADER), len: size_of::<Header>() as u32, writable: false });
    if ranged {
        let range = Range { sector: sector.into(), count: (request.blocks << shift).into(), flags: 0.into() };
        frames.write(head, frame::DATA, range);
        chain.push(Buffer { addr: frames.addr(head, frame::DATA), len: size_of::<Range>() as u32, writable: false });
    }
    for piece in pieces {
        let segment = piece.segment();
        chain.push(Buffer { addr: segment.addr, len: segment.len, writable });
    }
    chain.push(Buffer { addr: frames.addr(head, frame::STATUS), len: 1, writable: true });
    chain.finish()
}

/// Asks for the serial number and kicks the device. On a queue that nobody else uses yet.
pub(super) fn identify(device: &Device<Blk>) {
    let Some(queue) = device.queue(0) else { return };
    let mut state = queue.state.lock();
    let QueueState { ring, frames, slots, .. } = &mut *state;
    if let Ok(mut chain) = ring.chain(3) {
        let head = chain.head();
        frames.write(head, frame::HEADER, Header { kind: RequestType::GET_ID, reserved: 0.into(), sector: 0.into() });
        frames.write(head, frame::STATUS, RequestStatus::UNTOUCHED.0);
        for (offset, len, writable) in
            [(frame::HEADER, size_of::<Header>(), false), (frame::DATA, ID_BYTES, true), (frame::STATUS, 1, true)]
        {
            chain.push(Buffer { addr: frames.addr(head, offset), len: len as u32, writable });
        }
        if let Ok(head) = chain.finish() {
            slots.put(head, Slot::Identify);
        }
    }
    drop(state);
    queue.commit();
}
