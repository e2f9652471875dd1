//! Channels opened, closed, rescinded, released.

use super::channel::{Channel, Open};
use super::consts::{feature, message, nt};
use super::guest::{u16_at, u32_at};
use super::messages::words;
use super::ring::{Incoming, Outgoing};
use super::{Breach, Guest, Hyperv};

/// A channel's target processor that means: no signals.
const NO_SIGNALS: u32 = u32::MAX;
const FIRST_WITH_MODIFIED: u32 = 0x0005_0003;

impl Hyperv {
    pub(super) fn open(&mut self, guest: &dyn Guest, id: u32, bytes: &[u8]) -> Result<(), Breach> {
        let (opened, status, result) = match self.opened(guest, id, bytes) {
            Ok(Some(_)) if self.knobs.refuses_open != 0 => (None, self.knobs.refuses_open, Ok(())),
            Ok(Some(open)) => (Some(open), nt::OK, Ok(())),
            // Rescinded meanwhile: no fault of the guest's.
            Ok(None) => (None, nt::UNSUCCESSFUL, Ok(())),
            Err(breach) => (None, nt::INVALID_PARAMETER, Err(breach)),
        };
        if let Some(channel) = self.channels.get_mut(&id)
            && opened.is_some()
        {
            channel.open = opened;
        }
        self.tell(guest, words(message::OPEN_RESULT, &[id, u32_at(bytes, 12), status]));
        result
    }

    fn opened(&mut self, guest: &dyn Guest, id: u32, bytes: &[u8]) -> Result<Option<Open>, Breach> {
        let features = self.agreed().map_or(0, |(_, features)| features);
        let signals: Vec<u32> = self.channels.values().filter_map(|c| c.open.as_ref().map(|o| o.signal)).collect();
        let Some(channel) = self.channels.get(&id).filter(|channel| !channel.rescinded) else { return Ok(None) };
        if channel.open.is_some() {
            return Err(Breach::ChannelState(message::OPEN, id));
        }
        let (handle, vp, start) = (u32_at(bytes, 16), u32_at(bytes, 20), u32_at(bytes, 24) as usize);
        let gpadl = channel.gpadls.get(&handle).filter(|gpadl| gpadl.whole && gpadl.torn_down.is_none());
        let Some(gpadl) = gpadl else { return Err(Breach::Open("a GPADL that there is not")) };
        if vp != NO_SIGNALS && vp as usize >= self.vps.len() {
            return Err(Breach::Open("a target processor that there is not"));
        }
        let (outgoing, incoming) = match gpadl.pages.split_at_checked(start) {
            Some((first, second)) if first.len() > 1 && second.len() > 1 => (first, second),
            _ => return Err(Breach::Open("a ring without a data page")),
        };
        let (mut signal, mut flag) = (id | u32::from(self.messages_to.1) << 12, id as u16);
        if features & feature::SIGNAL_PARAMETERS != 0 {
            (signal, flag) = (u32_at(bytes, 148), u16_at(bytes, 152));
            if flag >= 2048 || signal == 0 {
                return Err(Breach::Open("signal parameters that cannot be"));
            }
        }
        if signals.contains(&signal) {
            return Err(Breach::Open("the connection of another channel"));
        }
        Ok(Some(Open {
            gpadl: handle,
            vp: (vp != NO_SIGNALS).then_some(vp),
            flag,
            signal,
            incoming: Incoming::open(guest, id, outgoing)?,
            outgoing: Outgoing::open(guest, id, incoming)?,
            kicked: false,
            room: false,
            dead: false,
            taken: Vec::new(),
            outbox: std::collections::VecDeque::new(),
            unstick: self.knobs.unstick_after.map(|after| guest.now() + after),
        }))
    }

    pub(super) fn close(&mut self, guest: &dyn Guest, id: u32) -> Result<(), Breach> {
        let Some(channel) = self.channels.get_mut(&id) else { return Ok(()) };
        if channel.open.is_none() {
            // After a rescind the host has closed it already.
            let known = channel.rescinded;
            return if known { Ok(()) } else { Err(Breach::ChannelState(message::CLOSE, id)) };
        }
        channel.shut();
        let (controller, primary) = (channel.controller, channel.sub_index == 0);
        if let (Some(controller), true) = (controller, primary) {
            self.close_primary(guest, controller);
        }
        Ok(())
    }

    /// The primary is closed: its device is at the beginning again, and its sub-channels go.
    fn close_primary(&mut self, guest: &dyn Guest, controller: usize) {
        self.controllers[controller].reset();
        self.coming.retain(|(_, of, _)| *of != controller);
        let subs = |channel: &&Channel| channel.controller == Some(controller) && channel.sub_index != 0;
        for id in self.channels.values().filter(subs).map(|channel| channel.id).collect::<Vec<_>>() {
            self.rescind(guest, id);
        }
    }

    /// Rescinds a channel: it is used no more, and what it has in hand never completes.
    pub fn rescind(&mut self, guest: &dyn Guest, id: u32) {
        let Some(channel) = self.channels.get_mut(&id).filter(|channel| !channel.rescinded) else { return };
        channel.rescinded = true;
        channel.shut();
        let (offered, controller, primary) = (channel.offered, channel.controller, channel.sub_index == 0);
        if !offered {
            self.channels.remove(&id);
        }
        if let (Some(controller), true) = (controller, primary) {
            self.close_primary(guest, controller);
        }
        if offered {
            self.tell(guest, words(message::RESCIND, &[id]));
        }
    }

    /// Rescinds the primary channel `id`, and offers its device again once the guest has released it.
    pub fn rescind_and_reoffer(&mut self, guest: &dyn Guest, id: u32) {
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.reoffer = true;
        }
        self.rescind(guest, id);
    }

    pub(super) fn released(&mut self, guest: &dyn Guest, id: u32) -> Result<(), Breach> {
        let Some(channel) = self.channels.get(&id).filter(|channel| channel.rescinded) else {
            return Err(Breach::ChannelState(message::RELID_RELEASED, id));
        };
        if channel.gpadls.values().any(|gpadl| gpadl.torn_down.is_none()) {
            self.breaches.push(Breach::Gpadl("left over when its channel was released"));
        }
        let (controller, reoffer) = (channel.controller, channel.reoffer);
        self.settle(guest, id);
        self.channels.remove(&id);
        if reoffer && controller.is_some() {
            let id = self.new_channel(controller, 0);
            self.offer(guest, id);
        }
        Ok(())
    }

    pub(super) fn modify(&mut self, guest: &dyn Guest, id: u32, vp: u32, version: u32) -> Result<(), Breach> {
        let vps = self.vps.len();
        let Some(channel) = self.channels.get_mut(&id) else { return Ok(()) };
        let good = (vp as usize) < vps;
        let result = match &mut channel.open {
            Some(open) if good => {
                open.vp = Some(vp);
                Ok(())
            }
            // It may have been rescinded meanwhile.
            None if channel.rescinded => Ok(()),
            _ => Err(Breach::ChannelState(message::MODIFY, id)),
        };
        if version >= FIRST_WITH_MODIFIED {
            let status = if result.is_ok() { nt::OK } else { nt::INVALID_PARAMETER };
            self.tell(guest, words(message::MODIFIED, &[id, status]));
        }
        result
    }
}
