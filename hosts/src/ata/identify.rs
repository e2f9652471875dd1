//! What a drive says of itself (ATA 8.15, 8.16; ACS-2 7.18).

use super::drive::{DriveKind, Settings};

const VALID: u16 = 1 << 14;

/// Text in words: two characters each, the first in the high byte.
fn text(words: &mut [u16], text: &str) {
    let bytes = text.bytes().chain(std::iter::repeat(b' '));
    let mut bytes = bytes.take(words.len() * 2);
    for word in words {
        let mut next = || u16::from(bytes.next().unwrap_or(b' '));
        *word = next() << 8 | next();
    }
}

fn bit(on: bool, number: u16) -> u16 {
    u16::from(on) << number
}

/// The 256 words of IDENTIFY DEVICE, or of IDENTIFY PACKET DEVICE. `sectors` counts 512 bytes; `multiple` is what SET MULTIPLE MODE set.
pub(super) fn identify(settings: &Settings, sectors: u64, multiple: u8, cache_on: bool) -> [u16; 256] {
    let mut words = [0; 256];
    text(&mut words[10..20], &settings.serial);
    text(&mut words[23..27], "1.0");
    text(&mut words[27..47], &settings.model);
    if settings.kind == DriveKind::Packet {
        // A CD-ROM with a 12-byte packet and removable medium.
        words[0] = 0x8580;
        return words;
    }
    let logical = sectors / u64::from(settings.logical_block / 512);
    words[0] = 0x0040;
    words[47] = 0x8000 | u16::from(settings.max_multiple);
    words[49] = 1 << 11 | 1 << 9 | bit(settings.dma, 8);
    words[53] = 0b110;
    words[59] = if multiple > 0 { 0x100 | u16::from(multiple) } else { 0 };
    let small = logical.min(0x0fff_ffff) as u32;
    words[60] = small as u16;
    words[61] = (small >> 16) as u16;
    if settings.dma {
        words[63] = 0x0007;
        words[88] = 0x203f;
    }
    words[64] = 3;
    words[80] = 0x00f0;
    let cache = settings.write_cache.is_some();
    words[82] = bit(cache, 5) | VALID;
    words[83] = VALID | bit(settings.flush, 12) | bit(settings.flush && settings.lba48, 13) | bit(settings.lba48, 10);
    words[84] = VALID | bit(settings.fua, 6);
    words[85] = bit(cache_on, 5) | VALID;
    words[86] = words[83] & !VALID;
    words[87] = words[84];
    if settings.lba48 {
        for (at, word) in words[100..104].iter_mut().enumerate() {
            *word = (logical >> (16 * at)) as u16;
        }
    }
    words[106] = VALID | bit(settings.physical_exponent > 0, 13) | u16::from(settings.physical_exponent);
    if settings.logical_block != 512 {
        words[106] |= 1 << 12;
        let in_words = settings.logical_block / 2;
        words[117] = in_words as u16;
        words[118] = (in_words >> 16) as u16;
    }
    if settings.trim_blocks > 0 {
        words[105] = settings.trim_blocks;
        words[169] = 1;
    }
    words[128] = if settings.locked { 0b111 } else { 0 };
    for &(word, value) in &settings.patches {
        words[word % 256] = value;
    }
    words
}
