//! The commands of a direct-access unit (SPC-4 6, SBC-3 5).

use super::{Lun, Reply, Sense, Transfer};

pub(super) mod opcode {
    pub const TEST_UNIT_READY: u8 = 0x00;
    pub const REQUEST_SENSE: u8 = 0x03;
    pub const READ_6: u8 = 0x08;
    pub const WRITE_6: u8 = 0x0a;
    pub const INQUIRY: u8 = 0x12;
    pub const MODE_SENSE_6: u8 = 0x1a;
    pub const START_STOP: u8 = 0x1b;
    pub const READ_CAPACITY_10: u8 = 0x25;
    pub const READ_10: u8 = 0x28;
    pub const WRITE_10: u8 = 0x2a;
    pub const SYNCHRONIZE_10: u8 = 0x35;
    pub const WRITE_SAME_10: u8 = 0x41;
    pub const UNMAP: u8 = 0x42;
    pub const MODE_SENSE_10: u8 = 0x5a;
    pub const READ_16: u8 = 0x88;
    pub const WRITE_16: u8 = 0x8a;
    pub const SYNCHRONIZE_16: u8 = 0x91;
    pub const WRITE_SAME_16: u8 = 0x93;
    pub const SERVICE_ACTION_IN_16: u8 = 0x9e;
    pub const REPORT_LUNS: u8 = 0xa0;
    pub const READ_12: u8 = 0xa8;
    pub const WRITE_12: u8 = 0xaa;
}

const READ_CAPACITY_16: u8 = 0x10;
const FORCE_UNIT_ACCESS: u8 = 1 << 3;
const WRITE_SAME_UNMAP: u8 = 1 << 3;
const NO_DATA_OUT: u8 = 1;

fn be(cdb: &[u8], at: usize, len: usize) -> u64 {
    let byte = |at: usize| u64::from(cdb.get(at).copied().unwrap_or(0));
    (at..at + len).fold(0, |value, at| value << 8 | byte(at))
}

/// First block and number of blocks of a command that names a range.
fn range(cdb: &[u8]) -> (u64, u64) {
    match cdb.first().copied().unwrap_or(0) >> 5 {
        0 => {
            let blocks = be(cdb, 4, 1);
            (be(cdb, 1, 3) & 0x1f_ffff, if blocks == 0 { 256 } else { blocks })
        }
        1 | 2 => (be(cdb, 2, 4), be(cdb, 7, 2)),
        5 => (be(cdb, 2, 4), be(cdb, 6, 4)),
        _ => (be(cdb, 2, 8), be(cdb, 10, 4)),
    }
}

/// How much a command moves, with blocks of `block` bytes.
pub(super) fn transfer(cdb: &[u8], block: usize) -> Transfer {
    use opcode::*;
    let bytes = || range(cdb).1 as usize * block;
    let (out, into) = match cdb.first().copied().unwrap_or(0xff) {
        REQUEST_SENSE | MODE_SENSE_6 => (0, be(cdb, 4, 1) as usize),
        INQUIRY => (0, be(cdb, 3, 2) as usize),
        MODE_SENSE_10 => (0, be(cdb, 7, 2) as usize),
        READ_CAPACITY_10 => (0, 8),
        SERVICE_ACTION_IN_16 => (0, be(cdb, 10, 4) as usize),
        REPORT_LUNS => (0, be(cdb, 6, 4) as usize),
        READ_6 | READ_10 | READ_12 | READ_16 => (0, bytes()),
        WRITE_6 | WRITE_10 | WRITE_12 | WRITE_16 => (bytes(), 0),
        WRITE_SAME_16 if cdb.get(1).is_some_and(|flags| flags & NO_DATA_OUT != 0) => (0, 0),
        WRITE_SAME_10 | WRITE_SAME_16 => (block, 0),
        UNMAP => (be(cdb, 7, 2) as usize, 0),
        _ => (0, 0),
    };
    Transfer { out, into }
}

/// Cuts the data at the command's allocation length.
pub(super) fn clip(cdb: &[u8], mut reply: Reply) -> Reply {
    reply.data.truncate(transfer(cdb, 0).into);
    reply
}

impl Lun {
    /// Executes a command.
    pub(super) fn execute(&mut self, cdb: &[u8], out: &[u8]) -> Reply {
        self.count();
        let code = cdb.first().copied().unwrap_or(0xff);
        // These two do not report unit attentions (SPC-4 5.14).
        if code == opcode::INQUIRY {
            return self.inquiry(cdb).map_or_else(Reply::check, |data| clip(cdb, Reply::good(data)));
        }
        if code == opcode::REQUEST_SENSE {
            let sense = self.attentions.pop_front().unwrap_or(Sense::NONE);
            let descriptor = cdb.get(1).is_some_and(|byte| byte & 1 != 0);
            let data = if descriptor { sense.descriptor().to_vec() } else { sense.fixed().to_vec() };
            return clip(cdb, Reply::good(data));
        }
        if let Some(sense) = self.attentions.pop_front().or(self.not_ready) {
            return Reply::check(sense);
        }
        self.perform(code, cdb, out).unwrap_or_else(Reply::check)
    }

