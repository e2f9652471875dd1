//! From a block device's configuration to [`Info`], all of it checked. Task context; the capacity also bottom half.

use undercroft_block::{Features, Info, Limits};
use undercroft_hal::dma::DmaConstraints;

use super::wire::{BlkFeatures, SECTOR, SECTOR_SHIFT, config};
use crate::ProbeError;
use crate::defect::{Defect, Defects};
use crate::device::TABLE_LEN;
use crate::transport::{Transport, read_config};

/// The driver's own limit of one transfer: devices that name none still have one, and it is above this.
const MAX_TRANSFER: u32 = 8 << 20;

/// The configuration's fields that count, read at one time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// All but queues and depth.
    pub(super) info: Info,
    /// Sectors per logical block, as a shift.
    pub(super) shift: u32,
    /// Queues that the device has.
    pub(super) queues: u16,
}

fn config_u64(transport: &dyn Transport, offset: usize) -> u64 {
    u64::from(transport.config_u32(offset)) | u64::from(transport.config_u32(offset + 4)) << 32
}

/// Whether the device's cache is volatile now.
pub(super) fn writeback(transport: &dyn Transport, features: BlkFeatures) -> bool {
    features.contains(BlkFeatures::FLUSH)
        && (!features.contains(BlkFeatures::CONFIG_WCE) || transport.config_u8(config::WRITEBACK) != 0)
}

/// Capacity in logical blocks, and whether the cache is volatile: what may change while the device runs.
pub(super) fn read_changing(
    transport: &dyn Transport,
    features: BlkFeatures,
    shift: u32,
) -> Result<(u64, bool), ProbeError> {
    read_config(transport, |transport| {
        Ok((config_u64(transport, config::CAPACITY) >> shift, writeback(transport, features)))
    })
}

/// Reads the configuration.
pub(super) fn read_shape(
    transport: &dyn Transport,
    features: BlkFeatures,
    defects: Defects,
) -> Result<Shape, ProbeError> {
    if defects.has(Defect::IgnoresGeneration) {
        return shape(transport, features);
    }
    read_config(transport, |transport| shape(transport, features))
}

fn shape(transport: &dyn Transport, features: BlkFeatures) -> Result<Shape, ProbeError> {
    let has = |feature| features.contains(feature);
    let u32_if = |feature, offset, otherwise| if has(feature) { transport.config_u32(offset) } else { otherwise };

    let block_size = u32_if(BlkFeatures::BLK_SIZE, config::BLK_SIZE, SECTOR);
    if !block_size.is_power_of_two() || !(512..=65_536).contains(&block_size) {
        return Err(ProbeError::BadConfig("block size"));
    }
    let shift = block_size.ilog2() - SECTOR_SHIFT;
    let exponent = if has(BlkFeatures::TOPOLOGY) { transport.config_u8(config::PHYSICAL_BLOCK_EXP) } else { 0 };
    // A device that claims absurd physical blocks is not believed, but that is no reason to refuse it: it is advice.
    let exponent = if exponent > 12 { 0 } else { exponent };

    // Without SEG_MAX nothing is promised beyond one segment.
    let segments = u32_if(BlkFeatures::SEG_MAX, config::SEG_MAX, 1).min(u32::from(TABLE_LEN) - 2);
    let size_max = u32_if(BlkFeatures::SIZE_MAX, config::SIZE_MAX, u32::MAX);
    if segments == 0 || size_max < block_size {
        return Err(ProbeError::BadConfig("segment limits"));
    }
    let max_segment_bytes = size_max.min(MAX_TRANSFER) & !(block_size - 1);
    let max_transfer_bytes = max_segment_bytes.saturating_mul(segments).min(MAX_TRANSFER);

    // Zero sectors at most means that the device takes none, whatever the feature bit says.
    let discard = u32_if(BlkFeatures::DISCARD, config::MAX_DISCARD_SECTORS, 0) >> shift;
    let zeroes = u32_if(BlkFeatures::WRITE_ZEROES, config::MAX_WRITE_ZEROES_SECTORS, 0) >> shift;
    let read_only = has(BlkFeatures::RO);
    let mut capabilities = Features::empty();
    capabilities.set(Features::READ_ONLY, read_only);
    capabilities.set(Features::VOLATILE_CACHE, writeback(transport, features));
    capabilities.set(Features::DISCARD, discard > 0 && !read_only);
    capabilities.set(Features::WRITE_ZEROES, zeroes > 0 && !read_only);
    let queues = if has(BlkFeatures::MQ) { transport.config_u16(config::NUM_QUEUES) } else { 1 };
    if queues == 0 {
        return Err(ProbeError::BadConfig("number of queues"));
    }
    Ok(Shape {
        info: Info {
            capacity: config_u64(transport, config::CAPACITY) >> shift,
            block_size,
            physical_block_size: block_size << exponent,
            queues: 1,
            depth: 0,
            features: capabilities,
            limits: Limits {
                max_segments: segments as u16,
                max_segment_bytes,
                joint: 0,
                max_transfer_bytes,
                max_discard_blocks: discard,
                max_write_zeroes_blocks: zeroes,
                dma: DmaConstraints::ANY,
            },
        },
        shift,
        queues,
    })
}
