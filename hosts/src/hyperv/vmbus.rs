//! The VMBus server: versions, offers, GPADLs, opening and closing, rescinding, unloading.

use super::channel::Channel;
use super::consts::{feature, message, nt};
use super::gpadl::{BODY_DATA, Gpadl};
use super::guest::{u16_at, u32_at, u64_at};
use super::hypercalls::{CONTACT_CONNECTION, MESSAGE_CONNECTION};
use super::messages::{Offer, words};
use super::{Breach, Event, Guest, Hyperv};

/// The SINT that VMBus uses.
pub(super) const SINT: u8 = 2;
const FIRST_WITH_CONNECTION_ID: u32 = 0x0005_0000;
const FIRST_WITH_FEATURES: u32 = 0x0006_0000;
const FIRST_WITH_TARGET: u32 = 0x0003_0000;
const FIRST_WITH_MODIFY: u32 = 0x0004_0001;
/// The versions that there are, of those that use event flags.
const VERSIONS: [u32; 9] = [
    0x0002_0004,
    0x0003_0000,
    0x0004_0000,
    0x0004_0001,
    0x0005_0000,
    0x0005_0001,
    0x0005_0002,
    0x0005_0003,
    0x0006_0000,
];

/// What was agreed.
#[derive(Debug)]
pub(super) struct Connection {
    pub version: u32,
    pub features: u32,
    offers_sent: bool,
}

impl Hyperv {
    /// Takes a message that the guest posted.
    pub(super) fn receive(&mut self, guest: &dyn Guest, vp: u32, connection: u32, bytes: &[u8]) {
        let _ = vp;
        if let Err(breach) = self.handle(guest, connection, bytes) {
            self.breaches.push(breach);
        }
        self.step(guest);
    }

    fn handle(&mut self, guest: &dyn Guest, connection: u32, bytes: &[u8]) -> Result<(), Breach> {
        let kind = u32_at(bytes, 0);
        let size = |right: bool| if right { Ok(()) } else { Err(Breach::MessageSize(kind, bytes.len() as u32)) };
        size(bytes.len() >= 8)?;
        if u32_at(bytes, 4) != 0 {
            return Err(Breach::HypercallParameter("a message whose second word is not zero"));
        }
        if kind == message::CONTACT {
            return self.contact(guest, connection, bytes);
        }
        if connection != MESSAGE_CONNECTION {
            return Err(Breach::PostConnection(connection));
        }
        let Some((version, features)) = self.agreed() else { return Err(Breach::BeforeContact(kind)) };
        let right = match kind {
            message::REQUEST_OFFERS | message::UNLOAD => bytes.len() == 8,
            message::CLOSE | message::RELID_RELEASED => bytes.len() == 12,
            message::TEARDOWN => bytes.len() == 16,
            message::MODIFY if version >= FIRST_WITH_MODIFY => bytes.len() == 16,
            message::GPADL_HEADER => bytes.len() >= 28 && bytes.len() % 8 == 4,
            message::GPADL_BODY => bytes.len() >= 24 && bytes.len().is_multiple_of(8),
            message::OPEN => {
                let long = features & (feature::SIGNAL_PARAMETERS | feature::REDIRECTION) != 0;
                bytes.len() == if long { 156 } else { 148 }
            }
            _ => return Err(Breach::UnknownMessage(kind)),
        };
        size(right)?;
        let id = u32_at(bytes, 8);
        match kind {
            message::REQUEST_OFFERS => self.request_offers(guest),
            message::UNLOAD => {
                self.disconnect(guest);
                self.tell(guest, words(message::UNLOADED, &[]));
                Ok(())
            }
            // Its channel word is a sequence number: only the handle counts.
            message::GPADL_BODY => self.gpadl_body(guest, bytes),
            _ if self.channels.get(&id).is_none_or(|channel| !channel.offered) => Err(Breach::NoSuchChannel(kind, id)),
            message::GPADL_HEADER => self.gpadl_header(guest, id, bytes),
            message::TEARDOWN => self.teardown(guest, id, u32_at(bytes, 12)),
            message::OPEN => self.open(guest, id, bytes),
            message::CLOSE => self.close(guest, id),
            message::RELID_RELEASED => self.released(guest, id),
            _ => self.modify(guest, id, u32_at(bytes, 12), version),
        }
    }