    fn perform(&mut self, code: u8, cdb: &[u8], out: &[u8]) -> Result<Reply, Sense> {
        use opcode::*;
        let (lba, blocks) = range(cdb);
        let flags = cdb.get(1).copied().unwrap_or(0);
        match code {
            TEST_UNIT_READY | START_STOP => Ok(Reply::default()),
            READ_CAPACITY_10 => {
                let last = u32::try_from(self.blocks().saturating_sub(1)).unwrap_or(u32::MAX);
                Ok(Reply::good([last.to_be_bytes(), self.settings.block_size.to_be_bytes()].concat()))
            }
            SERVICE_ACTION_IN_16 if flags & 0x1f == READ_CAPACITY_16 => {
                Ok(clip(cdb, Reply::good(self.read_capacity_16())))
            }
            READ_6 => self.read(lba, blocks),
            WRITE_6 => self.write(lba, out, false),
            READ_10 | READ_12 | READ_16 | WRITE_10 | WRITE_12 | WRITE_16 => {
                // Protection information is not supported.
                if flags >> 5 != 0 {
                    return Err(Sense::INVALID_FIELD);
                }
                let limit = u64::from(self.settings.max_transfer);
                if limit > 0 && blocks > limit {
                    return Err(Sense::INVALID_FIELD);
                }
                match code {
                    READ_10 | READ_12 | READ_16 => self.read(lba, blocks),
                    _ => self.write(lba, out, flags & FORCE_UNIT_ACCESS != 0),
                }
            }
            SYNCHRONIZE_10 | SYNCHRONIZE_16 if self.settings.synchronizes => {
                self.check_range(lba, blocks)?;
                // A range may be given; a whole flush includes it.
                self.disk.flush();
                Ok(Reply::default())
            }
            MODE_SENSE_6 | MODE_SENSE_10 => Ok(clip(cdb, Reply::good(self.mode_sense(code, cdb)?))),
            UNMAP if self.settings.thin => self.unmap(out),
            WRITE_SAME_10 | WRITE_SAME_16 => self.write_same(lba, blocks, flags, out),
            _ => Err(Sense::INVALID_OPCODE),
        }
    }

    fn read_capacity_16(&self) -> Vec<u8> {
        let settings = &self.settings;
        let mut data = vec![0; 32];
        data[..8].copy_from_slice(&self.blocks().saturating_sub(1).to_be_bytes());
        data[8..12].copy_from_slice(&settings.block_size.to_be_bytes());
        data[13] = settings.physical_exponent & 0x0f;
        // Thin provisioned, and unmapped blocks read as zeros.
        let thin = if settings.thin { 0xc000 } else { 0 };
        data[14..16].copy_from_slice(&(thin | settings.lowest_aligned & 0x3fff).to_be_bytes());
        data
    }

    fn mode_sense(&self, code: u8, cdb: &[u8]) -> Result<Vec<u8>, Sense> {
        const CACHING: u8 = 0x08;
        const ALL: u8 = 0x3f;
        let page = cdb.get(2).copied().unwrap_or(0);
        if !matches!(page & 0x3f, CACHING | ALL) {
            return Err(Sense::INVALID_FIELD);
        }
        let mut caching = vec![0; 20];
        caching[0] = CACHING;
        caching[1] = 18;
        // Changeable values (01b): none; else whether the write cache is on.
        let changeable = page >> 6 == 1;
        caching[2] = if self.disk.write_back() && !changeable { 1 << 2 } else { 0 };
        // Write protected, and FUA is supported.
        let specific = if self.disk.read_only() { 0x80 } else { 0 } | 0x10;
        let mut data = if code == opcode::MODE_SENSE_6 {
            vec![3 + caching.len() as u8, 0, specific, 0]
        } else {
            let mut header = (6 + caching.len() as u16).to_be_bytes().to_vec();
            header.extend([0, specific, 0, 0, 0, 0]);
            header
        };
        data.extend(caching);
        Ok(data)
    }

    fn unmap(&mut self, out: &[u8]) -> Result<Reply, Sense> {
        if out.is_empty() {
            return Ok(Reply::default());
        }
        let len = be(out, 2, 2) as usize;
        if out.len() < 8 + len {
            return Err(Sense::INVALID_PARAMETER);
        }
        let ranges: Vec<_> = out[8..8 + len].chunks_exact(16).map(|range| (be(range, 0, 8), be(range, 8, 4))).collect();
        let blocks: u64 = ranges.iter().map(|(_, blocks)| blocks).sum();
        let settings = &self.settings;
        if ranges.len() > settings.max_unmap_descriptors as usize || blocks > u64::from(settings.max_unmap) {
            return Err(Sense::INVALID_PARAMETER);
        }
        for (lba, blocks) in &ranges {
            self.check_range(*lba, *blocks)?;
        }
        for (lba, blocks) in ranges {
            self.zero(lba, blocks)?;
        }
        Ok(Reply::default())
    }

    fn write_same(&mut self, lba: u64, blocks: u64, flags: u8, out: &[u8]) -> Result<Reply, Sense> {
        let settings = &self.settings;
        let unmap = flags & WRITE_SAME_UNMAP != 0;
        let too_long = settings.max_write_same > 0 && blocks > settings.max_write_same;
        // No range to the end of the medium (WSNZ), and UNMAP only where it exists.
        if blocks == 0 || too_long || unmap && !settings.thin {
            return Err(Sense::INVALID_FIELD);
        }
        self.check_range(lba, blocks)?;
        if out.iter().all(|byte| *byte == 0) {
            self.zero(lba, blocks)?;
        } else {
            for at in lba..lba + blocks {
                self.write(at, out, false)?;
            }
        }
        Ok(Reply::default())
    }
}
