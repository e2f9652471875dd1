//! Who holds memory: allocations and frees by call site, in debug builds. Any context.
//!
//! Kept for what has a call site: DMA memory and the general heap. The locked heap stands behind `alloc`, where every site would be the
//! same: it counts by size.

use core::panic::Location;

/// A line of the table: how often the code at `site` allocated, and how much of it is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    /// Where.
    pub site: &'static Location<'static>,
    /// Allocations so far.
    pub allocations: u64,
    /// Blocks that are alive.
    pub live_blocks: u64,
    /// Bytes in them.
    pub live_bytes: u64,
}

/// A block's mark: where it was allocated. Nothing in release builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark(#[cfg(debug_assertions)] u8);

impl Mark {
    /// Of what is a part of something: never counted.
    pub(crate) const NONE: Self = Self(
        #[cfg(debug_assertions)]
        u8::MAX,
    );
}

#[cfg(not(debug_assertions))]
mod table {
    use super::{Location, Mark};

    #[inline]
    pub(crate) fn allocated(_site: &'static Location<'static>, _bytes: usize) -> Mark {
        Mark()
    }

    #[inline]
    pub(crate) fn freed(_mark: Mark, _bytes: usize) {}

    /// Calls `each` with the line of each call site. Release builds keep none.
    pub fn by_site(_each: impl FnMut(super::Site)) {}
}

#[cfg(debug_assertions)]
mod table {
    use core::panic::Location;
    use core::ptr;
    use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

    use super::{Mark, Site};

    /// Sites that are told apart. Those that come later share the last line.
    const SITES: usize = 128;

    struct Line {
        site: AtomicPtr<Location<'static>>,
        allocations: AtomicU64,
        frees: AtomicU64,
        allocated_bytes: AtomicU64,
        freed_bytes: AtomicU64,
    }

    static LINES: [Line; SITES] = [const {
        Line {
            site: AtomicPtr::new(ptr::null_mut()),
            allocations: AtomicU64::new(0),
            frees: AtomicU64::new(0),
            allocated_bytes: AtomicU64::new(0),
            freed_bytes: AtomicU64::new(0),
        }
    }; SITES];

    /// The line of a site, claimed if it has none yet.
    fn line_of(site: &'static Location<'static>) -> usize {
        let wanted = ptr::from_ref(site).cast_mut();
        let found = LINES.iter().position(|line| {
            let claimed = line.site.compare_exchange(ptr::null_mut(), wanted, Ordering::Relaxed, Ordering::Relaxed);
            claimed.is_ok() || claimed == Err(wanted)
        });
        found.unwrap_or(SITES - 1)
    }

    pub(crate) fn allocated(site: &'static Location<'static>, bytes: usize) -> Mark {
        let at = line_of(site);
        LINES[at].allocations.fetch_add(1, Ordering::Relaxed);
        LINES[at].allocated_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        Mark(at as u8)
    }

    pub(crate) fn freed(mark: Mark, bytes: usize) {
        let line = &LINES[usize::from(mark.0) % SITES];
        line.frees.fetch_add(1, Ordering::Relaxed);
        line.freed_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Calls `each` with the line of each call site. Debug builds only: release builds keep none.
    pub fn by_site(mut each: impl FnMut(Site)) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for line in &LINES {
            // SAFETY: only `line_of` stores here, and only pointers made from `&'static Location`.
            let Some(site) = (unsafe { line.site.load(Ordering::Relaxed).as_ref() }) else { return };
            let (frees, freed) = (get(&line.frees), get(&line.freed_bytes));
            let allocations = get(&line.allocations);
            each(Site {
                site,
                allocations,
                live_blocks: allocations.saturating_sub(frees),
                live_bytes: get(&line.allocated_bytes).saturating_sub(freed),
            });
        }
    }
}

pub use table::by_site;
pub(crate) use table::{allocated, freed};
