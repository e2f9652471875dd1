//! Sense data (SPC-5 4.5).

/// A sense key (SPC-5 4.5.7). Open, four bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SenseKey(pub u8);

impl SenseKey {
    /// Nothing to say.
    pub const NO_SENSE: Self = Self(0x0);
    /// Done, after the device recovered.
    pub const RECOVERED_ERROR: Self = Self(0x1);
    /// Cannot be accessed now.
    pub const NOT_READY: Self = Self(0x2);
    /// A flaw of the medium.
    pub const MEDIUM_ERROR: Self = Self(0x3);
    /// The device failed.
    pub const HARDWARE_ERROR: Self = Self(0x4);
    /// The command or its parameters are wrong.
    pub const ILLEGAL_REQUEST: Self = Self(0x5);
    /// Something happened that initiators must know; the command was not done.
    pub const UNIT_ATTENTION: Self = Self(0x6);
    /// Protected against this access.
    pub const DATA_PROTECT: Self = Self(0x7);
    /// Blank or unformatted medium.
    pub const BLANK_CHECK: Self = Self(0x8);
    /// Vendor specific.
    pub const VENDOR_SPECIFIC: Self = Self(0x9);
    /// A copy was aborted.
    pub const COPY_ABORTED: Self = Self(0xa);
    /// The device aborted the command: trying again may help.
    pub const ABORTED_COMMAND: Self = Self(0xb);
    /// The medium's end was reached.
    pub const VOLUME_OVERFLOW: Self = Self(0xd);
    /// Data did not match.
    pub const MISCOMPARE: Self = Self(0xe);
    /// Done.
    pub const COMPLETED: Self = Self(0xf);
}

/// Additional sense code and its qualifier (SPC-5 annex F.2). Open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Asc(pub u8, pub u8);

/// Sense data, either format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sense {
    /// It is about an earlier command, whose data did not stay: this one was not done (SPC-5 4.5.5).
    pub deferred: bool,
    /// The key.
    pub key: SenseKey,
    /// The code.
    pub asc: Asc,
    /// The first block concerned, where the device says so.
    pub information: Option<u64>,
}

impl Sense {
    /// From what a device sent; `None` if it is in no known format. Fields behind the end of the data are zero.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let code = *data.first()?;
        match code & 0x7f {
            0x70 | 0x71 => Self::fixed(data, code),
            0x72 | 0x73 => Self::descriptors(data, code),
            _ => None,
        }
    }

    /// Fixed format (SPC-5 4.5.3).
    fn fixed(data: &[u8], code: u8) -> Option<Self> {
        let key = SenseKey(*data.get(2)? & 0xf);
        // ADDITIONAL SENSE LENGTH counts from byte 8.
        let valid = data.len().min(data.get(7).map_or(0, |length| 8 + usize::from(*length)));
        let asc = match data[..valid].get(12..14) {
            Some(&[asc, ascq]) => Asc(asc, ascq),
            _ => Asc(data[..valid].get(12).copied().unwrap_or(0), 0),
        };
        let information = match data.get(3..7) {
            Some(&[a, b, c, d]) if code & 0x80 != 0 => Some(u64::from(u32::from_be_bytes([a, b, c, d]))),
            _ => None,
        };
        Some(Self { deferred: code & 0x7f == 0x71, key, asc, information })
    }

    /// Descriptor format (SPC-5 4.5.2).
    fn descriptors(data: &[u8], code: u8) -> Option<Self> {
        let head = data.get(..4)?;
        let valid = data.len().min(data.get(7).map_or(4, |length| 8 + usize::from(*length)));
        let mut rest = data[..valid].get(8..).unwrap_or(&[]);
        let mut information = None;
        while let [kind, length, ..] = *rest {
            let whole = 2 + usize::from(length);
            let Some((descriptor, next)) = rest.split_at_checked(whole) else { break };
            rest = next;
            // Information (SPC-5 4.5.2.2): type 0, 10 bytes follow, bit 7 of the first is VALID.
            if let (0, Ok(bytes)) = (kind, <[u8; 12]>::try_from(descriptor))
                && bytes[2] & 0x80 != 0
            {
                let mut number = [0; 8];
                number.copy_from_slice(&bytes[4..]);
                information = Some(u64::from_be_bytes(number));
            }
        }
        Some(Self {
            deferred: code & 0x7f == 0x73,
            key: SenseKey(head[1] & 0xf),
            asc: Asc(head[2], head[3]),
            information,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats() {
        let fixed = [0xf0, 0, 0x03, 0, 0, 0x12, 0x34, 10, 0, 0, 0, 0, 0x11, 0x04, 0, 0, 0, 0];
        let expected =
            Sense { deferred: false, key: SenseKey::MEDIUM_ERROR, asc: Asc(0x11, 4), information: Some(0x1234) };
        assert_eq!(Sense::parse(&fixed), Some(expected));
        let mut descriptor = vec![0x72, 0x03, 0x11, 0x04, 0, 0, 0, 16];
        descriptor.extend([0x80, 2, 0, 0]);
        descriptor.extend([0x00, 0x0a, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34]);
        assert_eq!(Sense::parse(&descriptor), Some(expected));
        descriptor[0] = 0x73;
        assert!(Sense::parse(&descriptor).unwrap().deferred);
    }

    #[test]
    fn short_and_lying_sense() {
        assert_eq!(Sense::parse(&[]), None);
        assert_eq!(Sense::parse(&[0x70]), None);
        assert_eq!(Sense::parse(&[0x70, 0, 6]).unwrap().key, SenseKey::UNIT_ATTENTION);
        let mut fixed = [0x70, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x29, 0x01];
        assert_eq!(Sense::parse(&fixed).unwrap().asc, Asc(0, 0), "the device says that it sent eight bytes");
        fixed[7] = 0xff;
        assert_eq!(Sense::parse(&fixed).unwrap().asc, Asc(0x29, 1));
        assert_eq!(Sense::parse(&fixed[..13]).unwrap().asc, Asc(0x29, 0));
        assert_eq!(Sense::parse(&[0x7f; 18]), None);
        // A descriptor that claims more than there is ends the walk.
        assert_eq!(Sense::parse(&[0x72, 5, 0x24, 0, 0, 0, 0, 255, 0, 0xff]).unwrap().key, SenseKey::ILLEGAL_REQUEST);
    }

    #[test]
    fn any_bytes_are_survived() {
        let mut seed = 1u64;
        for _ in 0..20_000 {
            let mut bytes = [0u8; 40];
            for byte in &mut bytes {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (seed >> 56) as u8;
            }
            bytes[0] = 0x70 | bytes[0] & 0x83;
            let _ = Sense::parse(&bytes[..usize::from(bytes[39]) % 40]);
        }
    }
}
