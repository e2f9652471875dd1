//! VMBus control messages: what is posted to the host, and what comes to the SynIC's slot.

use core::fmt;

use bitflags::bitflags;
use zerocopy::little_endian::{I32, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::guid::Guid;

/// The type of a posted message, and of one in the slot, that is VMBus's.
pub const VMBUS_MESSAGE: u32 = 1;
/// The SINT that VMBus uses.
pub const SINT: u8 = 2;
/// The connection that messages of versions before 5.0 are posted to, all of them.
pub const CONNECTION: u32 = 1;
/// The connection that the first message from 5.0 on is posted to.
pub const CONTACT_CONNECTION: u32 = 4;
/// The highest channel number.
pub const MAX_CHANNEL: u32 = 2047;

/// The number of a control message. Open: a host may send what came later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kind(pub u32);

impl Kind {
    /// Host: a channel is offered.
    pub const OFFER_CHANNEL: Self = Self(1);
    /// Host: a channel is taken back.
    pub const RESCIND: Self = Self(2);
    /// Guest: send all offers.
    pub const REQUEST_OFFERS: Self = Self(3);
    /// Host: those were the offers that there are now.
    pub const ALL_OFFERS_DELIVERED: Self = Self(4);
    /// Guest: open a channel.
    pub const OPEN: Self = Self(5);
    /// Host: what became of that.
    pub const OPEN_RESULT: Self = Self(6);
    /// Guest: close a channel. No reply.
    pub const CLOSE: Self = Self(7);
    /// Guest: pages that the host may use, the first of them.
    pub const GPADL_HEADER: Self = Self(8);
    /// Guest: more of them.
    pub const GPADL_BODY: Self = Self(9);
    /// Host: what became of that.
    pub const GPADL_CREATED: Self = Self(10);
    /// Guest: the host may not use them any more.
    pub const GPADL_TEARDOWN: Self = Self(11);
    /// Host: it does not.
    pub const GPADL_TORNDOWN: Self = Self(12);
    /// Guest: a channel taken back is not used any more.
    pub const RELID_RELEASED: Self = Self(13);
    /// Guest: the first message.
    pub const INITIATE_CONTACT: Self = Self(14);
    /// Host: its answer.
    pub const VERSION_RESPONSE: Self = Self(15);
    /// Guest: all is over.
    pub const UNLOAD: Self = Self(16);
    /// Host: it is.
    pub const UNLOAD_COMPLETE: Self = Self(17);
    /// Guest, from 4.1: signals go to another processor.
    pub const MODIFY_CHANNEL: Self = Self(22);
    /// Host, from 5.3: they do.
    pub const MODIFY_CHANNEL_RESPONSE: Self = Self(24);
}

/// A version of the protocol: major in the high half, minor in the low.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u32);

impl Version {
    /// Windows 8. Channel signals are event flags from here on.
    pub const V2_4: Self = Self(2 << 16 | 4);
    /// Windows 8.1.
    pub const V3_0: Self = Self(3 << 16);
    /// Windows 10.
    pub const V4_0: Self = Self(4 << 16);
    /// Channels can be moved between processors.
    pub const V4_1: Self = Self(4 << 16 | 1);
    /// Messages have a connection of their own.
    pub const V5_0: Self = Self(5 << 16);
    /// 5.1.
    pub const V5_1: Self = Self(5 << 16 | 1);
    /// 5.2.
    pub const V5_2: Self = Self(5 << 16 | 2);
    /// A channel's move is answered.
    pub const V5_3: Self = Self(5 << 16 | 3);
    /// Features are negotiated.
    pub const V6_0: Self = Self(6 << 16);

    /// All that this guest speaks, the newest first: hosts take exact members only.
    pub const ALL: [Self; 9] =
        [Self::V6_0, Self::V5_3, Self::V5_2, Self::V5_1, Self::V5_0, Self::V4_1, Self::V4_0, Self::V3_0, Self::V2_4];
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> 16, self.0 & 0xffff)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

bitflags! {
    /// Features of 6.0.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct FeatureFlags: u32 {
        /// The guest names event flag and connection in OPEN.
        const GUEST_SIGNALS = 1;
        /// OPEN has the longer form too.
        const INTERRUPT_REDIRECTION = 2;
    }
}

