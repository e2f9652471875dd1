//! The bootable image: built, stripped for the boot, kept whole for its backtraces.

pub mod build;
pub mod strip;
pub mod symbols;
