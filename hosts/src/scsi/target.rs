//! A target: its logical units, how they are addressed, what it answers for all of them (SAM-5 4.6, SPC-4 6.33).

use std::collections::BTreeMap;

use super::commands::{self, opcode};
use super::{Lun, Reply, Sense, Transfer};

/// What an 8-byte logical unit number names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A logical unit.
    Number(u16),
    /// The well-known logical unit that answers REPORT LUNS.
    ReportLuns,
    /// Nothing that this target understands.
    Unknown,
}

impl Unit {
    /// Decodes a single-level logical unit number: peripheral, flat space, or well-known.
    pub fn decode(address: [u8; 8]) -> Self {
        let [first, second, rest @ ..] = address;
        if rest != [0; 6] {
            return Self::Unknown;
        }
        match first >> 6 {
            0b00 if first == 0 => Self::Number(u16::from(second)),
            0b01 => Self::Number(u16::from(first & 0x3f) << 8 | u16::from(second)),
            0b11 if (first, second) == (0xc1, 0x01) => Self::ReportLuns,
            _ => Self::Unknown,
        }
    }

    /// Encodes a logical unit number as REPORT LUNS does: peripheral up to 255, flat space above (at most 16383).
    pub fn encode(number: u16) -> [u8; 8] {
        let [high, low] = number.to_be_bytes();
        let first = if number < 256 { 0 } else { 0x40 | high & 0x3f };
        [first, low, 0, 0, 0, 0, 0, 0]
    }
}

/// A target.
#[derive(Debug, Default)]
pub struct Target {
    luns: BTreeMap<u16, Lun>,
}

impl Target {
    /// A target without units.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a unit (0 to 16383).
    #[must_use]
    pub fn with(mut self, number: u16, lun: Lun) -> Self {
        self.luns.insert(number, lun);
        self
    }

    /// Plugs in a unit while the target is in use: the others report that the list of units changed.
    pub fn add(&mut self, number: u16, lun: Lun) {
        self.luns.values_mut().for_each(|other| other.attention(Sense::LUNS_CHANGED));
        self.luns.insert(number, lun);
    }

    /// Takes a unit out; the others report that the list changed.
    pub fn remove(&mut self, number: u16) -> Option<Lun> {
        let gone = self.luns.remove(&number);
        self.luns.values_mut().for_each(|other| other.attention(Sense::LUNS_CHANGED));
        gone
    }

    /// A unit.
    pub fn lun(&mut self, number: u16) -> Option<&mut Lun> {
        self.luns.get_mut(&number)
    }

    /// Whether there is such a unit.
    pub fn has(&self, number: u16) -> bool {
        self.luns.contains_key(&number)
    }

    /// Resets every unit.
    pub fn reset(&mut self) {
        self.luns.values_mut().for_each(Lun::reset);
    }

    /// How many bytes a command moves.
    pub fn transfer(&self, unit: Unit, cdb: &[u8]) -> Transfer {
        let block = match unit {
            Unit::Number(number) => self.luns.get(&number).map_or(0, |lun| lun.settings.block_size),
            _ => 0,
        };
        commands::transfer(cdb, block as usize)
    }

    /// Executes a command whose data, if it sends any, is in `out`, as long as [`Target::transfer`] said.
    pub fn execute(&mut self, unit: Unit, cdb: &[u8], out: &[u8]) -> Reply {
        let code = cdb.first().copied().unwrap_or(0xff);
        let known = matches!(unit, Unit::ReportLuns) || matches!(unit, Unit::Number(n) if self.luns.contains_key(&n));
        // REPORT LUNS is answered by any unit that exists, and by unit 0 even if it does not.
        if code == opcode::REPORT_LUNS && (known || unit == Unit::Number(0)) {
            return commands::clip(cdb, self.report_luns(cdb));
        }
        match unit {
            Unit::Number(number) => match self.luns.get_mut(&number) {
                Some(lun) => lun.execute(cdb, out),
                None => Self::absent(code, cdb),
            },
            Unit::ReportLuns | Unit::Unknown => Self::absent(code, cdb),
        }
    }

    /// What there is no unit for: INQUIRY says so in its data, REQUEST SENSE too, everything else fails (SPC-4 6.4.1, 6.39).
    fn absent(code: u8, cdb: &[u8]) -> Reply {
        match code {
            opcode::INQUIRY => {
                let mut data = vec![0; 36];
                data[0] = 0x7f;
                data[4] = 31;
                commands::clip(cdb, Reply::good(data))
            }
            opcode::REQUEST_SENSE => commands::clip(cdb, Reply::good(Sense::NO_UNIT.fixed().to_vec())),
            _ => Reply::check(Sense::NO_UNIT),
        }
    }

    fn report_luns(&self, cdb: &[u8]) -> Reply {
        let select = cdb.get(2).copied().unwrap_or(0);
        let mut list: Vec<[u8; 8]> = Vec::new();
        if select == 0 || select == 2 {
            list.extend(self.luns.keys().map(|&number| Unit::encode(number)));
        }
        if select == 1 || select == 2 {
            list.push([0xc1, 0x01, 0, 0, 0, 0, 0, 0]);
        }
        if select > 2 {
            return Reply::check(Sense::INVALID_FIELD);
        }
        let mut data = ((list.len() * 8) as u32).to_be_bytes().to_vec();
        data.extend([0; 4]);
        data.extend(list.concat());
        Reply::good(data)
    }
}
