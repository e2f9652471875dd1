//! The virtual and the backed heap.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::broken::{self, Hazard};
use crate::context::Task;
use crate::firmware::memory_map::{FRAME, MemoryMap, Range};
use crate::heap::{self, Addresses, Backed, Mapper, Physical, Purpose, Unmapped, Virtual};
use crate::hosted::Cpus;

fn address_ranges() {
    Cpus::new(1).run(0, |task| {
        let heap = Virtual::new();
        assert!(heap.add(0x1000..0x10_0000) && heap.add(0x20_0000..0x30_0000));
        assert!(!heap.add(0x8000..0x9000) && !heap.add(0..0x1001) && !heap.add(7..7), "overlap or empty");
        let before = heap.bytes();
        let held: Vec<_> = (0..60_u64)
            .filter_map(|n| Some((n, heap.allocate(task, 0x1000 + n * 0x400, 1 << (12 + n % 5))?)))
            .collect();
        let aligned = |(n, range): &(u64, Addresses)| range.start().is_multiple_of(1 << (12 + n % 5));
        assert!(held.iter().all(aligned), "a range is not aligned as asked for");
        let held: Vec<_> = held.into_iter().map(|(_, range)| range).collect();
        let mut sorted: Vec<_> = held.iter().map(|range| (range.start(), range.bytes())).collect();
        sorted.sort_unstable();
        assert!(sorted.len() > 40 && sorted.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0));
        let (even, odd): (Vec<_>, Vec<_>) = held.into_iter().partition(|range| range.start() & 0x1000 == 0);
        even.into_iter().chain(odd).for_each(|range| heap.free(task, range));
        assert_eq!((heap.bytes(), heap.bytes().1), (before, 0));
        assert!(heap.allocate(task, 0x10_0000, 0x10_0000).is_some(), "one piece again");
        assert!(heap.allocate(task, 0, 8).is_none() && heap.allocate(task, 8, 3).is_none());
        assert!(heap.allocate(task, u64::MAX, 1).is_none());
    });
}

#[test]
fn p_40_address_ranges_are_disjoint_aligned_and_come_together_again() {
    address_ranges();
}

#[test]
#[should_panic(expected = "not aligned as asked for")]
fn p_40_control_alignment_forgotten() {
    broken::with(Hazard::AlignmentForgotten, address_ranges);
}

/// What happened to a page, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Mapped(u64),
    Unmapped(u64),
}

/// Page tables on paper.
#[derive(Default)]
struct Tables {
    pages: RefCell<BTreeMap<u64, u64>>,
    events: RefCell<Vec<Event>>,
    /// Tables that can still be made.
    room: RefCell<u64>,
}

// SAFETY: nothing is really mapped, and no test looks at the memory.
unsafe impl Mapper for &Tables {
    fn map(&self, address: u64, phys: u64) -> bool {
        let mut room = self.room.borrow_mut();
        let Some(left) = room.checked_sub(1) else { return false };
        *room = left;
        assert_eq!(self.pages.borrow_mut().insert(address, phys), None, "mapped twice");
        self.events.borrow_mut().push(Event::Mapped(address));
        true
    }
    unsafe fn unmap(&self, address: u64) -> Option<u64> {
        self.events.borrow_mut().push(Event::Unmapped(address));
        self.pages.borrow_mut().remove(&address)
    }
}

fn with_pages(f: impl FnOnce(&Task, &Virtual, &Physical, &Tables)) {
    const RAM: usize = 1 << 20;
    let memory = vec![0_u64; 2 * RAM / 8].leak();
    let start = memory.as_ptr().expose_provenance().next_multiple_of(RAM) as u64;
    Cpus::new(1).run(0, |task| {
        let (addresses, frames, tables) = (Virtual::new(), Physical::new(), Tables::default());
        assert!(addresses.add(0x1_0000_0000..0x2_0000_0000));
        let mut map = MemoryMap::empty();
        map.add(Range { start: RAM as u64, end: 2 * RAM as u64 });
        frames.init(&map, &map);
        // SAFETY: a leaked block that holds this megabyte, aligned to its size.
        unsafe { frames.ready(start - RAM as u64, 1 << 46) };
        *tables.room.borrow_mut() = u64::MAX;
        f(task, &addresses, &frames, &tables);
    });
}

/// Page tables that look, at each page that goes, whether its frame is somebody's still.
struct Watching<'a> {
    tables: &'a Tables,
    frames: &'a Physical,
}

