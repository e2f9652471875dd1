//! Between a request's data, in whatever pieces, and whole pages. Any context.
//!
//! Pieces are of whole sectors, so that a sector lies in one piece and in one page.

use undercroft_block::Data;

use super::pool::Granted;

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// The sectors' places: number of the page among those lent, and offset in it.
fn places() -> impl Iterator<Item = (usize, usize)> {
    (0..).map(|sector: usize| (sector * SECTOR / PAGE, sector * SECTOR % PAGE))
}

/// Copies the data into the pages.
pub(crate) fn to_pages(pages: &[Granted], lent: &[u16], data: &Data) {
    let sectors = data.pieces().iter().flat_map(|piece| piece.bytes().as_chunks::<SECTOR>().0);
    for (sector, (at, offset)) in sectors.zip(places()) {
        if let Some(page) = lent.get(at).and_then(|page| pages.get(usize::from(*page))) {
            page.write(offset, *sector);
        }
    }
}

/// Copies the pages into the data. What the other end writes meanwhile is read once, whatever it is.
pub(crate) fn from_pages(pages: &[Granted], lent: &[u16], data: &mut Data) {
    let sectors = data.pieces_mut().iter_mut().flat_map(|piece| piece.bytes_mut().as_chunks_mut::<SECTOR>().0);
    for (sector, (at, offset)) in sectors.zip(places()) {
        if let Some(page) = lent.get(at).and_then(|page| pages.get(usize::from(*page))) {
            *sector = page.read(offset);
        }
    }
}
