//! Opening a channel, moving it, closing it. Task context.
//!
//! The rings' memory is the host's from the moment that its pages are named until it says that they are torn down. Memory that it does not
//! give back is never used again.

use alloc::sync::Arc;

use arrayvec::ArrayVec;
use undercroft_hal::Task;
use undercroft_hal::work::BottomHalfWork;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

use super::ask::{Answer, Question};
use super::{Core, Life, Offer, PATIENCE, poll};
use crate::BusError;
use crate::ring::Ring;
use crate::wire::PAGE;
use crate::wire::message::{
    FeatureFlags, GPADL_BODY_WORDS, GPADL_HEADER_WORDS, GpadlBody, GpadlHeader, GpadlTeardown, Header, Kind,
    ModifyChannel, OfChannel, Open, OpenSignals, Version,
};

/// A channel that is open.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) offer: Offer,
    pub(crate) ring: Ring,
    gpadl: u32,
    /// The CPU that its signals go to.
    pub(crate) cpu: usize,
    flag: u16,
}

/// A message with what follows it.
type Message = ArrayVec<u8, 240>;

fn message(head: &[u8], words: &[u64]) -> Message {
    let mut message = Message::new();
    message.extend(head.iter().copied().chain(words.iter().flat_map(|word| word.to_le_bytes())).take(240));
    message
}

/// The messages that name one range of whole pages: a header, and as many bodies as it takes.
pub(crate) fn gpadl_messages(
    channel: u32,
    gpadl: u32,
    pages: impl ExactSizeIterator<Item = u64>,
    mut send: impl FnMut(&[u8]) -> Result<(), BusError>,
) -> Result<(), BusError> {
    let count = pages.len();
    // Length in the low half, offset in the high.
    let range = (count * PAGE) as u64;
    let mut words = core::iter::once(range).chain(pages);
    let header = GpadlHeader {
        header: Header::new(Kind::GPADL_HEADER),
        channel: U32::new(channel),
        gpadl: U32::new(gpadl),
        bytes: U16::new(((count + 1) * 8) as u16),
        ranges: U16::new(1),
    };
    let first: ArrayVec<u64, GPADL_HEADER_WORDS> = words.by_ref().take(GPADL_HEADER_WORDS).collect();
    send(&message(header.as_bytes(), &first))?;
    for sequence in 0.. {
        let next: ArrayVec<u64, GPADL_BODY_WORDS> = words.by_ref().take(GPADL_BODY_WORDS).collect();
        if next.is_empty() {
            break;
        }
        let body =
            GpadlBody { header: Header::new(Kind::GPADL_BODY), sequence: U32::new(sequence), gpadl: U32::new(gpadl) };
        send(&message(body.as_bytes(), &next))?;
    }
    Ok(())
}

/// The message that opens a channel; `signals` is what 6.0 may have behind it.
pub(crate) fn open_message(
    channel: u32,
    (open_id, gpadl): (u32, u32),
    (target, downstream_page): (u32, u32),
    signals: Option<(u32, u16)>,
) -> ArrayVec<u8, 240> {
    let open = Open {
        header: Header::new(Kind::OPEN),
        channel: U32::new(channel),
        open_id: U32::new(open_id),
        gpadl: U32::new(gpadl),
        target: U32::new(target),
        downstream_page: U32::new(downstream_page),
        user: [0; 120],
    };
    let mut bytes = message(open.as_bytes(), &[]);
    if let Some((connection, flag)) = signals {
        let signals = OpenSignals { connection: U32::new(connection), event_flag: U16::new(flag), flags: U16::ZERO };
        bytes.extend(signals.as_bytes().iter().copied());
    }
    bytes
}

impl Core {
    fn next_gpadl(&self) -> u32 {
        loop {
            let gpadl = self.next_gpadl.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
            if gpadl != 0 {
                return gpadl;
            }
        }
    }

    /// Opens an offered channel whose rings have this many pages of data. Its signals go to `cpu` and schedule `work`, which is scheduled once now.
    ///
    /// # Errors
    /// [`BusError`]; the channel is as before.
    pub(crate) fn open(
        &self,
        cx: &Task,
        offer: Offer,
        (up, down): (u32, u32),
        (cpu, work): (usize, &Arc<BottomHalfWork>),
    ) -> Result<Opened, BusError> {
        let ring = Ring::new(up, down)?;
        let (channel, gpadl) = (offer.channel, self.next_gpadl());
        let created = self.ask(cx, Question::Created(gpadl, channel), || {
            gpadl_messages(channel, gpadl, ring.pages(), |message| self.post(cx, message))
        });
        let opened = Opened { offer, ring, gpadl, cpu, flag: channel as u16 };
        match created {
            // Not taken: not the host's.
            Ok(Answer::Status(status)) if status != 0 => return Err(BusError::ChannelRefused(status)),
            Ok(_) => {}
            Err(error) => {
                self.tear_down(cx, opened);
                return Err(error);
            }
        }
        if self.partition.listen(cpu, opened.flag, work).is_err() {
            self.tear_down(cx, opened);
            return Err(BusError::TooMuch);
        }
        let signals = self.link.lock().features.contains(FeatureFlags::GUEST_SIGNALS);
        let message = open_message(
            channel,
            (gpadl, gpadl),
            (self.partition.vp_index(cpu), opened.ring.down_page()),
            signals.then_some((offer.connection, opened.flag)),
        );
        let status = match self.ask(cx, Question::Opened(channel, gpadl), || self.post(cx, &message)) {
            Ok(Answer::Status(0)) => return Ok(opened),
            Ok(Answer::Status(status)) => {
                // Not open: there is nothing to close.
                let _ = self.let_go(cx, opened, false);
                return Err(BusError::ChannelRefused(status));
            }
            Ok(_) => BusError::NoAnswer,
            Err(error) => error,
        };
        // An answer that comes later finds a channel that was closed.
        let _ = self.close(cx, opened);
        Err(status)
    }

