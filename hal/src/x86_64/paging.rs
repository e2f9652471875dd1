//! Page tables: four levels, the largest pages that fit, writable or executable and never both.
//!
//! Source: Intel SDM volume 3, 5.5. Mappings are made and never undone or weakened, but for those of single frames by
//! [`unmap_frame`]: only of these a processor can hold a stale translation. Tables are never freed.
//!
//! Contexts: all but hard interrupt; `translate` everywhere. Rank: [`TABLES`], outside that of the frames.

use core::arch::asm;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use super::layout::{self, DEVICES, DIRECT, FIRMWARE, WINDOW_BYTES};
use super::memory;
use super::registers;
use crate::firmware::memory_map::{FRAME, MemoryMap, Range};
use crate::sync::{IrqSpinLock, Rank};

/// Rank of the tables' lock.
const TABLES: Rank = Rank::new(54);

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const WRITE_THROUGH: u64 = 1 << 3;
const UNCACHED: u64 = 1 << 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

/// What a mapping may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rights {
    /// Reading.
    Read,
    /// Reading and writing.
    Write,
    /// Reading and executing.
    Execute,
    /// Reading and writing, uncached: device registers.
    Device,
}

impl Rights {
    fn bits(self) -> u64 {
        // Accessed and dirty from the start: the processor need not write them later.
        let rights = match self {
            Self::Read => NO_EXECUTE,
            Self::Write => NO_EXECUTE | WRITABLE | DIRTY,
            Self::Execute => 0,
            Self::Device => NO_EXECUTE | WRITABLE | DIRTY | WRITE_THROUGH | UNCACHED,
        };
        PRESENT | ACCESSED | rights
    }
}

/// No frame was left for a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoMemory;

/// Physical address of the top table.
static ROOT: AtomicU64 = AtomicU64::new(0);
static LOCK: IrqSpinLock<()> = IrqSpinLock::new(TABLES, ());

/// The entry at `index` of the table at physical address `table`.
fn entry(table: u64, index: u64) -> &'static AtomicU64 {
    let entry = memory::pointer(table + index % 512 * 8).cast::<AtomicU64>();
    // SAFETY: `table` is a frame that this file made a table and that is never freed; it is reached through the map
    // in force. The processor's own accesses to it are atomic too.
    unsafe { &*entry }
}

/// The table that `slot` points to, made if there is none. `None` in the result: a large page is there.
fn next_table(slot: &AtomicU64) -> Result<Option<u64>, NoMemory> {
    let old = slot.load(Ordering::Relaxed);
    if old & PRESENT != 0 {
        return Ok((old & LARGE == 0).then_some(old & ADDRESS));
    }
    let table = new_table()?;
    // Rights are those of the last level.
    slot.store(table | PRESENT | WRITABLE | ACCESSED, Ordering::Release);
    Ok(Some(table))
}

fn new_table() -> Result<u64, NoMemory> {
    let table = memory::allocate(FRAME, FRAME, u64::MAX).ok_or(NoMemory)?;
    // SAFETY: a frame of our own.
    unsafe { memory::pointer(table).write_bytes(0, FRAME as usize) };
    Ok(table)
}

/// Whether the processor has 1 GiB pages.
fn has_huge_pages() -> bool {
    registers::cpuid(0x8000_0001, 0).edx & 1 << 26 != 0
}

/// Maps `bytes` bytes at `virt` to `phys`, all multiples of a frame. What is mapped already stays as it is.
pub(super) fn map(virt: u64, phys: u64, bytes: u64, rights: Rights) -> Result<(), NoMemory> {
    let _guard = LOCK.lock();
    let top_shift = if has_huge_pages() { 30 } else { 21 };
    let mut done = 0;
    while done < bytes {
        let (at, to, left) = (virt + done, phys + done, bytes - done);
        let fits = |shift: &u32| (at | to) % (1 << shift) == 0 && left >= 1 << shift;
        let shift = [30, 21].into_iter().filter(|&shift| shift <= top_shift).find(fits).unwrap_or(12);
        map_page(at, to, shift, rights)?;
        done += 1 << shift;
    }
    Ok(())
}

