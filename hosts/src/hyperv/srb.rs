//! A SCSI request as the guest wrote it, and the answer's bytes.

use super::consts::{PAGE, nt, srb, srb_flag};
use super::guest::{u16_at, u32_at, u64_at};
use super::ring::Packet;
use super::{BadGpa, Breach, Guest};

/// The first vstor version with the long packet.
pub(super) const FIRST_LONG: u16 = 0x0501;

/// What is to be done for a packet.
#[derive(Debug, Clone)]
pub(super) enum Work {
    /// Answer with this; it was done when the packet was taken.
    Answer(Vec<u8>),
    /// A SCSI command.
    Command(Box<Srb>),
    /// A reset of what the operation says.
    Reset { operation: u32, target: u8, payload: usize },
}

/// A SCSI request.
#[derive(Debug, Clone)]
pub(super) struct Srb {
    pub target: u8,
    pub lun: u8,
    pub cdb: Vec<u8>,
    pub writes: bool,
    pub reads: bool,
    pub len: usize,
    pub sense_room: usize,
    pub pages: Vec<(u64, usize)>,
    /// Bytes of the answer's payload.
    pub payload: usize,
    long: bool,
}

/// How it went.
#[derive(Debug, Clone, Default)]
pub(super) struct Done {
    pub srb: u8,
    pub scsi: u8,
    pub moved: u32,
    pub sense: Vec<u8>,
    pub sense_len: u8,
}

impl Done {
    pub fn new(srb: u8, scsi: u8) -> Self {
        Self { srb, scsi, ..Self::default() }
    }

    /// The NT status that goes with the SRB status.
    fn nt(&self) -> u32 {
        match self.srb & 0x3f {
            1 => nt::OK,
            2 => nt::CANCELLED,
            5 => nt::BUSY,
            0x8 | 0x11 | 0x20 | 0x21 => nt::NO_DEVICE,
            0x9 | 0xb => nt::TIMEOUT,
            0xa => nt::NOT_CONNECTED,
            0x12 => nt::BUFFER_OVERFLOW,
            0x15 | 0x22 => nt::INVALID_REQUEST,
            0x16 => nt::UNSUCCESSFUL,
            _ => nt::IO_ERROR,
        }
    }
}

/// The data of the one range of a packet: addresses and lengths, page by page.
fn range(packet: &Packet) -> Result<Vec<(u64, usize)>, Breach> {
    let bytes = &packet.extension;
    if u32_at(bytes, 0) != 0 || u32_at(bytes, 4) != 1 {
        return Err(Breach::Stor("not one range"));
    }
    let (len, offset) = (u64::from(u32_at(bytes, 8)), u64::from(u32_at(bytes, 12)));
    let pages = (offset + len).div_ceil(PAGE) as usize;
    if offset >= PAGE || len == 0 || bytes.len() != 16 + 8 * pages {
        return Err(Breach::Stor("a range whose pages do not fit it"));
    }
    let (mut left, mut skip) = (len, offset);
    let mut pieces = Vec::new();
    for page in 0..pages {
        let take = left.min(PAGE - skip);
        let number = u64_at(bytes, 16 + 8 * page);
        if number >= 1 << 40 {
            return Err(Breach::Stor("a page number beyond any memory"));
        }
        pieces.push((number * PAGE + skip, take as usize));
        (left, skip) = (left - take, 0);
    }
    Ok(pieces)
}

