//! Partitions: GPT and MBR tables read into sub-devices.
//!
//! The parsers ([`gpt`], [`mbr`]) are pure functions over bytes that anybody may have written: they never panic, allocate in bounds, and
//! refuse a table that contradicts itself with a typed error instead of guessing. [`read`] asks a disk for the bytes they want (task context);
//! [`open`] makes a [`Partition`] of each entry.
//!
//! Sources: UEFI 2.10 chapter 5 (GPT, protective MBR); for MBR, the format that PC DOS 3.3 left (4 entries of 16 bytes at offset 446,
//! extended partitions as a chain).

mod crc32;
mod device;
pub mod gpt;
pub mod mbr;
mod table;

#[cfg(test)]
mod attach_tests;
#[cfg(test)]
mod golden;

pub use device::{Partition, open};
pub use table::{Entry, Kind, Scheme, Table, TableError, read};
