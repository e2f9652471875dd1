//! The general heap: boxes, failures, the trap for what reaches the wrong context.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use crate::heap::{self, General, GeneralBox};
use crate::hosted::Cpus;
use crate::work::{BottomHalfWork, Turn};

#[test]
fn boxes_hold_their_values_and_drop_them_once() {
    let _together = super::together();
    struct Counted(Rc<Cell<u32>>, [u64; 20]);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    Cpus::new(1).run(0, |task| {
        let heap = General::new(task);
        let drops = Rc::new(Cell::new(0));
        let mut boxes: Vec<GeneralBox<'_, Counted>> =
            (0..1000).map(|n| heap.try_box(task, Counted(Rc::clone(&drops), [n; 20])).unwrap()).collect();
        boxes.iter_mut().for_each(|b| b.1[0] += 1);
        assert!(boxes.iter().zip(0..).all(|(b, n)| b.1[0] == n + 1 && b.1[1..] == [n; 19]));
        let last = boxes.pop().unwrap().into_inner(task);
        assert_eq!((drops.get(), last.1[1]), (0, 999));
        drop(last);
        boxes.truncate(500);
        assert_eq!(drops.get(), 500);
        drop(boxes);
        assert_eq!(drops.get(), 1000);
        let (nothing, aligned) = (heap.try_box(task, ()).unwrap(), heap.try_box(task, Aligned([1; 64])).unwrap());
        assert!((&raw const *aligned).addr().is_multiple_of(64) && aligned.0 == [1; 64]);
        drop(nothing);
    });
}

#[derive(Debug)]
#[repr(align(64))]
struct Aligned([u8; 64]);

#[test]
fn a_box_that_finds_no_memory_gives_its_value_back() {
    let _together = super::together();
    Cpus::new(1).run(0, |task| {
        let heap = General::new(task);
        let two = || -> Result<_, heap::NoMemory<[u8; 100]>> {
            Ok((heap.try_box(task, [1; 100])?, heap.try_box(task, [2; 100])?))
        };
        let (result, failures) = heap::each_failure(two, |n, result| {
            assert_eq!(result.err(), Some(heap::NoMemory([n as u8 + 1; 100])));
        });
        let (one, two) = result.unwrap();
        assert_eq!((failures, one[0], two[0]), (2, 1, 2));
    });
}

/// A-GEN-02: allocated in a task, freed in a bottom half: refused by the types (see the compile-fail tests), and where a thread local gets round
/// them, trapped. The free in its own task is not (the control).
#[test]
fn a_gen_02_a_box_that_reaches_a_bottom_half_is_trapped() {
    let _together = super::together();
    thread_local! {
        static SMUGGLED: Cell<Option<GeneralBox<'static, u64>>> = const { Cell::new(None) };
        static TRAPPED: Cell<Option<bool>> = const { Cell::new(None) };
    }
    Cpus::new(1).run(0, |task| {
        let heap: &'static General = Box::leak(Box::new(General::new(task)));
        drop(heap.try_box(task, 1_u64).unwrap());
        SMUGGLED.set(Some(heap.try_box(task, 2_u64).unwrap()));
        let before = heap::stats().in_hard_irq;
        let bottom_half = BottomHalfWork::new(0, |_| {
            let smuggled = SMUGGLED.take();
            TRAPPED.set(Some(catch_unwind(AssertUnwindSafe(|| drop(smuggled))).is_err()));
            Turn::Done
        });
        bottom_half.schedule();
        task.run_pending();
        assert_eq!(TRAPPED.get(), Some(cfg!(debug_assertions)));
        assert!(heap::stats().in_hard_irq > before);
    });
}
