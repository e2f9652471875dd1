//! [`SharedPage`]: a page that the guest shares with another domain and that is no memory of its heaps.
//!
//! UNSAFETY: reads and writes memory that somebody else reads and writes at the same time.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// A page of 4096 bytes that another domain may read and write at any time. What is read is copied once; no reference into it is
/// made but to atomic words. Any context.
///
/// Offsets are a driver's own, never another domain's: one outside the page is a bug and panics.
#[derive(Debug)]
pub struct SharedPage(NonNull<u8>);

// SAFETY: all access is by volatile or atomic operations, and the page stays mapped for ever.
unsafe impl Send for SharedPage {}
// SAFETY: as for Send.
unsafe impl Sync for SharedPage {}

impl SharedPage {
    /// # Safety
    /// `page` is the start of 4096 bytes of memory, aligned to a page, that stay mapped for ever and that nothing of this program uses in any
    /// other way.
    pub const unsafe fn new(page: NonNull<u8>) -> Self {
        Self(page)
    }

    /// The same page once more: for the machine that it lies in.
    #[cfg(feature = "hosted")]
    pub(crate) fn again(&self) -> Self {
        Self(self.0)
    }

    /// A word that both sides read and write.
    ///
    /// # Panics
    /// If `offset` is not a multiple of 4, or outside.
    pub fn word(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset < PAGE);
        // SAFETY: within the page, aligned; the memory is used by atomic and volatile operations only, for ever.
        unsafe { self.0.add(offset).cast::<AtomicU32>().as_ref() }
    }

    /// Reads a byte.
    ///
    /// # Panics
    /// If `offset` is outside.
    pub fn byte(&self, offset: usize) -> u8 {
        assert!(offset < PAGE);
        // SAFETY: within the page; a volatile copy.
        unsafe { self.0.add(offset).read_volatile() }
    }

    /// Writes a byte.
    ///
    /// # Panics
    /// If `offset` is outside.
    pub fn set_byte(&self, offset: usize, value: u8) {
        assert!(offset < PAGE);
        // SAFETY: within the page; no reference into it exists but to atomics, which this leaves whole.
        unsafe { self.0.add(offset).write_volatile(value) };
    }

    /// Sends what fits of `bytes` into a ring of a power of two of bytes at `ring`, whose indices run freely: `consumed` is the other side's,
    /// `produced` ours. Returns how many were sent. An index of the other side's that cannot be is taken for a full ring.
    pub fn send(
        &self,
        ring: usize,
        size: u32,
        consumed: usize,
        produced: usize,
        bytes: &mut dyn Iterator<Item = u8>,
    ) -> u32 {
        let ours = self.word(produced).load(Ordering::Relaxed);
        let theirs = self.word(consumed).load(Ordering::Acquire);
        let free = size.saturating_sub(ours.wrapping_sub(theirs));
        let mut sent = 0;
        while sent < free
            && let Some(byte) = bytes.next()
        {
            self.set_byte(ring + (ours.wrapping_add(sent) % size) as usize, byte);
            sent += 1;
        }
        self.word(produced).store(ours.wrapping_add(sent), Ordering::Release);
        sent
    }

    /// Takes what has come in a ring as [`SharedPage::send`]'s, where `produced` is the other side's and `consumed` ours, as much as `into` holds.
    /// Returns how many those are. An index that cannot be is taken for nothing.
    pub fn take(&self, ring: usize, size: u32, consumed: usize, produced: usize, into: &mut [u8]) -> usize {
        let ours = self.word(consumed).load(Ordering::Relaxed);
        let came = self.word(produced).load(Ordering::Acquire).wrapping_sub(ours);
        let came = if came > size { 0 } else { (came as usize).min(into.len()) };
        for (index, to) in into[..came].iter_mut().enumerate() {
            *to = self.byte(ring + (ours.wrapping_add(index as u32) % size) as usize);
        }
        self.word(consumed).store(ours.wrapping_add(came as u32), Ordering::Release);
        came
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::hosted::frames::page;

    /// The ring at 0 with 8 bytes, its indices behind it.
    fn send(page: &SharedPage, bytes: &[u8]) -> u32 {
        page.send(0, 8, 8, 12, &mut bytes.iter().copied())
    }

    fn take(page: &SharedPage, most: usize) -> Vec<u8> {
        let mut into = std::vec![0; most];
        let came = page.take(0, 8, 8, 12, &mut into);
        into.truncate(came);
        into
    }

    #[test]
    fn what_is_sent_is_taken_in_order_around_the_end_of_ring_and_index() {
        let page = page();
        page.word(8).store(u32::MAX - 5, Ordering::Relaxed);
        page.word(12).store(u32::MAX - 5, Ordering::Relaxed);
        for round in 0..100u8 {
            assert_eq!(send(&page, &[round, 1, 2, 3, 4]), 5);
            assert_eq!(take(&page, 3), [round, 1, 2]);
            assert_eq!(take(&page, 9), [3, 4]);
        }
    }

    #[test]
    fn a_full_ring_takes_no_more() {
        let page = page();
        assert_eq!(send(&page, &[7; 20]), 8);
        assert_eq!(send(&page, &[7]), 0);
        assert_eq!(take(&page, 20), [7; 8]);
        assert!(take(&page, 20).is_empty());
    }

    #[test]
    fn indices_that_cannot_be_are_believed_by_neither_side() {
        let page = page();
        page.word(12).store(9, Ordering::Relaxed);
        assert!(take(&page, 20).is_empty(), "9 bytes in a ring of 8");
        page.word(12).store(0, Ordering::Relaxed);
        page.word(8).store(1, Ordering::Relaxed);
        assert_eq!(send(&page, &[7]), 0, "consumed before it was produced");
    }
}
