//! Which grant references are free: a bit each, taken and given back in any context without a lock.

use core::sync::atomic::Ordering;

use crate::atomic::{AtomicU32, AtomicUsize, step};
use crate::broken::{self, Hazard};

const BITS: usize = u32::BITS as usize;

/// References from 0 on, of which the first ones may be kept back and more may be added. None is ever given out twice: a bit is one only
/// between [`Refs::give`] and [`Refs::take`], and one `fetch_and` takes it.
pub(super) struct Refs<const WORDS: usize> {
    free: [AtomicU32; WORDS],
    /// Where the next search begins: references are used in turn, so that a stale one is noticed.
    next: AtomicUsize,
}

impl<const WORDS: usize> Refs<WORDS> {
    pub(super) fn new() -> Self {
        Self { free: core::array::from_fn(|_| AtomicU32::new(0)), next: AtomicUsize::new(0) }
    }

    /// Takes a free reference. `None`: there is none.
    pub(super) fn take(&self) -> Option<u32> {
        let start = self.next.load(Ordering::Relaxed);
        for offset in 0..WORDS {
            let index = (start + offset) % WORDS;
            let word = &self.free[index];
            let mut seen = word.load(Ordering::Relaxed);
            while seen != 0 {
                let bit = seen & seen.wrapping_neg();
                step();
                if broken::is(Hazard::IdTakenBlindly) {
                    word.store(seen & !bit, Ordering::Relaxed);
                    return Some((index * BITS) as u32 + bit.trailing_zeros());
                }
                // Who gave it back had done with it: what it did comes before.
                let before = word.fetch_and(!bit, Ordering::Acquire);
                if before & bit != 0 {
                    self.next.store(if before == bit { index + 1 } else { index }, Ordering::Relaxed);
                    return Some((index * BITS) as u32 + bit.trailing_zeros());
                }
                seen = before & !bit;
            }
        }
        None
    }

    /// Makes a reference free: one that was taken, or a new one.
    pub(super) fn give(&self, reference: u32) {
        if let Some(word) = self.free.get(reference as usize / BITS) {
            word.fetch_or(1 << (reference as usize % BITS), Ordering::Release);
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::collections::BTreeSet;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn what_was_not_given_is_not_taken() {
        let refs = Refs::<2>::new();
        assert_eq!(refs.take(), None);
        (8..64).for_each(|reference| refs.give(reference));
        let taken: BTreeSet<u32> = core::iter::from_fn(|| refs.take()).collect();
        assert_eq!(taken, (8..64).collect(), "each once, and none of the reserved ones");
        refs.give(64);
        assert_eq!(refs.take(), None, "there is no such reference");
    }

    #[test]
    fn threads_never_hold_the_same_one() {
        let refs = Refs::<4>::new();
        (0..100).for_each(|reference| refs.give(reference));
        let held: Vec<AtomicU32> = (0..128).map(|_| AtomicU32::new(0)).collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let Some(reference) = refs.take() else { continue };
                        assert_eq!(held[reference as usize].fetch_add(1, Ordering::SeqCst), 0);
                        held[reference as usize].fetch_sub(1, Ordering::SeqCst);
                        refs.give(reference);
                    }
                });
            }
        });
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod interrupted {
    use std::rc::Rc;

    use super::*;
    use crate::inject::interrupted_at;

    /// A-XEN-01: an interrupt handler takes one in the middle of taking one.
    fn taken_in_the_middle_of_taking() {
        let mut struck = 0;
        for k in 0..20 {
            let refs = Rc::new(Refs::<2>::new());
            (8..40).for_each(|reference| refs.give(reference));
            let (other, theirs) = (Rc::clone(&refs), Rc::new(core::cell::Cell::new(None)));
            let kept = Rc::clone(&theirs);
            let mut ours = None;
            struck += u32::from(interrupted_at(k, move || kept.set(other.take()), || ours = refs.take()));
            assert!(ours.is_some() && ours != theirs.get(), "a reference was handed out twice");
        }
        assert!(struck > 0, "no interrupt struck");
    }

    #[test]
    fn a_xen_01_a_reference_taken_in_the_middle_of_taking_one() {
        taken_in_the_middle_of_taking();
    }

    #[test]
    #[should_panic(expected = "handed out twice")]
    fn a_xen_01_a_reference_taken_in_the_middle_of_taking_one_control() {
        broken::with(Hazard::IdTakenBlindly, taken_in_the_middle_of_taking);
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    fn two_processors() {
        loom::model(|| {
            let refs = Arc::new(Refs::<1>::new());
            let holders = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
            refs.give(0);
            refs.give(1);
            let work = |refs: &Refs<1>, holders: &[AtomicU32; 2]| {
                let reference = refs.take().expect("there are two");
                assert_eq!(holders[reference as usize].fetch_add(1, Ordering::SeqCst), 0, "held twice");
                holders[reference as usize].fetch_sub(1, Ordering::SeqCst);
                refs.give(reference);
            };
            let other = {
                let (refs, holders) = (Arc::clone(&refs), Arc::clone(&holders));
                thread::spawn(move || work(&refs, &holders))
            };
            work(&refs, &holders);
            other.join().unwrap();
        });
    }

    /// Two processors take and give back; one reference is never with both.
    #[test]
    fn loom_a_xen_01_a_reference_is_with_one_at_a_time() {
        two_processors();
    }

    #[test]
    #[should_panic(expected = "held twice")]
    fn loom_a_xen_01_a_reference_is_with_one_at_a_time_control() {
        broken::with(Hazard::IdTakenBlindly, two_processors);
    }
}
