//! Messages to the guest: their bytes, and what goes wrong with them.

use super::consts::{guid, message, slot};
use super::synic::SlotMessage;
use super::{Guest, Hyperv, MessageFault, Stray};

/// A message of words.
pub(super) fn words(kind: u32, body: &[u32]) -> Vec<u8> {
    [kind, 0].iter().chain(body).flat_map(|word| word.to_le_bytes()).collect()
}

/// Puts a word into bytes that are long enough for it.
pub(super) fn patch(bytes: &mut [u8], at: u8, word: u32) {
    if let Some(place) = bytes.get_mut(usize::from(at)..).and_then(|rest| rest.first_chunk_mut()) {
        *place = word.to_le_bytes();
    }
}

/// An offer's parts.
pub(super) struct Offer {
    pub interface: [u8; 16],
    pub instance: [u8; 16],
    pub user: [u8; 120],
    pub sub_index: u16,
    pub channel: u32,
    pub signal: u32,
}

impl Offer {
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; 196];
        bytes[..4].copy_from_slice(&message::OFFER.to_le_bytes());
        bytes[8..24].copy_from_slice(&self.interface);
        bytes[24..40].copy_from_slice(&self.instance);
        bytes[60..180].copy_from_slice(&self.user);
        bytes[180..182].copy_from_slice(&self.sub_index.to_le_bytes());
        bytes[184..188].copy_from_slice(&self.channel.to_le_bytes());
        // No monitor, an interrupt of its own.
        bytes[188] = 0xff;
        bytes[190] = 1;
        bytes[192..].copy_from_slice(&self.signal.to_le_bytes());
        bytes
    }
}

impl Hyperv {
    /// Sends the guest a message, with what goes wrong with it.
    pub(super) fn tell(&mut self, guest: &dyn Guest, bytes: Vec<u8>) {
        let says = bytes.len() as u8;
        let mut message = SlotMessage { kind: slot::VMBUS, payload: bytes, says };
        let (mut due, mut times) = (0, 1);
        for fault in self.faults.messages.next().unwrap_or_default() {
            match fault {
                MessageFault::Delay(units) => due = guest.now() + units,
                MessageFault::Drop => times = 0,
                MessageFault::Twice => times = 2,
                MessageFault::Kind(kind) => message.payload[..4].copy_from_slice(&kind.to_le_bytes()),
                MessageFault::Truncate(len) => {
                    message.payload.truncate(usize::from(len));
                    message.says = message.payload.len() as u8;
                }
                MessageFault::Says(len) => message.says = len,
                MessageFault::SlotKind(kind) => message.kind = kind,
                MessageFault::After(stray) => self.stray(guest, stray),
                MessageFault::Patch(at, word) => patch(&mut message.payload, at, word),
            }
        }
        for _ in 0..times {
            if due > 0 {
                self.late.push((due, message.clone()));
            } else {
                let (vp, sint) = self.messages_to;
                self.post_as(vp, sint, message.clone());
            }
        }
        let (vp, _) = self.messages_to;
        self.deliver(guest, vp);
    }

    /// Sends a message that nobody asked for.
    pub fn stray(&mut self, guest: &dyn Guest, stray: Stray) {
        let bytes = match stray {
            Stray::Unknown(kind) => words(kind, &[0; 4]),
            Stray::ForeignOffer => self.foreign_offer(2040),
            Stray::BadOffer(channel) => {
                let mut bytes = self.foreign_offer(channel);
                bytes[8..24].copy_from_slice(&guid::SCSI);
                bytes
            }
            Stray::Rescind(channel) => words(message::RESCIND, &[channel]),
            Stray::OpenResult(channel, id) => words(message::OPEN_RESULT, &[channel, id, 0]),
            Stray::GpadlCreated(channel, handle) => words(message::GPADL_CREATED, &[channel, handle, 0]),
            Stray::TornDown(handle) => words(message::TORNDOWN, &[handle]),
            Stray::Version => words(message::VERSION, &[1, 1, 0]),
            Stray::Unloaded => words(message::UNLOADED, &[]),
            Stray::AllOffers => words(message::ALL_OFFERS, &[]),
            Stray::Short => vec![1, 0, 0, 0],
            Stray::Words(kind, body) => words(kind, &body),
            Stray::Offer(channel, signal, sub_index) => {
                let Some(of) = self.controllers.first() else { return };
                let (interface, instance, user) = (of.interface(), of.instance, of.user_bytes());
                Offer { interface, instance, user, sub_index, channel, signal }.bytes()
            }
        };
        let (vp, sint) = self.messages_to;
        self.post(vp, sint, slot::VMBUS, bytes);
        self.deliver(guest, vp);
    }

    fn foreign_offer(&self, channel: u32) -> Vec<u8> {
        let offer = Offer {
            interface: guid::NETWORK,
            instance: [0x77; 16],
            user: [0; 120],
            sub_index: 0,
            channel,
            signal: channel | 0x2000,
        };
        offer.bytes()
    }

    /// Sends what was held back.
    pub(super) fn send_late(&mut self, guest: &dyn Guest) -> bool {
        let now = guest.now();
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.late).into_iter().partition(|(at, _)| *at <= now);
        self.late = later;
        if due.is_empty() {
            // A message that waits for its slot comes when its end is told, and not before.
            return false;
        }
        let (vp, sint) = self.messages_to;
        for (_, message) in due {
            self.post_as(vp, sint, message);
        }
        self.deliver(guest, vp);
        true
    }
}
