//! Callouts: timers that cannot be used after free, on an exact wheel with bounded work per step.
//!
//! A [`Callout`] is a handle to a timer whose handler is fixed when it is made, together with the context that it runs in: a hard interrupt, a bottom
//! half or a task. It is [started](Callout::start) for a time, on some CPU, and [stopped](Callout::stop); both work in any context and allocate nothing.
//! Neither waits: a stop says whether it cancelled something and whether the handler is in flight. To wait for that there are
//! [drain](Callout::drain) and, for ever, [close](Callout::close), as a call, as a [`Completion`] and as a future.
//! A [`Guarded`] callout runs with a lock of its client's held, and its stop under that lock is exact. A [`Scope`] closes all callouts of a
//! driver. [`NextOfN`] has many timers on one callout.
//!
//! See ADR-3 for the design and `docs/callouts.md` for the races that it ends.

#![cfg_attr(not(any(test, feature = "fuzz")), no_std)]
#![deny(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;

mod broken;
mod callout;
#[expect(unsafe_code, reason = "a cell that one executor at a time has")]
mod cell;
mod clockwork;
mod completion;
mod executor;
mod expiry;
mod guarded;
mod level;
mod next;
mod next_of;
#[expect(unsafe_code, reason = "counted pointers to nodes, their type erased")]
mod node;
mod outcome;
mod port;
mod rest;
mod scope;
mod service;
#[expect(unsafe_code, reason = "links nodes by address")]
mod shelf;
mod shim;
mod state;
mod stats;
#[expect(unsafe_code, reason = "links nodes by address")]
pub mod wheel;
mod wheels;

#[cfg(test)]
#[allow(unsafe_code, reason = "payloads that are shared on purpose")]
mod tests;

pub use callout::{Callout, CalloutRef};
pub use completion::{Completion, Drained};
pub use expiry::Expiry;
pub use guarded::{BindError, Guarded, Lock, LockAt, WrongLock};
pub use level::Level;
pub use next::Next;
pub use next_of::NextOfN;
pub use outcome::{DrainError, StartError, Started, Stopped};
pub use rest::{Interlock, Rest};
pub use scope::Scope;

/// The service as a whole.
pub mod timers {
    pub use crate::service::{Jump, next_event, on_jump, start_service, stats};
    pub use crate::stats::{JUMP, LATE_BUCKETS, SLOW, Stats};
}

/// The examples of the page that tells the stories.
#[cfg(doctest)]
#[doc = include_str!("../../docs/callouts.md")]
mod stories {}
