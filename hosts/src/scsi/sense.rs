//! Status codes and sense data (SAM-5 5.3, SPC-4 4.5).

/// SCSI status codes.
pub mod status {
    /// Done.
    pub const GOOD: u8 = 0x00;
    /// See the sense data.
    pub const CHECK_CONDITION: u8 = 0x02;
    /// Try again.
    pub const BUSY: u8 = 0x08;
    /// Somebody else's reservation.
    pub const RESERVATION_CONFLICT: u8 = 0x18;
    /// Too many commands.
    pub const TASK_SET_FULL: u8 = 0x28;
}

/// Sense key, additional sense code and its qualifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sense {
    /// Sense key.
    pub key: u8,
    /// Additional sense code.
    pub asc: u8,
    /// Additional sense code qualifier.
    pub ascq: u8,
}

impl Sense {
    /// Nothing to report.
    pub const NONE: Self = Self::new(0x0, 0x00, 0x00);
    /// Unrecovered read error.
    pub const READ_ERROR: Self = Self::new(0x3, 0x11, 0x00);
    /// Write error.
    pub const WRITE_ERROR: Self = Self::new(0x3, 0x0c, 0x00);
    /// Invalid command operation code.
    pub const INVALID_OPCODE: Self = Self::new(0x5, 0x20, 0x00);
    /// Logical block address out of range.
    pub const OUT_OF_RANGE: Self = Self::new(0x5, 0x21, 0x00);
    /// Invalid field in CDB.
    pub const INVALID_FIELD: Self = Self::new(0x5, 0x24, 0x00);
    /// Logical unit not supported.
    pub const NO_UNIT: Self = Self::new(0x5, 0x25, 0x00);
    /// Invalid field in parameter list.
    pub const INVALID_PARAMETER: Self = Self::new(0x5, 0x26, 0x00);
    /// Power on, reset, or bus device reset occurred.
    pub const RESET: Self = Self::new(0x6, 0x29, 0x00);
    /// Capacity data has changed.
    pub const CAPACITY_CHANGED: Self = Self::new(0x6, 0x2a, 0x09);
    /// Reported LUNs data has changed.
    pub const LUNS_CHANGED: Self = Self::new(0x6, 0x3f, 0x0e);
    /// Write protected.
    pub const WRITE_PROTECTED: Self = Self::new(0x7, 0x27, 0x00);

    /// A sense triple.
    pub const fn new(key: u8, asc: u8, ascq: u8) -> Self {
        Self { key, asc, ascq }
    }

    /// In fixed format, current error.
    pub fn fixed(self) -> [u8; 18] {
        let mut bytes = [0; 18];
        bytes[0] = 0x70;
        bytes[2] = self.key;
        bytes[7] = 10;
        bytes[12] = self.asc;
        bytes[13] = self.ascq;
        bytes
    }

    /// In descriptor format, current error.
    pub fn descriptor(self) -> [u8; 8] {
        [0x72, self.key, self.asc, self.ascq, 0, 0, 0, 0]
    }
}
