//! Where things lie in the virtual address space.
//!
//! | from | what |
//! |---|---|
//! | 1 MiB | the image, where it was loaded: text executable, the rest not, only data writable |
//! | [`BACKED`] | pages of the backed heap, writable, never executable; the only mappings that are undone |
//! | [`STACKS`] | stacks, each with unmapped pages around it |
//! | [`FIRMWARE`] + p | firmware tables at physical p, read only |
//! | [`DIRECT`] + p | RAM at physical p, writable, never executable; without the image's own frames |
//! | [`DEVICES`] + p | device registers at physical p, uncached |
//!
//! Page 0 is never mapped. The windows are a function of the physical address, so that mapping the same thing
//! twice gives the same place and no address allocator is needed. Each spans 64 TiB.

/// Pages of the backed heap.
pub(super) const BACKED: u64 = 0x0000_1000_0000_0000;
/// Addresses of that heap.
pub(super) const BACKED_BYTES: u64 = 1 << 40;
/// Stacks with guard pages.
pub(super) const STACKS: u64 = 0x0000_2000_0000_0000;
/// Window on firmware tables.
pub(super) const FIRMWARE: u64 = 0x0000_4000_0000_0000;
/// Window on RAM.
pub(super) const DIRECT: u64 = 0xffff_8000_0000_0000;
/// Window on device registers.
pub(super) const DEVICES: u64 = 0xffff_c000_0000_0000;
/// Physical addresses that the windows can show.
pub(super) const WINDOW_BYTES: u64 = 1 << 46;

unsafe extern "C" {
    static __image_start: u8;
    static __text_start: u8;
    static __text_end: u8;
    static __image_end: u8;
}

/// The image's parts as addresses (virtual and physical alike): start, text start, text end, end.
pub(super) fn image() -> [u64; 4] {
    [
        (&raw const __image_start).addr() as u64,
        (&raw const __text_start).addr() as u64,
        (&raw const __text_end).addr() as u64,
        (&raw const __image_end).addr() as u64,
    ]
}
