//! The caches in front of the locked heap: bounded, emptied under pressure, safe against interrupts and other CPUs.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::collections::BTreeSet;
use std::sync::Mutex;

use super::{RUN, give, layout, source, take};
use crate::heap::Locked;
use crate::hosted::Cpus;
use crate::irq::{self, Handled};
use crate::work::{BottomHalfWork, Turn};

/// X28: what was freed does not stay with the heap: the caches keep no more than their bound, and runs go back.
fn freed_memory_returns<G: super::Grow>(heap: &Locked<G>, used: impl Fn() -> usize, free: impl Fn(NonNull<u8>, usize)) {
    let mut most = 0;
    for round in 0..5 {
        let blocks: Vec<_> = (0..2000_usize)
            .map(|n| {
                let size = 64 + (n * 37 + round * 11) % 4033;
                (take(heap, layout(size)).unwrap(), size)
            })
            .collect();
        most = most.max(used());
        blocks.into_iter().for_each(|(block, size)| free(block, size));
        assert!(heap.cached_bytes() <= Locked::<G>::CACHE_BOUND, "the cache keeps {} bytes", heap.cached_bytes());
        heap.drain_caches();
        assert_eq!(heap.cached_bytes(), 0);
        // The first run, which holds talc's records, and one empty run that is kept so that it need not be fetched again.
        assert!(used() <= 2 * RUN, "{} bytes of {most} stay after round {round}", used());
    }
    assert!(most > 16 * RUN);
}

source!(Returning, 64 << 20);

#[test]
fn x28_freed_memory_returns() {
    let _together = super::together();
    static HEAP: Locked<Returning> = Locked::new();
    Cpus::new(1).run(0, |_| {
        freed_memory_returns(
            &HEAP,
            || Returning::used().load(Ordering::Relaxed),
            |b, size| give(&HEAP, b, layout(size)),
        );
    });
}

source!(Hoarding, 64 << 20);

/// The control: a cache without bound, as the one that was used as a page store.
#[test]
#[should_panic(expected = "bytes of")]
fn x28_control_a_cache_without_bound() {
    let _together = super::together();
    static HEAP: Locked<Hoarding> = Locked::new();
    let hoard = Mutex::new(Vec::new());
    Cpus::new(1).run(0, |_| {
        let keep = |block: NonNull<u8>, size| hoard.lock().unwrap().push((block.as_ptr().addr(), size));
        freed_memory_returns(&HEAP, || Hoarding::used().load(Ordering::Relaxed), keep);
    });
}

source!(Tight, 4 * RUN);

/// What another CPU's cache keeps is not lost to a CPU that runs out.
#[test]
fn a_cpu_that_runs_out_gets_what_the_caches_keep() {
    let _together = super::together();
    static HEAP: Locked<Tight> = Locked::new();
    let cpus = Cpus::new(2);
    let fill = || {
        let blocks: Vec<_> = std::iter::from_fn(|| take(&HEAP, layout(4096))).collect();
        let count = blocks.len();
        blocks.into_iter().for_each(|block| give(&HEAP, block, layout(4096)));
        count
    };
    let (first, kept) = cpus.run(0, |_| (fill(), HEAP.cached_bytes()));
    assert!(first > 40 && kept > 0);
    let second = cpus.run(1, |_| fill());
    // Less the edge of a run that the first CPU's order of freeing may cost.
    assert!(second + 2 >= first, "{second} blocks of {first}: CPU 0 keeps the rest");
}

source!(Injected, 64 << 20);

