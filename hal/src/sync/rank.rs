//! Lock ranks: a lock may be taken only while all locks held on this CPU rank lower.
//!
//! Debug and test builds (and the feature `lock-checks`) note for each CPU which ranks are held, where they were taken and since when: a
//! violation panics naming both sites. In a release build nothing is kept and the checks compile to nothing.

use core::panic::Location;

use crate::clock::Instant;
use crate::system;

/// Whether the checks are compiled in.
pub(crate) const CHECKED: bool = cfg!(any(debug_assertions, feature = "lock-checks"));

/// How many ranks there are.
pub(crate) const RANKS: usize = 64;

/// A lock's place in the order. Higher ranks are taken later (inner). One lock of a rank at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(u8);

impl Rank {
    /// Outermost: a page cache volume, a file system's device state.
    pub const CACHE: Self = Self(8);
    /// A block layer's own structures.
    pub const BLOCK: Self = Self(16);
    /// A driver's device-wide state.
    pub const DEVICE: Self = Self(24);
    /// Interrupt routing tables. Held while a hard interrupt handler runs.
    pub const IRQ: Self = Self(28);
    /// One queue of a device.
    pub const QUEUE: Self = Self(32);
    /// The callout wheel.
    pub const WHEEL: Self = Self(40);
    /// PCI configuration access.
    pub const PCI: Self = Self(44);
    /// An executor's table of sleepers: wakers are used under many a lock.
    pub const EXECUTOR: Self = Self(48);
    /// Heaps: taken late, since much may allocate.
    pub const HEAP: Self = Self(52);
    /// The console: innermost of all.
    pub const CONSOLE: Self = Self(60);

    /// A rank between the named ones.
    ///
    /// # Panics
    /// At compile time in a const, if `rank` is 64 or more.
    pub const fn new(rank: u8) -> Self {
        assert!((rank as usize) < RANKS, "ranks are 0 to 63");
        Self(rank)
    }

    const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Notes that a lock of `rank` is about to be taken on this CPU, by the code at `site`.
#[inline]
pub(super) fn acquire(rank: Rank, site: &'static Location<'static>) {
    if CHECKED {
        system::with_cpu(|cpu| {
            let held = cpu.held_ranks();
            if let Some(highest) = held.checked_ilog2().filter(|&highest| highest >= u32::from(rank.0)) {
                let what = if highest == u32::from(rank.0) { "recursion" } else { "inversion" };
                let first = cpu.locks.site(highest as usize);
                panic!(
                    "lock order {what}: rank {} taken at {site} while rank {highest}, taken at {first}, is held",
                    rank.0
                );
            }
            cpu.set_held_ranks(held | 1 << rank.0);
            cpu.locks.taken(rank.index(), site, Instant::now());
        });
    }
}

/// Notes that it was released.
#[inline]
pub(super) fn release(rank: Rank) {
    if CHECKED {
        system::with_cpu(|cpu| {
            cpu.set_held_ranks(cpu.held_ranks() & !(1 << rank.0));
            cpu.locks.released(rank.index(), Instant::now());
        });
    }
}

/// Whether a spinlock is held on this CPU: for an allocator's trap. Always `false` in a release build.
#[inline]
pub fn any_held() -> bool {
    CHECKED && system::with_cpu(|cpu| cpu.held_ranks()) != 0
}

/// Checks, in debug and test builds, that this CPU holds no lock: before a completion runs or a task waits.
///
/// # Panics
/// If it holds one; the message names where that was taken.
#[inline]
pub fn assert_unlocked(doing: &str) {
    if CHECKED {
        system::with_cpu(|cpu| {
            if let Some(highest) = cpu.held_ranks().checked_ilog2() {
                let site = cpu.locks.site(highest as usize);
                panic!("{doing} while a lock of rank {highest}, taken at {site}, is held");
            }
        });
    }
}
