//! Small models of the old systems, faithful where their defects were.
//!
//! Each is a machine whose steps a test calls in the order of a historic interleaving: a step is what ran without letting anybody in. They
//! are written after the published descriptions and sources that each file names; no code was taken over.

pub mod freebsd;
pub mod linux;
pub mod memory;
pub mod migration;
pub mod netbsd;
pub mod waits;
