//! A request's way to the device. Any context.

use core::mem::offset_of;

use undercroft_block::{Op, Refusal, Rejected, Request, Tag};
use zerocopy::little_endian::U64;
use zerocopy::{Immutable, IntoBytes};

use super::protocol::{Blk, Slot, frame};
use super::wire::{Header, ID_BYTES, Range, RequestStatus, RequestType};
use crate::defect::{Defect, Defects};
use crate::device::{Device, Frames, QueueState};
use crate::queue::{AddError, Buffer};

#[cold]
fn refuse(request: Request, why: Refusal) -> Rejected {
    Rejected { request, why }
}

/// Puts a request on queue `index`.
pub(super) fn submit(device: &Device<Blk>, index: usize, request: Request) -> Result<Tag, Rejected> {
    if let Err(error) = device.protocol.check(&request) {
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

/// What a frame begins with before the device has it: the header, and a status that no device writes.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Preset {
    header: Header,
    status: U64,
}

const _: () =
    assert!(offset_of!(Preset, status) == frame::STATUS - frame::HEADER && size_of::<Preset>() <= frame::DATA);

#[inline]
fn preset(frames: &Frames, head: u16, header: Header, defects: Defects) {
    if defects.has(Defect::StatusNotPreset) {
        return frames.write(head, frame::HEADER, header);
    }
    frames.write(head, frame::HEADER, Preset { header, status: u64::from(RequestStatus::UNTOUCHED.0).into() });
}

/// Writes the request's frame and chain.
#[inline(always)]
fn add(state: &mut QueueState<Slot>, request: &Request, shift: u32, defects: Defects) -> Result<u16, AddError> {
    let kind = match request.op {
        Op::Read => RequestType::IN,
        Op::Write => RequestType::OUT,
        _ => return add_any(state, request, shift, defects),
    };
    let [piece] = request.data.pieces() else { return add_any(state, request, shift, defects) };
    let QueueState { ring, frames, .. } = state;
    let (sector, data) = (sector(request, shift, defects), piece.segment());
    if !ring.has_room() {
        return Err(AddError::Full);
    }
    // Nearly all are like this: header, data, status.
    let head = ring.next_head();
    preset(frames, head, Header { kind, reserved: 0.into(), sector: sector.into() }, defects);
    let [header, status] = ends(frames, head);
    ring.add([header, Buffer { addr: data.addr, len: data.len, writable: request.op == Op::Read }, status], 0)
}

#[inline]
fn sector(request: &Request, shift: u32, defects: Defects) -> u64 {
    let sector = request.lba << shift;
    if defects.has(Defect::CutsSectors) { sector & u64::from(u32::MAX) } else { sector }
}

/// The first and the last buffer of every chain.
#[inline]
const fn ends(frames: &Frames, head: u16) -> [Buffer; 2] {
    [
        Buffer { addr: frames.addr(head, frame::HEADER), len: size_of::<Header>() as u32, writable: false },
        Buffer { addr: frames.addr(head, frame::STATUS), len: 1, writable: true },
    ]
}

/// As [`add`], of a request of any kind.
fn add_any(state: &mut QueueState<Slot>, request: &Request, shift: u32, defects: Defects) -> Result<u16, AddError> {
    let QueueState { ring, frames, .. } = state;
    let pieces = request.data.pieces();
    let (kind, writable, ranged) = match request.op {
        Op::Read => (RequestType::IN, true, false),
        Op::Write => (RequestType::OUT, false, false),
        Op::Flush => (RequestType::FLUSH, false, false),
        Op::Discard => (RequestType::DISCARD, false, true),
        Op::WriteZeroes => (RequestType::WRITE_ZEROES, false, true),
    };
    let sector = sector(request, shift, defects);
    let mut chain = ring.chain(pieces.len() as u16 + if ranged { 3 } else { 2 })?;
    let head = chain.head();
    // Sector of a command without data, and of a flush, is zero (5.2.6).
    let at = if ranged || request.op == Op::Flush { 0 } else { sector };
    preset(frames, head, Header { kind, reserved: 0.into(), sector: at.into() }, defects);
    let [header, status] = ends(frames, head);
    chain.push(header);
    if ranged {
        let range = Range { sector: sector.into(), count: (request.blocks << shift).into(), flags: 0.into() };
        frames.write(head, frame::DATA, range);
        chain.push(Buffer { addr: frames.addr(head, frame::DATA), len: size_of::<Range>() as u32, writable: false });
    }
    for piece in pieces {
        let segment = piece.segment();
        chain.push(Buffer { addr: segment.addr, len: segment.len, writable });
    }
    chain.push(status);
    chain.finish()
}

/// Asks for the serial number and kicks the device. On a queue that nobody else uses yet.
pub(super) fn identify(device: &Device<Blk>) {
    let Some(queue) = device.queue(0) else { return };
    let mut state = queue.state.lock();
    let QueueState { ring, frames, slots, .. } = &mut *state;
    if let Ok(mut chain) = ring.chain(3) {
        let head = chain.head();
        let header = Header { kind: RequestType::GET_ID, reserved: 0.into(), sector: 0.into() };
        preset(frames, head, header, Defects::default());
        let [header, status] = ends(frames, head);
        let data = Buffer { addr: frames.addr(head, frame::DATA), len: ID_BYTES as u32, writable: true };
        [header, data, status].into_iter().for_each(|buffer| chain.push(buffer));
        if let Ok(head) = chain.finish() {
            slots.put(head, Slot::Identify);
        }
    }
    drop(state);
    queue.commit();
}
