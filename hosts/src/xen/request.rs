//! A disk's request: read from the ring once, checked, its pages mapped; performed later.

use super::breach::{Breach, Log};
use super::consts::blkif;
use super::device::{Shape, Vbd};
use super::grants::Grants;
use super::memory::{self, u16_at, u32_at, u64_at};
use crate::{Bus, Disk, DiskError};

const SECTOR: u64 = 512;

/// A part of a page that is mapped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    address: u64,
    len: usize,
}

/// References that are let go of when the request is over, and whether they are written to.
pub(super) type Held = Vec<(u32, bool)>;

#[derive(Debug)]
pub(super) struct Request {
    pub id: u64,
    /// What the response says, and what is done.
    pub operation: u8,
    pub does: u8,
    pub sector: u64,
    pub sectors: u64,
    pub parts: Vec<Part>,
    pub held: Held,
    /// What is wrong with it: it is answered with an error.
    pub refused: Option<i16>,
}

/// What mapping needs of the host.
pub(super) struct Reach<'a, 'b> {
    pub bus: &'a Bus<'b>,
    pub grants: &'a mut Grants,
    pub log: &'a mut Log,
}

impl Request {
    /// Reads a request and maps its pages. What is a breach is noted, and answered with an error, as hosts do.
    pub fn parse(reach: &mut Reach<'_, '_>, vbd: &Vbd, ring: &mut super::ring::Ring, bytes: &[u8]) -> Self {
        let operation = bytes[0];
        let mut this = Self {
            id: u64_at(bytes, 8),
            operation,
            does: operation,
            sector: u64_at(bytes, 16),
            sectors: 0,
            parts: Vec::new(),
            held: Held::new(),
            refused: None,
        };
        if ring.taken.iter().any(|other| other.request.id == this.id) {
            reach.log.breach(Breach::IdInUse(this.id));
        }
        if let Err(breach) = this.fill(reach, vbd, ring, bytes) {
            reach.log.breach(breach);
            this.refused = Some(if matches!(breach, Breach::NotOffered(_)) { blkif::EOPNOTSUPP } else { blkif::ERROR });
        }
        this
    }

    fn fill(
        &mut self,
        reach: &mut Reach<'_, '_>,
        vbd: &Vbd,
        ring: &mut super::ring::Ring,
        bytes: &[u8],
    ) -> Result<(), Breach> {
        let shape = &vbd.shape;
        let (handle, segments) = match self.operation {
            blkif::INDIRECT => {
                if shape.indirect == 0 {
                    return Err(Breach::NotOffered(blkif::INDIRECT));
                }
                reach.log.counts.indirect += 1;
                self.does = bytes[1];
                if self.does != blkif::READ && self.does != blkif::WRITE {
                    return Err(Breach::Request("an indirect request that neither reads nor writes"));
                }
                let count = usize::from(u16_at(bytes, 2));
                if count == 0 || count > shape.indirect as usize {
                    return Err(Breach::Request("more segments than were offered, or none"));
                }
                (u16_at(bytes, 24), self.indirect(reach, vbd, ring, bytes, count)?)
            }
            blkif::READ | blkif::WRITE | blkif::BARRIER | blkif::FLUSH => {
                let count = usize::from(bytes[1]);
                let moves = self.operation < blkif::BARRIER;
                if count > blkif::SEGMENTS || moves && count == 0 {
                    return Err(Breach::Request("more segments than a request has, or none"));
                }
                let list = (0..count).map(|at| segment(bytes, 24 + at * 8)).collect();
                (u16_at(bytes, 2), list)
            }
            blkif::DISCARD => {
                self.sectors = u64_at(bytes, 24);
                if bytes[1] & !1 != 0 || bytes[1] & 1 != 0 && !shape.secure {
                    return Err(Breach::Request("a flag of a discard"));
                }
                if self.sectors == 0 {
                    return Err(Breach::Request("a discard of nothing"));
                }
                (u16_at(bytes, 2), Vec::new())
            }
            _ => return Err(Breach::NotOffered(self.operation)),
        };
        if handle != vbd.number as u16 {
            return Err(Breach::Request("another device's number"));
        }
        if !shape.offers(self.does) {
            return Err(Breach::NotOffered(self.does));
        }
        for (reference, first, last) in segments {
            if first > last || last > 7 {
                return Err(Breach::Segment("sectors that a page has not"));
            }
            let len = (u64::from(last - first) + 1) * SECTOR;
            if !len.is_multiple_of(u64::from(shape.sector_size))
                || !(u64::from(first) * SECTOR).is_multiple_of(u64::from(shape.sector_size))
            {
                return Err(Breach::Segment("part of a block"));
            }
            let page = self.map(reach, vbd, ring, reference, self.does == blkif::READ)?;
            self.parts.push(Part { address: page + u64::from(first) * SECTOR, len: len as usize });
            self.sectors += len / SECTOR;
        }
        let writes = matches!(self.does, blkif::WRITE | blkif::DISCARD);
        if writes && shape.read_only {
            return Err(Breach::Request("writes to a disk that is read only"));
        }
        let step = u64::from(shape.sector_size) / SECTOR;
        if self.sectors > 0 && !(self.sector.is_multiple_of(step) && self.sectors.is_multiple_of(step)) {
            return Err(Breach::Request("part of a block"));
        }
        // One that was in the ring when the disk shrank is an error, and nobody's fault.
        let end = self.sector.checked_add(self.sectors);
        if self.sectors > 0 && end.is_none_or(|end| end > vbd.disk.sectors()) {
            if end.is_none_or(|end| end > vbd.most_sectors) {
                return Err(Breach::OutOfRange(self.sector, self.sectors));
            }
            self.refused = Some(blkif::ERROR);
        }
        Ok(())
    }