impl Srb {
    /// Reads a request strictly. What stops a real host is an error; what only is not right is added to `breaches`.
    pub fn read(packet: &Packet, version: u16, direct: bool, breaches: &mut Vec<Breach>) -> Result<Self, Breach> {
        let bytes = &packet.payload;
        let long = version >= FIRST_LONG;
        let mut require = |holds: bool, what| {
            if !holds {
                breaches.push(Breach::Stor(what));
            }
        };
        let (cdb_len, sense, direction) = (usize::from(bytes[20]), usize::from(bytes[21]), bytes[22]);
        let len = u32_at(bytes, 24) as usize;
        require(u16_at(bytes, 12) == if long { 0x34 } else { 36 }, "a request of an impossible length");
        require((6..=16).contains(&cdb_len), "a CDB of an impossible length");
        require(sense == if long { 0x14 } else { 0x12 }, "room for sense data of an impossible length");
        require(bytes[14] == 0 && bytes[15] == 0, "a status before there is one");
        require(direction <= 2, "a direction that there is not");
        require((direction == 2) == (len == 0), "data without a direction, or a direction without data");
        require((len > 0) == direct, "data in a packet without a range, or a range without data");
        let flags = if long { u32_at(bytes, 52) } else { 0 };
        if long {
            let data = flags & (srb_flag::IN | srb_flag::OUT);
            let right = [srb_flag::OUT, srb_flag::IN, data];
            require(data == right[usize::from(direction.min(2))], "flags that contradict the direction");
        }
        let pages = if direct { range(packet)? } else { Vec::new() };
        if pages.iter().map(|(_, len)| len).sum::<usize>() < len {
            return Err(Breach::Stor("a range shorter than the transfer"));
        }
        let no_sense = flags & srb_flag::NO_AUTOSENSE != 0;
        Ok(Self {
            target: bytes[18],
            lun: bytes[19],
            cdb: bytes[28..28 + cdb_len.min(16)].to_vec(),
            writes: direction == 0,
            reads: direction == 1,
            len,
            sense_room: if no_sense { 0 } else { sense.min(20) },
            pages,
            payload: bytes.len(),
            long,
        })
    }

    /// Calls `each` with addresses and ranges of a buffer, for the first `len` bytes of the data.
    fn scatter(
        &self,
        len: usize,
        mut each: impl FnMut(u64, std::ops::Range<usize>) -> Result<(), BadGpa>,
    ) -> Result<(), BadGpa> {
        let mut done = 0;
        for &(gpa, piece) in &self.pages {
            let take = piece.min(len - done);
            if take > 0 {
                each(gpa, done..done + take)?;
            }
            done += take;
        }
        Ok(())
    }

    /// The first bytes of its data.
    pub fn fetch(&self, guest: &dyn Guest, len: usize) -> Result<Vec<u8>, BadGpa> {
        let mut data = vec![0; len];
        self.scatter(len, |gpa, range| guest.read(gpa, &mut data[range]))?;
        Ok(data)
    }

    /// Writes the first bytes of its data.
    pub fn fill(&self, guest: &dyn Guest, data: &[u8]) -> Result<(), BadGpa> {
        self.scatter(data.len(), |gpa, range| guest.write(gpa, &data[range]))
    }

    /// The answer's payload, as OpenVMM makes it: path, target and unit are zeros.
    pub fn answer(&self, done: &Done) -> Vec<u8> {
        let mut bytes = vec![0; self.payload];
        bytes[0] = 1;
        bytes[8..12].copy_from_slice(&done.nt().to_le_bytes());
        bytes[12] = if self.long { 0x34 } else { 36 };
        bytes[14] = done.srb;
        bytes[15] = done.scsi;
        bytes[20] = 0x10;
        bytes[21] = if done.sense_len > 0 {
            done.sense_len
        } else if self.long {
            0x14
        } else {
            0x12
        };
        bytes[24..28].copy_from_slice(&done.moved.to_le_bytes());
        let len = done.sense.len().min(self.sense_room);
        bytes[28..28 + len].copy_from_slice(&done.sense[..len]);
        bytes
    }
}

/// An answer with an NT status and nothing else.
pub(super) fn plain(payload: usize, status: u32) -> Vec<u8> {
    let mut bytes = vec![0; payload];
    bytes[0] = 1;
    bytes[8..12].copy_from_slice(&status.to_le_bytes());
    bytes
}

/// The SRB status of a SCSI status and, with CHECK CONDITION, a sense key.
pub(super) fn srb_status(scsi: u8, key: Option<u8>) -> u8 {
    const BUSY: u8 = 0x08;
    const ILLEGAL_REQUEST: u8 = 5;
    match (scsi, key) {
        (0, _) => srb::SUCCESS,
        (BUSY, _) => srb::BUSY,
        (_, Some(ILLEGAL_REQUEST)) => srb::INVALID_REQUEST,
        _ => srb::ERROR,
    }
}
