//! A request, read strictly, and performed by the targets.

use super::consts::{flag, host};
use super::{Breach, Count, Fault, Pvscsi};
use crate::Bus;
use crate::scsi::{Reply, Sense, Target, Unit, status};

/// A request as the driver wrote it.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub context: u64,
    data_addr: u64,
    data_len: u64,
    sense_addr: u64,
    sense_len: u32,
    flags: u32,
    cdb: Vec<u8>,
    lun: [u8; 8],
    pub target: u8,
}

/// How it went.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Done {
    pub host: u16,
    pub scsi: u16,
    pub moved: u64,
    pub sense: u32,
}

impl Done {
    pub(super) fn host(host: u16) -> Self {
        Self { host, ..Self::default() }
    }

    /// As the completion ring carries it.
    pub(super) fn entry(&self, context: u64) -> [u8; 32] {
        let mut entry = [0; 32];
        entry[..8].copy_from_slice(&context.to_le_bytes());
        entry[8..16].copy_from_slice(&self.moved.to_le_bytes());
        entry[16..20].copy_from_slice(&self.sense.to_le_bytes());
        entry[20..22].copy_from_slice(&self.host.to_le_bytes());
        entry[22..24].copy_from_slice(&self.scsi.to_le_bytes());
        entry
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default())
}

impl Request {
    /// Reads the entry at `addr`; notes what is wrong with it.
    pub(super) fn read(bus: &Bus<'_>, addr: u64, breaches: &mut Vec<Breach>) -> Result<Self, Breach> {
        let bytes: [u8; 128] = bus.read_array(addr)?;
        let mut require = |holds: bool, what| {
            if !holds {
                breaches.push(Breach::Request(what));
            }
        };
        let cdb_len = usize::from(bytes[56]);
        let flags = u32_at(&bytes, 36);
        let directions = flags & (flag::NONE | flag::TO_HOST | flag::TO_DEVICE);
        require(directions.count_ones() == 1, "not one direction");
        require(flags & flag::OUT_OF_BAND_CDB == 0, "an out-of-band CDB");
        require(flags >> 5 == 0, "reserved flags");
        require((6..=16).contains(&cdb_len), "a CDB of an impossible length");
        require(matches!(bytes[65], 0x20..=0x22), "no task attribute");
        require(bytes[66] == 0, "another bus than 0");
        require(bytes[69..].iter().all(|byte| *byte == 0), "unused bytes that are not zero");
        let data_len = u64_at(&bytes, 16);
        require(flags & flag::NONE == 0 || data_len == 0, "data without a direction");
        require(flags & flag::SG_LIST == 0 || data_len > 0, "a table without data");
        Ok(Self {
            context: u64_at(&bytes, 0),
            data_addr: u64_at(&bytes, 8),
            data_len,
            sense_addr: u64_at(&bytes, 24),
            sense_len: u32_at(&bytes, 32),
            flags,
            cdb: bytes[40..40 + cdb_len.min(16)].to_vec(),
            lun: bytes[57..65].try_into().unwrap_or_default(),
            target: bytes[67],
        })
    }

    /// The pieces of memory that its data is in.
    fn pieces(&self, bus: &Bus<'_>, chains: bool) -> Result<Vec<(u64, u64)>, Breach> {
        const PAGE: u64 = 4096;
        if self.flags & flag::SG_LIST == 0 {
            return Ok(vec![(self.data_addr, self.data_len)]);
        }
        let (mut at, mut covered, mut pieces) = (self.data_addr, 0, Vec::new());
        let (mut page, mut elements, mut segments) = (at / PAGE, 0, 1);
        while covered < self.data_len {
            if chains && at / PAGE != page {
                return Err(Breach::Table("a segment that crosses a page"));
            }
            if elements == if chains { 128 } else { 2048 } {
                return Err(Breach::Table("more elements than a segment may have"));
            }
            let element: [u8; 16] = bus.read_array(at)?;
            let (addr, len, flags) = (u64_at(&element, 0), u32_at(&element, 8), u32_at(&element, 12));
            elements += 1;
            if flags >> 1 != 0 {
                return Err(Breach::Table("reserved flags"));
            }
            if flags == 0 {
                if len == 0 {
                    return Err(Breach::Table("an element without data"));
                }
                pieces.push((addr, u64::from(len)));
                covered += u64::from(len);
            } else if len != 0 {
                return Err(Breach::Table("a chain with a length"));
            }
            at += 16;
            if flags == 1 && chains {
                (at, page, elements, segments) = (addr, addr / PAGE, 0, segments + 1);
                if segments > 128 {
                    return Err(Breach::Table("more segments than a table may have"));
                }
            }
        }
        if covered == self.data_len { Ok(pieces) } else { Err(Breach::Table("more data than the request has")) }
    }
}

