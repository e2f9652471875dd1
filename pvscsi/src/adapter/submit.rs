//! A command's way to the device. Any context.

use undercroft_block::scsi::{Command, Direction, Refused};
use undercroft_block::{Error, Refusal, Tag};
use undercroft_hal::cpu;
#[cfg(test)]
use undercroft_hal::dma::{DmaBuf, DmaConstraints};

use super::{Adapter, Life, State, context_of};
use crate::defect::{Defect, Defects};
use crate::outcome::reads_or_writes;
use crate::tables::{MAX_PIECES, SENSE};
use crate::wire::rings::{Request, RequestFlags, TAG_SIMPLE};

/// Bytes of one transfer at most: the driver's own limit.
pub(crate) const MAX_TRANSFER: u32 = 8 << 20;

#[cold]
fn refuse(command: Command, why: Refusal) -> Refused {
    Refused { command, why }
}

impl Adapter {
    /// Puts a command on the request ring.
    pub(crate) fn submit(&self, command: Command, (max_target, max_lun): (u16, u32)) -> Result<Tag, Refused> {
        let address = command.address();
        if address.target > max_target || address.lun.number() > max_lun {
            return Err(refuse(command, Refusal::Invalid(Error::OutOfRange)));
        }
        let bytes = command.bytes();
        if command.pieces().len() > MAX_PIECES || bytes > u64::from(MAX_TRANSFER) {
            return Err(refuse(command, Refusal::Invalid(Error::TooLarge)));
        }
        #[cfg(test)]
        if self.defects.has(Defect::AllocatesPerCommand) && DmaBuf::new(64, DmaConstraints::ANY).is_err() {
            return Err(refuse(command, Refusal::Gone(Error::NoMemory)));
        }
        let mut state = self.state.lock();
        let room = match state.life {
            Life::Running => !state.in_flight.is_full(),
            Life::Resetting | Life::Quiet => false,
            Life::Stopping => return Err(refuse(command, Refusal::Gone(Error::Reset))),
            Life::Dead(error) => return Err(refuse(command, Refusal::Gone(error))),
        };
        if !room {
            #[cfg(test)]
            if self.defects.has(Defect::NotesRefusalLate) {
                drop(state);
                self.state.lock().starved = true;
                return Err(refuse(command, Refusal::Full));
            }
            // With the lock held: the end of the last command in flight sees it.
            state.starved = true;
            drop(state);
            return Err(refuse(command, Refusal::Full));
        }
        #[cfg(test)]
        if self.defects.has(Defect::ProducerUnlocked) {
            let place = state.rings.written();
            drop(state);
            state = self.state.lock();
            state.rings.rewind(place);
        }
        match state.in_flight.insert(command) {
            Ok(tag) => {
                add(&mut state, tag, bytes, self.defects);
                Ok(tag)
            }
            Err(command) => Err(refuse(command, Refusal::Full)),
        }
    }
}

/// Writes the request of a command that was just put in flight.
#[inline]
fn add(state: &mut State, tag: Tag, bytes: u64, defects: Defects) {
    let State { rings, tables, in_flight, .. } = state;
    let Some(command) = in_flight.get(tag) else { return };
    let pieces = command.pieces();
    let mut flags = match command.direction() {
        Direction::None => RequestFlags::NO_DATA,
        Direction::In => RequestFlags::TO_HOST,
        Direction::Out => RequestFlags::TO_DEVICE,
    };
    let data_addr = match pieces {
        [] => 0,
        [piece] => piece.segment().addr,
        pieces => {
            flags |= RequestFlags::SG_LIST;
            tables.fill(tag.index(), pieces)
        }
    };
    let (address, cdb) = (command.address(), command.cdb());
    let mut lun = address.lun.to_bytes();
    if defects.has(Defect::OneByteLun) {
        lun[0] = 0;
    }
    let request = Request {
        context: context_of(tag).into(),
        data_addr: data_addr.into(),
        data_len: bytes.into(),
        sense_addr: tables.sense_addr(tag.index()).into(),
        sense_len: (SENSE as u32).into(),
        flags: flags.bits().into(),
        cdb: *cdb.padded(),
        cdb_len: cdb.bytes().len() as u8,
        lun,
        tag: TAG_SIMPLE,
        bus: 0,
        target: address.target as u8,
        cpu: cpu::current() as u8,
        reserved: [0; 3],
    };
    rings.write(request, reads_or_writes(cdb.opcode()));
}
