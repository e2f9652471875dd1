//! From a SCSI host's configuration to [`HostInfo`], all of it checked. Task context.

use undercroft_block::Limits;
use undercroft_block::scsi::HostInfo;
use undercroft_hal::dma::DmaConstraints;

use super::protocol::frame;
use super::wire::{CDB_SIZE, Event, SENSE_SIZE, config};
use crate::ProbeError;
use crate::device::TABLE_LEN;
use crate::transport::{Transport, read_config};

/// The driver's own limit of one transfer.
const MAX_TRANSFER: u32 = 8 << 20;
/// The highest LUN that two bytes of flat addressing carry (5.6.6.1).
const MAX_LUN: u32 = 0x3fff;
/// The highest target that one byte carries.
const MAX_TARGET: u16 = 255;

/// The configuration's fields that count, read at one time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// All but queues and depth.
    pub(super) info: HostInfo,
    /// Request queues that the device has.
    pub(super) queues: u16,
    /// Bytes of an event.
    pub(super) event_bytes: u32,
}

/// Makes the device use the sizes of sense data and CDB that the frames are laid out for.
pub(super) fn fix_sizes(transport: &mut dyn Transport) -> Result<(), ProbeError> {
    for (offset, size, name) in
        [(config::SENSE_SIZE, SENSE_SIZE, "sense size"), (config::CDB_SIZE, CDB_SIZE, "CDB size")]
    {
        if transport.config_u32(offset) != size as u32 {
            transport.set_config_u32(offset, size as u32);
            if transport.config_u32(offset) != size as u32 {
                return Err(ProbeError::BadConfig(name));
            }
        }
    }
    Ok(())
}

/// Reads the configuration.
pub(super) fn read_shape(transport: &dyn Transport) -> Result<Shape, ProbeError> {
    read_config(transport, |transport| {
        let segments = transport.config_u32(config::SEG_MAX).min(u32::from(TABLE_LEN) - 2);
        let queues = transport.config_u32(config::NUM_QUEUES);
        let event_bytes = transport.config_u32(config::EVENT_INFO_SIZE).max(size_of::<Event>() as u32);
        if segments == 0 {
            return Err(ProbeError::BadConfig("segment limit"));
        }
        if queues == 0 {
            return Err(ProbeError::BadConfig("number of queues"));
        }
        if event_bytes as usize > frame::BYTES {
            return Err(ProbeError::BadConfig("event size"));
        }
        let sectors = transport.config_u32(config::MAX_SECTORS);
        let max_transfer_bytes = match sectors.saturating_mul(512) {
            0 => MAX_TRANSFER,
            // Whole pages, so that any block size divides it; a device that takes less than a page takes what it says.
            bytes if bytes >= 4096 => bytes.min(MAX_TRANSFER) & !4095,
            bytes => bytes,
        };
        Ok(Shape {
            info: HostInfo {
                max_target: transport.config_u16(config::MAX_TARGET).min(MAX_TARGET),
                max_lun: transport.config_u32(config::MAX_LUN).min(MAX_LUN),
                queues: 1,
                depth: 0,
                depth_per_lun: transport.config_u32(config::CMD_PER_LUN),
                limits: Limits {
                    max_segments: segments as u16,
                    max_segment_bytes: max_transfer_bytes,
                    joint: 0,
                    max_transfer_bytes,
                    max_discard_blocks: 0,
                    max_write_zeroes_blocks: 0,
                    dma: DmaConstraints::ANY,
                },
            },
            queues: queues.min(u32::from(u16::MAX)) as u16,
            event_bytes,
        })
    })
}