fn map_page(virt: u64, phys: u64, shift: u32, rights: Rights) -> Result<(), NoMemory> {
    let mut table = ROOT.load(Ordering::Relaxed);
    for level in [39, 30, 21] {
        if level == shift {
            break;
        }
        match next_table(entry(table, virt >> level))? {
            Some(next) => table = next,
            None => return Ok(()),
        }
    }
    let slot = entry(table, virt >> shift);
    if slot.load(Ordering::Relaxed) & PRESENT == 0 {
        let large = if shift > 12 { LARGE } else { 0 };
        slot.store(phys | rights.bits() | large, Ordering::Release);
    }
    Ok(())
}

/// The entry of the last level for `virt`, with tables above it made as needed.
fn last_entry(virt: u64) -> Result<Option<&'static AtomicU64>, NoMemory> {
    let mut table = ROOT.load(Ordering::Relaxed);
    for level in [39, 30, 21] {
        match next_table(entry(table, virt >> level))? {
            Some(next) => table = next,
            None => return Ok(None),
        }
    }
    Ok(Some(entry(table, virt >> 12)))
}

/// Maps the frame at `phys` to `virt`, where nothing is mapped, to be written. `false`: something is, or there is no memory for a table.
pub(super) fn map_frame(virt: u64, phys: u64) -> bool {
    let _guard = LOCK.lock();
    let Ok(Some(slot)) = last_entry(virt) else { return false };
    let new = phys | Rights::Write.bits();
    slot.compare_exchange(0, new, Ordering::Release, Ordering::Relaxed).is_ok()
}

/// Takes away what [`map_frame`] mapped at `virt`, and returns its frame, which processors may still reach until they have forgotten it
/// ([`super::shootdown`]).
pub(super) fn unmap_frame(virt: u64) -> Option<u64> {
    if !(layout::BACKED..layout::BACKED + layout::BACKED_BYTES).contains(&virt) {
        return None;
    }
    let _guard = LOCK.lock();
    let slot = last_entry(virt).ok().flatten()?;
    let old = slot.swap(0, Ordering::SeqCst);
    (old & PRESENT != 0).then_some(old & ADDRESS)
}

/// Makes this processor forget every translation: none of ours is global.
pub(super) fn forget_translations() {
    use_tables();
}

/// Returns the physical address that `virt` is mapped to.
pub(super) fn translate(virt: u64) -> Option<u64> {
    let mut table = ROOT.load(Ordering::Relaxed);
    if table == 0 {
        return None;
    }
    for shift in [39, 30, 21, 12] {
        let found = entry(table, virt >> shift).load(Ordering::Acquire);
        if found & PRESENT == 0 {
            return None;
        }
        if shift == 12 || found & LARGE != 0 {
            let inside = (1 << shift) - 1;
            return Some(found & ADDRESS & !inside | virt & inside);
        }
        table = found & ADDRESS;
    }
    None
}

/// Builds the final tables, image and direct map, and makes this processor use them.
pub(super) fn init(map: &MemoryMap) -> Result<(), NoMemory> {
    ROOT.store(new_table()?, Ordering::Relaxed);
    let [start, text, text_end, end] = layout::image();
    self::map(start, start, text - start, Rights::Read)?;
    self::map(text, text, text_end - text, Rights::Execute)?;
    self::map(text_end, text_end, end - text_end, Rights::Write)?;
    // The frames of the image are in no range of the map: they have no second, writable name.
    for range in map.iter().filter(|range| range.start < WINDOW_BYTES) {
        let bytes = range.end.min(WINDOW_BYTES) - range.start;
        self::map(DIRECT + range.start, range.start, bytes, Rights::Write)?;
    }
    use_tables();
    Ok(())
}

