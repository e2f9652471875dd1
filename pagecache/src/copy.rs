//! Copies between the pieces of an operation's data and a page. Any context.

use undercroft_block::{Data, Piece};

use crate::broken::{self, Hazard};

/// How far into its data an operation has come.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cursor {
    piece: usize,
    skip: usize,
}

impl Cursor {
    /// The next bytes that lie in one piece, at most `most`, as piece, start and length; and goes on behind them.
    fn part(&mut self, pieces: &[Piece], most: usize) -> Option<(usize, usize, usize)> {
        if most == 0 {
            return None;
        }
        loop {
            let len = pieces.get(self.piece)?.len();
            if self.skip < len {
                let (start, part) = (self.skip, (len - self.skip).min(most));
                self.skip += part;
                // X30: a copy that begins within a piece.
                let start = if broken::is(Hazard::OffsetIgnored) { 0 } else { start };
                return Some((self.piece, start, part));
            }
            (self.piece, self.skip) = (self.piece + 1, 0);
        }
    }

    /// Copies a part of a page into the data.
    pub(crate) fn copy_out(&mut self, data: &mut Data, page: &[u8]) {
        let pieces = data.pieces_mut();
        let mut done = 0;
        while let Some((piece, start, part)) = self.part(pieces, page.len() - done) {
            pieces[piece].bytes_mut()[start..start + part].copy_from_slice(&page[done..done + part]);
            done += part;
        }
    }

    /// Copies the next bytes of the data into a part of a page.
    pub(crate) fn copy_in(&mut self, data: &Data, page: &mut [u8]) {
        let pieces = data.pieces();
        let mut done = 0;
        while let Some((piece, start, part)) = self.part(pieces, page.len() - done) {
            page[done..done + part].copy_from_slice(&pieces[piece].bytes()[start..start + part]);
            done += part;
        }
    }
}
