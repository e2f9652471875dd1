//! What a logical unit is: the questions asked before it becomes a disk. Task context.
//!
//! Everything in the answers is the device's word: lengths are cut to what came, numbers are clamped, and what makes no sense is a typed
//! error. Source: SPC-5 5.7 and annexes, SBC-4 4.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;

use arrayvec::ArrayVec;
use undercroft_hal::dma::DmaBuf;
use zerocopy::big_endian::{U16, U32, U64};

use super::disk::{DiscardBy, Shape, Unit};
use super::exchange::{ANSWER, Exchange};
use super::wire::{
    BlockLimits, CachingPage, Capacity, Inquiry, ModeData, ModeSense10, OpCode, PeripheralType, Provisioning,
    Qualifier, ReadCapacity16, StandardInquiry, TEST_UNIT_READY, VpdPage, designator, page_body, unit_serial,
};
use super::{Address, Cdb, Host};
use crate::broken::{self, Hazard};
use crate::{Error, Features, Identity, Limits};

/// Why a logical unit is no disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeError {
    /// Nothing is connected there. Not a failure.
    Absent,
    /// It is another kind of device. Not a failure.
    OtherKind(PeripheralType),
    /// Its answer to the named command makes no sense.
    BadAnswer(&'static str),
    /// Its block size is not a power of two from 512 to 65,536.
    BlockSize(u32),
    /// It has no blocks.
    Empty,
    /// The host cannot carry even one of its blocks.
    HostTooSmall,
    /// It failed a command that it must be able to do.
    Failed(Error),
}

impl ProbeError {
    /// Whether somebody who expects disks should be told.
    pub const fn is_failure(self) -> bool {
        !matches!(self, Self::Absent | Self::OtherKind(_))
    }
}

impl From<Error> for ProbeError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("no device is connected"),
            Self::OtherKind(kind) => write!(f, "not a disk (peripheral type {:#04x})", kind.0),
            Self::BadAnswer(command) => write!(f, "the device's answer to {command} makes no sense"),
            Self::BlockSize(bytes) => write!(f, "the device's block size of {bytes} bytes is not supported"),
            Self::Empty => f.write_str("the device has no blocks"),
            Self::HostTooSmall => f.write_str("the host cannot carry one block of the device"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

/// Asks a logical unit what it is and makes a disk of it.
pub(super) fn probe(
    exchange: &mut Exchange<'_>,
    host: &Arc<dyn Host>,
    address: Address,
) -> Result<Arc<Unit>, ProbeError> {
    let allocation = if broken::is(Hazard::LongInquiry) { 255 } else { StandardInquiry::BYTES };
    let answer = exchange.read(address, inquiry(None, allocation), usize::from(allocation))?;
    let inquiry = StandardInquiry::parse(answer).ok_or(ProbeError::BadAnswer("INQUIRY"))?;
    match (inquiry.qualifier, inquiry.kind) {
        (Qualifier::Connected, PeripheralType::DISK) => {}
        (Qualifier::Connected, kind) => return Err(ProbeError::OtherKind(kind)),
        _ => return Err(ProbeError::Absent),
    }
    let pages = Pages::ask(exchange, address);
    let serial = pages.serial(exchange, address);
    // The first command that a unit attention is reported for: what happened before now is of no interest.
    exchange.read(address, Cdb::new(TEST_UNIT_READY), 0)?;
    let capacity = capacity(exchange, address, inquiry.version)?;
    let mode = Mode::ask(exchange, address);
    let shape = shape(&Facts { capacity, mode, pages: &pages.answers(exchange, address) }, &host.info().limits)?;

    let mut buffers = ArrayVec::new();
    if shape.features.intersects(Features::DISCARD | Features::WRITE_ZEROES) {
        while !buffers.is_full() {
            let len = shape.block_size as usize;
            buffers.push(DmaBuf::new(len, shape.limits.dma).map_err(|_| Error::NoMemory)?);
        }
    }
    let whose = host.identity();
    let (vendor, product) = inquiry.names();
    let model = format!("{} {}", printable(vendor), printable(product));
    let identity = Identity {
        driver: whose.driver,
        controller: format!("{} {address}", whose.controller),
        serial,
        model: String::from(model.trim()),
        interrupts: whose.interrupts.clone(),
        transport: whose.transport.clone(),
    };
    Ok(Unit::new(host, address, identity, shape, buffers))
}

/// READ CAPACITY, in the form that the device's age suggests, then in the other.
pub(super) fn capacity(exchange: &mut Exchange<'_>, address: Address, version: u8) -> Result<Capacity, ProbeError> {
    const SPC_3: u8 = 5;
    let long = ReadCapacity16 {
        op: OpCode::SERVICE_ACTION_IN_16,
        service_action: 0x10,
        lba: U64::ZERO,
        allocation: U32::new(32),
        reserved: 0,
        control: 0,
    };
    let read_long = |exchange: &mut Exchange<'_>| {
        let answer = match exchange.read(address, long.into(), 32) {
            Err(_) if broken::is(Hazard::UsesUnread) => &[0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 2, 0],
            answer => answer?,
        };
        Capacity::from_16(answer).ok_or(ProbeError::BadAnswer("READ CAPACITY(16)"))
    };
    if version >= SPC_3
        && let Ok(capacity) = read_long(exchange)
    {
        return Ok(capacity);
    }
    let mut short = [0; 10];
    short[0] = OpCode::READ_CAPACITY_10.0;
    let answer = exchange.read(address, Cdb::new(short), 8)?;
    match Capacity::from_10(answer).ok_or(ProbeError::BadAnswer("READ CAPACITY(10)"))? {
        Some(capacity) => Ok(capacity),
        None => read_long(exchange),
    }
}

