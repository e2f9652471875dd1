//! The tables that a guest needs to find its other processors and the interrupt controller: RSDP, XSDT, MADT.
//!
//! Source: ACPI specification 6.5, 5.2.5, 5.2.8, 5.2.12.

/// Where they lie: where a BIOS has its own.
pub const BASE: u64 = 0xe_0000;
const LOCAL_APIC: u32 = 0xfee0_0000;
const IO_APIC: u32 = 0xfec0_0000;

/// Makes the sum of all bytes zero.
fn seal(bytes: &mut [u8], at: usize) {
    bytes[at] = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
}

fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = signature.to_vec();
    bytes.extend((36 + body.len() as u32).to_le_bytes());
    // Revision, then the sum.
    bytes.extend([1, 0]);
    bytes.extend(b"UNDRCFHYPERV  \x01\0\0\0UNDR\x01\0\0\0");
    bytes.extend(body);
    seal(&mut bytes, 9);
    bytes
}

fn madt(cpus: u32) -> Vec<u8> {
    let mut body = [LOCAL_APIC, 1].map(u32::to_le_bytes).concat();
    for cpu in 0..cpus as u8 {
        // A processor, its APIC id, usable.
        body.extend([0, 8, cpu, cpu, 1, 0, 0, 0]);
    }
    body.extend([1, 12, cpus as u8, 0]);
    body.extend([IO_APIC, 0].map(u32::to_le_bytes).concat());
    // The timer's line comes in at 2.
    body.extend([2, 10, 0, 0, 2, 0, 0, 0, 0, 0]);
    table(b"APIC", &body)
}

/// The tables' bytes, for [`BASE`]; the root pointer is first.
pub fn tables(cpus: u32) -> Vec<u8> {
    const XSDT: u64 = BASE + 64;
    const MADT: u64 = BASE + 128;
    let mut bytes = b"RSD PTR \0UNDRCF\x02".to_vec();
    bytes.extend(0u32.to_le_bytes());
    bytes.extend(36u32.to_le_bytes());
    bytes.extend(XSDT.to_le_bytes());
    bytes.extend([0; 4]);
    seal(&mut bytes[..20], 8);
    seal(&mut bytes, 32);
    bytes.resize(64, 0);
    bytes.extend(table(b"XSDT", &MADT.to_le_bytes()));
    bytes.resize(128, 0);
    bytes.extend(madt(cpus));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sum_is_zero() {
        let bytes = tables(3);
        let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!((sum(&bytes[..20]), sum(&bytes[..36])), (0, 0));
        for at in [64, 128] {
            let len = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
            assert_eq!(sum(&bytes[at..at + len]), 0, "{}", String::from_utf8_lossy(&bytes[at..at + 4]));
        }
        assert_eq!(bytes.len(), 128 + 36 + 8 + 3 * 8 + 12 + 10);
    }
}
