//! Lock ranks: a lock may be taken only while all locks held on this CPU rank lower. Checked in debug and test builds,
//! free in release.

use crate::system;

/// A lock's place in the order. Higher ranks are taken later (inner).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(u8);

impl Rank {
    /// Outermost: a page cache volume, a file system's device state.
    pub const CACHE: Self = Self(8);
    /// A block layer's own structures.
    pub const BLOCK: Self = Self(16);
    /// A driver's device-wide state.
    pub const DEVICE: Self = Self(24);
    /// One queue of a device.
    pub const QUEUE: Self = Self(32);
    /// The callout wheel.
    pub const WHEEL: Self = Self(40);
    /// Interrupt routing tables. Held while a hard interrupt handler runs.
    pub const IRQ: Self = Self(28);
    /// PCI configuration access.
    pub const PCI: Self = Self(44);
    /// Heaps: taken last, since anything may allocate.
    pub const HEAP: Self = Self(52);
    /// The console: innermost of all.
    pub const CONSOLE: Self = Self(60);

    /// A rank between the named ones.
    ///
    /// # Panics
    /// At compile time in a const, if `rank` is 64 or more.
    pub const fn new(rank: u8) -> Self {
        assert!(rank < 64, "ranks are 0 to 63");
        Self(rank)
    }
}

/// Notes that a lock of `rank` is being taken on this CPU.
#[inline]
pub(super) fn acquire(rank: Rank) {
    if cfg!(debug_assertions) {
        let held = system::with_cpu(|cpu| cpu.held_ranks());
        assert!(
            held >> rank.0 == 0,
            "lock order: rank {} taken while ranks {held:#b} are held (recursion or inversion)",
            rank.0
        );
        system::with_cpu(|cpu| cpu.set_held_ranks(held | 1 << rank.0));
    }
}

/// Notes that it was released.
#[inline]
pub(super) fn release(rank: Rank) {
    if cfg!(debug_assertions) {
        system::with_cpu(|cpu| cpu.set_held_ranks(cpu.held_ranks() & !(1 << rank.0)));
    }
}

/// Checks, in debug and test builds, that this CPU holds no lock: before a completion runs or a task waits.
///
/// # Panics
/// If it holds one.
#[inline]
pub fn assert_unlocked(doing: &str) {
    if cfg!(debug_assertions) {
        let held = system::with_cpu(|cpu| cpu.held_ranks());
        assert!(held == 0, "{doing} with locks held: ranks {held:#b}");
    }
}
