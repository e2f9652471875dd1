//! Ending commands that do not end by themselves. Task or bottom-half context, no lock held.
//!
//! The protocol has no way to abort one command; what is overdue is looked for again, in case that a signal was lost. Hosts answer resets of units and of the bus without ending anything; what always works
//! is closing the channels, after which the host has let go, and opening them again.

use undercroft_block::scsi::{Address, Managed, Management};
use undercroft_block::{Error, Tag};
use undercroft_hal::sync::assert_unlocked;

use super::lane::{Lane, Life, Slot, State};
use super::packet::{self, Unit};
use super::{Ask, Controller};
use crate::defect::Defect;
use crate::wire::ring::{PacketFlags, PacketType};
use crate::wire::vstor::Operation;

impl Controller {
    pub(crate) fn manage(&self, what: Management) -> Managed {
        assert_unlocked("a controller is asked to end commands");
        match what {
            Management::Abort(tag) => {
                let lane = self.lanes.get(usize::from(tag.queue()));
                lane.map_or(Managed::NoCommand, |lane| self.look_again(lane, tag))
            }
            Management::ResetUnit(address) => self.reset_by(Operation::RESET_LUN, address),
            Management::ResetBus => self.reset_by(Operation::RESET_BUS, Address::default()),
            Management::ResetHost => self.reset_all(),
        }
    }

    /// A command is overdue. It cannot be aborted; but perhaps the host was not woken for it, or nobody here for its answer: both sides look at
    /// their rings again.
    fn look_again(&self, lane: &Lane, tag: Tag) -> Managed {
        let mut state = lane.state.lock();
        if state.slots.get(tag).is_none() {
            return Managed::NoCommand;
        }
        let State { rings: Some(rings), life: Life::Running, .. } = &mut *state else { return Managed::Unsupported };
        if self.defects.has(Defect::LooksOnce) {
            return Managed::Unsupported;
        }
        let connection = rings.connection;
        let _due = rings.up.publish();
        drop(state);
        lane.work.schedule();
        self.signal(connection, true);
        Managed::Asked
    }

    /// Sends a reset on the first channel. Its answer says only that the host has heard.
    fn reset_by(&self, operation: Operation, address: Address) -> Managed {
        let unit: Unit = self.place.unit(address);
        // What is ended must be known to the host.
        self.lanes.iter().for_each(|lane| {
            let mut state = lane.state.lock();
            if state.life != Life::Running {
                return;
            }
            let Some(rings) = &mut state.rings else { return };
            let (connection, due) = (rings.connection, rings.up.publish());
            drop(state);
            self.signal(connection, due);
        });
        let mut state = self.lanes[0].state.lock();
        if state.life != Life::Running {
            return Managed::Refused;
        }
        let Ok(tag) = state.slots.insert(Slot::Management) else { return Managed::Refused };
        let packet = packet::reset(operation, unit);
        let Some(rings) = &mut state.rings else { return Managed::Refused };
        let head = (PacketType::IN_BAND, PacketFlags::COMPLETION_WANTED, tag.to_bits());
        if packet::write_in_band(&mut rings.up, head, &packet[..self.version().packet_bytes()]).is_err() {
            state.slots.free(tag);
            return Managed::Refused;
        }
        let (connection, due) = (rings.connection, rings.up.publish());
        drop(state);
        self.signal(connection, due);
        Managed::Asked
    }

    /// Has the keeper close the channels and open them again.
    fn reset_all(&self) -> Managed {
        if self.end.lock().is_some_and(|end| matches!(end, Error::Removed | Error::Broken)) {
            return Managed::Refused;
        }
        for lane in &self.lanes {
            let mut state = lane.state.lock();
            match state.life {
                Life::Running => state.life = Life::Closing,
                Life::Vacant => {}
                Life::Starting | Life::Closing | Life::Draining(_) => return Managed::Refused,
            }
        }
        self.ask(Ask::RESET);
        Managed::Asked
    }
}
