//! The guest's memory as the host reaches it: RAM, and the pages beside it.

use undercroft_hal::hosted::BadAccess;

use crate::Bus;

/// Reads.
pub(super) fn read(bus: &Bus<'_>, addr: u64, into: &mut [u8]) -> Result<(), BadAccess> {
    bus.frames().read(addr, into).or_else(|_| bus.read(addr, into))
}

/// Writes.
pub(super) fn write(bus: &Bus<'_>, addr: u64, bytes: &[u8]) -> Result<(), BadAccess> {
    bus.frames().write(addr, bytes).or_else(|_| bus.write(addr, bytes))
}

/// Reads a word.
pub(super) fn load(bus: &Bus<'_>, addr: u64) -> Result<u32, BadAccess> {
    let mut word = [0; 4];
    read(bus, addr, &mut word)?;
    Ok(u32::from_le_bytes(word))
}

/// Writes a word.
pub(super) fn store(bus: &Bus<'_>, addr: u64, word: u32) -> Result<(), BadAccess> {
    write(bus, addr, &word.to_le_bytes())
}

/// Sets a bit. Returns whether it was set.
pub(super) fn set_bit(bus: &Bus<'_>, addr: u64, bit: u32) -> Result<bool, BadAccess> {
    let addr = addr + u64::from(bit / 32 * 4);
    let (old, mask) = (load(bus, addr)?, 1 << (bit % 32));
    store(bus, addr, old | mask)?;
    Ok(old & mask != 0)
}

/// Clears a bit.
pub(super) fn clear_bit(bus: &Bus<'_>, addr: u64, bit: u32) -> Result<(), BadAccess> {
    let addr = addr + u64::from(bit / 32 * 4);
    store(bus, addr, load(bus, addr)? & !(1 << (bit % 32)))
}

/// Whether a bit is set.
pub(super) fn bit(bus: &Bus<'_>, addr: u64, bit: u32) -> Result<bool, BadAccess> {
    Ok(load(bus, addr + u64::from(bit / 32 * 4))? & 1 << (bit % 32) != 0)
}

/// A little-endian number in what the guest wrote; zeros behind its end.
fn le(bytes: &[u8], at: usize, len: usize) -> u64 {
    (0..len).rev().fold(0, |value, byte| value << 8 | u64::from(bytes.get(at + byte).copied().unwrap_or(0)))
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    le(bytes, at, 2) as u16
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    le(bytes, at, 4) as u32
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    le(bytes, at, 8)
}

/// Puts a number into what goes to the guest, as far as there is room.
pub(super) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes.iter_mut().skip(at).zip(value).for_each(|(to, from)| *to = *from);
}
