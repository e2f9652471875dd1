//! The split virtqueue's memory (virtio 1.2, 2.7). Types and constants only.

use core::mem::offset_of;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The largest queue (2.7).
pub const MAX_SIZE: u16 = 32768;

/// Another descriptor follows at `next` (2.7.5).
pub const DESC_NEXT: u16 = 1;
/// The device writes this buffer.
pub const DESC_WRITE: u16 = 2;
/// The buffer is a table of descriptors (2.7.5.3).
pub const DESC_INDIRECT: u16 = 4;

/// In the available ring's flags: no interrupts, please (2.7.6; zero with `EVENT_IDX`).
pub const AVAIL_NO_INTERRUPT: u16 = 1;
/// In the used ring's flags: no notifications, please (2.7.8).
pub const USED_NO_NOTIFY: u16 = 1;

/// One descriptor (2.7.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Descriptor {
    /// Device address of the buffer.
    pub addr: U64,
    /// Its bytes.
    pub len: U32,
    /// [`DESC_NEXT`], [`DESC_WRITE`], [`DESC_INDIRECT`].
    pub flags: U16,
    /// The next descriptor of the chain.
    pub next: U16,
}

impl Descriptor {
    /// A descriptor as two numbers, whose little-endian bytes it is: what is written in words is made in words.
    #[inline(always)]
    pub const fn words(addr: u64, len: u32, flags: u16, next: u16) -> [u64; 2] {
        [addr, len as u64 | (flags as u64) << 32 | (next as u64) << 48]
    }

    /// The descriptor of [`Descriptor::words`].
    #[inline]
    pub const fn of_words([addr, rest]: [u64; 2]) -> Self {
        let (len, flags, next) = (rest as u32, (rest >> 32) as u16, (rest >> 48) as u16);
        Self { addr: U64::new(addr), len: U32::new(len), flags: U16::new(flags), next: U16::new(next) }
    }
}

/// One element of the used ring (2.7.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct UsedElement {
    /// The head of the chain that was used.
    pub id: U32,
    /// Bytes that the device wrote into it.
    pub len: U32,
}

const _: () = assert!(size_of::<Descriptor>() == 16);
const _: () = assert!(offset_of!(Descriptor, len) == 8);
const _: () = assert!(offset_of!(Descriptor, flags) == 12);
const _: () = assert!(offset_of!(Descriptor, next) == 14);
const _: () = assert!(size_of::<UsedElement>() == 8);
const _: () = assert!(offset_of!(UsedElement, len) == 4);

/// Offsets of the three parts of a queue of one size laid out in one block, each aligned as 2.7 demands, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Descriptor table, aligned to 16.
    pub descriptors: usize,
    /// Available ring, aligned to 2: flags, index, entries, used event.
    pub available: usize,
    /// Used ring, aligned to 4: flags, index, elements, available event.
    pub used: usize,
    /// All of it.
    pub bytes: usize,
}

impl Layout {
    /// Of the legacy interface: the used ring begins a page, and the device knows it does (2.7.2).
    pub const fn legacy(size: u16) -> Self {
        let size = size as usize;
        let available = 16 * size;
        let used = (available + 6 + 2 * size).next_multiple_of(super::legacy::PAGE);
        Self { descriptors: 0, available, used, bytes: used + 6 + 8 * size }
    }

    /// For a queue of `size` descriptors. The used ring begins a cache line of its own: the device writes it.
    pub const fn new(size: u16) -> Self {
        let size = size as usize;
        let available = 16 * size;
        let used = (available + 6 + 2 * size).next_multiple_of(64);
        Self { descriptors: 0, available, used, bytes: used + 6 + 8 * size }
    }
}

const _: () = assert!(Layout::new(8).available == 128 && Layout::new(8).used == 192 && Layout::new(8).bytes == 262);

/// The packed virtqueue's memory (2.8).
pub mod packed {
    use core::mem::offset_of;

    use zerocopy::little_endian::{U16, U32, U64};
    use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

    /// In a descriptor's flags: the driver's wrap counter when it made the descriptor available (2.8.1).
    pub const AVAIL: u16 = 1 << 7;
    /// In a descriptor's flags: made available, the inverse of the driver's wrap counter; used, the device's (2.8.1).
    pub const USED: u16 = 1 << 15;

    /// In an event suppression structure's flags: notifications, please (2.8.10).
    pub const EVENT_ENABLE: u16 = 0;
    /// No notifications, please.
    pub const EVENT_DISABLE: u16 = 1;
    /// A notification at one descriptor, please; only with `EVENT_IDX`.
    pub const EVENT_DESC: u16 = 2;
    /// In the structure's first field: the wrap counter; the other bits are the descriptor's place.
    pub const EVENT_WRAP: u16 = 1 << 15;

    /// One descriptor (2.8.5); one of an indirect table (2.8.7), with the id reserved.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout, Unaligned)]
    #[repr(C)]
    pub struct PackedDescriptor {
        /// Device address of the buffer.
        pub addr: U64,
        /// Its bytes; in a used one, those that the device wrote.
        pub len: U32,
        /// The buffer's id.
        pub id: U16,
        /// [`AVAIL`], [`USED`] and the flags of split descriptors.
        pub flags: U16,
    }

    const _: () = assert!(size_of::<PackedDescriptor>() == 16 && offset_of!(PackedDescriptor, len) == 8);
    const _: () = assert!(offset_of!(PackedDescriptor, id) == 12 && offset_of!(PackedDescriptor, flags) == 14);

    /// Offsets of the three parts of a queue laid out in one block, in bytes.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct PackedLayout {
        /// What the driver wants to hear, aligned to 4. The descriptors are in front of it.
        pub driver_event: usize,
        /// What the device wants to hear, aligned to 4.
        pub device_event: usize,
        /// All of it.
        pub bytes: usize,
    }

    impl PackedLayout {
        /// For a queue of `size` descriptors. Each event structure has a cache line of its own: each side writes one.
        pub const fn new(size: u16) -> Self {
            let driver_event = (16 * size as usize).next_multiple_of(64);
            Self { driver_event, device_event: driver_event + 64, bytes: driver_event + 128 }
        }
    }
}
