//! Sizes of blocks that the per-CPU caches keep.

use core::alloc::Layout;

/// Alignment of a cached block; a layout that wants more goes to the inner allocator.
pub(super) const ALIGN: usize = 16;

/// The sizes in bytes: at most a third of a block is wasted.
pub(super) const SIZES: [usize; 16] = [16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096];

/// How many there are.
pub(super) const CLASSES: usize = SIZES.len();

const LARGEST: usize = SIZES[CLASSES - 1];

/// The class of a size, by the size in units of [`ALIGN`], rounded up.
const CLASS_OF: [u8; LARGEST / ALIGN + 1] = {
    let mut table = [0; LARGEST / ALIGN + 1];
    let mut units = 0;
    let mut class = 0;
    while units < table.len() {
        if units * ALIGN > SIZES[class] {
            class += 1;
        }
        table[units] = class as u8;
        units += 1;
    }
    table
};

/// The class that serves `layout`, if one does.
#[inline]
pub(super) fn of(layout: Layout) -> Option<usize> {
    if layout.align() > ALIGN {
        return None;
    }
    CLASS_OF.get(layout.size().div_ceil(ALIGN)).map(|&class| usize::from(class))
}

/// What the inner allocator is asked for on behalf of a class.
#[inline]
pub(super) const fn layout(class: usize) -> Layout {
    match Layout::from_size_align(SIZES[class], ALIGN) {
        Ok(layout) => layout,
        // The sizes above are far from the largest.
        Err(_) => Layout::new::<u128>(),
    }
}

/// Most blocks of a class that one CPU keeps: 8 KiB of them, but at least four and at most 64.
#[inline]
pub(super) const fn room(class: usize) -> usize {
    let fit = 8192 / SIZES[class];
    if fit < 4 {
        4
    } else if fit > 64 {
        64
    } else {
        fit
    }
}

/// Most bytes that one CPU keeps.
pub(super) const BOUND: usize = {
    let (mut bytes, mut class) = (0, 0);
    while class < CLASSES {
        bytes += SIZES[class] * room(class);
        class += 1;
    }
    bytes
};

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn each_size_goes_to_the_smallest_class_that_holds_it() {
        for size in 1..=LARGEST {
            let class = of(Layout::from_size_align(size, 8).unwrap()).unwrap();
            assert!(SIZES[class] >= size && (class == 0 || SIZES[class - 1] < size), "{size}");
        }
        assert_eq!(of(Layout::from_size_align(LARGEST + 1, 1).unwrap()), None);
        assert_eq!(of(Layout::from_size_align(64, 32).unwrap()), None);
        const { assert!(BOUND <= 128 << 10) };
    }
}
