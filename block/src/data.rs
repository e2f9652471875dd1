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
    /// A part of a list, while a queue has it transferred piecemeal.
    Window(Window),
}

/// Some pieces of a list; the others are not shown.
#[derive(Debug)]
pub struct Window {
    list: Vec<Piece>,
    from: usize,
    to: usize,
}

/// What [`Data::narrow`] changed: a piece and what it showed before.
#[derive(Debug, Clone, Copy)]
struct Edge {
    at: usize,
    start: usize,
    len: usize,
}

/// What undoes a [`Data::narrow`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Edges {
    first: Edge,
    last: Edge,
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
            Self::Window(window) => window.list.get(window.from..window.to).unwrap_or(&[]),
        }
    }

    /// The pieces, in order, to fill.
    pub fn pieces_mut(&mut self) -> &mut [Piece] {
        match self {
            Self::None => &mut [],
            Self::One(piece) => core::slice::from_mut(piece),
            Self::List(pieces) => pieces,
            Self::Window(window) => window.list.get_mut(window.from..window.to).unwrap_or(&mut []),
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

    /// Shows only the `len` bytes from `skip` on, which there must be, until [`Data::widen`]. `None`, with nothing changed, if there are no
    /// such bytes.
    pub(crate) fn narrow(&mut self, skip: usize, len: usize) -> Option<Edges> {
        let pieces = self.pieces();
        let (first, skip) = Self::seek(pieces, skip)?;
        // The last byte's piece, and how many of its bytes are shown.
        let (last, over) =
            Self::seek(pieces, pieces[..first].iter().map(Piece::len).sum::<usize>() + skip + len.checked_sub(1)?)?;
        let edge = |at: usize| Edge { at, start: pieces[at].start, len: pieces[at].len };
        let edges = Edges { first: edge(first), last: edge(last) };
        let pieces = self.pieces_mut();
        // The end first: where both are one piece, its start has not moved yet.
        pieces[last].len = over + 1;
        pieces[first].start += skip;
        pieces[first].len -= skip;
        if let Self::List(list) = self {
            let list = core::mem::take(list);
            *self = Self::Window(Window { list, from: first, to: last + 1 });
        }
        Some(edges)
    }

    /// The piece that byte `skip` is in, and where.
    fn seek(pieces: &[Piece], mut skip: usize) -> Option<(usize, usize)> {
        for (at, piece) in pieces.iter().enumerate() {
            if skip < piece.len {
                return Some((at, skip));
            }
            skip -= piece.len;
        }
        None
    }

    /// Undoes [`Data::narrow`].
    pub(crate) fn widen(&mut self, edges: Edges) {
        if let Self::Window(window) = self {
            *self = Self::List(core::mem::take(&mut window.list));
        }
        for edge in [edges.first, edges.last] {
            if let Some(piece) = self.pieces_mut().get_mut(edge.at) {
                (piece.start, piece.len) = (edge.start, edge.len);
            }
        }
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
