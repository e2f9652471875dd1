//! Vital product data (SPC-5 7.7, SBC-4 6.6).

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A page code. Open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VpdPage(pub u8);

impl VpdPage {
    /// Supported pages.
    pub const SUPPORTED: Self = Self(0x00);
    /// Unit serial number.
    pub const SERIAL: Self = Self(0x80);
    /// Device identification.
    pub const IDENTIFICATION: Self = Self(0x83);
    /// Block limits.
    pub const BLOCK_LIMITS: Self = Self(0xb0);
    /// Block device characteristics.
    pub const CHARACTERISTICS: Self = Self(0xb1);
    /// Logical block provisioning.
    pub const PROVISIONING: Self = Self(0xb2);
}

/// What follows the header of a page, cut to what it says and what was sent; `None` if it is another page than `page`.
pub fn page_body(data: &[u8], page: VpdPage) -> Option<&[u8]> {
    let (header, rest) = data.split_at_checked(4)?;
    if header[1] != page.0 {
        return None;
    }
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    Some(&rest[..length.min(rest.len())])
}

/// The unit serial number (SPC-5 7.7.19): printable ASCII without the padding; `None` if nothing is left.
pub fn unit_serial(data: &[u8]) -> Option<&[u8]> {
    let body = page_body(data, VpdPage::SERIAL)?;
    let printable = body.iter().take_while(|byte| (0x20..0x7f).contains(*byte)).count();
    let serial = body[..printable].trim_ascii();
    (!serial.is_empty()).then_some(serial)
}

/// The best designator of the logical unit in page 0x83 (SPC-5 7.7.6): its type and its bytes. NAA (3) first, then EUI-64 (2), then T10 (1).
pub fn designator(data: &[u8]) -> Option<(u8, &[u8])> {
    const T10: u8 = 1;
    const NAA: u8 = 3;
    let mut rest = page_body(data, VpdPage::IDENTIFICATION)?;
    let mut best: Option<(u8, &[u8])> = None;
    while let Some((header, behind)) = rest.split_at_checked(4) {
        let Some((bytes, next)) = behind.split_at_checked(usize::from(header[3])) else { break };
        rest = next;
        let (association, kind) = (header[1] >> 4 & 0x3, header[1] & 0xf);
        // Association 0: the logical unit, not a port or the target.
        if association == 0 && (T10..=NAA).contains(&kind) && !bytes.is_empty() && best.is_none_or(|(k, _)| kind > k) {
            best = Some((kind, bytes));
        }
    }
    best
}

/// The block limits page (SBC-4 6.6.4) behind its header. A shorter page reads as zeroes behind its end: zero means "not reported".
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct BlockLimits {
    /// Bit 0: WSNZ, WRITE SAME with 0 blocks is refused.
    pub flags: u8,
    /// Blocks of one COMPARE AND WRITE.
    pub max_compare_and_write: u8,
    /// Blocks.
    pub optimal_granularity: U16,
    /// Blocks of one READ, WRITE and others.
    pub max_transfer: U32,
    /// Blocks.
    pub optimal_transfer: U32,
    /// Blocks.
    pub max_prefetch: U32,
    /// Blocks over all descriptors of one UNMAP; all ones for no limit.
    pub max_unmap_blocks: U32,
    /// Descriptors of one UNMAP; all ones for no limit.
    pub max_unmap_descriptors: U32,
    /// Blocks.
    pub unmap_granularity: U32,
    /// Bit 31: valid.
    pub unmap_alignment: U32,
    /// Blocks of one WRITE SAME.
    pub max_write_same: U64,
}

const _: () = assert!(size_of::<BlockLimits>() == 40);
const _: () = assert!(core::mem::offset_of!(BlockLimits, max_unmap_blocks) + 4 == 20);
const _: () = assert!(core::mem::offset_of!(BlockLimits, max_write_same) + 4 == 36);

impl BlockLimits {
    /// From what a device sent.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let body = page_body(data, VpdPage::BLOCK_LIMITS)?;
        let mut whole = [0u8; size_of::<Self>()];
        let have = body.len().min(whole.len());
        whole[..have].copy_from_slice(&body[..have]);
        Some(zerocopy::transmute!(whole))
    }
}

