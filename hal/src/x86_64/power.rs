//! Power-off, reset, and the value that tells how it went.
//!
//! Source: ACPI 6.5, 4.8.3.2 (PM1 control), 4.8.3.7 (sleep control), 4.8.3.6 (reset); QEMU `hw/misc/debugexit.c`.
//!
//! Contexts: all.

use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use super::{console, paging, port, registers, xen};
use crate::firmware::acpi::{Register, Space, Tables};

/// QEMU's `isa-debug-exit`. On other machines nothing listens there.
const DEBUG_EXIT: u16 = 0xF4;

/// How the image ended, as told to whoever started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All held.
    Success,
    /// Something did not.
    Failure,
    /// A panic, an exception or the watchdog.
    Panic,
    /// All held, and the machine is to start again.
    Restart,
}

impl Exit {
    fn value(self) -> u32 {
        match self {
            Self::Success | Self::Restart => 0x10,
            Self::Failure => 0x11,
            Self::Panic => 0x12,
        }
    }
}

/// A register that can be written from any context: a port, or an address where it is seen. Zero: none.
struct Place {
    address: AtomicU64,
    is_port: AtomicU8,
    value: AtomicU32,
}

impl Place {
    const fn none() -> Self {
        Self { address: AtomicU64::new(0), is_port: AtomicU8::new(0), value: AtomicU32::new(0) }
    }

    fn set(&self, register: Option<Register>, value: u32) {
        let Some(register) = register else { return };
        let address = match register.space {
            Space::Port => Some(register.address),
            Space::Memory => paging::map_device(register.address, 4),
        };
        if let Some(address) = address {
            self.is_port.store(u8::from(register.space == Space::Port), Ordering::Relaxed);
            self.value.store(value, Ordering::Relaxed);
            self.address.store(address, Ordering::Relaxed);
        }
    }

    /// Writes `value` in `bytes` bytes; with one more bit set by `or`.
    fn write(&self, wide: bool) {
        let address = self.address.load(Ordering::Relaxed);
        let value = self.value.load(Ordering::Relaxed);
        if address == 0 {
            return;
        }
        if self.is_port.load(Ordering::Relaxed) != 0 {
            let port = address as u16;
            if wide {
                port::write16(port, value as u16)
            } else {
                port::write8(port, value as u8)
            }
            return;
        }
        let register: *mut u8 = core::ptr::with_exposed_provenance_mut(address as usize);
        // SAFETY: `set` mapped the register, which the firmware's tables name for this use.
        unsafe {
            if wide && address.is_multiple_of(2) {
                register.cast::<u16>().write_volatile(value as u16);
            } else {
                register.write_volatile(value as u8);
            }
        }
    }
}

static PM1A: Place = Place::none();
static PM1B: Place = Place::none();
static SLEEP: Place = Place::none();
static RESET: Place = Place::none();

/// Notes where the tables say that power-off and reset are, and maps what lies in memory.
pub(super) fn init(tables: &Tables) {
    const SLEEP_ENABLE: u32 = 1 << 13;
    const SLEEP_CONTROL_ENABLE: u32 = 1 << 5;
    let Some(fadt) = tables.fadt else { return };
    if let Some((a, b)) = tables.s5 {
        if fadt.hardware_reduced {
            SLEEP.set(fadt.sleep_control, u32::from(a) << 2 | SLEEP_CONTROL_ENABLE);
        } else {
            PM1A.set(fadt.pm1a_control, u32::from(a) << 10 | SLEEP_ENABLE);
            PM1B.set(fadt.pm1b_control, u32::from(b) << 10 | SLEEP_ENABLE);
        }
    }
    if let Some((register, value)) = fadt.reset {
        RESET.set(Some(register), u32::from(value));
    }
}

/// Sends what the console still holds, tells the exit value where there is a port for it, and powers the machine off; a
/// machine that cannot be powered off, or is to start again, is reset, and one that cannot even be reset stays halted.
pub fn off(exit: Exit) -> ! {
    registers::interrupts_disable();
    console::flush();
    xen::shut_down(exit);
    if exit != Exit::Restart {
        port::write32(DEBUG_EXIT, exit.value());
        PM1A.write(true);
        PM1B.write(true);
        SLEEP.write(false);
        pause();
    }
    RESET.write(false);
    pause();
    // The keyboard controller's reset line.
    port::write8(0x64, 0xFE);
    pause();
    registers::triple_fault()
}

/// A while, for the machine to go off.
fn pause() {
    const READINGS: u32 = 10_000;
    for _ in 0..READINGS {
        port::read8(0x80);
    }
}
