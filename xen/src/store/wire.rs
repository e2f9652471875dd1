//! xenstore's wire protocol (`public/io/xs_wire.h`, `docs/misc/xenstore.txt`, `docs/misc/xenstore-ring.txt`).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What comes before each message's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// [`Kind`].
    pub kind: u32,
    /// The request's number, which its reply repeats.
    pub request: u32,
    /// The transaction's number, or 0.
    pub transaction: u32,
    /// Bytes that follow, at most [`MOST_BODY`].
    pub length: u32,
}

/// Bytes of a header.
pub const HEADER: usize = size_of::<Header>();
/// Bytes of a body at most.
pub const MOST_BODY: usize = 4096;
/// Bytes of an absolute path at most, and of one below the domain's own.
pub const MOST_PATH: usize = 3072;
/// See [`MOST_PATH`].
pub const MOST_RELATIVE_PATH: usize = 2048;

/// Kinds of messages. Open: a server may send others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind(pub u32);

impl Kind {
    /// The names below a path.
    pub const DIRECTORY: Self = Self(1);
    /// The value at a path.
    pub const READ: Self = Self(2);
    /// Asks to be told of changes at and below a path.
    pub const WATCH: Self = Self(4);
    /// Takes that back.
    pub const UNWATCH: Self = Self(5);
    /// Begins a transaction.
    pub const TRANSACTION_START: Self = Self(6);
    /// Ends one.
    pub const TRANSACTION_END: Self = Self(7);
    /// Sets a value.
    pub const WRITE: Self = Self(11);
    /// Makes a path without a value.
    pub const MAKE_DIRECTORY: Self = Self(12);
    /// Removes a path with all below.
    pub const REMOVE: Self = Self(13);
    /// A change: unasked.
    pub const WATCH_EVENT: Self = Self(15);
    /// A reply with an error's name.
    pub const ERROR: Self = Self(16);
    /// Part of the names below a path, for lists that are longer than a message.
    pub const DIRECTORY_PART: Self = Self(22);
}

/// Offsets in the page that is shared with the server: two rings with their indices, and the state of the connection.
pub mod page {
    /// The ring of requests.
    pub const REQUESTS: usize = 0;
    /// The ring of replies and events.
    pub const REPLIES: usize = 1024;
    /// Bytes of each.
    pub const RING: u32 = 1024;
    /// Index of requests consumed.
    pub const REQUESTS_CONSUMED: usize = 2048;
    /// Index of requests produced.
    pub const REQUESTS_PRODUCED: usize = 2052;
    /// Index of replies consumed.
    pub const REPLIES_CONSUMED: usize = 2056;
    /// Index of replies produced.
    pub const REPLIES_PRODUCED: usize = 2060;
}

const _: () = assert!(HEADER == 16);
