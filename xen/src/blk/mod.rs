//! Xen's block devices: the end that asks.
//!
//! Source: Xen `public/io/blkif.h`, `public/io/ring.h`, `public/io/xenbus.h`.
//!
//! [`wire`] holds the protocol's layouts; `ring` one ring, which knows no requests; `pool` the pages that the other domain may reach; `queue`
//! what is in flight; `connect` the negotiation by xenstore, `attempt` a whole first one; [`XenDisk`] is the disk that users see.

mod attempt;
mod connect;
mod copy;
mod deferred;
mod disk;
mod error;
mod life;
mod pool;
mod queue;
pub(crate) mod ring;
mod shape;
pub mod wire;

#[cfg(test)]
mod ring_tests;

pub use connect::Config;
pub use disk::{Counts, XenDisk, find, watch};
pub use error::ConnectError;
