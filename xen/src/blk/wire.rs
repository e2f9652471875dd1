//! The block protocol (`public/io/blkif.h`, `public/io/ring.h`), as a guest of 64 bits lays it out ("x86_64-abi").

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a sector: what sector numbers count, whatever the disk's block size.
pub const SECTOR: u32 = 512;
/// Bytes of an entry of the ring: a request, or the response in its place.
pub const ENTRY: usize = 112;
/// Offsets in the ring's first page.
pub mod ring {
    /// Index behind the last request.
    pub const REQUESTS_PRODUCED: usize = 0;
    /// The request whose coming the other end wants to be told of.
    pub const REQUEST_EVENT: usize = 4;
    /// Index behind the last response.
    pub const RESPONSES_PRODUCED: usize = 8;
    /// The response whose coming we want to be told of.
    pub const RESPONSE_EVENT: usize = 12;
    /// Where the entries begin.
    pub const ENTRIES: usize = 64;
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation(pub u8);

impl Operation {
    /// Read.
    pub const READ: Self = Self(0);
    /// Write.
    pub const WRITE: Self = Self(1);
    /// Write behind a barrier; without data a flush, for hosts that have no other.
    pub const BARRIER: Self = Self(2);
    /// Make all completed writes durable.
    pub const FLUSH: Self = Self(3);
    /// The sectors' content is not needed any more.
    pub const DISCARD: Self = Self(5);
    /// Read or write, with the segments in pages of their own.
    pub const INDIRECT: Self = Self(6);
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub i16);

impl Status {
    /// As it should.
    pub const OK: Self = Self(0);
    /// The host does not do this.
    pub const UNSUPPORTED: Self = Self(-2);
}

/// Segments of a request that carries them itself, at most.
pub const DIRECT_SEGMENTS: usize = 11;
/// Pages of segments of an indirect request, at most.
pub const INDIRECT_PAGES: usize = 8;

/// A part of a page: whole sectors, the last one included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Segment {
    /// The page's grant.
    pub reference: u32,
    /// First sector in the page.
    pub first: u8,
    /// Last sector in the page.
    pub last: u8,
    /// Zero.
    pub _pad: u16,
}

/// Reading and writing; a flush, without segments.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Transfer {
    /// [`Operation`].
    pub operation: u8,
    /// How many segments.
    pub segments: u8,
    /// The device, by its number.
    pub handle: u16,
    /// Zero.
    pub _pad: u32,
    /// What the response repeats.
    pub id: u64,
    /// First sector.
    pub sector: u64,
    /// The segments.
    pub list: [Segment; DIRECT_SEGMENTS],
}

/// Reading and writing, with the segments in pages of their own.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Indirect {
    /// [`Operation::INDIRECT`].
    pub operation: u8,
    /// [`Operation`]: what to do.
    pub what: u8,
    /// How many segments.
    pub segments: u16,
    /// Zero.
    pub _pad: u32,
    /// What the response repeats.
    pub id: u64,
    /// First sector.
    pub sector: u64,
    /// The device, by its number.
    pub handle: u16,
    /// Zero.
    pub _pad2: u16,
    /// Grants of the pages of segments.
    pub pages: [u32; INDIRECT_PAGES],
    /// Zero.
    pub _pad3: u32,
}

/// Discarding.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Discard {
    /// [`Operation::DISCARD`].
    pub operation: u8,
    /// Bit 0: what is discarded must not be readable again.
    pub flags: u8,
    /// The device, by its number.
    pub handle: u16,
    /// Zero.
    pub _pad: u32,
    /// What the response repeats.
    pub id: u64,
    /// First sector.
    pub sector: u64,
    /// How many.
    pub sectors: u64,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Response {
    /// The request's.
    pub id: u64,
    /// The request's.
    pub operation: u8,
    /// Anything.
    pub _pad: u8,
    /// [`Status`].
    pub status: i16,
    /// Anything.
    pub _pad2: u32,
}

const _: () = {
    assert!(size_of::<Segment>() == 8 && size_of::<Transfer>() == ENTRY && size_of::<Indirect>() == 64);
    assert!(size_of::<Discard>() == 32 && size_of::<Response>() == 16);
};