/// Copies between the pieces and a buffer: `each` gets an address and a range of the buffer.
fn scatter(
    pieces: &[(u64, u64)],
    len: usize,
    mut each: impl FnMut(u64, std::ops::Range<usize>) -> Result<(), Breach>,
) -> Result<(), Breach> {
    let mut done = 0;
    for &(addr, piece) in pieces {
        let take = (len - done).min(piece as usize);
        if take > 0 {
            each(addr, done..done + take)?;
        }
        done += take;
    }
    Ok(())
}

impl Pvscsi {
    fn target_of(&mut self, request: &Request) -> Option<(&mut Target, Unit)> {
        let target = self.targets.get_mut(&request.target)?;
        Some((target, Unit::decode(request.lun)))
    }

    /// Performs a request, with what of its faults is its own matter.
    pub(super) fn perform(&mut self, bus: &Bus<'_>, request: &Request, faults: &[Fault]) -> Result<Done, Breach> {
        let forced = faults.iter().find_map(|fault| match *fault {
            Fault::HostStatus(host) => Some((host, 0, None)),
            Fault::ScsiStatus(scsi) => Some((host::SUCCESS, scsi, None)),
            Fault::Sense(key, asc, ascq) => {
                Some((host::SUCCESS, u16::from(status::CHECK_CONDITION), Some(Sense::new(key, asc, ascq))))
            }
            _ => None,
        });
        if let Some((host, scsi, sense)) = forced {
            let sense = self.write_sense(bus, request, sense)?;
            return Ok(Done { host, scsi, moved: 0, sense });
        }
        let pieces = request.pieces(bus, !self.knobs.no_chains)?;
        let Some((target, unit)) = self.target_of(request) else {
            return Ok(Done::host(host::SELECTION_TIMEOUT));
        };
        let wants = target.transfer(unit, &request.cdb);
        let wrong = wants.out > 0 && request.flags & flag::TO_DEVICE == 0
            || wants.into > 0 && request.flags & flag::TO_HOST == 0;
        if wrong {
            self.breaches.push(Breach::Request("data in the other direction than the command's"));
            return Ok(Done::host(host::BAD_MESSAGE));
        }
        let room = request.data_len as usize;
        if wants.out > room || wants.into > room {
            return Ok(Done { moved: wants.out.max(wants.into) as u64, ..Done::host(host::DATA_RUN) });
        }
        let short = faults.iter().find_map(|fault| if let Fault::Short(by) = *fault { Some(by) } else { None });
        let mut data = vec![0; wants.out];
        scatter(&pieces, wants.out, |addr, range| Ok(bus.read(addr, &mut data[range])?))?;
        let reply = match (self.target_of(request), short) {
            // Half of a write is none.
            (Some(_), Some(_)) if wants.out > 0 => Reply::default(),
            (Some((target, unit)), _) => target.execute(unit, &request.cdb, &data),
            (None, _) => return Ok(Done::host(host::SELECTION_TIMEOUT)),
        };
        let into = reply.data.len().saturating_sub(short.unwrap_or(0) as usize);
        scatter(&pieces, into, |addr, range| Ok(bus.write(addr, &reply.data[range])?))?;
        let good = reply.status == status::GOOD;
        let out = if short.is_some() { wants.out.saturating_sub(short.unwrap_or(0) as usize) } else { wants.out };
        let moved = if good { out + into } else { 0 };
        let sense = self.write_sense(bus, request, reply.sense)?;
        let less = moved < room;
        let (host, moved) = match self.knobs.count {
            Count::Uncounted => (if less { host::DATA_RUN } else { host::SUCCESS }, 0),
            Count::Underrun if less && good => (host::UNDERRUN, moved),
            Count::Underrun | Count::Success => (host::SUCCESS, moved),
        };
        Ok(Done { host, scsi: u16::from(reply.status), moved: moved as u64, sense })
    }

    fn write_sense(&mut self, bus: &Bus<'_>, request: &Request, sense: Option<Sense>) -> Result<u32, Breach> {
        let Some(sense) = sense else { return Ok(0) };
        let bytes = sense.fixed();
        let len = bytes.len().min(request.sense_len as usize);
        bus.write(request.sense_addr, &bytes[..len])?;
        Ok(len as u32)
    }
}
