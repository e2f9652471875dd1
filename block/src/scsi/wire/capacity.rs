//! READ CAPACITY data.

use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::broken::{self, Hazard};

/// READ CAPACITY(10) data (SBC-4 5.19.2).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ReadCapacity10Data {
    /// The last block, or all ones if it does not fit.
    pub last: U32,
    /// Bytes of a block.
    pub block_size: U32,
}

const _: () = assert!(size_of::<ReadCapacity10Data>() == 8);

/// READ CAPACITY(16) data (SBC-4 5.20.2).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ReadCapacity16Data {
    /// The last block.
    pub last: U64,
    /// Bytes of a block.
    pub block_size: U32,
    /// Bit 0: protection information is on; bits 3 to 1: its type.
    pub protection: u8,
    /// Bits 3 to 0: logical blocks per physical block, as a power of two.
    pub exponents: u8,
    /// Bit 7: LBPME, provisioning management is on; bit 6: LBPRZ.
    pub provisioning: u8,
    /// Low byte of the lowest aligned block.
    pub alignment: u8,
    /// Reserved.
    pub reserved: [u8; 16],
}

const _: () = assert!(size_of::<ReadCapacity16Data>() == 32);

/// What either command tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Blocks; possibly none.
    pub blocks: u64,
    /// Bytes of a block, as the device says: anything.
    pub block_size: u32,
    /// Logical blocks per physical block, as a power of two.
    pub physical_exponent: u8,
    /// Logical block provisioning management is on.
    pub provisioned: bool,
    /// Protection information is interleaved with the data.
    pub protected: bool,
}

impl Capacity {
    /// From READ CAPACITY(10) data; `Ok(None)` if the capacity needs READ CAPACITY(16).
    #[allow(clippy::option_option)]
    pub fn from_10(data: &[u8]) -> Option<Option<Self>> {
        let (data, _) = ReadCapacity10Data::read_from_prefix(data).ok()?;
        let last = data.last.get();
        Some((last != u32::MAX).then(|| Self {
            blocks: u64::from(last) + 1,
            block_size: data.block_size.get(),
            physical_exponent: 0,
            provisioned: false,
            protected: false,
        }))
    }

    /// From READ CAPACITY(16) data, of which 12 bytes are enough.
    pub fn from_16(data: &[u8]) -> Option<Self> {
        let mut whole = [0u8; size_of::<ReadCapacity16Data>()];
        let have = data.len().min(whole.len());
        if have < 12 {
            return None;
        }
        whole[..have].copy_from_slice(&data[..have]);
        let data: ReadCapacity16Data = zerocopy::transmute!(whole);
        Some(Self {
            // A last block of all ones is not allowed: it is the one before the first, of a device without blocks.
            blocks: if broken::is(Hazard::EmptyIsHuge) {
                data.last.get().saturating_add(1)
            } else {
                data.last.get().wrapping_add(1)
            },
            block_size: data.block_size.get(),
            physical_exponent: data.exponents & 0x0f,
            provisioned: data.provisioning & 0x80 != 0,
            protected: data.protection & 0x01 != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms() {
        let ten = Capacity::from_10(&[0, 0, 0x27, 0x0f, 0, 0, 2, 0]).unwrap().unwrap();
        assert_eq!((ten.blocks, ten.block_size), (10_000, 512));
        assert_eq!(Capacity::from_10(&[0xff, 0xff, 0xff, 0xff, 0, 0, 2, 0]), Some(None));
        assert_eq!(Capacity::from_10(&[0; 7]), None);
        let mut data = [0u8; 32];
        data[3] = 1;
        data[10] = 0x10;
        data[13] = 0xf3;
        data[14] = 0xc0;
        let sixteen = Capacity::from_16(&data).unwrap();
        assert_eq!((sixteen.blocks, sixteen.block_size), ((1 << 32) + 1, 4096));
        assert_eq!((sixteen.physical_exponent, sixteen.provisioned, sixteen.protected), (3, true, false));
        assert!(!Capacity::from_16(&data[..12]).unwrap().provisioned, "what is not there is zero");
        assert_eq!(Capacity::from_16(&data[..11]), None);
        assert_eq!(Capacity::from_16(&[0xff; 32]).unwrap().blocks, 0);
    }
}
