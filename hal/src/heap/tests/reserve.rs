//! The reserve: write-back allocates when others cannot, and nobody else does.

use core::alloc::GlobalAlloc;
use core::sync::atomic::{AtomicU32, Ordering};

use super::{RUN, give, layout, source, take};
use crate::heap::{self, Locked};
use crate::hosted::Cpus;
use crate::work::{BottomHalfWork, Turn};

source!(Small, 5 * RUN);

#[test]
fn write_back_allocates_when_memory_is_gone() {
    let _together = super::together();
    static HEAP: Locked<Small> = Locked::new();
    Cpus::new(1).run(0, |task| {
        assert!(HEAP.keep_reserve(RUN / 2));
        assert!(!HEAP.keep_reserve(RUN / 2), "one reserve is enough");
        let mut ordinary: Vec<_> = std::iter::from_fn(|| take(&HEAP, layout(1000))).collect();
        let mut reserved = Vec::new();
        assert!(take(&HEAP, layout(1000)).is_none(), "an ordinary allocation got the reserve");
        heap::write_back(task, |_| {
            reserved.extend(std::iter::from_fn(|| take(&HEAP, layout(1000))));
        });
        assert!(reserved.len() * 1000 >= RUN / 2, "only {} blocks in the reserve", reserved.len());
        // What is freed of the reserve stays the reserve's, and does not end up in a cache for anybody.
        give(&HEAP, reserved.pop().unwrap(), layout(1000));
        assert!(take(&HEAP, layout(1000)).is_none());
        reserved.push(heap::write_back(task, |_| take(&HEAP, layout(1000))).unwrap());
        // Ordinary memory comes first while there is any.
        give(&HEAP, ordinary.pop().unwrap(), layout(1000));
        let back = heap::write_back(task, |_| take(&HEAP, layout(1000))).unwrap();
        assert!(take(&HEAP, layout(1000)).is_none());
        // A block that moves out of the reserve keeps its content.
        let moved = reserved.pop().unwrap();
        // SAFETY: the block is ours and that long; what `realloc` returns takes its place.
        unsafe {
            moved.write_bytes(0x5A, 1000);
            give(&HEAP, back, layout(1000));
            let to = HEAP.realloc(moved.as_ptr(), layout(1000), 900);
            assert!(core::slice::from_raw_parts(to, 900).iter().all(|&byte| byte == 0x5A));
            HEAP.dealloc(to, layout(900));
        }
        ordinary.into_iter().chain(reserved).for_each(|block| give(&HEAP, block, layout(1000)));
        let again: Vec<_> = std::iter::from_fn(|| take(&HEAP, layout(1000))).collect();
        assert!(again.len() >= 100);
        again.into_iter().for_each(|block| give(&HEAP, block, layout(1000)));
    });
}

source!(Little, 3 * RUN);

/// The reserve is open to the code that asked for it, not to what interrupts it.
#[test]
fn a_bottom_half_in_the_middle_of_write_back_has_no_part_in_it() {
    let _together = super::together();
    static HEAP: Locked<Little> = Locked::new();
    static SEEN: AtomicU32 = AtomicU32::new(0);
    Cpus::new(1).run(0, |task| {
        assert!(HEAP.keep_reserve(RUN / 2));
        let held: Vec<_> = std::iter::from_fn(|| take(&HEAP, layout(1000))).collect();
        let look = |answer: u32| {
            move |cx: &crate::BottomHalf| {
                let block = match answer {
                    1 => take(&HEAP, layout(1000)),
                    _ => heap::write_back(cx, |_| take(&HEAP, layout(1000))),
                };
                SEEN.store(if block.is_some() { 10 + answer } else { answer }, Ordering::Relaxed);
                block.into_iter().for_each(|block| give(&HEAP, block, layout(1000)));
                Turn::Done
            }
        };
        let (ordinary, writing) = (BottomHalfWork::new(0, look(1)), BottomHalfWork::new(0, look(2)));
        heap::write_back(task, |task| {
            ordinary.schedule();
            task.run_pending();
        });
        assert_eq!(SEEN.load(Ordering::Relaxed), 1, "the bottom half got the task's reserve");
        // The control: one that asks for itself does get it.
        writing.schedule();
        task.run_pending();
        assert_eq!(SEEN.load(Ordering::Relaxed), 12);
        held.into_iter().for_each(|block| give(&HEAP, block, layout(1000)));
    });
}
