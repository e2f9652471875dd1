//! A SCSI target with direct-access logical units, for any SCSI host adapter model to put its own transport around.
//!
//! Source: SAM-5, SPC-4, SBC-3. The adapter decodes its request, asks [`Target::transfer`] how many bytes the command moves, and hands the command and its
//! data to [`Target::execute`].

mod commands;
mod inquiry;
mod lun;
mod sense;
mod target;

pub use lun::{Lun, LunSettings};
pub use sense::{Sense, status};
pub use target::{Target, Unit};

/// How many bytes a command moves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Transfer {
    /// To the target.
    pub out: usize,
    /// From the target, at most.
    pub into: usize,
}

/// How a command ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// SCSI status ([`status`]).
    pub status: u8,
    /// Why, with CHECK CONDITION.
    pub sense: Option<Sense>,
    /// Data from the target.
    pub data: Vec<u8>,
}

impl Reply {
    /// GOOD, with data.
    pub fn good(data: Vec<u8>) -> Self {
        Self { status: status::GOOD, sense: None, data }
    }

    /// CHECK CONDITION.
    pub fn check(sense: Sense) -> Self {
        Self { status: status::CHECK_CONDITION, sense: Some(sense), data: Vec::new() }
    }
}