macro_rules! wire {
    ($(#[$doc:meta])* $name:ident ($size:literal) { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
        #[repr(C)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
        const _: () = assert!(size_of::<$name>() == $size);
    };
}
pub(crate) use wire;

wire! {
    /// What every message begins with.
    Header (8) {
        /// [`Kind`].
        kind: U32,
        /// Zero.
        reserved: U32,
    }
}

impl Header {
    /// A message's beginning.
    pub const fn new(kind: Kind) -> Self {
        Self { kind: U32::new(kind.0), reserved: U32::ZERO }
    }
}

wire! {
    /// [`Kind::INITIATE_CONTACT`].
    InitiateContact (40) {
        /// Beginning.
        header: Header,
        /// [`Version`].
        version: U32,
        /// The processor that messages go to, from 3.0 on.
        target: U32,
        /// From 5.0 on: SINT and VTL. Before: the low half of the interrupt page's address, zero from 2.4 on.
        sint: u8,
        /// See there.
        vtl: u8,
        /// See there.
        reserved: U16,
        /// From 6.0 on: [`FeatureFlags`].
        features: U32,
        /// Monitor pages: both addresses, or zeros.
        monitors: [U64; 2],
    }
}

wire! {
    /// [`Kind::VERSION_RESPONSE`], the part that every version has.
    VersionResponse (16) {
        /// Beginning.
        header: Header,
        /// Not zero: the version is taken.
        supported: u8,
        /// 0, or why the host cannot go on.
        state: u8,
        /// Nothing.
        reserved: U16,
        /// The version that was chosen; from 5.0 on the connection of all further messages.
        selected: U32,
    }
}

wire! {
    /// [`Kind::OFFER_CHANNEL`].
    OfferChannel (196) {
        /// Beginning.
        header: Header,
        /// What kind of device.
        interface: Guid,
        /// Which one.
        instance: Guid,
        /// Nothing.
        reserved: [u8; 16],
        /// Flags.
        flags: U16,
        /// MiB of device memory.
        mmio: U16,
        /// The device's own.
        user: [u8; 120],
        /// 0 for the device's first channel.
        sub_channel: U16,
        /// Nothing.
        reserved2: U16,
        /// The channel's number.
        channel: U32,
        /// Its bit in the monitor pages.
        monitor: u8,
        /// Whether it has one.
        has_monitor: u8,
        /// Whether its signals go by a connection of its own.
        dedicated: U16,
        /// That connection.
        connection: U32,
    }
}

wire! {
    /// [`Kind::GPADL_HEADER`] without its ranges.
    GpadlHeader (20) {
        /// Beginning.
        header: Header,
        /// The channel that it is for.
        channel: U32,
        /// The list's handle, chosen by the guest.
        gpadl: U32,
        /// Bytes of ranges in all.
        bytes: U16,
        /// Ranges.
        ranges: U16,
    }
}

wire! {
    /// [`Kind::GPADL_BODY`] without its page numbers.
    GpadlBody (16) {
        /// Beginning.
        header: Header,
        /// Which body it is, from 0.
        sequence: U32,
        /// The list's handle.
        gpadl: U32,
    }
}

/// Words of range data in a header at most, and in a body.
pub const GPADL_HEADER_WORDS: usize = 27;
/// See there.
pub const GPADL_BODY_WORDS: usize = 28;

wire! {
    /// [`Kind::GPADL_CREATED`].
    GpadlCreated (20) {
        /// Beginning.
        header: Header,
        /// The channel.
        channel: U32,
        /// The handle.
        gpadl: U32,
        /// 0, or why not.
        status: I32,
    }
}

wire! {
    /// [`Kind::OPEN`].
    Open (148) {
        /// Beginning.
        header: Header,
        /// The channel.
        channel: U32,
        /// A number that the answer carries.
        open_id: U32,
        /// The rings' pages.
        gpadl: U32,
        /// The processor that signals go to.
        target: U32,
        /// The first page of the ring to the guest.
        downstream_page: U32,
        /// The device's own.
        user: [u8; 120],
    }
}

wire! {
    /// What [`Open`] has behind it with [`FeatureFlags::GUEST_SIGNALS`] or [`FeatureFlags::INTERRUPT_REDIRECTION`].
    OpenSignals (8) {
        /// The connection that the guest will signal.
        connection: U32,
        /// The event flag that the host will set.
        event_flag: U16,
        /// Nothing.
        flags: U16,
    }
}

wire! {
    /// [`Kind::OPEN_RESULT`].
    OpenResult (20) {
        /// Beginning.
        header: Header,
        /// The channel.
        channel: U32,
        /// The number of the request.
        open_id: U32,
        /// 0, or why not.
        status: U32,
    }
}

wire! {
    /// [`Kind::CLOSE`], [`Kind::RELID_RELEASED`], [`Kind::RESCIND`].
    OfChannel (12) {
        /// Beginning.
        header: Header,
        /// The channel.
        channel: U32,
    }
}

wire! {
    /// [`Kind::GPADL_TEARDOWN`].
    GpadlTeardown (16) {
        /// Beginning.
        header: Header,
        /// The channel.
        channel: U32,
        /// The handle.
        gpadl: U32,
    }
}

wire! {
    /// [`Kind::GPADL_TORNDOWN`].
    GpadlTorndown (12) {
        /// Beginning.
        header: Header,
        /// The handle.
        gpadl: U32,
    }
}

wire! {
    /// [`Kind::MODIFY_CHANNEL`].
    ModifyChannel (16) {
        /// Beginning.
        header: Header,
        /// The channel.
        channel: U32,
        /// The processor that signals go to from now on.
        target: U32,
    }
}

wire! {
    /// [`Kind::MODIFY_CHANNEL_RESPONSE`].
    ModifyChannelResponse (16) {
        /// Beginning.
        header: Header,
        /// The channel.
        channel: U32,
        /// 0, or why not.
        status: I32,
    }
}
