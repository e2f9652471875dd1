//! Standard INQUIRY data (SPC-5 6.7.2).

/// Whether the logical unit is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qualifier {
    /// A device is connected, or may be.
    Connected,
    /// The target could have one here, but does not now.
    NotConnected,
    /// The target cannot have one here.
    NotPossible,
    /// Reserved or vendor specific.
    Other(u8),
}

/// What kind of device it is (SPC-5 table 150). Open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeripheralType(pub u8);

impl PeripheralType {
    /// Direct access block device: a disk.
    pub const DISK: Self = Self(0x00);
    /// Zoned block device, host managed: writes must be sequential.
    pub const ZONED: Self = Self(0x14);
    /// CD or DVD.
    pub const CD_DVD: Self = Self(0x05);
    /// Unknown or none.
    pub const NONE: Self = Self(0x1f);
}

/// What of the standard data is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandardInquiry {
    /// Whether the unit is there.
    pub qualifier: Qualifier,
    /// What it is.
    pub kind: PeripheralType,
    /// Whether the medium can be removed.
    pub removable: bool,
    /// The version of SPC that it claims: 5 is SPC-3.
    pub version: u8,
    vendor: [u8; 8],
    product: [u8; 16],
}

impl StandardInquiry {
    /// Bytes that every device has, and all that is asked for: some devices fail when they are asked for more at first.
    pub const BYTES: u16 = 36;

    /// From what a device sent; `None` if not even the fixed part up to byte 4 is there. What is missing behind is empty.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let head = data.get(..5)?;
        // ADDITIONAL LENGTH counts from byte 5; the data may be cut shorter, and never means more than was sent.
        let valid = data.len().min(5 + usize::from(head[4]));
        let part = |from: usize, to: usize| data[..valid].get(from..to);
        let mut vendor = [b' '; 8];
        let mut product = [b' '; 16];
        if let Some(bytes) = part(8, 16) {
            vendor.copy_from_slice(bytes);
        }
        if let Some(bytes) = part(16, 32) {
            product.copy_from_slice(bytes);
        }
        Some(Self {
            qualifier: match head[0] >> 5 {
                0b000 => Qualifier::Connected,
                0b001 => Qualifier::NotConnected,
                0b011 => Qualifier::NotPossible,
                other => Qualifier::Other(other),
            },
            kind: PeripheralType(head[0] & 0x1f),
            removable: head[1] & 0x80 != 0,
            version: head[2],
            vendor,
            product,
        })
    }

    /// Vendor and product as sent, space padded; anything may be in them.
    pub fn names(&self) -> (&[u8], &[u8]) {
        (&self.vendor, &self.product)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_lying_data() {
        let mut data = [b' '; 36];
        data[..5].copy_from_slice(&[0x20, 0x80, 5, 2, 31]);
        data[8..12].copy_from_slice(b"QEMU");
        data[16..25].copy_from_slice(b"HARDDISK.");
        let whole = StandardInquiry::parse(&data).unwrap();
        assert_eq!(
            (whole.qualifier, whole.kind, whole.removable),
            (Qualifier::NotConnected, PeripheralType::DISK, true)
        );
        assert_eq!(whole.names().0, b"QEMU    ");
        data[4] = 255;
        assert_eq!(
            StandardInquiry::parse(&data[..20]).unwrap().names().1,
            [b' '; 16],
            "not all of the product is there"
        );
        data[4] = 0;
        assert_eq!(StandardInquiry::parse(&data).unwrap().names().0, [b' '; 8], "the device says it sent five bytes");
        assert_eq!(StandardInquiry::parse(&data[..4]), None);
        assert_eq!(StandardInquiry::parse(&[0x7f; 36]).unwrap().qualifier, Qualifier::NotPossible);
    }
}
