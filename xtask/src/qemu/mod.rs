//! QEMU: its version, its command line, its life and death.

pub mod arguments;
pub mod process;
pub mod qmp;
pub mod refusal;
pub mod version;
