//! Logical unit numbers and their formats on the wire. Any context.
//!
//! Source: SAM-5 4.7 (Logical unit number). A LUN travels as eight bytes; how a number is put into them depends on its size. One byte is
//! not a LUN: numbers above 255 exist and are sparse (X23).

use core::fmt;

/// A logical unit number within one target: 0 to 16,777,215.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lun(u32);

/// How eight bytes carried (or could not carry) a single-level LUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LunFormat {
    /// Peripheral device addressing, bus 0 (SAM-5 4.7.7.2): 0 to 255.
    Peripheral,
    /// Flat space addressing (SAM-5 4.7.7.3): 0 to 16,383.
    Flat,
    /// Extended flat space addressing (SAM-5 4.7.7.5.2): 0 to 16,777,215.
    ExtendedFlat,
}

impl Lun {
    /// The highest number that any format carries.
    pub const MAX: u32 = 0x00ff_ffff;

    /// LUN 0, which every target has.
    pub const ZERO: Self = Self(0);

    /// The LUN of this number; `None` above [`Lun::MAX`].
    pub const fn new(number: u32) -> Option<Self> {
        if number <= Self::MAX { Some(Self(number)) } else { None }
    }

    /// Its number.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The format that carries it: the shortest, which every device that has the number understands.
    pub const fn format(self) -> LunFormat {
        match self.0 {
            0..=0xff => LunFormat::Peripheral,
            0x100..=0x3fff => LunFormat::Flat,
            _ => LunFormat::ExtendedFlat,
        }
    }

    /// The eight bytes of the SAM LUN structure. Formats other than extended flat use the first two only.
    pub const fn to_bytes(self) -> [u8; 8] {
        let [_, high, middle, low] = self.0.to_be_bytes();
        match self.format() {
            LunFormat::Peripheral => [0, low, 0, 0, 0, 0, 0, 0],
            LunFormat::Flat => [0x40 | middle, low, 0, 0, 0, 0, 0, 0],
            // Address method 11b, length 01b (three bytes follow), extended address method 2h.
            LunFormat::ExtendedFlat => [0xd2, high, middle, low, 0, 0, 0, 0],
        }
    }

    /// The number in eight bytes from a device, and the format that carried it. `None` for what is not a single-level LUN of a logical
    /// unit: another bus, more levels, a well-known logical unit, "not specified", or a format from the future.
    pub const fn from_bytes(bytes: [u8; 8]) -> Option<(Self, LunFormat)> {
        let [first, second, third, fourth, ..] = bytes;
        let deeper = bytes[4] | bytes[5] | bytes[6] | bytes[7] != 0;
        if deeper {
            return None;
        }
        let flat_tail = third | fourth != 0;
        match first >> 6 {
            // Bits 5 to 0 are the bus; another one than 0 means that a second level follows.
            0b00 if first == 0 && !flat_tail => Some((Self(second as u32), LunFormat::Peripheral)),
            0b01 if !flat_tail => Some((Self(((first & 0x3f) as u32) << 8 | second as u32), LunFormat::Flat)),
            0b11 if first == 0xd2 => {
                Some((Self((second as u32) << 16 | (third as u32) << 8 | fourth as u32), LunFormat::ExtendedFlat))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Lun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A logical unit behind one host: its target and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Address {
    /// Target.
    pub target: u16,
    /// Logical unit.
    pub lun: Lun,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "target {} lun {}", self.target, self.lun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_survives_its_format() {
        for number in (0..0x1_0100).chain([0x00ff_ffff, 0x0012_3456, 0x0080_0000]) {
            let lun = Lun::new(number).unwrap();
            assert_eq!(Lun::from_bytes(lun.to_bytes()), Some((lun, lun.format())), "{number}");
        }
        assert_eq!(Lun::new(0x0100_0000), None);
    }

    #[test]
    fn x23_numbers_above_one_byte() {
        assert_eq!(Lun::new(5).unwrap().to_bytes()[..2], [0, 5]);
        // 300 = 0x12c, flat, as QEMU reports it.
        assert_eq!(Lun::new(300).unwrap().to_bytes()[..2], [0x41, 0x2c]);
        assert_eq!(Lun::new(0x4000).unwrap().to_bytes()[..4], [0xd2, 0, 0x40, 0]);
    }

    #[test]
    fn flat_addressing_of_small_numbers_is_understood() {
        assert_eq!(Lun::from_bytes([0x40, 7, 0, 0, 0, 0, 0, 0]), Some((Lun(7), LunFormat::Flat)));
    }

    #[test]
    fn what_is_not_a_single_level_lun_is_none() {
        for bytes in [
            [0xc1, 0x01, 0, 0, 0, 0, 0, 0],
            [0x01, 0x05, 0, 0, 0, 0, 0, 0],
            [0x00, 0x05, 0, 1, 0, 0, 0, 0],
            [0x81, 0x05, 0, 0, 0, 0, 0, 0],
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            [0x00, 0x00, 0, 0, 0, 0, 0, 1],
            [0xe2, 0, 0, 0, 1, 0, 0, 0],
        ] {
            assert_eq!(Lun::from_bytes(bytes), None, "{bytes:x?}");
        }
    }
}