/// The block device characteristics page (SBC-4 6.6.2), what of it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Characteristics {
    /// 0: not reported; 1: solid state; else revolutions per minute.
    pub rotation: u16,
    /// Bits of ZONED: 1 host aware, 2 device managed.
    pub zoned: u8,
}

impl Characteristics {
    /// From what a device sent.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let body = page_body(data, VpdPage::CHARACTERISTICS)?;
        let rotation = body.get(..2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))?;
        Some(Self { rotation, zoned: body.get(4).map_or(0, |byte| byte >> 4 & 0x3) })
    }
}

/// The logical block provisioning page (SBC-4 6.6.7), what of it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provisioning {
    /// LBPU: UNMAP works.
    pub unmap: bool,
    /// LBPWS: WRITE SAME(16) with UNMAP works.
    pub write_same: bool,
}

impl Provisioning {
    /// From what a device sent.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let flags = *page_body(data, VpdPage::PROVISIONING)?.get(1)?;
        Some(Self { unmap: flags & 0x80 != 0, write_same: flags & 0x40 != 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_is_trimmed_and_cut_at_what_does_not_print() {
        assert_eq!(unit_serial(b"\x00\x80\x00\x06 ab12 "), Some(&b"ab12"[..]));
        assert_eq!(unit_serial(b"\x00\x80\x00\xffabc\x00junk"), Some(&b"abc"[..]));
        assert_eq!(unit_serial(b"\x00\x80\x00\x04    "), None);
        assert_eq!(unit_serial(b"\x00\x83\x00\x03abc"), None, "another page");
        assert_eq!(unit_serial(b"\x00\x80\x00"), None);
    }

    #[test]
    fn the_best_designator_of_the_unit_wins() {
        let mut page = vec![0, 0x83, 0, 0];
        page.extend([0x02, 0x01, 0, 3, b'a', b'b', b'c']);
        page.extend([0x01, 0x13, 0, 2, 9, 9]);
        page.extend([0x01, 0x03, 0, 2, 0x50, 0x01]);
        page.extend([0x01, 0x02, 0, 200, 1]);
        page[3] = 200;
        assert_eq!(designator(&page), Some((3, &[0x50, 0x01][..])));
        assert_eq!(designator(&page[..11]), Some((1, &b"abc"[..])));
        assert_eq!(designator(&page[..10]), None);
    }

    #[test]
    fn short_limit_pages_read_as_not_reported() {
        let mut page = [0u8; 64];
        page[..4].copy_from_slice(&[0, 0xb0, 0, 0x3c]);
        page[8..12].copy_from_slice(&65_535u32.to_be_bytes());
        page[20..24].copy_from_slice(&2048u32.to_be_bytes());
        page[36..44].copy_from_slice(&77u64.to_be_bytes());
        let limits = BlockLimits::parse(&page).unwrap();
        assert_eq!((limits.max_transfer.get(), limits.max_unmap_blocks.get()), (65_535, 2048));
        assert_eq!(limits.max_write_same.get(), 77);
        page[3] = 0x0c;
        let limits = BlockLimits::parse(&page).unwrap();
        assert_eq!((limits.max_transfer.get(), limits.max_unmap_blocks.get()), (65_535, 0));
        assert!(BlockLimits::parse(&page[..3]).is_none());
    }

    #[test]
    fn provisioning_and_characteristics() {
        assert_eq!(
            Provisioning::parse(&[0, 0xb2, 0, 4, 0, 0xc0, 0, 0]),
            Some(Provisioning { unmap: true, write_same: true })
        );
        assert_eq!(Provisioning::parse(&[0, 0xb2, 0, 1, 0, 0xc0]), None);
        assert_eq!(
            Characteristics::parse(&[0, 0xb1, 0, 60, 0, 1, 0, 0, 0x10]),
            Some(Characteristics { rotation: 1, zoned: 1 })
        );
    }
}