fn inquiry(page: Option<VpdPage>, allocation: u16) -> Cdb {
    Inquiry {
        op: OpCode::INQUIRY,
        evpd: u8::from(page.is_some()),
        page: page.map_or(0, |page| page.0),
        allocation: U16::new(allocation),
        control: 0,
    }
    .into()
}

/// Text from a device: what does not print becomes a full stop.
fn printable(bytes: &[u8]) -> String {
    let text: String =
        bytes.iter().map(|&byte| if (0x20..0x7f).contains(&byte) { char::from(byte) } else { '.' }).collect();
    String::from(text.trim())
}

/// Which VPD pages the device has.
struct Pages {
    supported: ArrayVec<u8, 255>,
}

/// What the VPD pages say.
#[derive(Debug, Clone, Copy, Default)]
struct PageAnswers {
    limits: Option<BlockLimits>,
    provisioning: Option<Provisioning>,
}

impl Pages {
    /// Bytes asked for of a page: one byte's worth, because some devices read only the low byte of the allocation length.
    const BYTES: usize = 255;

    fn ask(exchange: &mut Exchange<'_>, address: Address) -> Self {
        let mut supported = ArrayVec::new();
        if let Some(answer) = Self::read(exchange, address, VpdPage::SUPPORTED)
            && let Some(pages) = page_body(answer, VpdPage::SUPPORTED)
        {
            supported.extend(pages.iter().copied().take(255));
        }
        Self { supported }
    }

    fn read<'a>(exchange: &'a mut Exchange<'_>, address: Address, page: VpdPage) -> Option<&'a [u8]> {
        exchange.read(address, inquiry(Some(page), Self::BYTES as u16), Self::BYTES).ok()
    }

    fn get<'a>(&self, exchange: &'a mut Exchange<'_>, address: Address, page: VpdPage) -> Option<&'a [u8]> {
        if self.supported.contains(&page.0) { Self::read(exchange, address, page) } else { None }
    }

    /// The unit serial number, else the best designator in hexadecimal (or as it is, if it is text).
    fn serial(&self, exchange: &mut Exchange<'_>, address: Address) -> String {
        if let Some(serial) = self.get(exchange, address, VpdPage::SERIAL).and_then(unit_serial) {
            return printable(serial);
        }
        match self.get(exchange, address, VpdPage::IDENTIFICATION).and_then(designator) {
            Some((1, text)) => printable(text),
            Some((_, bytes)) => bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}")),
            None => String::new(),
        }
    }

    fn answers(&self, exchange: &mut Exchange<'_>, address: Address) -> PageAnswers {
        PageAnswers {
            limits: self.get(exchange, address, VpdPage::BLOCK_LIMITS).and_then(BlockLimits::parse),
            provisioning: self.get(exchange, address, VpdPage::PROVISIONING).and_then(Provisioning::parse),
        }
    }
}

