//! A direct-access logical unit.

use std::collections::VecDeque;

use super::{Reply, Sense};
use crate::{Disk, DiskError, SECTOR};

/// What a unit says of itself. Limits are in logical blocks.
#[derive(Debug, Clone)]
pub struct LunSettings {
    /// Block size in bytes, a multiple of 512.
    pub block_size: u32,
    /// Vendor, product and revision: at most 8, 16 and 4 characters.
    pub identity: (String, String, String),
    /// Unit serial number.
    pub serial: String,
    /// NAA identifier.
    pub naa: u64,
    /// Logical blocks in a physical one, as a power of two.
    pub physical_exponent: u8,
    /// Lowest aligned logical block.
    pub lowest_aligned: u16,
    /// The longest transfer (0: none stated).
    pub max_transfer: u32,
    /// The best transfer.
    pub optimal_transfer: u32,
    /// Thin provisioned: UNMAP and WRITE SAME with UNMAP work.
    pub thin: bool,
    /// The most blocks in an UNMAP.
    pub max_unmap: u32,
    /// The most descriptors in an UNMAP.
    pub max_unmap_descriptors: u32,
    /// The most blocks in a WRITE SAME (0: none stated).
    pub max_write_same: u64,
    /// Whether SYNCHRONIZE CACHE exists.
    pub synchronizes: bool,
    /// Removable medium.
    pub removable: bool,
    /// VPD pages that answer INVALID FIELD IN CDB.
    pub without_pages: Vec<u8>,
}

impl Default for LunSettings {
    fn default() -> Self {
        Self {
            block_size: 512,
            identity: ("UNDRCRFT".to_owned(), "SIMULATED DISK".to_owned(), "0001".to_owned()),
            serial: "S0".to_owned(),
            naa: 0x5000_c500_0000_0001,
            physical_exponent: 3,
            lowest_aligned: 0,
            max_transfer: 0xffff,
            optimal_transfer: 128,
            thin: true,
            max_unmap: 1 << 20,
            max_unmap_descriptors: 16,
            max_write_same: 1 << 20,
            synchronizes: true,
            removable: false,
            without_pages: Vec::new(),
        }
    }
}

/// A logical unit over a [`Disk`].
#[derive(Debug)]
pub struct Lun {
    /// The disk behind it.
    pub disk: Disk,
    /// What it says of itself.
    pub settings: LunSettings,
    /// While set, commands that touch the medium answer this.
    pub not_ready: Option<Sense>,
    pub(super) attentions: VecDeque<Sense>,
    commands: u64,
}

impl Lun {
    /// A unit as after power-on, with that unit attention pending.
    pub fn new(disk: Disk, settings: LunSettings) -> Self {
        Self { disk, settings, not_ready: None, attentions: [Sense::RESET].into(), commands: 0 }
    }

    /// Establishes a unit attention: the next command that reports such answers it.
    pub fn attention(&mut self, sense: Sense) {
        self.attentions.push_back(sense);
    }

    /// Resets the unit.
    pub fn reset(&mut self) {
        self.attentions.clear();
        self.attention(Sense::RESET);
    }

    /// Changes the capacity, in sectors of 512 bytes, with the unit attention for it.
    pub fn resize(&mut self, sectors: u64) {
        self.disk.resize(sectors);
        self.attention(Sense::CAPACITY_CHANGED);
    }

    /// Commands executed.
    pub fn commands(&self) -> u64 {
        self.commands
    }

    pub(super) fn count(&mut self) {
        self.commands += 1;
    }

    fn sectors_per_block(&self) -> u64 {
        u64::from(self.settings.block_size) / SECTOR as u64
    }

    /// Blocks.
    pub fn blocks(&self) -> u64 {
        self.disk.sectors() / self.sectors_per_block()
    }

    /// The first sector of a range of blocks that lies within the unit.
    fn range(&self, lba: u64, blocks: u64) -> Result<u64, Sense> {
        match lba.checked_add(blocks) {
            Some(end) if end <= self.blocks() => Ok(lba * self.sectors_per_block()),
            _ => Err(Sense::OUT_OF_RANGE),
        }
    }

    pub(super) fn read(&self, lba: u64, blocks: u64) -> Result<Reply, Sense> {
        let sector = self.range(lba, blocks)?;
        let mut data = vec![0; (blocks * u64::from(self.settings.block_size)) as usize];
        self.disk.read(sector, &mut data).map_err(|error| sense(error, Sense::READ_ERROR))?;
        Ok(Reply::good(data))
    }

    pub(super) fn write(&self, lba: u64, data: &[u8], durable: bool) -> Result<Reply, Sense> {
        let sector = self.range(lba, data.len() as u64 / u64::from(self.settings.block_size))?;
        let result = if durable { self.disk.write_durable(sector, data) } else { self.disk.write(sector, data) };
        result.map_err(|error| sense(error, Sense::WRITE_ERROR))?;
        Ok(Reply::default())
    }

    pub(super) fn zero(&self, lba: u64, blocks: u64) -> Result<(), Sense> {
        let sector = self.range(lba, blocks)?;
        let sectors = blocks * self.sectors_per_block();
        self.disk.zero(sector, sectors).map_err(|error| sense(error, Sense::WRITE_ERROR))
    }

    pub(super) fn check_range(&self, lba: u64, blocks: u64) -> Result<(), Sense> {
        self.range(lba, blocks).map(|_| ())
    }
}

fn sense(error: DiskError, medium: Sense) -> Sense {
    match error {
        DiskError::OutOfRange => Sense::OUT_OF_RANGE,
        DiskError::Medium(_) => medium,
        DiskError::ReadOnly => Sense::WRITE_PROTECTED,
    }
}
