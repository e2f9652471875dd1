//! The few things that are needed of ACPI machine language, found by their encoding.
//!
//! Source: ACPI 6.5, chapters 6.4 (resource descriptors) and 20.2 (encoding). This is no interpreter: it knows how
//! compilers and hypervisors write these objects, and answers "absent" for any other way.

use crate::firmware::bytes::{u8_at, u16_at, u32_at};
use crate::firmware::command_line::VirtioMmio;

/// Finds `Name (_S5_, Package () { a, b, ... })` and returns SLP_TYPa and SLP_TYPb.
pub fn sleep_values(code: &[u8]) -> Option<(u8, u8)> {
    const NAME_OP: u8 = 0x08;
    const PACKAGE_OP: u8 = 0x12;
    positions(code, b"_S5_").find_map(|at| {
        let before = code.get(..at)?;
        let before = before.strip_suffix(b"\\").unwrap_or(before);
        let package = code.get(at + 4..)?;
        if before.last() != Some(&NAME_OP) || package.first() != Some(&PACKAGE_OP) {
            return None;
        }
        // The package's length is one to four bytes, as the first one's top bits say; then the element count.
        let elements = 3 + usize::from(u8_at(package, 1)? >> 6);
        let (first, bytes) = small_integer(package.get(elements..)?)?;
        let second = package.get(elements + bytes..).and_then(small_integer);
        Some((first & 7, second.map_or(0, |second| second.0 & 7)))
    })
}

/// An integer constant of at most a byte, and how many bytes it takes.
fn small_integer(code: &[u8]) -> Option<(u8, usize)> {
    match *code.first()? {
        value @ (0x00 | 0x01) => Some((value, 1)),
        0x0A => Some((u8_at(code, 1)?, 2)),
        _ => None,
    }
}

/// Finds devices with the hardware id "LNRO0005": virtio on the memory bus, as QEMU microvm and Firecracker name
/// them. The resources are looked for up to the next such id, and no further than a device's definition is long.
pub fn virtio_mmio(code: &[u8]) -> impl Iterator<Item = VirtioMmio> + '_ {
    const ID: &[u8] = b"LNRO0005\0";
    const DEFINITION_BYTES: usize = 160;
    positions(code, ID).filter_map(|at| {
        let rest = code.get(at + ID.len()..)?;
        let rest = &rest[..rest.len().min(DEFINITION_BYTES)];
        let rest = &rest[..positions(rest, ID).next().unwrap_or(rest.len())];
        resources(rest)
    })
}

/// A 32-bit fixed memory range followed by an extended interrupt descriptor.
fn resources(code: &[u8]) -> Option<VirtioMmio> {
    let memory = positions(code, &[0x86, 0x09, 0x00]).next()?;
    let (base, bytes) = (u32_at(code, memory + 4)?, u32_at(code, memory + 8)?);
    let rest = code.get(memory + 12..)?;
    // Tag, length (at least 6), flags, count (at least 1), numbers.
    let sound = u8_at(rest, 0)? == 0x89 && u16_at(rest, 1)? >= 6 && u8_at(rest, 4)? >= 1;
    let device = VirtioMmio { base: u64::from(base), bytes: u64::from(bytes), interrupt: u32_at(rest, 5)? };
    (sound && bytes != 0).then_some(device)
}

/// The offsets at which `pattern`, which is not empty, occurs.
fn positions<'c>(code: &'c [u8], pattern: &'c [u8]) -> impl Iterator<Item = usize> + 'c {
    code.windows(pattern.len()).zip(0..).filter(move |(window, _)| *window == pattern).map(|(_, at)| at)
}
