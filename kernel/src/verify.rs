//! Reads a disk whole, in order, with several large requests in flight, and hashes it. Task context.

use alloc::sync::Arc;

use sha2::{Digest, Sha256};
use undercroft_block::{BlockDevice, Error, Op};
use undercroft_hal::Task;

use crate::account::Stretch;
use crate::disks::Disk;
use crate::lanes::Lanes;
use crate::report::Report;

/// Requests in flight.
const LANES: usize = 8;
/// Bytes of a request at most.
const CHUNK: u32 = 256 * 1024;

/// The digest of a whole disk.
pub(crate) struct Sum(pub(crate) [u8; 32]);

impl core::fmt::Display for Sum {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Blocks of the largest request that fits the limits and `most` bytes, at least one.
pub(crate) fn chunk_blocks(device: &Arc<dyn BlockDevice>, most: u32) -> u32 {
    let info = device.info();
    let bytes = most.min(info.limits.max_transfer_bytes).min(info.limits.max_segment_bytes);
    (bytes / info.block_size).max(1)
}

/// Reads and hashes everything on the disk.
///
/// # Errors
/// The first request's that fails.
pub(crate) fn read_whole(cx: &Task, disk: &Disk, report: &Report) -> Result<Sum, Error> {
    let info = disk.device.info();
    let blocks = chunk_blocks(&disk.device, CHUNK);
    let mut lanes = Lanes::new(&disk.device, LANES, blocks as usize * info.block_size as usize)?;
    let (mut hash, mut sent, mut done) = (Sha256::new(), 0u64, 0u64);
    let mut progress = report.progress(&disk.name, "read", info.bytes());
    let size = |from: u64| u64::from(blocks).min(info.capacity - from) as u32;
    let chunks = info.capacity.div_ceil(u64::from(blocks));
    let stretch = Stretch::begin();
    let mut result = Ok(());
    while done < chunks {
        while result.is_ok() && sent < chunks && sent < done + lanes.count() as u64 {
            let lba = sent * u64::from(blocks);
            result = lanes.send(cx, sent as usize % lanes.count(), Op::Read, lba, size(lba));
            sent += u64::from(result.is_ok());
        }
        if done == sent {
            break;
        }
        let lane = done as usize % lanes.count();
        // Even after a failure everything that was sent is awaited.
        let arrived = lanes.wait(cx, lane);
        result = result.and(arrived);
        let lba = done * u64::from(blocks);
        let bytes = size(lba) as usize * info.block_size as usize;
        if result.is_ok()
            && let Some(buffer) = lanes.buffer(lane)
        {
            hash.update(&buffer[..bytes]);
            progress.advance(bytes as u64);
        }
        done += 1;
    }
    drop(stretch);
    result.map(|()| Sum(hash.finalize().into()))
}
