//! The data of a request: device-visible memory that the request owns.

use alloc::vec::Vec;

use undercroft_hal::dma::{DmaBuf, Segment};

/// A part of a buffer.
#[derive(Debug)]
pub struct Piece {
    buf: DmaBuf,
    start: usize,
    len: usize,
}

impl Piece {
    /// The part of `len` bytes from `start`; cut to what the buffer has.
    pub fn new(buf: DmaBuf, start: usize, len: usize) -> Self {
        let start = start.min(buf.len());
        let len = len.min(buf.len() - start);
        Self { buf, start, len }
    }

    /// The buffer back.
    pub fn into_buf(self) -> DmaBuf {
        self.buf
    }

    /// The part's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.buf[self.start..self.start + self.len]
    }

    /// The part's bytes, to fill.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buf[self.start..self.start + self.len]
    }

    /// Bytes in the part.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether the part is empty.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What a descriptor carries.
    pub const fn segment(&self) -> Segment {
        Segment { addr: self.buf.segment().addr + self.start as u64, len: self.len as u32 }
    }
}

impl From<DmaBuf> for Piece {
    fn from(buf: DmaBuf) -> Self {
        let len = buf.len();
        Self::new(buf, 0, len)
    }
}

/// All the data of a request. Moving it allocates nothing; a list is made once and travels with its request.
#[derive(Debug, Default)]
pub enum Data {
    /// No data: flush, discard, write zeroes.
    #[default]
    None,
    /// One piece.
    One(Piece),
    /// Several pieces, in order.
    List(Vec<Piece>),
}

impl Data {
    /// The buffer, if there is exactly one.
    ///
    /// # Errors
    /// The data, as it was.
    pub fn into_buf(self) -> Result<DmaBuf, Self> {
        if let Self::One(piece) = self { Ok(piece.into_buf()) } else { Err(self) }
    }

    /// The pieces, in order.
    pub fn pieces(&self) -> &[Piece] {
        match self {
            Self::None => &[],
            Self::One(piece) => core::slice::from_ref(piece),
            Self::List(pieces) => pieces,
        }
    }

    /// The pieces, in order, to fill.
    pub fn pieces_mut(&mut self) -> &mut [Piece] {
        match self {
            Self::None => &mut [],
            Self::One(piece) => core::slice::from_mut(piece),
            Self::List(pieces) => pieces,
        }
    }

    /// What the descriptors carry, in order.
    pub fn segments(&self) -> impl Iterator<Item = Segment> + Clone + '_ {
        self.pieces().iter().map(Piece::segment)
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.pieces().iter().map(Piece::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Piece> for Data {
    fn from(piece: Piece) -> Self {
        Self::One(piece)
    }
}

impl From<DmaBuf> for Data {
    fn from(buf: DmaBuf) -> Self {
        Self::One(buf.into())
    }
}
