//! The systems whose timers went wrong, beside ours: each historic interleaving, first on a model of the old system, where it must do its
//! damage, then on this crate, where it must not. `docs/callouts.md` tells the stories.
//!
//! The controls (`…_control`) step the models in `tests/old` and expect the violation that was seen then. The others drive this crate's
//! interface on a simulated machine. Both are judged by the same [`watch`].
#![cfg(not(any(loom, shuttle)))]

mod crew;
mod freebsd;
mod lab;
mod linux;
mod migration;
mod netbsd;
#[path = "../old/mod.rs"]
mod old;
mod ours;
mod solo;
mod stress;
mod watch;
