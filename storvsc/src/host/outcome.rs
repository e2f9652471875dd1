//! From a completion to what came of the command. Any context; a pure function.

use undercroft_block::scsi::{Response, Status};
use zerocopy::FromBytes;

use crate::defect::{Defect, Defects};
use crate::wire::vstor::{Head, Srb, SrbStatus, Version};

/// Bytes of sense data that an answer has at most.
pub(crate) const SENSE: usize = 20;
/// Bytes of an answer that say how it went.
pub(crate) const LEAST: u32 = 28;

/// What a completion says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The host's word.
    pub(crate) response: Response,
    /// The unit's status.
    pub(crate) status: Status,
    /// Bytes of the command's data that were not moved: at most what it had.
    pub(crate) residual: u32,
    sense: [u8; SENSE],
    sense_len: u8,
}

impl Answer {
    /// Its sense data.
    pub(crate) fn sense(&self) -> &[u8] {
        &self.sense[..usize::from(self.sense_len)]
    }
}

/// The host-independent name of an SRB's status, where that is the whole answer. `None`: the unit's status counts.
fn response(status: SrbStatus, scsi: Status, whole: bool) -> Option<Response> {
    Some(match status.code() {
        SrbStatus::SUCCESS | SrbStatus::REQUEST_SENSE_FAILED => return None,
        // The unit's status says what is wrong; where it says nothing, the host's word is all there is.
        SrbStatus::ERROR | SrbStatus::INVALID_REQUEST | SrbStatus::BUSY if scsi != Status::GOOD => return None,
        SrbStatus::BUSY => Response::Busy,
        // Windows says so of both, too much and too little.
        SrbStatus::DATA_OVERRUN if !whole => return None,
        SrbStatus::DATA_OVERRUN => Response::Overrun,
        SrbStatus::ABORTED => Response::Aborted,
        SrbStatus::INVALID_PATH
        | SrbStatus::NO_DEVICE
        | SrbStatus::SELECTION_TIMEOUT
        | SrbStatus::INVALID_LUN
        | SrbStatus::INVALID_TARGET => Response::BadTarget,
        SrbStatus::TIMEOUT | SrbStatus::COMMAND_TIMEOUT => Response::TimedOut,
        SrbStatus::BUS_RESET | SrbStatus::REQUEST_FLUSHED => Response::Reset,
        SrbStatus::PARITY_ERROR | SrbStatus::UNEXPECTED_BUS_FREE | SrbStatus::PHASE_SEQUENCE_FAILURE => {
            Response::TransportFailure
        }
        SrbStatus::NO_HBA | SrbStatus::LINK_DOWN => Response::NexusFailure,
        SrbStatus::NOT_POWERED => Response::TargetFailure,
        _ => Response::Failure,
    })
}

/// Reads the answer to a command with `requested` bytes of data. `ide_scan`: it asked an IDE disk's channel for its units, which one that is
/// no SCSI controller may not know how to answer.
pub(crate) fn read(payload: &[u8; 64], version: Version, requested: u64, ide_scan: bool, defects: Defects) -> Answer {
    let failed = |response| Answer { response, status: Status::GOOD, residual: 0, sense: [0; SENSE], sense_len: 0 };
    let Ok((srb, _)) = Srb::ref_from_prefix(&payload[size_of::<Head>()..]) else { return failed(Response::Failure) };
    let (status, scsi) = (SrbStatus(srb.srb_status), Status(srb.scsi_status));
    let moved = u64::from(srb.transfer_length.get());
    let refused = status.code() == SrbStatus::INVALID_REQUEST && scsi == Status::GOOD;
    if ide_scan && refused {
        // CHECK CONDITION, ILLEGAL REQUEST, INVALID COMMAND OPERATION CODE: as a disk from before SPC-2 says it.
        let mut answer =
            Answer { response: Response::Complete, status: Status::CHECK_CONDITION, ..failed(Response::Failure) };
        (answer.sense[0], answer.sense[2], answer.sense[7], answer.sense[12]) = (0x70, 5, 10, 0x20);
        answer.sense_len = 18;
        return answer;
    }
    if let Some(response) = response(status, scsi, moved >= requested)
        && !defects.has(Defect::IgnoresSrbStatus)
    {
        return failed(response);
    }
    // More than there is room for was not moved by an honest host.
    if moved > requested && !defects.has(Defect::TrustsTransferLength) {
        return failed(Response::Failure);
    }
    let has_sense = status.has_sense() && scsi == Status::CHECK_CONDITION;
    let sense_len = if has_sense { srb.sense_length.min(version.sense_bytes()) } else { 0 };
    Answer {
        response: Response::Complete,
        status: scsi,
        residual: u32::try_from(requested.wrapping_sub(moved)).unwrap_or(u32::MAX),
        sense: srb.bytes,
        sense_len,
    }
}
