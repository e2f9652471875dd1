//! A command's way to the host. Any context.

use core::sync::atomic::Ordering;

use undercroft_block::scsi::{Address, Command, Refused};
use undercroft_block::{Error, Refusal, Tag};
#[cfg(test)]
use undercroft_hal::dma::{DmaBuf, DmaConstraints};

use super::lane::{Life, Slot, State};
use super::packet::{self, Range, Unit};
use super::{Controller, Counters, Place};
use crate::defect::Defect;
use crate::ring::NoRoom;
use crate::wire::ring::{PacketFlags, PacketType};
use crate::wire::vstor::Version;

/// What a host takes at most; fixed when it was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) max_target: u16,
    pub(crate) max_lun: u32,
    pub(crate) max_transfer: u32,
    pub(crate) version: Version,
}

#[cold]
fn refuse(command: Command, why: Refusal) -> Refused {
    Refused { command, why }
}

impl Place {
    /// Where a unit is, as the packets say it.
    pub(super) fn unit(self, address: Address) -> Unit {
        let lun = address.lun.number() as u8;
        match self {
            Self::Scsi => Unit { path: 0, target: address.target as u8, lun },
            Self::Ide(path, target) => Unit { path, target, lun },
        }
    }
}

impl Controller {
    /// Puts a command on the ring of this CPU's channel.
    pub(crate) fn submit(&self, command: Command, bounds: Bounds) -> Result<Tag, Refused> {
        let address = command.address();
        if address.target > bounds.max_target || address.lun.number() > bounds.max_lun {
            return Err(refuse(command, Refusal::Invalid(Error::OutOfRange)));
        }
        let range = match command.pieces() {
            [] => None,
            pieces => match Range::of(pieces, self.defects.has(Defect::IgnoresHoles)) {
                Some(range) if range.length <= bounds.max_transfer => Some(range),
                _ => return Err(refuse(command, Refusal::Invalid(Error::TooLarge))),
            },
        };
        #[cfg(test)]
        if self.defects.has(Defect::AllocatesPerCommand) && DmaBuf::new(64, DmaConstraints::ANY).is_err() {
            return Err(refuse(command, Refusal::Gone(Error::NoMemory)));
        }
        let lane = self.lane_here();
        let mut state = lane.state.lock();
        if state.life != Life::Running {
            // With the lock held: whoever opens it sees it.
            state.starved = true;
            drop(state);
            return Err(refuse(command, self.end.lock().map_or(Refusal::Full, Refusal::Gone)));
        }
        if state.slots.len() >= usize::from(self.settings.depth) {
            if !self.defects.has(Defect::ForgetsRefusal) {
                state.starved = true;
            }
            drop(state);
            return Err(refuse(command, Refusal::Full));
        }
        // Its number first: the packet carries it. The command follows when the packet is written.
        let Ok(tag) = state.slots.insert(Slot::Management) else { return Err(refuse(command, Refusal::Full)) };
        let written = self.write(&mut state, tag, (&command, range), bounds.version);
        let Some(rings) = &mut state.rings else { return Err(refuse(command, Refusal::Full)) };
        let connection = rings.connection;
        let Err(error) = written else {
            if let Some(slot) = state.slots.get_mut(tag) {
                *slot = Slot::Command(command);
            }
            // Another lane may have become this CPU's, and `commit` will look there.
            let elsewhere = !core::ptr::eq(self.lane_here(), lane);
            let due = elsewhere && state.rings.as_mut().is_some_and(|rings| rings.up.publish());
            drop(state);
            self.signal(connection, due);
            return Ok(tag);
        };
        // What is written already must be on its way: it is its end that makes room.
        let due = rings.up.publish();
        state.slots.free(tag);
        let why = self.no_room(&mut state, error);
        drop(state);
        self.signal(connection, due);
        Err(refuse(command, why))
    }

    /// Writes the packet of a command.
    #[inline]
    fn write(
        &self,
        state: &mut State,
        tag: Tag,
        (command, range): (&Command, Option<Range>),
        version: Version,
    ) -> Result<(), NoRoom> {
        let Some(rings) = &mut state.rings else { return Err(NoRoom::Full) };
        let transaction = if self.defects.has(Defect::SameTransaction) { 1 } else { tag.to_bits() };
        let transfer = range.map_or(0, |range| range.length);
        let unit = self.place.unit(command.address());
        let vstor = packet::command(unit, command.cdb(), command.direction(), transfer, version);
        let vstor = &vstor[..version.packet_bytes()];
        match range {
            Some(range) => packet::write_direct(&mut rings.up, transaction, (range, command.pieces()), vstor),
            None => {
                let head = (PacketType::IN_BAND, PacketFlags::COMPLETION_WANTED, transaction);
                packet::write_in_band(&mut rings.up, head, vstor)
            }
        }
    }

    /// Notes that a packet was not written.
    #[cold]
    fn no_room(&self, state: &mut State, error: NoRoom) -> Refusal {
        match error {
            NoRoom::TooLong => return Refusal::Invalid(Error::TooLarge),
            NoRoom::Full => {
                Counters::count(&self.counters.full);
                if !self.defects.has(Defect::ForgetsRefusal) {
                    state.starved = true;
                }
            }
            NoRoom::Broken(breach) => {
                state.starved = true;
                self.breach(state, &breach);
            }
        }
        Refusal::Full
    }

    /// Starts what was submitted on this CPU's channel.
    #[inline]
    pub(crate) fn commit(&self) {
        let mut state = self.lane_here().state.lock();
        // Commands that are sent as others end get one signal for the whole batch, at its end.
        if state.serving || state.life != Life::Running {
            return;
        }
        let Some(rings) = &mut state.rings else { return };
        let (connection, due) = (rings.connection, rings.up.publish());
        drop(state);
        self.signal(connection, due);
    }

    /// Commands in flight, over all lanes.
    pub(crate) fn open_lanes(&self) -> u16 {
        self.open.load(Ordering::Acquire)
    }
}
