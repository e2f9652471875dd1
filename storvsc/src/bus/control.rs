//! Messages from the host. Bottom half, on the CPU that messages come to.
//!
//! Whatever comes is copied, measured and then believed as far as it can be: a message too short for its kind, of an unknown kind, or about
//! a channel that there is not, is counted and left.

use alloc::sync::Weak;
use core::sync::atomic::Ordering;

use undercroft_hal::BottomHalf;
use undercroft_hal::hyperv::Message;
use undercroft_hal::work::Turn;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::ask::{Answer, Question};
use super::offers::{Rescinded, Taken};
use super::{Client, Core, Life};
use crate::bus::Offer;
use crate::defect::Defect;
use crate::wire::message::{
    GpadlCreated, GpadlTorndown, Header, Kind, MAX_CHANNEL, ModifyChannelResponse, OfChannel, OfferChannel, OpenResult,
    VMBUS_MESSAGE, VersionResponse,
};

/// Messages taken before others get a turn.
const BUDGET: usize = 32;

fn read<T: FromBytes + KnownLayout + Immutable + Unaligned>(bytes: &[u8]) -> Option<&T> {
    T::ref_from_prefix(bytes).ok().map(|(value, _)| value)
}

impl Core {
    /// Takes what has come.
    pub(super) fn service(&self, cx: &BottomHalf) -> Turn {
        for _ in 0..BUDGET {
            let Some(message) = self.partition.take_message() else { return Turn::Done };
            self.counters.messages.fetch_add(1, Ordering::Relaxed);
            if message.kind != VMBUS_MESSAGE || self.message(cx, &message).is_none() {
                self.strange();
            }
        }
        Turn::Again
    }

    /// `None`: it makes no sense.
    fn message(&self, cx: &BottomHalf, message: &Message) -> Option<()> {
        let bytes = message.payload();
        let kind = Kind(read::<Header>(bytes)?.kind.get());
        let life = self.link.lock().life;
        let counts = match life {
            Life::Up => kind != Kind::VERSION_RESPONSE && kind != Kind::UNLOAD_COMPLETE,
            Life::Connecting => kind == Kind::VERSION_RESPONSE,
            Life::Unloading => kind == Kind::UNLOAD_COMPLETE,
            Life::Down => false,
        };
        if !counts {
            // Left over from an earlier connection, or too late.
            return Some(());
        }
        match kind {
            Kind::OFFER_CHANNEL => return self.offered(cx, read(bytes)?),
            Kind::RESCIND => return self.rescinded(cx, read::<OfChannel>(bytes)?.channel.get()),
            _ => {}
        }
        let (question, answer) = match kind {
            Kind::ALL_OFFERS_DELIVERED => (Question::Offers, Answer::Done),
            Kind::UNLOAD_COMPLETE => (Question::Unloaded, Answer::Done),
            Kind::VERSION_RESPONSE => {
                let response = *read::<VersionResponse>(bytes)?;
                let features = bytes.get(size_of::<VersionResponse>()..).and_then(read::<U32>).map_or(0, |f| f.get());
                (Question::Version, Answer::Version(response, features))
            }
            Kind::OPEN_RESULT => {
                let result = read::<OpenResult>(bytes)?;
                (Question::Opened(result.channel.get(), result.open_id.get()), Answer::Status(result.status.get()))
            }
            Kind::GPADL_CREATED => {
                let created = read::<GpadlCreated>(bytes)?;
                let status = Answer::Status(created.status.get() as u32);
                (Question::Created(created.gpadl.get(), created.channel.get()), status)
            }
            Kind::GPADL_TORNDOWN => (Question::TornDown(read::<GpadlTorndown>(bytes)?.gpadl.get()), Answer::Done),
            Kind::MODIFY_CHANNEL_RESPONSE => {
                let moved = read::<ModifyChannelResponse>(bytes)?;
                (Question::Moved(moved.channel.get()), Answer::Status(moved.status.get() as u32))
            }
            _ => return None,
        };
        let mut link = self.link.lock();
        if kind == Kind::UNLOAD_COMPLETE {
            link.life = Life::Down;
        }
        link.questions.answer(question, answer).then_some(())
    }

    fn offered(&self, cx: &BottomHalf, offer: &OfferChannel) -> Option<()> {
        if !(1..=MAX_CHANNEL).contains(&offer.channel.get()) {
            return None;
        }
        if self.defects.has(Defect::DropsUnawaited) {
            return Some(());
        }
        // A client may go while it is told.
        let taken = self.link.lock().offers.add(Offer::from(offer));
        match taken {
            Taken::New => self.tell(cx),
            Taken::For(client, offer) => {
                if let Some(client) = Weak::<dyn Client>::upgrade(&client) {
                    client.offered(&offer);
                }
            }
            Taken::Nonsense => return None,
        }
        Some(())
    }

    fn rescinded(&self, cx: &BottomHalf, channel: u32) -> Option<()> {
        let rescinded = self.link.lock().offers.rescind(channel);
        match rescinded {
            Rescinded::Of(client) => match client.upgrade() {
                Some(client) => client.rescinded(channel),
                None => self.keeper.schedule(),
            },
            Rescinded::Unused => {
                self.keeper.schedule();
                self.tell(cx);
            }
            Rescinded::Nonsense => return None,
        }
        Some(())
    }
}
