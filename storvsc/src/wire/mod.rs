//! What travels between guest and host: control messages, ring packets, vstor packets. Types and constants only.
//!
//! Source: the open host and guest implementations of VMBus and StorVSP (OpenVMM; mu_msvm), as observed on the wire; the golden vectors of
//! this crate's tests are such observations. All integers are little-endian, but in CDBs.

pub mod guid;
pub mod message;
pub mod ring;
pub mod vstor;

#[cfg(all(not(loom), test))]
mod golden;

/// Bytes of a page, as page numbers count them.
pub const PAGE: usize = 4096;
