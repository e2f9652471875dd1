//! One drive: its task file and what a command does to it.

use super::identify::identify;
use super::{Breach, Fault};
use crate::{Disk, SECTOR};

pub(super) mod status {
    pub const BSY: u8 = 0x80;
    pub const DRDY: u8 = 0x40;
    pub const DF: u8 = 0x20;
    pub const DSC: u8 = 0x10;
    pub const DRQ: u8 = 0x08;
    pub const ERR: u8 = 0x01;
    /// At rest.
    pub const READY: u8 = DRDY | DSC;
}

pub(super) const ABRT: u8 = 0x04;
pub(super) const IDNF: u8 = 0x10;
/// UNC on a read, WP on a write.
pub(super) const UNC: u8 = 0x40;

/// What kind of drive it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriveKind {
    /// A disk.
    Disk,
    /// A packet device: a CD-ROM.
    Packet,
}

/// What a drive says of itself and is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its kind.
    pub kind: DriveKind,
    /// At most 40 characters.
    pub model: String,
    /// At most 20 characters.
    pub serial: String,
    /// 48-bit addresses.
    pub lba48: bool,
    /// DMA commands.
    pub dma: bool,
    /// The most sectors in a block of READ MULTIPLE; 0 without the command.
    pub max_multiple: u8,
    /// Whether there is a write cache that can be switched, and whether it is on at first.
    pub write_cache: Option<bool>,
    /// Whether it can be switched off in fact.
    pub cache_stays: bool,
    /// FLUSH CACHE (and EXT, with 48-bit addresses).
    pub flush: bool,
    /// WRITE DMA FUA EXT.
    pub fua: bool,
    /// Blocks of 512 bytes of ranges that TRIM takes; 0 without it.
    pub trim_blocks: u16,
    /// Bytes of a logical block.
    pub logical_block: u32,
    /// Logical blocks in a physical one, as a power of two.
    pub physical_exponent: u8,
    /// Locked by a password.
    pub locked: bool,
    /// Virtual nanoseconds that a reset takes.
    pub reset_nanos: u64,
    /// Words of IDENTIFY DEVICE that are lies.
    pub patches: Vec<(usize, u16)>,
}

impl Default for Settings {
    /// A disk with everything.
    fn default() -> Self {
        Self {
            kind: DriveKind::Disk,
            model: "UNDERCROFT MODEL DISK".to_owned(),
            serial: "ide-0".to_owned(),
            lba48: true,
            dma: true,
            max_multiple: 16,
            write_cache: Some(true),
            cache_stays: false,
            flush: true,
            fua: true,
            trim_blocks: 1,
            logical_block: 512,
            physical_exponent: 0,
            locked: false,
            reset_nanos: 0,
            patches: Vec::new(),
        }
    }
}

/// Which way a command's data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    None,
    /// To the host by programmed I/O, in blocks of so many bytes.
    PioIn(usize),
    PioOut(usize),
    DmaIn,
    DmaOut,
}

/// A command that a drive works on.
#[derive(Debug)]
pub(super) struct Work {
    pub code: u8,
    pub way: Way,
    /// First sector of 512 bytes, for commands that have one.
    pub sector: u64,
    /// All its data; what comes from the host is filled in as it comes.
    pub data: Vec<u8>,
    /// Bytes that went over.
    pub moved: usize,
    /// Bytes of `data` that the block in progress still has.
    pub block_left: usize,
    /// Where in `data` that block starts.
    pub block_start: usize,
    pub faults: Vec<Fault>,
    /// Virtual time before which nothing happens.
    pub not_before: u64,
    /// Not looked at yet: its first step is to come.
    pub fresh: bool,
    /// A glitch or a spurious interrupt in its middle has happened.
    pub disturbed: bool,
}

impl Work {
    pub fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    pub fn find<T>(&self, f: impl Fn(&Fault) -> Option<T>) -> Option<T> {
        self.faults.iter().find_map(f)
    }
}

/// A register of the command block, with what it held before (ATA 6.20).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pair {
    pub now: u8,
    pub before: u8,
}

impl Pair {
    pub fn write(&mut self, value: u8) {
        self.before = self.now;
        self.now = value;
    }
}

/// A drive.
#[derive(Debug)]
pub struct Drive {
    /// The disk behind it.
    pub disk: Disk,
    /// What it says of itself.
    pub settings: Settings,
    pub(super) status: u8,
    pub(super) error: u8,
    pub(super) feature: Pair,
    pub(super) count: Pair,
    pub(super) lba: [Pair; 3],
    pub(super) device: u8,
    pub(super) multiple: u8,
    pub(super) cache_on: bool,
    pub(super) intrq: bool,
    pub(super) work: Option<Work>,
    pub(super) wedged: bool,
    /// Commands performed, by code: (code, sectors).
    pub(super) log: Vec<(u8, u64, u32)>,
}