    /// Closes a channel and takes its pages back. One that was rescinded is released afterwards. The rings come back, as they were left, once
    /// the host has let go of them.
    ///
    /// # Errors
    /// The host did not: the rings stay its own.
    pub(crate) fn close(&self, cx: &Task, opened: Opened) -> Result<Ring, BusError> {
        self.let_go(cx, opened, true)
    }

    fn let_go(&self, cx: &Task, opened: Opened, closes: bool) -> Result<Ring, BusError> {
        let (channel, offer) = (opened.offer.channel, opened.offer);
        // Where it was moved to, and where from.
        (0..self.partition.cpus()).for_each(|cpu| self.partition.unlisten(cpu, opened.flag));
        let rescinded = self.is_over(&offer);
        if closes && !rescinded && self.is_up() {
            let message = OfChannel { header: Header::new(Kind::CLOSE), channel: U32::new(channel) };
            let _ = self.post(cx, message.as_bytes());
        }
        let ring = opened.ring.clone();
        let down = self.tear_down(cx, opened);
        // It may have been rescinded since.
        if down && self.is_over(&offer) {
            self.release(cx, channel);
        }
        if down { Ok(ring) } else { Err(BusError::NoAnswer) }
    }

    /// Whether an offer was taken back.
    pub(crate) fn is_over(&self, offer: &Offer) -> bool {
        self.link.lock().offers.is_rescinded(offer.channel)
    }

    /// `false`: the host did not let go, and its pages stay allocated.
    fn tear_down(&self, cx: &Task, opened: Opened) -> bool {
        let Opened { offer, gpadl, .. } = &opened;
        let teardown = GpadlTeardown {
            header: Header::new(Kind::GPADL_TEARDOWN),
            channel: U32::new(offer.channel),
            gpadl: U32::new(*gpadl),
        };
        // Unloading ends with everything torn down.
        poll(cx, PATIENCE, || self.link.lock().life != Life::Unloading);
        let ended = self.link.lock().life == Life::Down;
        let asked = || self.ask(cx, Question::TornDown(*gpadl), || self.post(cx, teardown.as_bytes()));
        let down = match if ended { Err(BusError::Down) } else { asked() } {
            // The end of all: see `unload`.
            Ok(_) | Err(BusError::Down) => true,
            Err(error) => {
                log::error!("vmbus: the pages of channel {} do not come back: {error}", offer.channel);
                false
            }
        };
        if !down {
            core::mem::forget(opened.ring);
        }
        down
    }

    /// Has a channel's signals go to another CPU, from 4.1 on. Its work stays at home where it was.
    ///
    /// # Errors
    /// [`BusError::NoVersion`] before 4.1; the host's status.
    pub(crate) fn move_to(
        &self,
        cx: &Task,
        opened: &mut Opened,
        (cpu, work): (usize, &Arc<BottomHalfWork>),
    ) -> Result<(), BusError> {
        let version = self.version();
        if version < Version::V4_1 {
            return Err(BusError::NoVersion);
        }
        if cpu == opened.cpu {
            return Ok(());
        }
        // Heard at both while it moves.
        self.partition.listen(cpu, opened.flag, work).map_err(|_| BusError::TooMuch)?;
        let channel = opened.offer.channel;
        let message = ModifyChannel {
            header: Header::new(Kind::MODIFY_CHANNEL),
            channel: U32::new(channel),
            target: U32::new(self.partition.vp_index(cpu)),
        };
        let moved = if version >= Version::V5_3 {
            match self.ask(cx, Question::Moved(channel), || self.post(cx, message.as_bytes())) {
                Ok(Answer::Status(0)) => Ok(()),
                Ok(Answer::Status(status)) => Err(BusError::ChannelRefused(status)),
                Ok(_) => Err(BusError::NoAnswer),
                Err(error) => Err(error),
            }
        } else {
            self.post(cx, message.as_bytes())
        };
        match moved {
            // Before 5.3 nobody says when it has moved: a signal to the old place must not be lost, so both stay.
            Ok(()) if version >= Version::V5_3 => {
                self.partition.unlisten(opened.cpu, opened.flag);
                opened.cpu = cpu;
                work.schedule();
            }
            Ok(()) => {}
            Err(error) => {
                self.partition.unlisten(cpu, opened.flag);
                return Err(error);
            }
        }
        Ok(())
    }
}
