//! From a completion to what came of the command. Any context; a pure function.

use undercroft_block::scsi::{Response, Status};

use crate::defect::{Defect, Defects};
use crate::wire::HostStatus;
use crate::wire::rings::Completion;

/// What a completion says, without the sense data itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The adapter's word.
    pub(crate) response: Response,
    /// The unit's status.
    pub(crate) status: Status,
    /// Bytes of the command's data that were not moved: at most what it had.
    pub(crate) residual: u32,
    /// Whether there may be sense data.
    pub(crate) has_sense: bool,
}

/// READ and WRITE of 6, 10, 12 and 16 bytes: they move blocks, and exactly as many as they say.
pub(crate) const fn reads_or_writes(opcode: u8) -> bool {
    matches!(opcode, 0x08 | 0x0a | 0x28 | 0x2a | 0x88 | 0x8a | 0xa8 | 0xaa)
}

/// The host-independent name of an adapter's status. `None`: the unit answered, its status counts.
fn response(status: HostStatus) -> Option<Response> {
    Some(match status {
        // Whether all data moved is another question; that sense data is missing, the absence of it says.
        HostStatus::SUCCESS
        | HostStatus::LINKED_COMPLETED
        | HostStatus::LINKED_COMPLETED_FLAG
        | HostStatus::DATA_UNDERRUN
        | HostStatus::DATA_RUN
        | HostStatus::SENSE_FAILED => return None,
        HostStatus::SELECTION_TIMEOUT => Response::BadTarget,
        HostStatus::ABORT_QUEUE => Response::Aborted,
        HostStatus::SENT_RESET | HostStatus::RECEIVED_RESET | HostStatus::BUS_RESET => Response::Reset,
        HostStatus::BUS_FREE
        | HostStatus::INVALID_PHASE
        | HostStatus::NO_RESPONSE
        | HostStatus::DISCONNECT
        | HostStatus::ADAPTER_TIMEOUT
        | HostStatus::PARITY => Response::TransportFailure,
        _ => Response::Failure,
    })
}

/// How much of `requested` bytes was not moved.
///
/// A completion without error counts what moved, or 0 where the host does not count (VMware sometimes, QEMU always): that is no word
/// about the data. An underrun of a host that does not count (QEMU) may be of any length: of blocks none is taken as moved; of an answer with a
/// length of its own (INQUIRY, REPORT LUNS) that length tells.
fn residual(status: HostStatus, moved: u64, requested: u64, blocks: bool) -> u64 {
    let short = matches!(status, HostStatus::DATA_UNDERRUN | HostStatus::DATA_RUN);
    if moved == 0 && !(short && blocks) { 0 } else { requested.saturating_sub(moved) }
}

/// Reads a completion of a command with `requested` bytes of data. `blocks`: it moves blocks.
pub(crate) fn read(completion: &Completion, requested: u64, blocks: bool, defects: Defects) -> Answer {
    let (moved, status) = (completion.data_len.get(), HostStatus(completion.host_status.get()));
    let failed = |response| Answer { response, status: Status::GOOD, residual: 0, has_sense: false };
    if defects.has(Defect::UnderrunIsError) && matches!(status, HostStatus::DATA_UNDERRUN | HostStatus::DATA_RUN) {
        return failed(Response::Failure);
    }
    if let Some(response) = response(status)
        && !defects.has(Defect::IgnoresHostStatus)
    {
        return failed(response);
    }
    // The unit wanted to move more than there is room for.
    if status == HostStatus::DATA_RUN && moved > requested {
        return failed(Response::Overrun);
    }
    // A status is a byte.
    let Ok(scsi) = u8::try_from(completion.scsi_status.get()) else { return failed(Response::Failure) };
    let mut left = residual(status, moved, requested, blocks);
    if defects.has(Defect::TrustsDataLength) {
        left = requested.wrapping_sub(moved);
    }
    if defects.has(Defect::IgnoresUnderrun) {
        left = 0;
    }
    Answer {
        response: Response::Complete,
        status: Status(scsi),
        residual: u32::try_from(left).unwrap_or(u32::MAX),
        has_sense: Status(scsi) == Status::CHECK_CONDITION
            && status != HostStatus::SENSE_FAILED
            && completion.sense_len.get() > 0,
    }
}