    /// The segments of an indirect request.
    fn indirect(
        &mut self,
        reach: &mut Reach<'_, '_>,
        vbd: &Vbd,
        ring: &mut super::ring::Ring,
        bytes: &[u8],
        count: usize,
    ) -> Result<Vec<(u32, u8, u8)>, Breach> {
        let mut list = Vec::new();
        for page in 0..count.div_ceil(512).min(blkif::INDIRECT_PAGES) {
            let at = self.map(reach, vbd, ring, u32_at(bytes, 28 + page * 4), false)?;
            let mut content = [0; 4096];
            memory::read(reach.bus, at, &mut content)?;
            let here = (count - page * 512).min(512);
            list.extend((0..here).map(|index| segment(&content, index * 8)));
        }
        Ok(list)
    }

    /// Maps a page: for good where that was agreed, else for this request.
    fn map(
        &mut self,
        reach: &mut Reach<'_, '_>,
        vbd: &Vbd,
        ring: &mut super::ring::Ring,
        reference: u32,
        writes: bool,
    ) -> Result<u64, Breach> {
        let keeps = vbd.persistent && (ring.kept.contains(&reference) || ring.kept.len() < vbd.persistent_most);
        if keeps && ring.kept.contains(&reference) {
            // Mapped for writing when it was kept.
            return reach.grants.mapped_at(reference).ok_or(Breach::Grant(reference, "it is not mapped"));
        }
        // What stays is mapped for everything.
        let page = reach.grants.map(reach.bus, reference, writes || keeps, reach.log)?;
        if keeps {
            ring.kept.insert(reference);
        } else {
            self.held.push((reference, writes));
        }
        Ok(page)
    }

    /// Performs it. Returns the status.
    pub fn perform(&self, bus: &Bus<'_>, disk: &Disk, shape: &Shape, log: &mut Log) -> i16 {
        if let Some(status) = self.refused {
            return status;
        }
        if shape.refuses.contains(&self.does) {
            return blkif::EOPNOTSUPP;
        }
        let result = match self.does {
            blkif::READ => self.each(|sector, part| {
                let mut data = vec![0; part.len];
                disk.read(sector, &mut data)?;
                Ok(memory::write(bus, part.address, &data))
            }),
            blkif::DISCARD => disk.zero(self.sector, self.sectors).map(|()| Ok(())),
            // Also a barrier's or a flush's own data.
            _ => {
                let written = self.each(|sector, part| {
                    let mut data = vec![0; part.len];
                    let read = memory::read(bus, part.address, &mut data);
                    disk.write(sector, &data)?;
                    Ok(read)
                });
                if self.does != blkif::WRITE {
                    disk.flush();
                }
                written
            }
        };
        match result {
            Ok(Ok(())) => blkif::OKAY,
            Ok(Err(bad)) => {
                log.breach(bad.into());
                blkif::ERROR
            }
            Err(_) => blkif::ERROR,
        }
    }

    fn each(
        &self,
        mut f: impl FnMut(u64, &Part) -> Result<Result<(), undercroft_hal::hosted::BadAccess>, DiskError>,
    ) -> Result<Result<(), undercroft_hal::hosted::BadAccess>, DiskError> {
        let mut sector = self.sector;
        for part in &self.parts {
            if let Err(bad) = f(sector, part)? {
                return Ok(Err(bad));
            }
            sector += part.len as u64 / SECTOR;
        }
        Ok(Ok(()))
    }

    /// Writes to the pages of a read, as a host may for as long as they are mapped.
    pub fn touch(&self, bus: &Bus<'_>, log: &mut Log) {
        for part in self.parts.iter().filter(|_| self.does == blkif::READ) {
            if let Err(bad) = memory::write(bus, part.address, &vec![0xdb; part.len]) {
                log.breach(bad.into());
            }
        }
    }
}

fn segment(bytes: &[u8], at: usize) -> (u32, u8, u8) {
    (u32_at(bytes, at), bytes[at + 4], bytes[at + 5])
}
