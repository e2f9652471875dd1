//! The three execution contexts, as tokens.
//!
//! Source: the design's table "Execution contexts". A token is a zero-sized proof that the code
//! holding a reference to it runs in that context on this CPU. Only the dispatcher
//! ([`crate::dispatch`]) makes tokens; they are neither `Send` nor `Sync`, and they are passed by
//! reference, so that none can outlive the handler it was made for or reach another CPU.
//!
//! | | [`HardIrq`] | [`BottomHalf`] | [`Task`] |
//! |---|---|---|---|
//! | schedule work | yes | yes | yes |
//! | allocate | no | yes | yes |
//! | run a completion | no | yes | no |
//! | wait | no | no | yes |

use alloc::rc::Rc;
use core::cell::Cell;
use core::marker::PhantomData;

mod sealed {
    pub trait Sealed {}
}

/// Any of the three contexts: what may be done everywhere asks for `&impl Context`.
pub trait Context: sealed::Sealed {
    /// Which context this is, for traps and traces.
    const KIND: Kind;
}

/// A context's name, as kept per CPU for the allocation trap and the trace ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Task context: may wait.
    Task = 0,
    /// A bottom half: interrupts on, runs completions.
    BottomHalf = 1,
    /// A hardware interrupt handler: bounded, no allocation, no completion.
    HardIrq = 2,
}

/// Bottom half and task: the contexts in which memory may be allocated and freed and a [`SpinLock`](crate::sync::SpinLock) taken.
pub trait NotHardIrq: Context {}

macro_rules! token {
    ($(#[$doc:meta])* $name:ident, $kind:expr) => {
        $(#[$doc])*
        pub struct $name {
            // A raw pointer is neither Send nor Sync: the token stays on its CPU.
            _here: PhantomData<*mut ()>,
        }

        impl $name {
            /// Makes a token.
            ///
            /// # Safety
            /// The caller is the dispatcher of this context on this CPU, and lets the token go
            /// only by reference to the handler that it is about to run.
            pub(crate) const unsafe fn new() -> Self {
                Self { _here: PhantomData }
            }
        }

        impl sealed::Sealed for $name {}
        impl Context for $name {
            const KIND: Kind = $kind;
        }
    };
}

token!(
    /// Proof of running in a hardware interrupt handler.
    HardIrq,
    Kind::HardIrq
);
token!(
    /// Proof of running in a bottom half.
    BottomHalf,
    Kind::BottomHalf
);
token!(
    /// Proof of running in task context, where waiting is allowed.
    Task,
    Kind::Task
);

impl NotHardIrq for BottomHalf {}
impl NotHardIrq for Task {}

/// Proof of running in task context, for code that must not wait there: a callout's handler, say, for which others wait. It is
/// a [`Task`] that cannot wait, block on a future or drain.
pub struct Unwaiting {
    _here: PhantomData<*mut ()>,
}

impl sealed::Sealed for Unwaiting {}
impl Context for Unwaiting {
    const KIND: Kind = Kind::Task;
}
impl NotHardIrq for Unwaiting {}

impl Task {
    /// The same context, without the right to wait.
    pub const fn unwaiting(&self) -> &Unwaiting {
        &Unwaiting { _here: PhantomData }
    }
}

/// A task's token on loan, for code that keeps what it is given and has no place for a reference: a reader in a box, say, that a file system
/// crate calls. It is good until the call ends for which it was lent. It stays in task context on its CPU:
///
/// ```compile_fail,E0277
/// fn sent_elsewhere<T: Send>() {}
/// sent_elsewhere::<undercroft_hal::context::Lent>();
/// ```
#[derive(Clone)]
pub struct Lent {
    open: Rc<Cell<bool>>,
}

impl Task {
    /// Lends this token for the length of a call.
    pub fn lend<R>(&self, call: impl FnOnce(Lent) -> R) -> R {
        /// Ends the loan, also when the call unwinds.
        struct End(Lent);
        impl Drop for End {
            fn drop(&mut self) {
                self.0.open.set(false);
            }
        }
        let end = End(Lent { open: Rc::new(Cell::new(true)) });
        call(end.0.clone())
    }
}

impl Lent {
    /// Runs `with` with the token. `None`: the call is over for which it was lent.
    pub fn with<R>(&self, with: impl FnOnce(&Task) -> R) -> Option<R> {
        // Not `Send`, and open: this is the task that lent it, within the call that it lent it for.
        self.open.get().then(|| with(&Task { _here: PhantomData }))
    }
}

/// The context that the calling code runs in, as the dispatcher noted it: for traps (an allocator's) and traces, not for decisions.
pub fn current() -> Kind {
    crate::system::with_cpu(crate::system::PerCpu::kind)
}