/// What MODE SENSE says.
#[derive(Debug, Clone, Copy, Default)]
struct Mode {
    write_protected: bool,
    fua: bool,
    write_cache: Option<bool>,
}

impl Mode {
    fn ask(exchange: &mut Exchange<'_>, address: Address) -> Self {
        const ALL: u8 = 0x3f;
        const BYTES: usize = 252;
        for page in [CachingPage::CODE, ALL] {
            let cdb = ModeSense10 {
                op: OpCode::MODE_SENSE_10,
                dbd: 0x08,
                page,
                subpage: 0,
                reserved: [0; 3],
                allocation: U16::new(BYTES as u16),
                control: 0,
            };
            if let Ok(answer) = exchange.read(address, cdb.into(), BYTES)
                && let Some(mode) = ModeData::parse(answer)
            {
                return Self {
                    write_protected: mode.write_protected(),
                    fua: mode.fua(),
                    write_cache: mode.caching().map(CachingPage::write_cache),
                };
            }
        }
        Self::default()
    }
}

/// All that a device said.
struct Facts<'a> {
    capacity: Capacity,
    mode: Mode,
    pages: &'a PageAnswers,
}

/// From what the device said to a shape that holds whatever it said.
fn shape(facts: &Facts<'_>, host: &Limits) -> Result<Shape, ProbeError> {
    let Capacity { blocks, block_size, physical_exponent, .. } = facts.capacity;
    if !block_size.is_power_of_two() || !(512..=65_536).contains(&block_size) {
        return Err(ProbeError::BlockSize(block_size));
    }
    if blocks == 0 {
        return Err(ProbeError::Empty);
    }
    let reported = |value: u32| if value == 0 { u32::MAX } else { value };
    let limits = facts.pages.limits.unwrap_or_default();
    // No more than READ(10) and WRITE(10) count: a device that knows no longer form need not be asked for one.
    let max_blocks = reported(limits.max_transfer.get()).min(host.max_transfer_bytes / block_size).min(0xffff);
    if max_blocks == 0 || host.max_segment_bytes < 512 || host.max_segments == 0 {
        return Err(ProbeError::HostTooSmall);
    }

    let provisioning = facts.pages.provisioning.filter(|_| facts.capacity.provisioned);
    let unmap_blocks = if limits.max_unmap_descriptors.get() == 0 { 0 } else { limits.max_unmap_blocks.get() };
    let same_blocks = u32::try_from(limits.max_write_same.get()).unwrap_or(u32::MAX);
    // No bound reported: no more than the 10-byte forms count.
    let same_or_default = if same_blocks == 0 { 0xffff } else { same_blocks };
    let (discard, max_discard_blocks) = match provisioning {
        Some(Provisioning { unmap: true, .. }) if unmap_blocks != 0 => (Some(DiscardBy::Unmap), unmap_blocks),
        Some(Provisioning { write_same: true, .. }) => (Some(DiscardBy::WriteSame), same_or_default),
        _ => (None, 0),
    };
    let zeroes = same_blocks != 0 || provisioning.is_some_and(|provisioning| provisioning.write_same);
    let max_write_zeroes_blocks = if zeroes { same_or_default } else { 0 };

    let mut features = Features::empty();
    features.set(Features::READ_ONLY, facts.mode.write_protected);
    // Without a caching page nobody knows: assume the worse.
    features.set(Features::VOLATILE_CACHE, facts.mode.write_cache != Some(false));
    features.set(Features::FUA, facts.mode.fua);
    let writable = !facts.mode.write_protected;
    features.set(Features::DISCARD, writable && discard.is_some());
    features.set(Features::WRITE_ZEROES, writable && zeroes);

    Ok(Shape {
        capacity: blocks,
        block_size,
        physical_block_size: block_size << physical_exponent.min(8),
        features,
        limits: Limits {
            max_transfer_bytes: max_blocks.saturating_mul(block_size),
            max_discard_blocks,
            max_write_zeroes_blocks,
            ..*host
        },
        discard,
        write_cache: facts.mode.write_cache,
    })
}

const _: () = assert!(Pages::BYTES <= ANSWER);