    fn contact(&mut self, guest: &dyn Guest, connection: u32, bytes: &[u8]) -> Result<(), Breach> {
        let (version, target, word) = (u32_at(bytes, 8), u32_at(bytes, 12), u64_at(bytes, 16));
        let asked = if version >= FIRST_WITH_FEATURES { u32_at(bytes, 20) } else { 0 };
        let whole = if asked & feature::CLIENT_ID != 0 { 56 } else { 40 };
        if bytes.len() != whole {
            return Err(Breach::MessageSize(message::CONTACT, bytes.len() as u32));
        }
        let wrong = |what| Err(Breach::Contact(what));
        let late = version >= FIRST_WITH_CONNECTION_ID;
        if connection == CONTACT_CONNECTION && !late {
            return wrong("a version before 5.0 on the later versions' connection");
        }
        if target != 0 && version < FIRST_WITH_TARGET || target as usize >= self.vps.len() {
            return wrong("a target processor that there is not");
        }
        let mut sint = SINT;
        if late && connection == CONTACT_CONNECTION {
            sint = word as u8;
            if sint == 0 || sint > 15 || word >> 8 & 0xff != 0 || word >> 16 & 0xffff != 0 {
                return wrong("an interrupt source or trust level that there is not");
            }
        }
        if late && version < FIRST_WITH_FEATURES && word >> 32 != 0 {
            return wrong("features in a version that has none");
        }
        if (u64_at(bytes, 24) == 0) != (u64_at(bytes, 32) == 0) {
            return wrong("one monitor page");
        }
        // On a live connection this ends it first.
        self.disconnect(guest);
        self.messages_to = (target, sint);
        let supported = VERSIONS.contains(&version) && version <= self.knobs.version;
        if !supported {
            self.tell(guest, words(message::VERSION, &[0, 0]));
            return Ok(());
        }
        if self.knobs.refuses_contact != 0 {
            self.tell(guest, words(message::VERSION, &[1 | u32::from(self.knobs.refuses_contact) << 8, 0]));
            return Ok(());
        }
        let features = asked & self.knobs.features;
        self.connection = Some(Connection { version, features, offers_sent: false });
        let selected = if late { MESSAGE_CONNECTION } else { version };
        let mut response = words(message::VERSION, &[1, selected]);
        if version >= FIRST_WITH_FEATURES {
            response.extend(features.to_le_bytes());
        }
        self.tell(guest, response);
        Ok(())
    }

    /// Forgets all that a connection made. Its channels are no more; their devices are there for the next one.
    fn disconnect(&mut self, guest: &dyn Guest) {
        self.channels.values_mut().for_each(Channel::shut);
        for id in self.channels.keys().copied().collect::<Vec<_>>() {
            self.settle(guest, id);
        }
        self.connection = None;
        self.late.clear();
        self.coming.clear();
        self.asked.clear();
        self.channels.clear();
        for index in 0..self.controllers.len() {
            self.controllers[index].reset();
            if !self.controllers[index].gone {
                self.new_channel(Some(index), 0);
            }
        }
    }

    /// Makes a channel, with the lowest number that is free.
    pub(super) fn new_channel(&mut self, controller: Option<usize>, sub_index: u16) -> u32 {
        let id = (1..).find(|id| !self.channels.contains_key(id)).unwrap_or(u32::MAX);
        self.channels.insert(id, Channel::new(id, controller, sub_index));
        id
    }

