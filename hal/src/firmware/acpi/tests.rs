//! Tables made by hand, damaged in every way.

use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use super::*;

/// Physical memory with islands of bytes.
#[derive(Default, Clone)]
struct Islands(BTreeMap<u64, Vec<u8>>);

impl Memory for Islands {
    fn read(&self, address: u64, bytes: usize) -> Option<&[u8]> {
        let (start, island) = self.0.range(..=address).next_back()?;
        let offset = usize::try_from(address - start).ok()?;
        island.get(offset..offset.checked_add(bytes)?)
    }
}

fn seal(mut bytes: Vec<u8>, checksum_at: usize) -> Vec<u8> {
    bytes[checksum_at] = 0;
    bytes[checksum_at] = 0u8.wrapping_sub(sum(&bytes));
    bytes
}

fn make(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[..4].copy_from_slice(signature);
    bytes[4..8].copy_from_slice(&((HEADER_BYTES + body.len()) as u32).to_le_bytes());
    bytes.extend(body);
    seal(bytes, 9)
}

const ROOT: u64 = 0xF_5000;

fn machine(wide: bool) -> Islands {
    let mut madt = Vec::from(0xFEE0_0000u32.to_le_bytes());
    madt.extend(1u32.to_le_bytes());
    madt.extend([0, 8, 0, 0, 1, 0, 0, 0]);
    madt.extend([0, 8, 1, 7, 0, 0, 0, 0]);
    madt.extend([1, 12, 0, 0, 0, 0, 0xC0, 0xFE, 0, 0, 0, 0]);
    madt.extend([2, 10, 0, 0, 2, 0, 0, 0, 0, 0]);
    madt.extend([2, 10, 0, 9, 9, 0, 0, 0, 0x0D, 0]);
    madt.extend([9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    let mut mcfg = vec![0; 8];
    mcfg.extend(0xB000_0000u64.to_le_bytes());
    mcfg.extend([0, 0, 0, 255, 0, 0, 0, 0]);
    let mut hpet = vec![0; 8];
    hpet.extend(0xFED0_0000u64.to_le_bytes());
    hpet.extend([0; 4]);
    let mut fadt = vec![0; 268 - HEADER_BYTES];
    let mut put = |offset: usize, bytes: &[u8]| fadt[offset - HEADER_BYTES..][..bytes.len()].copy_from_slice(bytes);
    put(40, &0x8000u32.to_le_bytes());
    put(64, &0x604u32.to_le_bytes());
    put(76, &0x608u32.to_le_bytes());
    put(112, &(1u32 << 10 | 1 << 8).to_le_bytes());
    put(116, &[1, 8, 0, 1]);
    put(120, &0xCF9u64.to_le_bytes());
    put(128, &[0x0F]);
    let mut dsdt = Vec::from(*b"\x08_S5_\x12\x06\x04\x0A\x05\x00\x00\x00");
    dsdt.extend(device(0xFEB0_0000, 16));
    dsdt.extend(device(0xFEB0_0200, 17));
    let tables = [make(b"APIC", &madt), make(b"MCFG", &mcfg), make(b"HPET", &hpet), make(b"FACP", &fadt)];
    let mut islands = Islands::default();
    let mut entries = Vec::new();
    for (index, table) in tables.into_iter().enumerate() {
        let address = 0x1_0000 + index as u64 * 0x1000;
        islands.0.insert(address, table);
        if wide { entries.extend(address.to_le_bytes()) } else { entries.extend((address as u32).to_le_bytes()) }
    }
    islands.0.insert(0x8000, make(b"DSDT", &dsdt));
    islands.0.insert(0x9000, make(if wide { b"XSDT" } else { b"RSDT" }, &entries));
    let mut root = Vec::from(*b"RSD PTR \0BOCHS ");
    root.push(if wide { 2 } else { 0 });
    root.extend(if wide { 0u32 } else { 0x9000 }.to_le_bytes());
    root = seal(root, 8);
    if wide {
        root.extend(36u32.to_le_bytes());
        root.extend(0x9000u64.to_le_bytes());
        root.extend([0; 4]);
        root = seal(root, 32);
    }
    islands.0.insert(ROOT, root);
    islands
}

fn device(base: u32, interrupt: u32) -> Vec<u8> {
    let mut bytes = Vec::from(*b"\x5B\x82\x3AVR00\x08_HID\x0DLNRO0005\0\x08_UID\x00\x08_CRS\x11\x19\x0A\x17");
    bytes.extend([0x86, 9, 0, 1]);
    bytes.extend(base.to_le_bytes());
    bytes.extend(512u32.to_le_bytes());
    bytes.extend([0x89, 6, 0, 1, 1]);
    bytes.extend(interrupt.to_le_bytes());
    bytes.extend([0x79, 0]);
    bytes
}

fn check(tables: &Tables) {
    let madt = tables.madt.as_ref().unwrap();
    assert_eq!((madt.local_apic, madt.has_8259), (0xFEE0_0000, true));
    assert_eq!(madt.cpus.as_slice(), [0, 256]);
    assert_eq!(madt.io_apics.as_slice(), [IoApic { address: 0xFEC0_0000, first: 0 }]);
    assert_eq!(
        madt.overrides.as_slice(),
        [
            Override { source: 0, line: 2, level: false, low: false },
            Override { source: 9, line: 9, level: true, low: false },
        ]
    );
    assert_eq!(tables.ecam.as_slice(), [Ecam { base: 0xB000_0000, segment: 0, first_bus: 0, last_bus: 255 }]);
    assert_eq!(tables.hpet, Some(0xFED0_0000));
    let fadt = tables.fadt.unwrap();
    let port = |address| Some(Register { space: Space::Port, address });
    assert_eq!((fadt.dsdt, fadt.pm1a_control, fadt.pm1b_control), (0x8000, port(0x604), None));
    assert_eq!((fadt.pm_timer, fadt.pm_timer_is_wide), (port(0x608), true));
    assert_eq!(fadt.reset, port(0xCF9).zip(Some(0x0F)));
    assert_eq!(tables.s5, Some((5, 0)));
    assert_eq!(
        tables.virtio_mmio.as_slice(),
        [
            VirtioMmio { base: 0xFEB0_0000, bytes: 512, interrupt: 16 },
            VirtioMmio { base: 0xFEB0_0200, bytes: 512, interrupt: 17 },
        ]
    );
}

#[test]
fn both_generations_of_root_tables_lead_to_all_tables() {
    check(&Tables::read(&machine(false), ROOT).unwrap());
    check(&Tables::read(&machine(true), ROOT).unwrap());
}

#[test]
fn the_root_pointer_is_found_by_search() {
    let mut islands = machine(true);
    let root = islands.0.remove(&ROOT).unwrap();
    let mut area = vec![0; 0x2_0000];
    // A damaged one first, then the real one.
    area[0x40..0x48].copy_from_slice(b"RSD PTR ");
    area[0x1_5000..][..root.len()].copy_from_slice(&root);
    islands.0.insert(0xE_0000, area);
    assert_eq!(find_root_pointer(&islands), Some(ROOT));
    check(&Tables::read(&islands, ROOT).unwrap());
}

/// A flipped bit in a checksummed table makes that table absent, and nothing else.
#[test]
fn every_flipped_bit_is_noticed() {
    let good = machine(true);
    for (&address, bytes) in &good.0 {
        for bit in 0..bytes.len() * 8 {
            let mut bad = good.clone();
            bad.0.get_mut(&address).unwrap()[bit / 8] ^= 1 << (bit % 8);
            match (address, Tables::read(&bad, ROOT)) {
                // The first part of the root pointer, or the second, without which there is no root table.
                (ROOT, Err(_)) => {}
                (ROOT, Ok(_)) => panic!("bit {bit} of the root pointer went unnoticed"),
                (0x9000, result) => assert_eq!(result.err(), Some(AcpiError::RootTable)),
                (0x1_0000, result) => assert!(result.unwrap().madt.is_none(), "bit {bit}"),
                (0x1_1000, result) => assert!(result.unwrap().ecam.is_empty(), "bit {bit}"),
                (0x1_2000, result) => assert!(result.unwrap().hpet.is_none(), "bit {bit}"),
                (0x1_3000, result) => assert!(result.unwrap().fadt.is_none(), "bit {bit}"),
                (0x8000, result) => assert!(result.unwrap().s5.is_none(), "bit {bit}"),
                (other, _) => panic!("{other:#x}"),
            }
        }
    }
}

/// Random damage under a right checksum, and tables cut short: no panic, no endless walk.
#[test]
fn damage_under_a_right_checksum_does_no_harm() {
    let good = machine(false);
    let mut state = 7u64;
    let mut next = |bound: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % bound
    };
    for _ in 0..20_000 {
        let mut bad = good.clone();
        for (&address, bytes) in &mut bad.0 {
            for _ in 0..next(6) {
                let at = next(bytes.len());
                bytes[at] = [0, 1, 2, 0x7F, 0x80, 0xFF, next(256) as u8][next(7)];
            }
            if address == ROOT {
                *bytes = seal(core::mem::take(bytes), 8);
                continue;
            }
            if next(3) == 0 {
                let length = HEADER_BYTES + next(bytes.len() - HEADER_BYTES + 1);
                bytes.truncate(length);
            }
            let length = bytes.len() as u32;
            bytes[4..8].copy_from_slice(&length.to_le_bytes());
            *bytes = seal(core::mem::take(bytes), 9);
        }
        if let Ok(tables) = Tables::read(&bad, ROOT) {
            for ecam in tables.ecam {
                assert!(ecam.first_bus <= ecam.last_bus && ecam.base < 1 << 52);
            }
        }
    }
}

#[test]
fn madt_entries_of_wrong_length_end_the_walk() {
    let body = |entries: &[u8]| {
        let mut body = vec![0; 8];
        body.extend(entries);
        make(b"APIC", &body)
    };
    let cpus = |entries: &[u8]| Madt::parse(&body(entries)).unwrap().cpus.len();
    assert_eq!(cpus(&[0, 8, 0, 3, 1, 0, 0, 0]), 1);
    assert_eq!(cpus(&[0, 0, 0, 3, 1, 0, 0, 0]), 0);
    assert_eq!(cpus(&[0, 1, 0, 3, 1, 0, 0, 0]), 0);
    assert_eq!(cpus(&[0, 9, 0, 3, 1, 0, 0, 0]), 0);
    assert_eq!(cpus(&[0, 4, 0, 3, 0, 8, 0, 4, 1, 0, 0, 0]), 1);
}

#[test]
fn sleep_values_in_the_ways_that_compilers_write_them() {
    assert_eq!(aml::sleep_values(b"\x08_S5_\x12\x07\x04\x0A\x05\x0A\x06\x00\x00"), Some((5, 6)));
    assert_eq!(aml::sleep_values(b"\x08\\_S5_\x12\x06\x04\x00\x00\x00\x00"), Some((0, 0)));
    assert_eq!(aml::sleep_values(b"\x08_S5_\x12\x46\x00\x04\x0A\x05\x0A\x05"), Some((5, 5)));
    assert_eq!(aml::sleep_values(b"\x09_S5_\x12\x06\x04\x00\x00"), None);
    assert_eq!(aml::sleep_values(b"_S5_\x12\x06\x04\x00\x00"), None);
    assert_eq!(aml::sleep_values(b"\x08_S5_\x12\x06\x04"), None);
    assert_eq!(aml::sleep_values(b"\x08_S5_\x12"), None);
    assert_eq!(aml::sleep_values(b"\x08_S5_"), None);
    assert_eq!(aml::sleep_values(b"_S5"), None);
}

#[test]
fn virtio_devices_cut_short_are_left_out() {
    let whole = device(0x1000, 5);
    assert_eq!(aml::virtio_mmio(&whole).count(), 1);
    for length in 0..whole.len() - 2 {
        assert_eq!(aml::virtio_mmio(&whole[..length]).count(), 0, "{length}");
    }
}