/// A-GEN-01: an interrupt, and the bottom half that comes with its end, in the middle of the heap's operations on one CPU. Every
/// block is handed out once. (The hard interrupt itself allocates nothing: that is trapped.)
#[test]
fn a_gen_01_bottom_halves_between_an_allocation_and_a_free() {
    let _together = super::together();
    static HEAP: Locked<Injected> = Locked::new();
    static LIVE: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());
    static RUNS: AtomicU32 = AtomicU32::new(0);
    fn churn(sizes: impl Iterator<Item = usize>) {
        for size in sizes {
            let block = take(&HEAP, layout(size)).unwrap();
            assert!(LIVE.lock().unwrap().insert(block.as_ptr().addr()), "a block was handed out twice");
            assert!(LIVE.lock().unwrap().remove(&block.as_ptr().addr()));
            give(&HEAP, block, layout(size));
        }
    }
    let cpus = Cpus::new(1);
    cpus.run(0, |task| {
        let bottom_half = BottomHalfWork::new(0, |_| {
            RUNS.fetch_add(1, Ordering::Relaxed);
            churn([64, 64, 100, 4096].into_iter());
            Turn::Done
        });
        let bottom_half = std::sync::Arc::new(bottom_half);
        let scheduled = std::sync::Arc::clone(&bottom_half);
        let (_interrupt, message) = irq::message(task, 0, move |_| {
            scheduled.schedule();
            Handled::Yes
        })
        .unwrap();
        for round in 0..2000 {
            // Taken at the next point where interrupts are on or about to go off: inside the heap's functions.
            cpus.raise(0, irq::Slot(message.data as u16));
            churn([64, 100 + round, 4096].into_iter());
        }
        task.run_pending();
        assert!(RUNS.load(Ordering::Relaxed) >= 1000, "{RUNS:?}");
    });
}

source!(Shared, 64 << 20);

/// A-GEN-01: two CPUs at once, each freeing what the other allocated; every block is handed out once and keeps its content.
#[test]
fn a_gen_01_two_cpus_hand_blocks_to_each_other() {
    let _together = super::together();
    static HEAP: Locked<Shared> = Locked::new();
    struct Block(NonNull<u8>, usize, u8);
    // SAFETY: a block is plain memory, which one CPU has at a time.
    unsafe impl Send for Block {}
    let cpus = Cpus::new(2);
    std::thread::scope(|scope| {
        let channels = [std::sync::mpsc::sync_channel::<Block>(64), std::sync::mpsc::sync_channel::<Block>(64)];
        let [(to_1, from_0), (to_0, from_1)] = channels;
        for (index, to, from) in [(0, to_1, from_1), (1, to_0, from_0)] {
            let cpus = &cpus;
            scope.spawn(move || {
                cpus.run(index, |_| {
                    for n in 0..20_000_usize {
                        let (size, mark) = (16 + (n * 53 + index * 7) % 5000, (n + index) as u8);
                        let block = take(&HEAP, layout(size)).unwrap();
                        // SAFETY: ours, and that long.
                        unsafe { block.write_bytes(mark, size) };
                        let _ = to.try_send(Block(block, size, mark)).map_err(|refused| match refused {
                            std::sync::mpsc::TrySendError::Full(block)
                            | std::sync::mpsc::TrySendError::Disconnected(block) => free(block),
                        });
                        from.try_iter().for_each(free);
                    }
                    drop(to);
                    from.iter().for_each(free);
                });
            });
        }
    });
    fn free(Block(block, size, mark): Block) {
        // SAFETY: the block is that long, was written whole, and is ours now.
        let content = unsafe { core::slice::from_raw_parts(block.as_ptr(), size) };
        assert!(content.iter().all(|&byte| byte == mark), "somebody else wrote into a live block");
        give(&HEAP, block, layout(size));
    }
}

/// A cache that is in use (here: by a drain from another CPU) makes nobody wait.
#[test]
fn a_cache_in_use_is_passed_by() {
    let _together = super::together();
    source!(Passed, 64 << 20);
    static HEAP: Locked<Passed> = Locked::new();
    static STOP: AtomicBool = AtomicBool::new(false);
    let cpus = Cpus::new(2);
    std::thread::scope(|scope| {
        let drainer = &cpus;
        scope.spawn(move || {
            drainer.run(1, |_| {
                while !STOP.load(Ordering::Relaxed) {
                    HEAP.drain_caches();
                }
            });
        });
        cpus.run(0, |_| {
            for n in 0..50_000_usize {
                let size = 16 + n % 4000;
                let block = take(&HEAP, layout(size)).unwrap();
                give(&HEAP, block, layout(size));
            }
        });
        STOP.store(true, Ordering::Relaxed);
    });
}
