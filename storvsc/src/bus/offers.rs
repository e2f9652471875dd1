//! Which channels the host offers, and who uses them. Under the bus's lock.

use alloc::sync::Weak;
use alloc::vec::Vec;

use super::Client;
use crate::wire::guid::Guid;
use crate::wire::message::OfferChannel;

/// A channel that the host offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// What kind of device it is of.
    pub interface: Guid,
    /// Which device.
    pub instance: Guid,
    /// 0 for the device's first channel.
    pub sub_channel: u16,
    /// Its number.
    pub channel: u32,
    /// The connection that signals it.
    pub connection: u32,
    /// The device's own: the first bytes.
    pub user: [u8; 16],
    /// Which offer it is, since the bus was connected.
    pub(crate) serial: u32,
}

impl From<&OfferChannel> for Offer {
    fn from(offer: &OfferChannel) -> Self {
        let mut user = [0; 16];
        user.copy_from_slice(&offer.user[..16]);
        Self {
            interface: offer.interface,
            instance: offer.instance,
            sub_channel: offer.sub_channel.get(),
            channel: offer.channel.get(),
            connection: offer.connection.get(),
            user,
            serial: 0,
        }
    }
}

/// Channels that are looked at, at most: hosts offer some dozens.
const MOST: usize = 256;

struct Known {
    offer: Offer,
    /// Who uses it, or will.
    client: Option<Weak<dyn Client>>,
    rescinded: bool,
}

/// What the host offers. Its list never grows, as it changes under a lock.
pub(super) struct Offers {
    known: Vec<Known>,
    serial: u32,
}

/// What an offer is.
pub(super) enum Taken {
    /// Another channel of a device that is in use: its user is to be told.
    For(Weak<dyn Client>, Offer),
    /// Anybody may use it.
    New,
    /// The channel is offered already, or there are too many.
    Nonsense,
}

/// What a rescind is about.
pub(super) enum Rescinded {
    /// A channel in use: its user is to be told.
    Of(Weak<dyn Client>),
    /// One that nobody uses.
    Unused,
    /// No such channel, or again.
    Nonsense,
}

impl Offers {
    pub(super) fn new() -> Self {
        Self { known: Vec::with_capacity(MOST), serial: 0 }
    }

    /// Notes an offer.
    pub(super) fn add(&mut self, mut offer: Offer) -> Taken {
        let again = self.known.iter().any(|known| known.offer.channel == offer.channel);
        if again || self.known.len() == MOST {
            return Taken::Nonsense;
        }
        self.serial = self.serial.wrapping_add(1);
        offer.serial = self.serial;
        let same = |known: &&Known| {
            (known.offer.instance, known.offer.interface) == (offer.instance, offer.interface)
                && known.offer.sub_channel == 0
                && !known.rescinded
        };
        let primary = if offer.sub_channel == 0 { None } else { self.known.iter().find(same) };
        let client = primary.and_then(|primary| primary.client.clone());
        self.known.push(Known { offer, client: client.clone(), rescinded: false });
        client.map_or(Taken::New, |client| Taken::For(client, offer))
    }

    /// Notes that a channel was taken back.
    pub(super) fn rescind(&mut self, channel: u32) -> Rescinded {
        match self.known.iter_mut().find(|known| known.offer.channel == channel) {
            Some(known) if !known.rescinded => {
                known.rescinded = true;
                known.client.clone().map_or(Rescinded::Unused, Rescinded::Of)
            }
            _ => Rescinded::Nonsense,
        }
    }

    pub(super) fn is_rescinded(&self, channel: u32) -> bool {
        self.known.iter().any(|known| known.offer.channel == channel && known.rescinded)
    }

    /// First channels of devices that nobody uses.
    pub(super) fn unused(&self) -> impl Iterator<Item = &Offer> {
        let free = |known: &&Known| known.client.is_none() && !known.rescinded && known.offer.sub_channel == 0;
        self.known.iter().filter(free).map(|known| &known.offer)
    }

    /// A channel that was taken back and that nobody uses.
    pub(super) fn first_to_release(&self) -> Option<u32> {
        self.known.iter().find(|known| known.rescinded && known.client.is_none()).map(|known| known.offer.channel)
    }

    /// Gives an offered channel to a user; its device's other channels with it. `false`: it is taken, or not offered any more.
    pub(super) fn claim(&mut self, offer: &Offer, client: &Weak<dyn Client>) -> bool {
        let Some(at) = self.known.iter().position(|known| known.offer == *offer) else { return false };
        if self.known[at].client.is_some() || self.known[at].rescinded {
            return false;
        }
        let of_device = |known: &&mut Known| {
            (known.offer.instance, known.offer.interface) == (offer.instance, offer.interface) && known.client.is_none()
        };
        self.known.iter_mut().filter(of_device).for_each(|known| known.client = Some(Weak::clone(client)));
        true
    }

    /// The `nth` sub-channel that is offered of a user's device.
    pub(super) fn sub_channel(&self, of: &Offer, nth: usize) -> Option<Offer> {
        let of_device = |known: &&Known| {
            (known.offer.instance, known.offer.interface) == (of.instance, of.interface)
                && known.offer.sub_channel != 0
                && !known.rescinded
        };
        self.known.iter().filter(of_device).nth(nth).map(|known| known.offer)
    }

    /// Takes a user's mark off a device's channels. What comes back is dropped without the lock.
    pub(super) fn give_up(&mut self, of: &Offer) -> Option<Weak<dyn Client>> {
        let of_device =
            |known: &&mut Known| (known.offer.instance, known.offer.interface) == (of.instance, of.interface);
        let mut last = None;
        for known in self.known.iter_mut().filter(of_device) {
            // Each but the last has another beside it: dropping those frees nothing.
            last = known.client.take().or(last);
        }
        last
    }

    /// The `nth` channel that is in use, and its user.
    pub(super) fn in_use(&self, nth: usize) -> Option<(u32, Weak<dyn Client>)> {
        let known = self.known.iter().filter(|known| known.client.is_some()).nth(nth)?;
        Some((known.offer.channel, known.client.clone()?))
    }

    /// Forgets a channel.
    pub(super) fn forget(&mut self, channel: u32) -> Option<Weak<dyn Client>> {
        let at = self.known.iter().position(|known| known.offer.channel == channel)?;
        self.known.swap_remove(at).client
    }
}
