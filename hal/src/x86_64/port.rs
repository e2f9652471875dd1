//! Port I/O. Private to the platform: drivers reach ports through the platform's checked accessors.
//!
//! Contexts: all.

use core::arch::asm;

/// Reads a byte from a port.
pub(super) fn read8(port: u16) -> u8 {
    let value;
    // SAFETY: `in` touches no memory of ours. What a device does upon it is the caller's business; the platform
    // names only ports of the PC's own devices.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Reads 16 bits from a port.
pub(super) fn read16(port: u16) -> u16 {
    let value;
    // SAFETY: as in `read8`.
    unsafe { asm!("in ax, dx", in("dx") port, out("ax") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Reads 32 bits from a port.
pub(super) fn read32(port: u16) -> u32 {
    let value;
    // SAFETY: as in `read8`.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes a byte to a port. Memory written before is visible to the device.
pub(super) fn write8(port: u16, value: u8) {
    // SAFETY: as in `read8`. Without `nomem` the compiler keeps earlier stores before it.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags)) };
}

/// Writes 16 bits to a port. Memory written before is visible to the device.
pub(super) fn write16(port: u16, value: u16) {
    // SAFETY: as in `write8`.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nostack, preserves_flags)) };
}

/// Writes 32 bits to a port. Memory written before is visible to the device.
pub(super) fn write32(port: u16, value: u32) {
    // SAFETY: as in `write8`.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags)) };
}
