//! How a drive takes a command and begins it (ATA chapter 8, ACS-2 7.10).

use super::drive::{ABRT, Drive, DriveKind, IDNF, UNC, Way, Work, status};
use super::fault::FaultScript;
use super::{Breach, Fault};
use crate::{DiskError, SECTOR};

/// What a command code means: its way of moving data, whether its address is of 48 bits, and whether it writes.
struct Kind {
    way: Way,
    ext: bool,
    writes: bool,
}

impl Drive {
    fn kind(&self, code: u8) -> Option<Kind> {
        let block = self.settings.logical_block as usize;
        let many = usize::from(self.multiple) * block;
        let (way, ext, writes) = match code {
            0x20 | 0x24 => (Way::PioIn(block), code == 0x24, false),
            0xc4 | 0x29 => (Way::PioIn(many), code == 0x29, false),
            0xc8 | 0x25 => (Way::DmaIn, code == 0x25, false),
            0x30 | 0x34 => (Way::PioOut(block), code == 0x34, true),
            0xc5 | 0x39 => (Way::PioOut(many), code == 0x39, true),
            0xca | 0x35 | 0x3d => (Way::DmaOut, code != 0xca, true),
            _ => return None,
        };
        Some(Kind { way, ext, writes })
    }

    fn has_command(&self, code: u8, kind: &Kind) -> bool {
        let settings = &self.settings;
        let dma = matches!(kind.way, Way::DmaIn | Way::DmaOut);
        (!kind.ext || settings.lba48) && (!dma || settings.dma) && (code != 0x3d || settings.fua)
    }

    /// The host writes the command register. What it does wrong is returned, and the command aborted.
    pub(super) fn command(&mut self, code: u8, now: u64, script: &mut FaultScript) -> Result<(), Breach> {
        self.intrq = false;
        self.status = status::BSY;
        if self.settings.kind == DriveKind::Packet {
            return self.packet_command(code, now);
        }
        if let Some(kind) = self.kind(code) {
            return self.transfer(code, &kind, now, script);
        }
        match code {
            0xec => self.take(code, Way::PioIn(SECTOR), 0, self.identify(), now, Vec::new()),
            0xe7 | 0xea => {
                let known = self.settings.flush && (code == 0xe7 || self.settings.lba48);
                if !known {
                    self.abort(ABRT);
                    return Err(Breach::Unsupported(code));
                }
                let faults = script.decide();
                self.log.push((code, 0, 0));
                self.take(code, Way::None, 0, Vec::new(), now, faults);
            }
            0xc6 => {
                let count = self.count.now;
                let most = self.settings.max_multiple;
                if count > most || (count > 0 && !count.is_power_of_two()) {
                    self.abort(ABRT);
                    return Err(Breach::MultipleCount(count));
                }
                self.multiple = count;
                self.take(code, Way::None, 0, Vec::new(), now, Vec::new());
            }
            0xef => return self.set_features(code, now),
            0x06 => return self.trim(now, script),
            // An unknown command is no breach: the host may try.
            _ => self.abort(ABRT),
        }
        Ok(())
    }

    fn packet_command(&mut self, code: u8, now: u64) -> Result<(), Breach> {
        if code == 0xa1 {
            self.take(code, Way::PioIn(SECTOR), 0, self.identify(), now, Vec::new());
            return Ok(());
        }
        self.signature();
        self.abort(ABRT);
        if code == 0xec { Ok(()) } else { Err(Breach::Unsupported(code)) }
    }

    fn transfer(&mut self, code: u8, kind: &Kind, now: u64, script: &mut FaultScript) -> Result<(), Breach> {
        if !self.has_command(code, kind) {
            self.abort(ABRT);
            return Err(Breach::Unsupported(code));
        }
        if matches!(code, 0xc4 | 0x29 | 0xc5 | 0x39) && self.multiple == 0 {
            self.abort(ABRT);
            return Err(Breach::MultipleNotSet);
        }
        let (sector, sectors) = self.range(kind.ext);
        if let Err(breach) = self.admits(code, sector, sectors) {
            self.abort(IDNF);
            return Err(breach);
        }
        let faults = script.decide();
        self.log.push((code, sector, sectors));
        if kind.writes && self.disk.read_only() {
            self.abort(UNC | ABRT);
            return Ok(());
        }
        self.take(code, kind.way, sector, vec![0; sectors as usize * SECTOR], now, faults);
        Ok(())
    }

    fn set_features(&mut self, code: u8, now: u64) -> Result<(), Breach> {
        match self.feature.now {
            0x02 | 0x82 if self.settings.write_cache.is_some() => {
                self.cache_on = self.feature.now == 0x02 || (self.settings.cache_stays && self.cache_on);
                self.disk.set_write_back(self.cache_on);
            }
            0x03 | 0x66 => {}
            _ => {
                self.abort(ABRT);
                return Ok(());
            }
        }
        self.take(code, Way::None, 0, Vec::new(), now, Vec::new());
        Ok(())
    }

    fn trim(&mut self, now: u64, script: &mut FaultScript) -> Result<(), Breach> {
        let blocks = u16::from(self.count.now) | u16::from(self.count.before) << 8;
        let most = self.settings.trim_blocks;
        if blocks == 0 || blocks > most || self.feature.now != 1 || !self.settings.dma {
            self.abort(ABRT);
            return Err(Breach::TrimShape(blocks, most));
        }
        let faults = script.decide();
        self.log.push((0x06, 0, u32::from(blocks)));
        self.take(0x06, Way::DmaOut, 0, vec![0; usize::from(blocks) * SECTOR], now, faults);
        Ok(())
    }

