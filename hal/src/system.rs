//! What this crate keeps for the running system: per-CPU queues and context, interrupt slots.
//!
//! A real kernel has one [`System`], a static. With the `hosted` feature each simulated machine has its own, found
//! through the current thread, so that many run side by side in tests.

use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use crate::atomic::const_unless_model;
use crate::attached::Attached;
use crate::context::Kind;
use crate::cpu::{self, MAX_CPUS};
use crate::dma::Ledger;
use crate::executor::Slots;
use crate::hyperv;
use crate::irq;
use crate::mpsc::Queue;
use crate::sync::Holding;
use crate::virtio_hal::Lent;
use crate::work_stats::Counters;

/// One system's state. Opaque outside this crate.
#[derive(Debug)]
pub struct System {
    pub(crate) cpus: [PerCpu; MAX_CPUS],
    pub(crate) slots: irq::Slots,
    pub(crate) lent: Lent,
    attached: Attached,
    pub(crate) dma: Ledger,
    /// What is said to the host on the way down.
    pub(crate) hyperv: hyperv::Registered,
}

/// One CPU's state. Only the CPU itself writes it, except for the queues' producer ends.
#[derive(Debug)]
pub(crate) struct PerCpu {
    /// Bottom halves to run here.
    pub(crate) bottom_halves: Queue,
    /// Work for task context here.
    pub(crate) tasks: Queue,
    pub(crate) bottom_half_counters: Counters,
    pub(crate) task_counters: Counters,
    /// Who waits here to be woken.
    pub(crate) sleepers: Slots,
    /// Nesting of hard interrupts.
    pub(crate) irq_depth: AtomicU32,
    /// A bottom half is running.
    pub(crate) in_bottom_half: AtomicBool,
    /// Until when (in nanoseconds) interrupts do not run bottom halves, so that a task can get on; zero: no such time.
    pub(crate) task_turn: AtomicU64,
    /// Interrupts taken here.
    pub(crate) arrivals: irq::Arrivals,
    /// How many holders keep bottom halves off.
    pub(crate) bottom_halves_off: AtomicU32,
    kind: AtomicU8,
    /// For which contexts the heap's reserve is open: a bit for each kind.
    reserve_open: AtomicU8,
    held_ranks: AtomicU64,
    /// Where and how long locks are held.
    pub(crate) locks: Holding,
}

impl PerCpu {
    const_unless_model! {
    fn new() -> Self {
        Self {
            bottom_halves: Queue::new(),
            tasks: Queue::new(),
                bottom_half_counters: Counters::new(),
                task_counters: Counters::new(),
                sleepers: Slots::new(),
            irq_depth: AtomicU32::new(0),
            in_bottom_half: AtomicBool::new(false),
            task_turn: AtomicU64::new(0),
            arrivals: irq::Arrivals::new(),
            bottom_halves_off: AtomicU32::new(0),
            kind: AtomicU8::new(Kind::Task as u8),
            reserve_open: AtomicU8::new(0),
            held_ranks: AtomicU64::new(0),
                locks: Holding::new(),
        }
    }
    }

    /// The context that this CPU runs in.
    pub(crate) fn kind(&self) -> Kind {
        match self.kind.load(Ordering::Relaxed) {
            0 => Kind::Task,
            1 => Kind::BottomHalf,
            _ => Kind::HardIrq,
        }
    }

    /// Changes the context, returning the one before.
    pub(crate) fn set_kind(&self, kind: Kind) -> Kind {
        let old = self.kind();
        self.kind.store(kind as u8, Ordering::Relaxed);
        old
    }

    pub(crate) fn reserve_open(&self) -> u8 {
        self.reserve_open.load(Ordering::Relaxed)
    }

    pub(crate) fn set_reserve_open(&self, kinds: u8) {
        self.reserve_open.store(kinds, Ordering::Relaxed);
    }

    pub(crate) fn held_ranks(&self) -> u64 {
        self.held_ranks.load(Ordering::Relaxed)
    }

    pub(crate) fn set_held_ranks(&self, ranks: u64) {
        self.held_ranks.store(ranks, Ordering::Relaxed);
    }
}

impl System {
    const_unless_model! {
        /// A system with nothing registered and nothing queued.
        pub fn new() -> Self {
            #[cfg(not(any(loom, shuttle)))]
            return Self { cpus: [const { PerCpu::new() }; MAX_CPUS], slots: irq::Slots::new(), lent: Lent::new(), attached: Attached::new(), dma: Ledger::new(), hyperv: hyperv::Registered::new() };
            #[cfg(any(loom, shuttle))]
            return Self { cpus: core::array::from_fn(|_| PerCpu::new()), slots: irq::Slots::new(), lent: Lent::new(), attached: Attached::new(), dma: Ledger::new(), hyperv: hyperv::Registered::new() };
        }
    }
}

impl Default for System {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(not(feature = "hosted"))]
static SYSTEM: System = System::new();

/// Calls `f` with the running system's state.
#[cfg(not(feature = "hosted"))]
#[inline]
pub(crate) fn with<R>(f: impl FnOnce(&System) -> R) -> R {
    f(&SYSTEM)
}

/// Calls `f` with the state of the current thread's machine.
#[cfg(feature = "hosted")]
pub(crate) fn with<R>(f: impl FnOnce(&System) -> R) -> R {
    crate::hosted::with_system(f)
}

/// Calls `f` with this CPU's state.
#[inline]
pub(crate) fn with_cpu<R>(f: impl FnOnce(&PerCpu) -> R) -> R {
    // A platform that reports an index out of range would be broken; the modulus keeps even that from panicking.
    with(|system| f(&system.cpus[cpu::current() % MAX_CPUS]))
}

/// Attaches `make`'s value to the running system, unless one is attached already. A crate above keeps what it has one of there: the callout
/// service does. Allocates: bottom half or task.
pub fn attach<T: Any + Send + Sync>(make: impl FnOnce() -> T) {
    with(|system| system.attached.set(make));
}

/// Calls `f` with what was [attached](attach), if anything of that type was. Any context.
#[inline]
pub fn attached<T: Any + Send + Sync, R>(f: impl FnOnce(Option<&T>) -> R) -> R {
    with(|system| f(system.attached.get()))
}
