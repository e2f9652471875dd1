//! INQUIRY: standard data and vital product data (SPC-4 6.4, 7.8; SBC-3 6.6).

use super::{Lun, Sense};

const SUPPORTED: u8 = 0x00;
const SERIAL: u8 = 0x80;
const IDENTIFICATION: u8 = 0x83;
const BLOCK_LIMITS: u8 = 0xb0;
const CHARACTERISTICS: u8 = 0xb1;
const PROVISIONING: u8 = 0xb2;
const PAGES: [u8; 6] = [SUPPORTED, SERIAL, IDENTIFICATION, BLOCK_LIMITS, CHARACTERISTICS, PROVISIONING];

fn padded(text: &str, len: usize) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(len, b' ');
    bytes
}

impl Lun {
    pub(super) fn inquiry(&self, cdb: &[u8]) -> Result<Vec<u8>, Sense> {
        let vital = cdb.get(1).is_some_and(|byte| byte & 1 != 0);
        let page = cdb.get(2).copied().unwrap_or(0);
        match (vital, page) {
            (false, 0) => Ok(self.standard()),
            (true, page) if PAGES.contains(&page) && !self.settings.without_pages.contains(&page) => {
                let body = self.page(page);
                let mut data = vec![0, page];
                data.extend((body.len() as u16).to_be_bytes());
                data.extend(body);
                Ok(data)
            }
            _ => Err(Sense::INVALID_FIELD),
        }
    }

    fn standard(&self) -> Vec<u8> {
        let (vendor, product, revision) = &self.settings.identity;
        let removable = if self.settings.removable { 0x80 } else { 0 };
        // SPC-4, response format 2 with hierarchical LUNs, 31 more bytes, command queuing.
        let mut data = vec![0, removable, 0x06, 0x12, 31, 0, 0, 0x02];
        data.extend(padded(vendor, 8));
        data.extend(padded(product, 16));
        data.extend(padded(revision, 4));
        data
    }

    fn page(&self, page: u8) -> Vec<u8> {
        let settings = &self.settings;
        match page {
            SUPPORTED => PAGES.into_iter().filter(|page| !settings.without_pages.contains(page)).collect(),
            SERIAL => settings.serial.as_bytes().to_vec(),
            IDENTIFICATION => {
                let vendor = [padded(&settings.identity.0, 8), settings.serial.as_bytes().to_vec()].concat();
                // Vendor identification in ASCII, then NAA in binary, both of the logical unit.
                let mut data = vec![0x02, 0x01, 0, vendor.len() as u8];
                data.extend(vendor);
                data.extend([0x01, 0x03, 0, 8]);
                data.extend(settings.naa.to_be_bytes());
                data
            }
            BLOCK_LIMITS => {
                let mut data = vec![0; 60];
                // WSNZ: WRITE SAME of 0 blocks is not the whole medium.
                data[0] = 1;
                data[2..4].copy_from_slice(&(1u16 << settings.physical_exponent.min(15)).to_be_bytes());
                data[4..8].copy_from_slice(&settings.max_transfer.to_be_bytes());
                data[8..12].copy_from_slice(&settings.optimal_transfer.to_be_bytes());
                if settings.thin {
                    data[16..20].copy_from_slice(&settings.max_unmap.to_be_bytes());
                    data[20..24].copy_from_slice(&settings.max_unmap_descriptors.to_be_bytes());
                    data[24..28].copy_from_slice(&1u32.to_be_bytes());
                }
                data[32..40].copy_from_slice(&settings.max_write_same.to_be_bytes());
                data
            }
            CHARACTERISTICS => {
                let mut data = vec![0; 60];
                // Not rotating.
                data[1] = 1;
                data
            }
            // No threshold; UNMAP and both WRITE SAMEs unmap, reads of unmapped blocks give zeros; thin.
            PROVISIONING if settings.thin => vec![0, 0xe4, 2, 0],
            _ => vec![0; 4],
        }
    }
}
