//! REPORT LUNS data (SPC-5 6.33.2).

use crate::scsi::Lun;

/// The list in the answer to REPORT LUNS.
#[derive(Debug, Clone, Copy)]
pub struct LunList<'a> {
    entries: &'a [u8],
    /// Bytes that the whole list has, as the device says: with more than were sent, ask again with a larger buffer.
    pub full_bytes: u32,
}

impl<'a> LunList<'a> {
    /// Bytes before the first entry.
    pub const HEADER: usize = 8;

    /// From what a device sent; `None` without a header.
    pub fn parse(data: &'a [u8]) -> Option<Self> {
        let (header, rest) = data.split_at_checked(Self::HEADER)?;
        let full_bytes = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
        let valid = usize::try_from(full_bytes).unwrap_or(usize::MAX).min(rest.len());
        Some(Self { entries: &rest[..valid - valid % 8], full_bytes })
    }

    /// Whether the device has more entries than it could send.
    pub fn is_cut(&self) -> bool {
        u64::from(self.full_bytes) >= self.entries.len() as u64 + 8
    }

    /// The single-level LUNs in the list, in its order; other entries are left out.
    pub fn luns(&self) -> impl Iterator<Item = Lun> + 'a {
        let entries = self.entries;
        entries.as_chunks::<8>().0.iter().filter_map(|entry| Lun::from_bytes(*entry)).map(|(lun, _)| lun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(luns: &[u32]) -> Vec<u8> {
        let mut data = ((luns.len() * 8) as u32).to_be_bytes().to_vec();
        data.extend([0; 4]);
        for &lun in luns {
            data.extend(Lun::new(lun).unwrap().to_bytes());
        }
        data
    }

    fn numbers(data: &[u8]) -> Vec<u32> {
        LunList::parse(data).unwrap().luns().map(Lun::number).collect()
    }

    /// What the historic parser did: one byte of LUN, and the count taken for the highest number.
    fn one_byte_parser(data: &[u8]) -> Vec<u32> {
        let count = u32::from_be_bytes(data[..4].try_into().unwrap()) / 8;
        let mut found = Vec::new();
        for entry in data[8..].chunks(8) {
            let lun = u32::from(entry[1]);
            if lun <= count.min(255) {
                found.push(lun);
            }
        }
        found
    }

    #[test]
    fn x23_sparse_and_sixteen_bit_luns() {
        assert_eq!(numbers(&list(&[0, 5, 300])), [0, 5, 300]);
    }

    #[test]
    fn x23_sparse_and_sixteen_bit_luns_control() {
        assert_ne!(one_byte_parser(&list(&[0, 5, 300])), [0, 5, 300], "the check must catch the historic parser");
    }

    #[test]
    fn a_length_that_lies_is_cut() {
        let mut data = list(&[1, 2]);
        data[..4].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(numbers(&data), [1, 2]);
        assert!(LunList::parse(&data).unwrap().is_cut());
        data[..4].copy_from_slice(&12u32.to_be_bytes());
        assert_eq!(numbers(&data), [1]);
        assert_eq!(numbers(&data[..15]), [0u32; 0]);
        assert!(LunList::parse(&data[..7]).is_none());
        data.push(0x41);
        assert_eq!(numbers(&data), [1]);
    }

    #[test]
    fn well_known_and_multi_level_entries_are_left_out() {
        let mut data = list(&[3]);
        data.extend([0xc1, 0x01, 0, 0, 0, 0, 0, 0, 0x02, 0x05, 0, 0, 0, 0, 0, 0]);
        data[..4].copy_from_slice(&24u32.to_be_bytes());
        assert_eq!(numbers(&data), [3]);
        assert!(!LunList::parse(&data).unwrap().is_cut());
    }
}
