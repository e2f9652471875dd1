//! What the firmware says: ACPI tables, the start of a PVH guest.

use std::hint::black_box;

use undercroft_hal::firmware::acpi::{self as parser, Fadt, Madt, Memory, Tables, aml};
use undercroft_hal::firmware::memory_map::MemoryMap;
use undercroft_hal::firmware::pvh;

/// Where the input lies in physical memory: where firmware has its root pointer.
const BASE: u64 = 0xF_0000;

/// Physical memory that is the input.
struct Image<'a>(&'a [u8]);

impl Memory for Image<'_> {
    fn read(&self, address: u64, bytes: usize) -> Option<&[u8]> {
        let offset = usize::try_from(address.checked_sub(BASE)?).ok()?;
        self.0.get(offset..offset.checked_add(bytes)?)
    }
}

/// The same with the sums of all tables put right, which no fuzzer would find.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut image = bytes.to_vec();
    let fix = |image: &mut [u8], start: usize, len: usize, at: usize| {
        if let Some(part) = image.get_mut(start..start.saturating_add(len))
            && at < part.len()
        {
            part[at] = 0;
            part[at] = part.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
        }
    };
    for start in (0..image.len()).step_by(4) {
        if image[start..].starts_with(b"RSD PTR ") {
            fix(&mut image, start, 20, 8);
            fix(&mut image, start, 36, 32);
        } else if let Some(len) = image.get(start + 4..start + 8)
            && image[start..start + 4].iter().all(u8::is_ascii_uppercase)
        {
            let len = u32::from_le_bytes(len.try_into().unwrap_or_default()) as usize;
            fix(&mut image, start, len, 9);
        }
    }
    image
}

/// Reads tables, as they are and with their sums put right, and each table's parser alone.
///
/// # Panics
/// If the memory map overlaps itself.
pub fn acpi(bytes: &[u8]) {
    for image in [bytes.to_vec(), sealed(bytes)] {
        let memory = Image(&image);
        let root = parser::find_root_pointer(&memory);
        for root in [root, Some(BASE)].into_iter().flatten() {
            if let Ok(tables) = Tables::read(&memory, root) {
                _ = black_box(format!("{tables:?}"));
            }
        }
    }
    _ = black_box((Madt::parse(bytes), Fadt::parse(bytes), aml::sleep_values(bytes)));
    assert!(aml::virtio_mmio(bytes).count() <= bytes.len(), "more devices than bytes");
    _ = black_box(pvh::start_info(bytes));
    _ = black_box(pvh::modules(bytes).count());
    let map = MemoryMap::from_entries(pvh::memmap(bytes));
    let mut end = 0;
    for range in map.iter() {
        assert!(range.start >= end && !range.is_empty(), "ranges overlap, or hold nothing");
        end = range.end;
    }
}
