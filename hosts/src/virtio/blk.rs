//! virtio-blk (virtio 1.2, 5.2).

use super::consts::feature as ring;
use super::{Breach, Fault, Model, Outcome, Request};
use crate::{Disk, DiskError, SECTOR};

mod bit {
    pub const SIZE_MAX: u64 = 1 << 1;
    pub const SEG_MAX: u64 = 1 << 2;
    pub const RO: u64 = 1 << 5;
    pub const BLK_SIZE: u64 = 1 << 6;
    pub const FLUSH: u64 = 1 << 9;
    pub const TOPOLOGY: u64 = 1 << 10;
    pub const CONFIG_WCE: u64 = 1 << 11;
    pub const MQ: u64 = 1 << 12;
    pub const DISCARD: u64 = 1 << 13;
    pub const WRITE_ZEROES: u64 = 1 << 14;
}

mod kind {
    pub const IN: u32 = 0;
    pub const OUT: u32 = 1;
    pub const FLUSH: u32 = 4;
    pub const GET_ID: u32 = 8;
    pub const DISCARD: u32 = 11;
    pub const WRITE_ZEROES: u32 = 13;
}

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

const HEADER: u64 = 16;
const ID_LEN: usize = 20;
const RANGE: usize = 16;
const UNMAP: u32 = 1;
const WRITEBACK_OFFSET: usize = 32;

/// What the device says of itself in its configuration. Sizes are in bytes, counts of sectors in units of 512 bytes.
#[derive(Debug, Clone, Copy)]
pub struct BlkLimits {
    /// Request queues; more than one offers MQ.
    pub queues: u16,
    /// The size of each.
    pub queue_size: u16,
    /// Block size in bytes, a multiple of 512.
    pub block_size: u32,
    /// The largest segment in bytes (0: not offered).
    pub size_max: u32,
    /// The most segments in a request (0: not offered).
    pub seg_max: u32,
    /// Logical blocks in a physical one, as a power of two.
    pub physical_exponent: u8,
    /// The first block that is aligned to a physical one.
    pub alignment_offset: u8,
    /// Suggested smallest transfer in blocks.
    pub min_io: u16,
    /// Suggested best transfer in blocks.
    pub opt_io: u32,
    /// The most sectors in a discard or write zeroes segment (0: neither is offered).
    pub max_discard: u32,
    /// The most segments in a discard or write zeroes request.
    pub max_discard_segments: u32,
    /// Whether the driver may switch the cache between write-back and write-through.
    pub cache_control: bool,
    /// Whether there is a flush command.
    pub flush: bool,
}

impl Default for BlkLimits {
    /// One queue of 256, blocks of 512 bytes, 126 segments, discard, flush, cache control.
    fn default() -> Self {
        Self {
            queues: 1,
            queue_size: 256,
            block_size: 512,
            size_max: 0,
            seg_max: 126,
            physical_exponent: 3,
            alignment_offset: 0,
            min_io: 8,
            opt_io: 64,
            max_discard: 1 << 16,
            max_discard_segments: 4,
            cache_control: true,
            flush: true,
        }
    }
}

/// A virtio block device over a [`Disk`].
#[derive(Debug)]
pub struct Blk {
    /// The disk behind it.
    pub disk: Disk,
    /// What it says of itself. Changes while it runs are changes of the configuration: make them in
    /// [`Virtio::change_config`](super::Virtio::change_config).
    pub limits: BlkLimits,
    /// Its serial number: at most 20 bytes.
    pub serial: String,
    /// The capacity that it claims, in sectors, if not the disk's.
    pub claimed_capacity: Option<u64>,
    features: u64,
}

impl Blk {
    /// A device with the default limits.
    pub fn new(disk: Disk) -> Self {
        Self::with_limits(disk, BlkLimits::default())
    }

    /// A device with these limits.
    pub fn with_limits(disk: Disk, limits: BlkLimits) -> Self {
        Self { disk, limits, serial: "undercroft-0".to_owned(), claimed_capacity: None, features: 0 }
    }

    fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    fn transfer_fits(&self, sector: u64, bytes: usize) -> bool {
        let block = u64::from(self.limits.block_size);
        bytes.is_multiple_of(SECTOR)
            && sector.wrapping_mul(SECTOR as u64).is_multiple_of(block)
            && (bytes as u64).is_multiple_of(block)
    }