    fn take(&mut self, code: u8, way: Way, sector: u64, data: Vec<u8>, now: u64, faults: Vec<Fault>) {
        let delay = faults.iter().find_map(|fault| if let Fault::Delay(nanos) = fault { Some(*nanos) } else { None });
        self.work = Some(Work {
            code,
            way,
            sector,
            data,
            moved: 0,
            block_left: 0,
            block_start: 0,
            faults,
            not_before: now.saturating_add(delay.unwrap_or(0)),
            fresh: true,
            disturbed: false,
        });
    }

    /// The drive looks at a new command for the first time. `true` if it got anything done.
    pub(super) fn begin(&mut self) -> bool {
        let Some(mut work) = self.work.take() else { return false };
        if work.has(Fault::StuckBusy) {
            self.work = Some(work);
            return false;
        }
        if work.has(Fault::Wedged) {
            self.wedged = true;
            self.work = Some(work);
            return false;
        }
        work.fresh = false;
        if work.has(Fault::DeviceFault) {
            self.status = status::READY | status::DF;
            self.intrq = true;
            return true;
        }
        if let Some(error) = work.find(|fault| if let Fault::Error(error) = fault { Some(*error) } else { None }) {
            self.abort(error);
            return true;
        }
        match work.way {
            Way::None => {
                if matches!(work.code, 0xe7 | 0xea) {
                    self.disk.flush();
                }
                let quiet = work.has(Fault::NoInterrupt);
                self.done();
                self.intrq = !quiet;
                return true;
            }
            Way::PioIn(_) => {
                self.work = Some(work);
                self.next_block();
                return true;
            }
            Way::PioOut(bytes) => {
                work.block_left = bytes.min(work.data.len());
                self.status = status::READY | status::DRQ;
            }
            Way::DmaIn | Way::DmaOut => self.status = status::READY | status::DRQ,
        }
        self.work = Some(work);
        true
    }

    /// Puts the next block of programmed input up, or takes the one that came and asks for the next.
    pub(super) fn next_block(&mut self) -> bool {
        let Some(mut work) = self.work.take() else { return false };
        if work.fresh || work.block_left > 0 || self.status & status::DRQ != 0 {
            self.work = Some(work);
            return false;
        }
        let after = work.find(|fault| match fault {
            Fault::ErrorAfter(sectors, error) => Some((usize::from(*sectors) * SECTOR, *error)),
            _ => None,
        });
        if let Some((bytes, error)) = after
            && work.moved >= bytes
        {
            self.abort(error);
            return true;
        }
        let quiet = work.has(Fault::NoInterrupt);
        match work.way {
            Way::PioIn(bytes) => {
                if work.moved == work.data.len() {
                    // The last block was read: there is no interrupt after it (ATA 9.5).
                    self.status = status::READY | if work.has(Fault::DrqStuck) { status::DRQ } else { 0 };
                    return true;
                }
                let len = bytes.min(work.data.len() - work.moved);
                let moved = work.moved;
                if work.code != 0xec && work.code != 0xa1 {
                    let at = work.sector + (moved / SECTOR) as u64;
                    if self.load(at, &mut work.data[moved..moved + len]).is_err() {
                        self.abort(UNC);
                        return true;
                    }
                }
                work.block_left = len;
            }
            Way::PioOut(bytes) => {
                let from = work.block_start;
                let at = work.sector + (from / SECTOR) as u64;
                if !self.store(at, &work.data[from..work.moved]) {
                    return true;
                }
                if work.moved == work.data.len() {
                    let stuck = work.has(Fault::DrqStuck);
                    self.done();
                    self.intrq = !quiet;
                    self.status |= if stuck { status::DRQ } else { 0 };
                    return true;
                }
                (work.block_start, work.block_left) = (work.moved, bytes.min(work.data.len() - work.moved));
            }
            _ => {
                self.work = Some(work);
                return false;
            }
        }
        self.status = status::READY | status::DRQ;
        self.intrq = !quiet;
        self.work = Some(work);
        true
    }

    /// Writes what came from the host to the disk; `false` after ending the command with an error.
    pub(super) fn store(&mut self, sector: u64, data: &[u8]) -> bool {
        match self.disk.write(sector, data) {
            Ok(()) => true,
            Err(DiskError::ReadOnly) => {
                self.abort(UNC | ABRT);
                false
            }
            Err(DiskError::Medium(_) | DiskError::OutOfRange) => {
                self.abort(IDNF);
                false
            }
        }
    }

    /// All data of a DMA command went over.
    pub(super) fn complete_dma(&mut self, work: &Work) {
        match work.code {
            0x06 => {
                let scale = u64::from(self.settings.logical_block / 512);
                for range in work.data.chunks_exact(8) {
                    let range = u64::from_le_bytes(range.try_into().unwrap_or_default());
                    let (lba, count) = (range & 0xffff_ffff_ffff, range >> 48);
                    if count > 0 && self.disk.zero(lba * scale, count * scale).is_err() {
                        return self.abort(IDNF);
                    }
                }
            }
            _ if work.way == Way::DmaOut => {
                if !self.store(work.sector, &work.data) {
                    return;
                }
                if work.code == 0x3d {
                    // Cannot fail: it was just written.
                    let _ = self.disk.write_durable(work.sector, &work.data);
                }
            }
            _ => {}
        }
        self.done();
    }
}
