//! What a drive says of itself, checked (ATA 8.15, ACS-2 7.16). Any context.
//!
//! Every word is the drive's claim: texts are cut to what prints, numbers that cannot be are refused, features count only where the words
//! that hold them are marked as valid.

use alloc::string::String;

use crate::ProbeError;
use crate::defect::{Defect, Defects};
use crate::wire::Command;

/// Words of IDENTIFY DEVICE.
pub(crate) const WORDS: usize = 256;

/// The most sectors in a block of programmed I/O that this driver asks for.
const MOST_MULTIPLE: u8 = 16;
/// No drive has more: addresses are of 48 bits.
const MOST_SECTORS: u64 = 1 << 48;
/// The most sectors that 28 bits of address reach.
pub(crate) const MOST_SHORT: u64 = (1 << 28) - 1;

/// What a drive is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identified {
    pub(crate) model: String,
    pub(crate) serial: String,
    /// Logical sectors, more than none.
    pub(crate) sectors: u64,
    /// Bytes of a logical sector: a power of two from 512 to 65,536.
    pub(crate) sector_bytes: u32,
    /// Logical sectors in a physical one, as a power of two.
    pub(crate) physical_exponent: u8,
    /// 48-bit addresses.
    pub(crate) ext: bool,
    /// DMA commands.
    pub(crate) dma: bool,
    /// The mode to set before DMA, if none is: a value of the count register.
    pub(crate) set_mode: Option<u8>,
    /// Sectors in a block of programmed I/O at most; 0 for one without the multiple commands.
    pub(crate) multiple: u8,
    /// There is a volatile write cache, and it is on.
    pub(crate) cached: bool,
    /// How it is written out.
    pub(crate) flush: Option<Command>,
    /// WRITE DMA FUA EXT.
    pub(crate) fua: bool,
    /// TRIM.
    pub(crate) trim: bool,
}

/// Text of words, two characters in each, the first in the high byte; cut to what prints.
pub(crate) fn text(words: &[u16]) -> String {
    let bytes = words.iter().flat_map(|word| word.to_be_bytes());
    let text: String = bytes.filter(|byte| (b' '..=b'~').contains(byte)).map(char::from).collect();
    String::from(text.trim())
}

/// The words of IDENTIFY PACKET DEVICE that people want: the model.
pub(crate) fn packet_model(words: &[u16; WORDS]) -> String {
    text(&words[27..47])
}

impl Identified {
    /// Checks the 256 words of IDENTIFY DEVICE.
    ///
    /// # Errors
    /// [`ProbeError`], by what makes no sense or is not for this driver.
    pub(crate) fn parse(words: &[u16; WORDS], defects: Defects) -> Result<Self, ProbeError> {
        let bit = |word: usize, bit: u16| words[word] & 1 << bit != 0;
        // Words 83, 84, 87 and 106 say by their two highest bits whether they, and their companions, mean anything.
        let valid = |word: usize| words[word] & 0xc000 == 0x4000;
        if bit(0, 15) || words.iter().all(|word| *word == 0) {
            return Err(ProbeError::BadIdentify("not a disk's"));
        }
        checksum(words)?;
        if !bit(49, 9) {
            return Err(ProbeError::NoLba);
        }
        if bit(128, 2) && words[128] != 0xffff {
            return Err(ProbeError::Locked);
        }
        let sets = valid(83);
        let ext = sets && bit(83, 10) && bit(86, 10);
        let sectors = capacity(words, ext, defects)?;
        let (sector_bytes, physical_exponent) = sizes(words)?;
        let multiword = words[63] & 7;
        let ultra = if bit(53, 2) { words[88] & 0x7f } else { 0 };
        let selected = words[63] & 0x700 != 0 || bit(53, 2) && words[88] & 0x7f00 != 0;
        let dma = bit(49, 8) && (selected || multiword != 0 || ultra != 0);
        let set_mode = (dma && !selected).then(|| crate::wire::MULTIWORD_DMA | multiword.max(1).ilog2() as u8);
        let most = words[47] as u8;
        let multiple = if most.is_power_of_two() { most.min(MOST_MULTIPLE) } else { 0 };
        let cached = if sets && bit(82, 5) { bit(85, 5) } else { false };
        let flush = if ext && bit(83, 13) {
            Some(Command::FLUSH_CACHE_EXT)
        } else if sets && bit(83, 12) {
            Some(Command::FLUSH_CACHE)
        } else {
            None
        };
        Ok(Self {
            model: text(&words[27..47]),
            serial: text(&words[10..20]),
            sectors,
            sector_bytes,
            physical_exponent,
            ext,
            dma,
            set_mode,
            multiple,
            cached,
            flush,
            fua: ext && dma && valid(84) && bit(84, 6),
            trim: ext && dma && bit(169, 0) && words[169] != 0xffff,
        })
    }
}

/// Word 255: if it is marked, all bytes add up to nothing (ATA 8.15.63).
fn checksum(words: &[u16; WORDS]) -> Result<(), ProbeError> {
    let marked = words[255] as u8 == 0xa5;
    let sum = words.iter().flat_map(|word| word.to_le_bytes()).fold(0u8, u8::wrapping_add);
    if marked && sum != 0 { Err(ProbeError::BadIdentify("checksum")) } else { Ok(()) }
}

fn capacity(words: &[u16; WORDS], ext: bool, defects: Defects) -> Result<u64, ProbeError> {
    let number =
        |from: usize, words_in: usize| (0..words_in).fold(0, |n, at| n | u64::from(words[from + at]) << (16 * at));
    let (short, long) = (number(60, 2), number(100, 4));
    let sectors = if ext && long > 0 { long } else { short.min(MOST_SHORT) };
    if sectors == 0 && !defects.has(Defect::AcceptsEmpty) || sectors > MOST_SECTORS {
        return Err(ProbeError::BadIdentify("capacity"));
    }
    Ok(sectors)
}

/// Bytes of a logical sector, and logical sectors in a physical one as a power of two (ACS-2, words 106, 117 and 118).
fn sizes(words: &[u16; WORDS]) -> Result<(u32, u8), ProbeError> {
    let sizes = words[106];
    if sizes & 0xc000 != 0x4000 {
        return Ok((512, 0));
    }
    let large = sizes & 1 << 12 != 0;
    let in_words = u32::from(words[117]) | u32::from(words[118]) << 16;
    let bytes = if large { in_words.saturating_mul(2) } else { 512 };
    if !bytes.is_power_of_two() || !(512..=65_536).contains(&bytes) {
        return Err(ProbeError::BadIdentify("sector size"));
    }
    // Advice only: absurd advice is not taken.
    let exponent = if sizes & 1 << 13 != 0 { (sizes & 0xf) as u8 } else { 0 };
    Ok((bytes, if exponent > 7 { 0 } else { exponent }))
}

#[cfg(all(not(loom), test))]
#[path = "identify_tests.rs"]
mod tests;
