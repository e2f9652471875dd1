//! The two rings of a channel: packets to the host, packets from it. Any context; one caller at a time, by the lock around them.
//!
//! Source: 3.6 of the interface's description (open implementations of VMBus); offsets are bytes of the data area, multiples of 8, and wrap at
//! its size. A full ring would look like an empty one, so 8 bytes stay free.
//!
//! # When the other side is signalled
//! * After publishing: if the host does not mask and had read everything before. Publish, fence, then look: of a host that goes to sleep and
//!   a guest that publishes, one sees the other.
//! * After reading: if the host waits for room (*pending send*) and what was read brought that room. Read, fence, then look.
//!
//! # What is believed
//! Nothing. Where this side is it knows itself; the host's offsets are checked against what can be: it reads no further than was published, and
//! a packet ends before the next begins. An entry that an honest host has not read is never written over.

mod memory;
mod receiver;
mod sender;

#[cfg(all(loom, test))]
mod loom_tests;
#[cfg(all(not(loom), test))]
pub(crate) mod tests;

pub(crate) use memory::{Down, ReceiverMemory, Ring, SenderMemory, Up};
pub(crate) use receiver::{Packet, Receiver};
pub(crate) use sender::{NoRoom, Sender};

/// The host says what cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Breach {
    /// An offset outside the data area, or between words.
    Offset,
    /// It read what was not published.
    ReadTooMuch,
    /// A packet that is longer than what there is, or shorter than its own header.
    Packet,
}

impl core::fmt::Display for Breach {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Offset => "an offset outside of the ring",
            Self::ReadTooMuch => "more was read than was sent",
            Self::Packet => "a packet of impossible length",
        })
    }
}

/// How far `to` is ahead of `from` in an area of `size` bytes.
#[inline]
fn ahead(to: u32, from: u32, size: u32) -> u32 {
    if to >= from { to - from } else { size - (from - to) }
}

/// `at` moved on by `bytes`, at most the size.
#[inline]
fn moved(at: u32, bytes: u32, size: u32) -> u32 {
    let left = size - at;
    if bytes >= left { bytes - left } else { at + bytes }
}

/// An offset of the host's, if it can be one.
#[inline]
fn checked(offset: u32, size: u32) -> Result<u32, Breach> {
    if offset < size && offset.is_multiple_of(8) { Ok(offset) } else { Err(Breach::Offset) }
}
