//! Guest physical address descriptor lists: pages that the guest shares.

use super::Breach;
use super::consts::PAGE;
use super::guest::{u32_at, u64_at};

/// The most data that a header and a body carry.
pub(super) const HEADER_DATA: usize = 27 * 8;
pub(super) const BODY_DATA: usize = 28 * 8;
/// More than any guest shares in one list here.
const MOST_PAGES: u64 = 1 << 16;

/// A list while its parts arrive, and afterwards.
#[derive(Debug, Clone, Default)]
pub(super) struct Gpadl {
    data: Vec<u8>,
    announced: usize,
    /// Page numbers, once the list is whole.
    pub pages: Vec<u64>,
    pub whole: bool,
    /// When its end is told.
    pub torn_down: Option<u64>,
}

impl Gpadl {
    /// Begins with what the header says: the bytes of all ranges, how many ranges, and the first data.
    pub fn new(bytes: u16, ranges: u16, data: &[u8]) -> Result<Self, Breach> {
        if ranges != 1 {
            return Err(Breach::Gpadl("not one range"));
        }
        if bytes < 16 || !bytes.is_multiple_of(8) {
            return Err(Breach::Gpadl("range data of an impossible length"));
        }
        let mut gpadl = Self { announced: usize::from(bytes), ..Self::default() };
        gpadl.add(data, HEADER_DATA)?;
        Ok(gpadl)
    }

    /// Adds data of one message. Every message but the last is full.
    pub fn add(&mut self, data: &[u8], most: usize) -> Result<(), Breach> {
        if self.whole {
            return Err(Breach::Gpadl("a body too many"));
        }
        if data.len() > self.announced - self.data.len() {
            return Err(Breach::Gpadl("more data than announced"));
        }
        self.data.extend(data);
        if self.data.len() == self.announced {
            self.finish()
        } else if data.len() + 8 < most || data.is_empty() {
            // A header may leave one word free.
            Err(Breach::Gpadl("a part that is not full and not the last"))
        } else {
            Ok(())
        }
    }

    fn finish(&mut self) -> Result<(), Breach> {
        self.whole = true;
        let (count, offset) = (u64::from(u32_at(&self.data, 0)), u64::from(u32_at(&self.data, 4)));
        if offset >= PAGE {
            return Err(Breach::Gpadl("an offset beyond the first page"));
        }
        let pages = (offset + count).div_ceil(PAGE);
        if count == 0 || pages > MOST_PAGES || pages as usize != self.data.len() / 8 - 1 {
            return Err(Breach::Gpadl("a number of pages that does not fit the range"));
        }
        if offset != 0 || !count.is_multiple_of(PAGE) {
            return Err(Breach::Gpadl("not whole pages"));
        }
        self.pages = (1..=pages as usize).map(|page| u64_at(&self.data, page * 8)).collect();
        if self.pages.iter().any(|page| *page >= 1 << 40) {
            return Err(Breach::Gpadl("a page number beyond any memory"));
        }
        Ok(())
    }
}