    fn request_offers(&mut self, guest: &dyn Guest) -> Result<(), Breach> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        if std::mem::replace(&mut connection.offers_sent, true) {
            return Err(Breach::OffersTwice);
        }
        for id in self.channels.keys().copied().collect::<Vec<_>>() {
            self.offer(guest, id);
        }
        self.tell(guest, words(message::ALL_OFFERS, &[]));
        Ok(())
    }

    /// Offers a channel, if the guest has asked for offers.
    pub(super) fn offer(&mut self, guest: &dyn Guest, id: u32) {
        if !self.connection.as_ref().is_some_and(|connection| connection.offers_sent) {
            return;
        }
        let Some(channel) = self.channels.get_mut(&id) else { return };
        channel.offered = true;
        let Some(controller) = channel.controller.and_then(|index| self.controllers.get(index)) else { return };
        let bytes = Offer {
            interface: controller.interface(),
            instance: controller.instance,
            user: controller.user_bytes(),
            sub_index: channel.sub_index,
            channel: id,
            signal: id | u32::from(self.messages_to.1) << 12,
        };
        self.tell(guest, bytes.bytes());
    }

    fn gpadl_header(&mut self, guest: &dyn Guest, id: u32, bytes: &[u8]) -> Result<(), Breach> {
        let handle = u32_at(bytes, 12);
        if handle == 0 || self.channels.values().any(|channel| channel.gpadls.contains_key(&handle)) {
            return Err(Breach::Gpadl("a handle that is zero or in use"));
        }
        let gpadl = Gpadl::new(u16_at(bytes, 16), u16_at(bytes, 18), &bytes[20..]);
        self.made(guest, id, handle, gpadl)
    }

    fn gpadl_body(&mut self, guest: &dyn Guest, bytes: &[u8]) -> Result<(), Breach> {
        let handle = u32_at(bytes, 12);
        let channel = self.channels.values_mut().find(|channel| channel.gpadls.contains_key(&handle));
        let Some(channel) = channel else { return Err(Breach::Gpadl("a body without a header")) };
        let id = channel.id;
        let Some(mut gpadl) = channel.gpadls.remove(&handle) else { return Ok(()) };
        let result = gpadl.add(&bytes[16..], BODY_DATA);
        self.made(guest, id, handle, result.map(|()| gpadl))
    }

    /// Keeps a list; once it is whole, or wrong, the guest is told.
    fn made(&mut self, guest: &dyn Guest, id: u32, handle: u32, gpadl: Result<Gpadl, Breach>) -> Result<(), Breach> {
        let Some(channel) = self.channels.get_mut(&id) else { return Ok(()) };
        let (status, result) = match gpadl {
            Ok(gpadl) if !gpadl.whole => {
                channel.gpadls.insert(handle, gpadl);
                return Ok(());
            }
            Ok(gpadl) if self.knobs.refuses_gpadl == 0 => {
                channel.gpadls.insert(handle, gpadl);
                (0, Ok(()))
            }
            Ok(_) => (self.knobs.refuses_gpadl, Ok(())),
            Err(breach) => (nt::INVALID_PARAMETER, Err(breach)),
        };
        self.tell(guest, words(message::GPADL_CREATED, &[id, handle, status]));
        result
    }

    fn teardown(&mut self, guest: &dyn Guest, id: u32, handle: u32) -> Result<(), Breach> {
        let Some(channel) = self.channels.get_mut(&id) else { return Ok(()) };
        if channel.open.as_ref().is_some_and(|open| open.gpadl == handle) {
            return Err(Breach::Gpadl("torn down while its channel is open"));
        }
        let Some(gpadl) = channel.gpadls.get_mut(&handle) else { return Err(Breach::Gpadl("torn down unknown")) };
        if gpadl.torn_down.is_some() {
            return Err(Breach::Gpadl("torn down twice"));
        }
        gpadl.torn_down = Some(guest.now() + self.knobs.torn_down_after);
        self.end_gpadls(guest);
        Ok(())
    }

    /// Tells the end of GPADLs whose time has come.
    pub(super) fn end_gpadls(&mut self, guest: &dyn Guest) -> bool {
        let now = guest.now();
        let due = |channel: &Channel| {
            let ended = channel.gpadls.iter().filter(|(_, gpadl)| gpadl.torn_down.is_some_and(|at| at <= now));
            ended.map(|(handle, _)| (channel.id, *handle)).collect::<Vec<_>>()
        };
        let ended: Vec<_> = self.channels.values().flat_map(due).collect();
        for &(id, handle) in &ended {
            self.settle(guest, id);
            if let Some(channel) = self.channels.get_mut(&id) {
                channel.gpadls.remove(&handle);
            }
            self.tell(guest, words(message::TORNDOWN, &[handle]));
        }
        !ended.is_empty()
    }

    /// Counts a step, and does what is to happen after it.
    pub(super) fn step(&mut self, guest: &dyn Guest) {
        self.counts.steps += 1;
        for event in self.faults.events.next().unwrap_or_default() {
            match event {
                Event::Rescind(id) => self.rescind(guest, id),
                Event::Reoffer(id) => self.rescind_and_reoffer(guest, id),
                Event::Stray(stray) => self.stray(guest, stray),
                Event::Enumerate(controller) => self.enumerate(controller),
                Event::Resize(controller, sectors) => self.resize(controller, 0, 0, sectors),
                Event::Attention(controller) => self.attention(controller),
            }
        }
    }
}