impl Drive {
    /// A disk with everything.
    pub fn new(disk: Disk) -> Self {
        Self::with_settings(disk, Settings::default())
    }

    /// A drive with these settings.
    pub fn with_settings(disk: Disk, settings: Settings) -> Self {
        let cache_on = settings.write_cache.unwrap_or(false);
        disk.set_write_back(cache_on);
        let mut drive = Self {
            disk,
            settings,
            status: 0,
            error: 0,
            feature: Pair::default(),
            count: Pair::default(),
            lba: [Pair::default(); 3],
            device: 0,
            multiple: 0,
            cache_on,
            intrq: false,
            work: None,
            wedged: false,
            log: Vec::new(),
        };
        drive.signature();
        drive
    }

    /// A CD-ROM drive.
    pub fn packet() -> Self {
        let settings = Settings {
            kind: DriveKind::Packet,
            model: "UNDERCROFT MODEL CD-ROM".to_owned(),
            serial: "cd-0".to_owned(),
            write_cache: None,
            ..Settings::default()
        };
        Self::with_settings(Disk::new(0), settings)
    }

    /// Commands that were begun, oldest first: code, first sector of 512 bytes, sectors.
    pub fn log(&self) -> &[(u8, u64, u32)] {
        &self.log
    }

    /// Registers after a reset (ATA 9.12).
    pub(super) fn signature(&mut self) {
        let packet = self.settings.kind == DriveKind::Packet;
        self.count.now = 1;
        self.lba[0].now = 1;
        (self.lba[1].now, self.lba[2].now) = if packet { (0x14, 0xeb) } else { (0, 0) };
        self.error = 1;
        self.device = 0;
        self.status = if packet { 0 } else { status::READY };
    }

    /// SRST begins (`true`) or ends.
    pub(super) fn reset(&mut self, asserted: bool) {
        self.work = None;
        self.intrq = false;
        if asserted {
            self.status = status::BSY;
            self.multiple = 0;
        } else {
            self.signature();
        }
        if self.wedged {
            self.status = status::BSY;
        }
    }

    /// The range in sectors of 512 bytes that the registers name.
    pub(super) fn range(&self, ext: bool) -> (u64, u32) {
        let scale = self.settings.logical_block / 512;
        let [low, mid, high] = self.lba;
        let mut lba = u64::from(low.now) | u64::from(mid.now) << 8 | u64::from(high.now) << 16;
        let count = if ext {
            lba |= u64::from(low.before) << 24 | u64::from(mid.before) << 32 | u64::from(high.before) << 40;
            let count = u32::from(self.count.now) | u32::from(self.count.before) << 8;
            if count == 0 { 1 << 16 } else { count }
        } else {
            lba |= u64::from(self.device & 0xf) << 24;
            if self.count.now == 0 { 256 } else { u32::from(self.count.now) }
        };
        (lba * u64::from(scale), count * scale)
    }

    pub(super) fn identify(&self) -> Vec<u8> {
        let sectors = self.disk.sectors();
        let words = identify(&self.settings, sectors, self.multiple, self.cache_on);
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Ends the command at once with ERR.
    pub(super) fn abort(&mut self, error: u8) {
        self.work = None;
        self.error = error;
        self.status = status::READY | status::ERR;
        self.intrq = true;
    }

    /// Ends the command well.
    pub(super) fn done(&mut self) {
        self.work = None;
        self.error = 0;
        self.status = status::READY;
        self.intrq = true;
    }

    /// Reads all of a command's data from the disk; the sectors before a bad one are there.
    pub(super) fn load(&self, sector: u64, data: &mut [u8]) -> Result<(), usize> {
        for (at, chunk) in data.chunks_mut(SECTOR).enumerate() {
            self.disk.read(sector + at as u64, chunk).map_err(|_| at * SECTOR)?;
        }
        Ok(())
    }

    /// Whether an addressing command may be performed; why not, as a breach.
    pub(super) fn admits(&self, code: u8, sector: u64, sectors: u32) -> Result<(), Breach> {
        if self.device & 0x40 == 0 {
            return Err(Breach::NotLba(code));
        }
        if sector + u64::from(sectors) > self.disk.sectors() {
            return Err(Breach::OutOfRange(code));
        }
        Ok(())
    }
}
