//! [`TrapAlloc`]: an allocator for tests that catches what the types could not refuse.
//!
//! `#[global_allocator] static ALLOC: TrapAlloc = TrapAlloc::new();` in a test program makes every allocation and free in a simulated hard
//! interrupt end the program, with a message and a backtrace; within [`strict`], or everywhere with [`TrapAlloc::strict`], the same holds
//! while a spinlock is held (A-PC-07). What the machine and its devices allocate is their own affair: they are the other side. So is what
//! a panic allocates. It counts for each thread, so that a test can tell whether something leaked, or was allocated at all.
//!
//! UNSAFETY: an allocator's face is unsafe; every call is passed on as it is.

use core::alloc::Layout;
use std::alloc::{GlobalAlloc, System};
use std::cell::Cell;

use crate::context::{self, Kind};
use crate::sync;

/// What was counted on this thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Allocations; a block that was moved counts as one and one free.
    pub allocations: u64,
    /// Frees.
    pub frees: u64,
    /// Bytes allocated.
    pub allocated_bytes: u64,
    /// Bytes freed.
    pub freed_bytes: u64,
    /// Allocations and frees by the guest's code: all but those of the machine and of [`outside`].
    pub by_guest: u64,
    /// Allocations and frees in a hard interrupt, within [`counting`]: elsewhere they end the program.
    pub in_hard_irq: u64,
    /// Allocations and frees with a spinlock held, within [`strict`] and [`counting`].
    pub under_lock: u64,
}

// Const and without destructors: they can be used inside an allocator.
std::thread_local! {
    static COUNTS: Cell<Counts> = const { Cell::new(Counts {
        allocations: 0, frees: 0, allocated_bytes: 0, freed_bytes: 0, by_guest: 0, in_hard_irq: 0, under_lock: 0,
    }) };
    /// The code that runs is the guest's, not the machine's.
    static GUEST: Cell<bool> = const { Cell::new(false) };
    static STRICT: Cell<bool> = const { Cell::new(false) };
    static COUNTING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f` with a switch set, and puts it back, also when `f` panics.
fn with_set<R>(switch: &'static std::thread::LocalKey<Cell<bool>>, to: bool, f: impl FnOnce() -> R) -> R {
    struct Restore(&'static std::thread::LocalKey<Cell<bool>>, bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            self.0.set(self.1);
        }
    }
    let _restore = Restore(switch, switch.replace(to));
    f()
}

/// Runs the guest's code.
pub(super) fn guest<R>(f: impl FnOnce() -> R) -> R {
    with_set(&GUEST, true, f)
}

/// Runs code that is not the guest's: the machine's, its devices', or a test's own bookkeeping inside a handler.
pub fn outside<R>(f: impl FnOnce() -> R) -> R {
    with_set(&GUEST, false, f)
}

/// Runs `f` with allocations and frees forbidden while a spinlock is held.
pub fn strict<R>(f: impl FnOnce() -> R) -> R {
    with_set(&STRICT, true, f)
}

/// Runs `f`, and counts on this thread what would end the program otherwise.
pub fn counting<R>(f: impl FnOnce() -> R) -> R {
    with_set(&COUNTING, true, f)
}

/// Runs `f`: its result, and how many allocations and frees the guest's code made meanwhile on this thread.
pub fn by_guest<R>(f: impl FnOnce() -> R) -> (R, u64) {
    let before = counts().by_guest;
    let result = f();
    (result, counts().by_guest - before)
}

/// The counts of this thread so far.
pub fn counts() -> Counts {
    COUNTS.get()
}

/// Runs `f`, and panics if it leaves more or less allocated on this thread than there was, its result apart: the result must own nothing.
///
/// # Panics
/// If it does.
pub fn assert_no_leak<R: Copy>(f: impl FnOnce() -> R) -> R {
    let live = |counts: Counts| {
        (counts.allocations.wrapping_sub(counts.frees), counts.allocated_bytes.wrapping_sub(counts.freed_bytes))
    };
    let before = live(counts());
    let result = f();
    let after = live(counts());
    let (blocks, bytes) = (after.0.wrapping_sub(before.0) as i64, after.1.wrapping_sub(before.1) as i64);
    assert!((blocks, bytes) == (0, 0), "{blocks} blocks with {bytes} bytes leaked");
    result
}

/// The allocator. Passes everything on to the host's.
#[derive(Debug, Default)]
pub struct TrapAlloc {
    strict: bool,
}

impl TrapAlloc {
    /// The allocator.
    pub const fn new() -> Self {
        Self { strict: false }
    }

    /// The allocator for a program in which nothing may allocate or free with a spinlock held, as if all of it ran within [`strict`].
    pub const fn strict() -> Self {
        Self { strict: true }
    }

    fn note(&self, doing: &str, change: impl FnOnce(&mut Counts)) {
        // A thread without a machine has no contexts; and a panic's message is not the guest's.
        let by_guest = GUEST.get() && !std::thread::panicking();
        let mut counts = COUNTS.get();
        change(&mut counts);
        counts.by_guest += u64::from(by_guest);
        COUNTS.set(counts);
        if by_guest {
            check(doing, self.strict || STRICT.get());
        }
    }
}

fn check(doing: &str, strict: bool) {
    // From here on the allocator may be used again: by a message, say.
    outside(|| {
        let in_hard_irq = context::current() == Kind::HardIrq;
        let under_lock = strict && sync::any_held();
        if COUNTING.get() {
            let mut counts = COUNTS.get();
            counts.in_hard_irq += u64::from(in_hard_irq);
            counts.under_lock += u64::from(under_lock);
            COUNTS.set(counts);
        } else if in_hard_irq || under_lock {
            let place = if in_hard_irq { "in a hard interrupt" } else { "with a spinlock held" };
            let trace = std::backtrace::Backtrace::force_capture();
            // An allocator must not unwind.
            eprintln!("{doing} {place}\n{trace}");
            std::process::abort();
        }
    });
}

// SAFETY: every call is passed on to the host's allocator with the caller's contract.
unsafe impl GlobalAlloc for TrapAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.note("an allocation", |counts| {
            counts.allocations += 1;
            counts.allocated_bytes += layout.size() as u64;
        });
        // SAFETY: by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.note("a free", |counts| {
            counts.frees += 1;
            counts.freed_bytes += layout.size() as u64;
        });
        // SAFETY: by the caller.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        self.note("a reallocation", |counts| {
            counts.allocations += 1;
            counts.frees += 1;
            counts.allocated_bytes += new_size as u64;
            counts.freed_bytes += layout.size() as u64;
        });
        // SAFETY: by the caller.
        unsafe { System.realloc(block, layout, new_size) }
    }
}
