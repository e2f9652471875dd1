//! MODE SENSE(10) data (SPC-5 7.5).

/// The answer to MODE SENSE(10): the device-specific parameter, and the page behind the block descriptors.
#[derive(Debug, Clone, Copy)]
pub struct ModeData<'a> {
    /// Bit 7: WP, write protected; bit 4: DPOFUA (SBC-4 6.5.1).
    pub device_specific: u8,
    pages: &'a [u8],
}

impl<'a> ModeData<'a> {
    /// From what a device sent; `None` without a header.
    pub fn parse(data: &'a [u8]) -> Option<Self> {
        let (header, _) = data.split_at_checked(8)?;
        // MODE DATA LENGTH counts from byte 2.
        let valid = data.len().min(2 + usize::from(u16::from_be_bytes([header[0], header[1]])));
        let descriptors = usize::from(u16::from_be_bytes([header[6], header[7]]));
        let pages = data[..valid].get(8 + descriptors..).unwrap_or(&[]);
        Some(Self { device_specific: header[3], pages })
    }

    /// Whether the medium is write protected.
    pub const fn write_protected(&self) -> bool {
        self.device_specific & 0x80 != 0
    }

    /// Whether reads and writes honour force unit access.
    pub const fn fua(&self) -> bool {
        self.device_specific & 0x10 != 0
    }

    /// The caching page, if it comes first.
    pub fn caching(&self) -> Option<CachingPage> {
        match self.pages {
            // PS and SPF are the top two bits of the first byte.
            [code, _length, flags, ..] if code & 0x7f == CachingPage::CODE => Some(CachingPage { flags: *flags }),
            _ => None,
        }
    }
}

/// The caching mode page (SBC-4 6.5.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CachingPage {
    flags: u8,
}

impl CachingPage {
    /// Its page code.
    pub const CODE: u8 = 0x08;

    /// WCE: writes are done before they are durable.
    pub const fn write_cache(self) -> bool {
        self.flags & 0x04 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemu_answer_and_lies() {
        // QEMU: 8 bytes of header, no block descriptor, caching page with WCE, 20 bytes.
        let mut data = [0u8; 28];
        data[1] = 26;
        data[3] = 0x10;
        data[8..11].copy_from_slice(&[0x08, 0x12, 0x04]);
        let mode = ModeData::parse(&data).unwrap();
        assert!(mode.fua() && !mode.write_protected());
        assert!(mode.caching().unwrap().write_cache());
        data[7] = 8;
        assert_eq!(ModeData::parse(&data).unwrap().caching(), None, "the page is behind a block descriptor");
        data[6] = 0xff;
        assert_eq!(ModeData::parse(&data).unwrap().caching(), None);
        data[6..8].fill(0);
        data[1] = 8;
        assert_eq!(ModeData::parse(&data).unwrap().caching(), None, "the device says that it sent ten bytes");
        assert!(ModeData::parse(&data[..7]).is_none());
    }
}