    /// Checks what the request's shape must be (5.2.6.1).
    fn check(&self, request: &mut Request<'_>) {
        let chain = request.chain().clone();
        // The header and the status do not count as segments.
        let segments = chain.buffers.len().saturating_sub(2);
        if self.has(bit::SEG_MAX) {
            request.require(segments <= self.limits.seg_max as usize, "5.2.6.1: more segments than seg_max");
        }
        if self.has(bit::SIZE_MAX) {
            let fits = chain.buffers.iter().all(|buffer| buffer.len <= self.limits.size_max);
            request.require(fits, "5.2.6.1: a segment longer than size_max");
        }
    }

    fn perform(&mut self, kind: u32, sector: u64, request: &mut Request<'_>) -> Result<(u8, u32), Breach> {
        let out_len = (request.chain().readable() - HEADER) as usize;
        let in_len = (request.chain().writable() - 1) as usize;
        let result = match kind {
            kind::IN => {
                request.require(out_len == 0, "5.2.6: a read with data to write");
                request.require(self.transfer_fits(sector, in_len), "5.2.6.1: a read of a part of a block");
                let mut data = vec![0; in_len];
                let result = self.disk.read(sector, &mut data);
                if result.is_ok() {
                    request.write(0, &data)?;
                    return Ok((OK, in_len as u32));
                }
                result
            }
            kind::OUT => {
                request.require(in_len == 0, "5.2.6: a write with room for data");
                request.require(self.transfer_fits(sector, out_len), "5.2.6.1: a write of a part of a block");
                if self.has(bit::RO) {
                    request.breach(Breach::Request("5.2.6.1: a write to a read-only device"));
                    return Ok((IOERR, 0));
                }
                let result = self.disk.write(sector, &request.read_vec(HEADER, out_len)?);
                // Without FLUSH negotiated the driver cannot ask for durability: the device must not need it (5.2.6.2).
                if !self.has(bit::FLUSH) {
                    self.disk.flush();
                }
                result
            }
            kind::FLUSH => {
                request.require(self.has(bit::FLUSH), "5.2.6.1: a flush without FLUSH");
                request.require(sector == 0, "5.2.6.1: a flush of a sector other than 0");
                request.require(out_len == 0 && in_len == 0, "5.2.6: a flush with data");
                self.disk.flush();
                Ok(())
            }
            kind::GET_ID => {
                request.require(in_len == ID_LEN, "5.2.6: GET_ID has room for 20 bytes");
                let mut id = [0; ID_LEN];
                let len = self.serial.len().min(ID_LEN);
                id[..len].copy_from_slice(&self.serial.as_bytes()[..len]);
                let len = in_len.min(ID_LEN);
                request.write(0, &id[..len])?;
                return Ok((OK, len as u32));
            }
            kind::DISCARD | kind::WRITE_ZEROES => return self.ranges(kind, out_len, request),
            _ => return Ok((UNSUPP, 0)),
        };
        if let Err(DiskError::OutOfRange) = result {
            request.breach(Breach::Request("5.2.6.1: a request beyond the capacity"));
        }
        Ok((if result.is_ok() { OK } else { IOERR }, 0))
    }

    /// Discard and write zeroes: a list of ranges.
    fn ranges(&mut self, kind: u32, len: usize, request: &mut Request<'_>) -> Result<(u8, u32), Breach> {
        let zeroes = kind == kind::WRITE_ZEROES;
        let negotiated = self.has(if zeroes { bit::WRITE_ZEROES } else { bit::DISCARD });
        if !negotiated {
            request.breach(Breach::Request("5.2.6.1: discard or write zeroes without the feature"));
            return Ok((UNSUPP, 0));
        }
        let count = len / RANGE;
        if !len.is_multiple_of(RANGE) || count == 0 || count > self.limits.max_discard_segments as usize {
            request.breach(Breach::Request("5.2.6.1: a wrong number of ranges"));
            return Ok((IOERR, 0));
        }
        let data = request.read_vec(HEADER, len)?;
        for range in data.chunks_exact(RANGE) {
            let (sector, rest) = range.split_at(8);
            let sector = u64::from_le_bytes(sector.try_into().unwrap_or_default());
            let word = |at: usize| u32::from_le_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
            let (sectors, flags) = (word(0), word(4));
            let allowed = if zeroes { UNMAP } else { 0 };
            if flags & !allowed != 0 {
                request.breach(Breach::Request("5.2.6.1: reserved range flags"));
                return Ok((UNSUPP, 0));
            }
            if sectors > self.limits.max_discard {
                request.breach(Breach::Request("5.2.6.1: a range longer than the limit"));
                return Ok((IOERR, 0));
            }
            // A discard may leave anything; zeros are what a test can check.
            if self.has(bit::RO) || self.disk.zero(sector, u64::from(sectors)).is_err() {
                return Ok((IOERR, 0));
            }
        }
        Ok((OK, 0))
    }
}

