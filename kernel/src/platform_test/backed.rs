//! Pages with addresses of their own: no processor reaches a frame by an address that was freed, and nobody waits for ever for another to
//! forget one. (Patterns 39 and 40 of the list of historic defects.)

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use undercroft_hal::dma::{DmaBuf, DmaConstraints};
use undercroft_hal::executor::{self, JoinHandle};
use undercroft_hal::heap::Unmapped;
use undercroft_hal::sync::{IrqSpinLock, Rank};
use undercroft_hal::x86_64::backed::{self, Pages};
use undercroft_hal::x86_64::provoke::{self, Shootdown};
use undercroft_hal::x86_64::{console, machine};
use undercroft_hal::{Task, cpu};

const PAGE: usize = 4096;
/// What is in the page that is freed, in the one that follows at its address, and in the buffer that gets its frame.
const FIRST: u8 = 0x11;
const SECOND: u8 = 0x22;
const ANOTHERS: u8 = 0x33;

/// Runs the checks, on however many processors there are.
pub fn check(task: &Task) {
    let before = backed::bytes();
    contents(task);
    let mut controls = 0;
    for cpu in 0..cpu::count() {
        for _ in 0..20 {
            assert_eq!(
                seen_after_free(task, cpu, Shootdown::Right),
                SECOND,
                "processor {cpu} sees a page that is gone"
            );
        }
    }
    everybody_at_once(task);
    assert_eq!(freed_under_a_lock(task, Shootdown::Right), Ok(()));
    assert_eq!(backed::bytes(), before, "addresses were lost");
    if cpu::count() > 1 {
        // Not every time: a processor may forget a page by itself.
        let seen = (0..50).any(|_| seen_after_free(task, 1, Shootdown::NotSent) == ANOTHERS);
        assert!(seen, "the check would not notice");
        // Costs its page.
        assert!(freed_under_a_lock(task, Shootdown::Deaf).is_err(), "the check would not notice");
        controls = 2;
    }
    console::print(format_args!("backed pages: {} processors, {controls} controls\n", cpu::count()));
}

/// Pages are zeroed, contiguous and come back; what cannot be had is refused and leaves nothing behind.
fn contents(task: &Task) {
    let free = machine::memory().1;
    let mut all: Vec<Pages> = Vec::with_capacity(16);
    for round in 0..16_usize {
        let mut pages = backed::allocate(task, 1 + round * 5000).expect("pages");
        assert!(pages.len() > round * 5000 && pages.iter().all(|&byte| byte == 0));
        pages.fill(round as u8);
        all.push(pages);
    }
    assert!(all.iter().enumerate().all(|(round, pages)| pages.iter().all(|&byte| byte == round as u8)));
    assert!(backed::allocate(task, 0).is_none() && backed::allocate(task, 1 << 45).is_none());
    // Taking it all, page by page, and giving it back takes a while where there is much.
    if free < 64 << 20 {
        assert!(backed::allocate(task, free as usize + PAGE).is_none(), "more than there is");
    }
    for pages in all {
        pages.free(task).expect("an answer");
    }
    // Tables stay.
    assert!(free - machine::memory().1 <= 8 * PAGE as u64 + (2 << 20));
}

/// What processor `cpu` reads at an address whose page it knew, after that page was freed, its frame given to somebody else, and another page
/// mapped there.
fn seen_after_free(task: &Task, cpu: usize, how: Shootdown) -> u8 {
    let read = |pages: Arc<Pages>| {
        let handle = executor::run_on(task, cpu, move |_| {
            let seen = core::hint::black_box(&**pages)[PAGE - 1];
            (pages, seen)
        });
        task.block_on(handle)
    };
    let mut pages = backed::allocate(task, PAGE).expect("a page");
    pages.fill(FIRST);
    let (pages, seen) = read(Arc::new(pages));
    assert_eq!(seen, FIRST);
    let pages = Arc::into_inner(pages).expect("nobody else's");
    let address = pages.as_ptr().addr();
    let frame = provoke::frame_at(address).expect("a frame");
    provoke::shootdown(how);
    pages.free(task).expect("an answer");
    provoke::shootdown(Shootdown::Right);
    // The frame is somebody else's now.
    let mut others = Vec::new();
    while others.last().is_none_or(|other: &DmaBuf| other.segment().addr != frame) {
        assert!(others.len() < 4096, "the frame is not given out again");
        let mut other = DmaBuf::new(PAGE, DmaConstraints::ANY).expect("memory");
        other.fill(ANOTHERS);
        others.push(other);
    }
    let mut pages = backed::allocate(task, PAGE).expect("a page");
    assert_eq!(pages.as_ptr().addr(), address, "the check needs the same address");
    provoke::shootdown(Shootdown::Right);
    pages.fill(SECOND);
    let (pages, seen) = read(Arc::new(pages));
    Arc::into_inner(pages).expect("nobody else's").free(task).expect("an answer");
    seen
}

/// All processors map and unmap with their interrupts off, so that each waits for others that wait for it.
fn everybody_at_once(task: &Task) {
    static HERE: AtomicU32 = AtomicU32::new(0);
    let all = cpu::count() as u32;
    let start = |cpu| {
        executor::run_on(task, cpu, move |task| {
            HERE.fetch_add(1, Ordering::SeqCst);
            while HERE.load(Ordering::SeqCst) < all {
                cpu::relax();
            }
            for round in 0..50_u8 {
                cpu::without_interrupts(|| {
                    let mut pages = backed::allocate(task, 3 * PAGE).expect("pages");
                    pages.fill(round);
                    assert!(pages.iter().all(|&byte| byte == round));
                    pages.free(task).expect("an answer");
                });
            }
        })
    };
    let handles: Vec<JoinHandle<()>> = (0..cpu::count()).map(start).collect();
    handles.into_iter().for_each(|handle| task.block_on(handle));
}

/// Frees a page under a lock for which all other processors spin with interrupts off.
fn freed_under_a_lock(task: &Task, how: Shootdown) -> Result<(), Unmapped> {
    static LOCK: IrqSpinLock<()> = IrqSpinLock::new(Rank::BLOCK, ());
    let held = Arc::new(AtomicBool::new(false));
    let coming = Arc::new(AtomicU32::new(0));
    let start = |cpu| {
        let (held, coming) = (Arc::clone(&held), Arc::clone(&coming));
        executor::run_on(task, cpu, move |_| {
            while !held.load(Ordering::Acquire) {
                cpu::relax();
            }
            cpu::without_interrupts(|| {
                coming.fetch_add(1, Ordering::Release);
                drop(LOCK.lock());
            });
        })
    };
    let handles: Vec<JoinHandle<()>> = (1..cpu::count()).map(start).collect();
    let pages = backed::allocate(task, PAGE).expect("a page");
    let guard = LOCK.lock();
    held.store(true, Ordering::Release);
    while coming.load(Ordering::Acquire) < handles.len() as u32 {
        cpu::relax();
    }
    provoke::shootdown(how);
    let freed = pages.free(task);
    provoke::shootdown(Shootdown::Right);
    drop(guard);
    handles.into_iter().for_each(|handle| task.block_on(handle));
    freed
}
