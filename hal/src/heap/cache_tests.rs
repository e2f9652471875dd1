//! A cache in whose middle something strikes.

use super::*;
use crate::broken::{self, Hazard};
use crate::inject::interrupted_at;
use std::cell::Cell;
use std::rc::Rc;

/// A-GEN-01: at each step of taking a block, something on the same CPU takes one too: it is refused, and goes elsewhere; each block is
/// handed out once.
fn taken_in_the_middle_of_taking() {
    for k in 0.. {
        let blocks: &'static mut [[u128; 4]; 4] = Box::leak(Box::default());
        let cache = Rc::new(Cache::new());
        cache.with(|stacks| {
            for block in blocks.iter_mut() {
                // SAFETY: a leaked block of 64 bytes, aligned to 16.
                unsafe { stacks.push(0, NonNull::from(block).cast()) };
            }
        });
        let (inner, theirs) = (Rc::clone(&cache), Rc::new(Cell::new(None)));
        let seen = Rc::clone(&theirs);
        let mut mine = None;
        let handler = move || seen.set(inner.with(|stacks| stacks.pop(0)).flatten());
        let struck = interrupted_at(k, handler, || mine = cache.with(|stacks| stacks.pop(0)).flatten());
        assert!(mine.is_some(), "nobody else has the cache");
        assert_ne!(mine, theirs.get(), "step {k}: a block was handed out twice");
        if !struck {
            assert!(k > 0, "taking a block has steps");
            return;
        }
    }
}

#[test]
fn a_gen_01_a_block_taken_in_the_middle_of_taking_one() {
    taken_in_the_middle_of_taking();
}

#[test]
#[should_panic(expected = "a block was handed out twice")]
fn a_gen_01_control_a_cache_entered_blindly() {
    broken::with(Hazard::CacheEnteredBlindly, taken_in_the_middle_of_taking);
}
