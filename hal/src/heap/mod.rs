//! Heaps, by the names that the design gives them, and what watches over them.
//!
//! | heap | gives | lock | contexts |
//! |---|---|---|---|
//! | [`Physical`] | page frames | interrupt-safe | bottom half, task |
//! | [`Virtual`] | ranges of addresses | interrupt-safe | bottom half, task |
//! | [`Backed`] | pages mapped at such addresses | those two | bottom half, task |
//! | [`General`] | boxes that stay where they are | none | task |
//! | [`Locked`] | what `alloc` asks for | interrupt-safe | bottom half, task |
//!
//! A hard interrupt allocates nothing: the types refuse what takes a token, and the rest traps: a panic in debug builds, a count in
//! release builds, which the image reports at its end. A [`GeneralBox`] carries its heap in its type and cannot leave its task.
//!
//! [`write_back`] opens a heap's reserve to the code that frees memory by writing; `fail_nth` fails an allocation on purpose;
//! [`stats`], `by_size` and [`by_site`] tell who has what.
#![cfg_attr(any(loom, shuttle), allow(dead_code, reason = "a model uses the parts that it is about"))]

#[cfg(feature = "heap")]
mod backed;
#[cfg(all(feature = "heap", not(any(loom, shuttle))))]
mod cache;
#[cfg(feature = "heap")]
mod classes;
#[cfg(feature = "heap")]
mod general;
mod ids;
mod inject;
#[cfg(all(feature = "heap", not(any(loom, shuttle))))]
pub mod locked;
#[cfg(feature = "heap")]
mod physical;
mod reserve;
#[cfg(all(feature = "heap", not(any(loom, shuttle))))]
mod runs;
mod sites;
#[cfg(feature = "heap")]
mod stats;
#[cfg(feature = "heap")]
mod trap;
#[cfg(any(feature = "heap", all(test, loom)))]
mod try_cell;
#[cfg(feature = "heap")]
mod r#virtual;

#[cfg(feature = "heap")]
pub use backed::{Backed, Mapper, Unmapped};
#[cfg(feature = "heap")]
pub use general::{General, GeneralBox, NoMemory};
pub use ids::{Ids, NotTaken};
pub(crate) use inject::strikes;
#[cfg(feature = "std")]
pub use inject::{Injected, each_failure, fail_nth};
#[cfg(all(feature = "heap", not(any(loom, shuttle))))]
pub use locked::Heap as Locked;
#[cfg(feature = "heap")]
pub use physical::{Physical, Purpose};
#[cfg(all(feature = "x86_64", target_os = "none"))]
pub(crate) use reserve::is_open as reserve_is_open;
pub use reserve::write_back;
pub(crate) use sites::{Mark, allocated, freed};
pub use sites::{Site, by_site};
#[cfg(feature = "heap")]
pub use stats::{Stats, by_size, stats};
#[cfg(feature = "heap")]
pub use r#virtual::{Addresses, Virtual};

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
