//! Pages with addresses of their own: the program's [`Backed`] heap, over the processor's tables.
//!
//! Contiguous addresses, whatever the frames: for large tables where memory is in pieces. Freeing takes the page out of the tables of every
//! processor first, one page at a time, each with an interrupt to all others: not for what comes and goes often.
//!
//! Contexts: bottom half and task. UNSAFETY: bytes at addresses that this file had mapped.

use core::ops::{Deref, DerefMut};
use core::slice;

use super::layout::{BACKED, BACKED_BYTES};
use super::{memory, paging, shootdown};
use crate::context::NotHardIrq;
use crate::heap::{self, Addresses, Backed, Mapper, Purpose, Unmapped, Virtual};

/// The tables, as the heap needs them.
struct Tables;

// SAFETY: `map_frame` shows the frame at an address that showed nothing, writable and not executable; `unmap` returns a frame only once
// every processor has forgotten it.
unsafe impl Mapper for Tables {
    fn map(&self, address: u64, phys: u64) -> bool {
        paging::map_frame(address, phys)
    }

    unsafe fn unmap(&self, address: u64) -> Option<u64> {
        let phys = paging::unmap_frame(address)?;
        shootdown::everywhere().ok()?;
        Some(phys)
    }
}

static ADDRESSES: Virtual = Virtual::new();
static HEAP: Backed<'static, Tables> = Backed::new(&ADDRESSES, memory::frames(), Tables);

/// Gives the heap its addresses, by the boot code once.
pub(super) fn init() {
    let added = ADDRESSES.add(BACKED..BACKED + BACKED_BYTES);
    debug_assert!(added);
}

/// Bytes that are mapped, or were and could not be freed.
pub fn bytes() -> u64 {
    let (free, _) = ADDRESSES.bytes();
    BACKED_BYTES - free
}

/// Pages of this heap. Dropping them keeps them mapped for ever: [`Pages::free`] gives them back.
#[derive(Debug)]
#[must_use = "pages that are dropped are lost"]
pub struct Pages {
    addresses: Addresses,
}

/// Allocates pages for `bytes` bytes, zeroed. `None` if there is not enough memory, or no bytes are wanted.
pub fn allocate(cx: &impl NotHardIrq, bytes: usize) -> Option<Pages> {
    let purpose = if heap::reserve_is_open() { Purpose::WriteBack } else { Purpose::Ordinary };
    let mut pages = Pages { addresses: HEAP.allocate(cx, bytes as u64, purpose)? };
    pages.fill(0);
    Some(pages)
}

impl Pages {
    /// Unmaps the pages on every processor and frees them.
    ///
    /// # Errors
    /// [`Unmapped`]: a processor did not answer in two seconds. The pages stay out of use.
    pub fn free(self, cx: &impl NotHardIrq) -> Result<(), Unmapped> {
        // SAFETY: the pages are this value's, which is consumed: no reference into them is left.
        unsafe { HEAP.free(cx, self.addresses) }
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let start = core::ptr::with_exposed_provenance(self.addresses.start() as usize);
        // SAFETY: the heap mapped these addresses for this value alone, which has written them whole, and until it is consumed.
        unsafe { slice::from_raw_parts(start, self.addresses.bytes() as usize) }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        let start = core::ptr::with_exposed_provenance_mut(self.addresses.start() as usize);
        // SAFETY: as in `deref`, and borrowed exclusively; any bytes are bytes.
        unsafe { slice::from_raw_parts_mut(start, self.addresses.bytes() as usize) }
    }
}