// SAFETY: as for `Tables`.
unsafe impl Mapper for &Watching<'_> {
    fn map(&self, address: u64, phys: u64) -> bool {
        self.tables.map(address, phys)
    }
    unsafe fn unmap(&self, address: u64) -> Option<u64> {
        let mapped = self.tables.pages.borrow().len() as u64;
        let held = (self.frames.bytes().0 - self.frames.bytes().1) / FRAME;
        assert!(held >= mapped, "a frame was freed while a page showed it");
        // SAFETY: by the caller.
        unsafe { self.tables.unmap(address) }
    }
}

/// Pattern 40: pages are unmapped before their frames are anybody else's.
fn freed_in_order(free: impl Fn(&Task, &Backed<'_, &Watching<'_>>, &Watching<'_>, Addresses)) {
    with_pages(|task, addresses, frames, tables| {
        let watching = Watching { tables, frames };
        let heap = Backed::new(addresses, frames, &watching);
        let before = (addresses.bytes(), frames.bytes());
        let pages = heap.allocate(task, 5 * FRAME - 1, Purpose::Ordinary).unwrap();
        assert_eq!((pages.bytes(), tables.pages.borrow().len()), (5 * FRAME, 5));
        let start = pages.start();
        free(task, &heap, &watching, pages);
        assert_eq!((addresses.bytes(), frames.bytes()), before);
        let page = |n: u64| start + n * FRAME;
        let want: Vec<_> =
            (0..5).map(|n| Event::Mapped(page(n))).chain((0..5).map(|n| Event::Unmapped(page(n)))).collect();
        assert_eq!(*tables.events.borrow(), want);
    });
}

#[test]
fn p_40_pages_are_unmapped_before_their_frames_are_freed() {
    // SAFETY: nothing uses the memory.
    freed_in_order(|task, heap, _, pages| unsafe { heap.free(task, pages) }.unwrap());
}

#[test]
#[should_panic(expected = "a frame was freed while a page showed it")]
fn p_40_control_frames_freed_first() {
    freed_in_order(|_, _, watching, pages| {
        for address in (pages.start()..pages.start() + pages.bytes()).step_by(FRAME as usize) {
            let phys = watching.tables.pages.borrow()[&address];
            // SAFETY: wrong, which is the point; nothing is really mapped, and nothing uses the memory.
            unsafe {
                watching.frames.free(phys, FRAME, FRAME);
                (&watching).unmap(address);
            }
        }
    });
}

/// A page that cannot be unmapped keeps its frame and its address: neither may be handed out while a CPU could still reach it.
#[test]
fn a_page_that_cannot_be_unmapped_stays_out_of_use() {
    with_pages(|task, addresses, frames, tables| {
        let heap = Backed::new(addresses, frames, tables);
        let (free, all) = (frames.bytes().1, addresses.bytes().0);
        let pages = heap.allocate(task, FRAME, Purpose::Ordinary).unwrap();
        let address = pages.start();
        tables.pages.borrow_mut().clear();
        // SAFETY: nothing uses the memory.
        assert_eq!(unsafe { heap.free(task, pages) }, Err(Unmapped { address }));
        assert_eq!((frames.bytes().1, addresses.bytes().0), (free - FRAME, all - FRAME));
    });
}

/// T-FAILN: no addresses, no frame, no room for a table: nothing stays behind.
#[test]
fn an_allocation_that_fails_half_way_is_undone() {
    with_pages(|task, addresses, frames, tables| {
        let heap = Backed::new(addresses, frames, tables);
        let before = (addresses.bytes(), frames.bytes());
        let clean = || (addresses.bytes(), frames.bytes()) == before && tables.pages.borrow().is_empty();
        let (pages, failures) = heap::each_failure(
            || heap.allocate(task, 4 * FRAME, Purpose::Ordinary),
            |n, pages| assert!(pages.is_none() && clean(), "allocation {n}"),
        );
        assert_eq!(failures, 5);
        // SAFETY: nothing uses the memory.
        unsafe { heap.free(task, pages.unwrap()) }.unwrap();
        for room in 0..4 {
            *tables.room.borrow_mut() = room;
            assert!(heap.allocate(task, 4 * FRAME, Purpose::Ordinary).is_none() && clean(), "room for {room}");
        }
        *tables.room.borrow_mut() = u64::MAX;
        assert!(heap.allocate(task, 2 << 20, Purpose::Ordinary).is_none() && clean(), "more than there is");
    });
}