impl Model for Blk {
    fn device_id(&self) -> u16 {
        2
    }

    fn class(&self) -> (u8, u8, u8) {
        (0x01, 0x00, 0x00)
    }

    fn features(&self) -> u64 {
        let limits = &self.limits;
        let offer = |feature: u64, on: bool| if on { feature } else { 0 };
        ring::INDIRECT
            | ring::EVENT_IDX
            | ring::RING_RESET
            | bit::BLK_SIZE
            | bit::TOPOLOGY
            | offer(bit::SIZE_MAX, limits.size_max > 0)
            | offer(bit::SEG_MAX, limits.seg_max > 0)
            | offer(bit::RO, self.disk.read_only())
            | offer(bit::FLUSH, limits.flush)
            | offer(bit::CONFIG_WCE, limits.cache_control)
            | offer(bit::MQ, limits.queues > 1)
            | offer(bit::DISCARD | bit::WRITE_ZEROES, limits.max_discard > 0)
    }

    fn queues(&self) -> Vec<u16> {
        vec![self.limits.queue_size; usize::from(self.limits.queues)]
    }

    fn config(&self) -> Vec<u8> {
        let limits = &self.limits;
        let mut bytes = Vec::with_capacity(60);
        bytes.extend(self.claimed_capacity.unwrap_or(self.disk.sectors()).to_le_bytes());
        bytes.extend(limits.size_max.to_le_bytes());
        bytes.extend(limits.seg_max.to_le_bytes());
        // No geometry.
        bytes.extend([0; 4]);
        bytes.extend(limits.block_size.to_le_bytes());
        bytes.extend([limits.physical_exponent, limits.alignment_offset]);
        bytes.extend(limits.min_io.to_le_bytes());
        bytes.extend(limits.opt_io.to_le_bytes());
        bytes.extend([u8::from(self.disk.write_back()), 0]);
        bytes.extend(limits.queues.to_le_bytes());
        for _ in 0..2 {
            // Discard, then write zeroes; the alignment that is between them belongs to discard.
            bytes.extend(limits.max_discard.to_le_bytes());
            bytes.extend(limits.max_discard_segments.to_le_bytes());
            if bytes.len() == 44 {
                bytes.extend((limits.block_size / SECTOR as u32).to_le_bytes());
            }
        }
        bytes.extend([1, 0, 0, 0]);
        bytes
    }

    fn write_config(&mut self, offset: usize, bytes: &[u8]) -> Result<(), Breach> {
        match bytes {
            &[cache @ (0 | 1)] if offset == WRITEBACK_OFFSET && self.has(bit::CONFIG_WCE) => {
                // What was written before a switch to write-through need not be durable (5.2.6.2).
                if cache == 1 {
                    self.disk.set_write_back(true)
                } else {
                    self.disk.stop_caching()
                }
                Ok(())
            }
            _ => Err(Breach::Request("5.2.4: wrote a read-only field of the configuration")),
        }
    }

    fn reset(&mut self) {
        self.features = 0;
        if self.limits.cache_control {
            self.disk.set_write_back(true);
        }
    }

    fn negotiated(&mut self, features: u64) {
        self.features = features;
    }

    fn execute(&mut self, _queue: u16, request: &mut Request<'_>, faults: &[Fault]) -> Result<Outcome, Breach> {
        let (readable, writable) = (request.chain().readable(), request.chain().writable());
        if readable < HEADER || writable < 1 {
            return Err(Breach::Request("5.2.6: no room for the header or the status"));
        }
        self.check(request);
        let mut header = [0; HEADER as usize];
        request.read(0, &mut header)?;
        let kind = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let (_, sector) = header.split_at(8);
        let sector = u64::from_le_bytes(sector.try_into().unwrap_or_default());
        let forced = faults.iter().find_map(|fault| match *fault {
            Fault::Error => Some(IOERR),
            Fault::Status(status) => Some(status),
            _ => None,
        });
        let (status, written) = match forced {
            Some(status) => (status, 0),
            None => self.perform(kind, sector, request)?,
        };
        if !faults.contains(&Fault::NoStatus) {
            request.write(writable - 1, &[status])?;
        }
        Ok(Outcome::Done(written + 1))
    }
}