/// Makes this processor use the tables.
pub(super) fn use_tables() {
    // SAFETY: the tables map the image where it runs, its data (the boot stack with it) and every stack in use; what
    // else the entry's temporary tables mapped is not referred to any more.
    unsafe { asm!("mov cr3, {}", in(reg) ROOT.load(Ordering::Relaxed), options(nostack, preserves_flags)) };
}

/// Physical address of the top table.
pub(super) fn root() -> u64 {
    ROOT.load(Ordering::Relaxed)
}

/// Maps a page frame that the direct map leaves out, to be written, and returns where it is seen: memory below 1 MiB, and what a hypervisor
/// shares beside the RAM.
pub(super) fn map_beside(phys: u64) -> Option<NonNull<u8>> {
    if phys >= WINDOW_BYTES {
        return None;
    }
    map(DIRECT + phys, phys, FRAME, Rights::Write).ok()?;
    NonNull::new(memory::pointer(phys))
}

/// The whole frames around a physical range, if the windows can show it.
fn frames(phys: u64, bytes: usize) -> Option<Range> {
    let end = phys.checked_add(bytes as u64)?.checked_next_multiple_of(FRAME)?;
    (bytes != 0 && end <= WINDOW_BYTES).then_some(Range { start: phys & !(FRAME - 1), end })
}

/// Maps device registers, uncached, and returns where they are seen.
pub(super) fn map_device(phys: u64, bytes: usize) -> Option<u64> {
    let range = frames(phys, bytes)?;
    map(DEVICES + range.start, range.start, range.len(), Rights::Device).ok()?;
    Some(DEVICES + phys)
}

/// Maps what the firmware left in memory, to be read, and returns where it is seen.
pub(super) fn map_firmware(phys: u64, bytes: usize) -> Option<u64> {
    let range = frames(phys, bytes)?;
    map(FIRMWARE + range.start, range.start, range.len(), Rights::Read).ok()?;
    Some(FIRMWARE + phys)
}

/// Calls `visit` with address, entry and size of every page.
#[cfg(feature = "provoke")]
fn walk(visit: &mut impl FnMut(u64, u64, u64)) {
    fn level(table: u64, shift: u32, base: u64, visit: &mut impl FnMut(u64, u64, u64)) {
        for index in 0..512 {
            let found = entry(table, index).load(Ordering::Acquire);
            let virt = base + (index << shift);
            if found & PRESENT == 0 {
                continue;
            }
            if shift == 12 || found & LARGE != 0 {
                visit(virt, found, 1 << shift);
            } else {
                level(found & ADDRESS, shift - 9, virt, visit);
            }
        }
    }
    level(ROOT.load(Ordering::Relaxed), 39, 0, visit);
}

/// Counts what the tables hold.
#[cfg(feature = "provoke")]
pub(super) fn count() -> super::provoke::Pages {
    let mut pages = super::provoke::Pages::default();
    let [_, text, text_end, _] = layout::image();
    walk(&mut |_, entry, bytes| {
        let (writable, executable) = (entry & WRITABLE != 0, entry & NO_EXECUTE == 0);
        let phys = entry & ADDRESS & !(bytes - 1);
        pages.mapped += 1;
        pages.executable += u64::from(executable);
        pages.writable_and_executable += u64::from(writable && executable);
        // All that is executable is the image's text.
        pages.executable_with_writable_alias += u64::from(writable && phys < text_end && phys + bytes > text);
    });
    pages
}

/// Gives the image's text a second name that can be written and executed: what [`count`] must notice.
#[cfg(feature = "provoke")]
pub(super) fn map_wrongly() -> Result<(), NoMemory> {
    let [_, text, ..] = layout::image();
    let _guard = LOCK.lock();
    last_entry(FIRMWARE + WINDOW_BYTES - FRAME)?.ok_or(NoMemory)?.store(text | PRESENT | WRITABLE, Ordering::Release);
    Ok(())
}
