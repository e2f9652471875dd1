//! Frames beside a machine's RAM, where a hypervisor puts pages of its own.
//!
//! UNSAFETY: pages that are shared for ever, as [`SharedPage`] wants them. They are allocated once and given from machine to machine.

use core::ptr::NonNull;
use core::sync::atomic::Ordering;
use std::boxed::Box;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::vec::Vec;

use super::BadAccess;
use crate::xen::{PAGE, SharedPage};

/// Where the guest is told that nothing is.
const SPARE: u64 = 0xF_8000;

#[repr(align(4096))]
struct Memory([u8; PAGE]);

/// Pages that no machine uses.
static UNUSED: Mutex<Vec<SharedPage>> = Mutex::new(Vec::new());

/// A zeroed page that stays mapped for ever.
pub(crate) fn page() -> SharedPage {
    let unused = UNUSED.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let page = unused.unwrap_or_else(|| {
        let memory = Box::leak(Box::new(Memory([0; PAGE])));
        // SAFETY: leaked, aligned to a page, and reached by this address only.
        unsafe { SharedPage::new(NonNull::from(&mut memory.0).cast()) }
    });
    (0..PAGE).step_by(4).for_each(|offset| page.word(offset).store(0, Ordering::Relaxed));
    page
}

/// The frames beside the RAM of one machine.
#[derive(Debug)]
pub struct Frames {
    pages: RefCell<BTreeMap<u64, SharedPage>>,
    next: Cell<u64>,
}

impl Default for Frames {
    fn default() -> Self {
        Self { pages: RefCell::default(), next: Cell::new(SPARE) }
    }
}

impl Frames {
    /// The number of a frame where nothing is, another one each time: [`crate::xen::Hypervisor::spare_frame`].
    pub fn spare(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
    }

    /// Puts a zeroed page at a frame, unless one is there.
    pub fn put(&self, frame: u64) {
        self.pages.borrow_mut().entry(frame).or_insert_with(page);
    }

    /// The page at a frame: [`crate::xen::Hypervisor::map_page`].
    pub fn page(&self, frame: u64) -> Option<SharedPage> {
        self.pages.borrow().get(&frame).map(SharedPage::again)
    }

    fn at(&self, addr: u64, len: usize) -> Result<(SharedPage, usize), BadAccess> {
        let offset = (addr % PAGE as u64) as usize;
        let page = self.page(addr / PAGE as u64).filter(|_| len <= PAGE - offset).ok_or(BadAccess { addr, len })?;
        Ok((page, offset))
    }

    /// Another domain, or the hypervisor, reads.
    ///
    /// # Errors
    /// [`BadAccess`] when the range is not wholly in one page.
    pub fn read(&self, addr: u64, into: &mut [u8]) -> Result<(), BadAccess> {
        let (page, offset) = self.at(addr, into.len())?;
        (offset..).zip(into).for_each(|(offset, byte)| *byte = page.byte(offset));
        Ok(())
    }

    /// Another domain, or the hypervisor, writes.
    ///
    /// # Errors
    /// [`BadAccess`], with nothing written.
    pub fn write(&self, addr: u64, bytes: &[u8]) -> Result<(), BadAccess> {
        let (page, offset) = self.at(addr, bytes.len())?;
        (offset..).zip(bytes).for_each(|(offset, byte)| page.set_byte(offset, *byte));
        Ok(())
    }
}

impl Drop for Frames {
    /// What the guest left mapped stays memory, of the next machine.
    fn drop(&mut self) {
        let pages = core::mem::take(&mut *self.pages.borrow_mut());
        UNUSED.lock().unwrap_or_else(PoisonError::into_inner).extend(pages.into_values());
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_one_page_and_nothing_beside_it() {
        let frames = Frames::default();
        let (one, other) = (frames.spare(), frames.spare());
        assert_ne!(one, other);
        assert!(frames.page(one).is_none());
        frames.put(one);
        let addr = one * PAGE as u64;
        frames.write(addr + 8, &[1, 2, 3, 4]).unwrap();
        let page = frames.page(one).unwrap();
        assert_eq!(page.word(8).load(Ordering::Relaxed), 0x0403_0201);
        page.set_byte(9, 7);
        frames.put(one);
        let mut bytes = [0; 4];
        frames.read(addr + 8, &mut bytes).unwrap();
        assert_eq!(bytes, [1, 7, 3, 4]);
        assert_eq!(frames.read(addr + 4093, &mut bytes), Err(BadAccess { addr: addr + 4093, len: 4 }));
        assert!(frames.write(other * PAGE as u64, &bytes).is_err());
        // Where the page was before is zero again in another machine.
        drop(frames);
        assert_eq!((0..PAGE).map(|offset| u32::from(super::page().byte(offset))).sum::<u32>(), 0);
    }
}
