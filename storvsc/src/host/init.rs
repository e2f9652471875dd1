//! The initialisation of a controller: versions, properties, sub-channels. Task context.

use core::sync::atomic::Ordering;

use undercroft_hal::Task;
use zerocopy::FromBytes;

use super::lane::{Life, Slot};
use super::packet::{Vstor, plain, with_number, write_in_band};
use super::{Agreed, Controller};
use crate::ProbeError;
use crate::bus::{PATIENCE, poll};
use crate::wire::ring::{PacketFlags, PacketType};
use crate::wire::vstor::{Head, MULTI_CHANNEL, Operation, Properties, REVISION_MISMATCH, Version};

fn status(answer: &Vstor) -> u32 {
    Head::ref_from_prefix(answer).map_or(u32::MAX, |(head, _)| head.status.get())
}

impl Controller {
    /// Sends a packet on the first channel and waits for its answer.
    fn step(&self, cx: &Task, packet: &Vstor) -> Result<Vstor, ProbeError> {
        let lane = &self.lanes[0];
        let (tag, connection, due) = {
            let mut state = lane.state.lock();
            if state.life != Life::Starting {
                return Err(self.why());
            }
            state.answer = None;
            let Ok(tag) = state.slots.insert(Slot::Step) else { return Err(ProbeError::Broken) };
            let Some(rings) = &mut state.rings else { return Err(self.why()) };
            let head = (PacketType::IN_BAND, PacketFlags::COMPLETION_WANTED, tag.to_bits());
            let packet = &packet[..self.version().packet_bytes()];
            write_in_band(&mut rings.up, head, packet).map_err(|_| ProbeError::Broken)?;
            (tag, rings.connection, rings.up.publish())
        };
        self.signal(connection, due);
        let mut answer = None;
        poll(cx, PATIENCE, || {
            let mut state = lane.state.lock();
            answer = state.answer.take_if(|(of, _)| *of == tag).map(|(_, answer)| answer);
            answer.is_some() || state.life != Life::Starting
        });
        match answer {
            Some(answer) => Ok(answer),
            None if lane.state.lock().life != Life::Starting => Err(self.why()),
            None => Err(ProbeError::NoAnswer),
        }
    }

    /// As [`Controller::step`], and the answer must be that it was done.
    fn must(&self, cx: &Task, operation: Operation, packet: &Vstor) -> Result<Vstor, ProbeError> {
        let answer = self.step(cx, packet)?;
        match status(&answer) {
            0 => Ok(answer),
            status => Err(ProbeError::Refused(operation, status)),
        }
    }

    fn version_of(&self, cx: &Task) -> Result<Version, ProbeError> {
        for version in Version::ALL.into_iter().filter(|version| *version <= self.settings.newest_storage) {
            let operation = Operation::QUERY_PROTOCOL_VERSION;
            let answer = self.step(cx, &with_number(operation, version.0))?;
            match status(&answer) {
                0 => {
                    // Packets have its length from here on.
                    self.version.store(version.0, Ordering::Relaxed);
                    return Ok(version);
                }
                REVISION_MISMATCH => {}
                status => log::debug!("storvsc: version {version} is refused with status {status:#x}"),
            }
        }
        Err(ProbeError::NoVersion)
    }

    /// Initialises the controller behind its first channel, which was just opened.
    pub(super) fn initialise(&self, cx: &Task) -> Result<Agreed, ProbeError> {
        // Before a version is agreed on, packets have the newest one's length.
        self.version.store(Version::WIN10.0, Ordering::Relaxed);
        self.must(cx, Operation::BEGIN_INITIALIZATION, &plain(Operation::BEGIN_INITIALIZATION))?;
        let version = self.version_of(cx)?;
        let answer = self.must(cx, Operation::QUERY_PROPERTIES, &plain(Operation::QUERY_PROPERTIES))?;
        let Ok((properties, _)) = Properties::ref_from_prefix(&answer[size_of::<Head>()..]) else {
            return Err(ProbeError::Broken);
        };
        let many = properties.flags.get() & MULTI_CHANNEL != 0 && version >= Version::WIN8;
        let most = if many { properties.max_sub_channels.get() } else { 0 };
        let wanted = most.min(self.lanes.len() as u16 - 1);
        let max_transfer = properties.max_transfer.get();
        self.must(cx, Operation::END_INITIALIZATION, &plain(Operation::END_INITIALIZATION))?;
        let mut sub_channels = 0;
        if wanted > 0 {
            // One channel is always enough.
            let answer = self.step(cx, &with_number(Operation::CREATE_SUB_CHANNELS, wanted))?;
            if status(&answer) == 0 {
                sub_channels = wanted;
            }
        }
        Ok(Agreed { version, max_transfer, sub_channels })
    }
}
