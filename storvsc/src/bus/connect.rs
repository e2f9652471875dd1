//! From the first message to the offers, and the end. Task context.

use undercroft_hal::Task;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

use super::ask::{Answer, Question};
use super::{Core, Life};
use crate::BusError;
use crate::defect::Defect;
use crate::wire::message::{
    CONNECTION, CONTACT_CONNECTION, FeatureFlags, Header, InitiateContact, Kind, OfChannel, SINT, VMBUS_MESSAGE,
    Version,
};
use undercroft_hal::hyperv::MESSAGES_CPU;

/// The features of 6.0 that this guest has a use for.
const WANTED: FeatureFlags = FeatureFlags::GUEST_SIGNALS;

/// The first message for a version; `target` is the processor that messages go to.
pub(crate) fn contact(version: Version, target: u32) -> InitiateContact {
    let new = version >= Version::V5_0;
    InitiateContact {
        header: Header::new(Kind::INITIATE_CONTACT),
        version: U32::new(version.0),
        target: U32::new(if version >= Version::V3_0 { target } else { 0 }),
        sint: if new { SINT } else { 0 },
        vtl: 0,
        reserved: U16::ZERO,
        features: U32::new(if version >= Version::V6_0 { WANTED.bits() } else { 0 }),
        monitors: [U64::ZERO; 2],
    }
}

impl Core {
    /// Finds the newest version, up to `newest`, that the host speaks too, and has it send its offers.
    pub(crate) fn connect(&self, cx: &Task, newest: Version) -> Result<(), BusError> {
        let target = self.partition.vp_index(MESSAGES_CPU);
        for version in Version::ALL.into_iter().filter(|version| *version <= newest) {
            if !self.offer_version(cx, version, target)? {
                continue;
            }
            log::debug!("vmbus {version}");
            let connection = self.link.lock().connection;
            let mut unload = [0; 8];
            unload.copy_from_slice(Header::new(Kind::UNLOAD).as_bytes());
            if !self.defects.has(Defect::NoLastWords) {
                self.partition.on_panic(connection, VMBUS_MESSAGE, unload, Kind::UNLOAD_COMPLETE.0);
            }
            let request = || self.post(cx, Header::new(Kind::REQUEST_OFFERS).as_bytes());
            self.ask(cx, Question::Offers, request)?;
            return Ok(());
        }
        Err(BusError::NoVersion)
    }

    /// `false`: the host does not speak it.
    fn offer_version(&self, cx: &Task, version: Version, target: u32) -> Result<bool, BusError> {
        let connection = if version >= Version::V5_0 { CONTACT_CONNECTION } else { CONNECTION };
        let mut posted = Ok(true);
        let send = || {
            posted = self.post_contact(cx, connection, contact(version, target).as_bytes());
            match posted {
                Ok(true) => Ok(()),
                Ok(false) => Err(BusError::NoVersion),
                Err(error) => Err(error),
            }
        };
        let answer = match self.ask(cx, Question::Version, send) {
            Err(BusError::NoVersion) if posted == Ok(false) => return Ok(false),
            answer => answer?,
        };
        let Answer::Version(response, features) = answer else { return Err(BusError::NoAnswer) };
        if response.supported == 0 {
            return Ok(false);
        }
        if response.state != 0 {
            return Err(BusError::Refused(response.state));
        }
        let mut link = self.link.lock();
        link.version = version;
        link.features = if version >= Version::V6_0 {
            // No more than was asked for, whatever the host says.
            FeatureFlags::from_bits_truncate(features) & WANTED
        } else {
            FeatureFlags::empty()
        };
        link.connection = if version >= Version::V5_0 { response.selected.get() } else { CONNECTION };
        link.life = Life::Up;
        Ok(true)
    }

    /// Tells the host that all is over, and waits until it is for it too: then it uses no page of ours any more. `false`: it did not say so.
    pub(crate) fn unload(&self, cx: &Task) -> bool {
        {
            let mut link = self.link.lock();
            match link.life {
                Life::Up => link.life = Life::Unloading,
                Life::Connecting | Life::Unloading | Life::Down => return link.life != Life::Unloading,
            }
        }
        let send = || self.post(cx, Header::new(Kind::UNLOAD).as_bytes());
        let answer = self.ask(cx, Question::Unloaded, send);
        match answer {
            Ok(_) => true,
            Err(error) => {
                log::error!("vmbus: unloading failed: {error}");
                false
            }
        }
    }

    /// Lets the host use the numbers of channels again that it took back and that nobody used. The keeper.
    pub(super) fn release_unused(&self, cx: &Task) {
        loop {
            let channel = {
                let link = self.link.lock();
                if link.life != Life::Up {
                    return;
                }
                link.offers.first_to_release()
            };
            let Some(channel) = channel else { return };
            self.release(cx, channel);
        }
    }

    /// Lets the host use a channel's number again.
    pub(super) fn release(&self, cx: &Task, channel: u32) {
        // Forgotten first: the host may offer it again at once.
        let client = self.link.lock().offers.forget(channel);
        drop(client);
        let message = OfChannel { header: Header::new(Kind::RELID_RELEASED), channel: U32::new(channel) };
        if let Err(error) = self.post(cx, message.as_bytes()) {
            log::error!("vmbus: channel {channel} could not be released: {error}");
        }
    }
}
