//! Power-off and exit values.
//!
//! Contexts: all.

use super::{console, port, registers};

/// QEMU's `isa-debug-exit`; on other machines nothing listens there.
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
}

impl Exit {
    fn value(self) -> u32 {
        match self {
            Exit::Success => 0x10,
            Exit::Failure => 0x11,
            Exit::Panic => 0x12,
        }
    }
}

/// Sends what the console still holds and powers the machine off.
pub fn off(exit: Exit) -> ! {
    registers::interrupts_disable();
    console::flush();
    port::write32(DEBUG_EXIT, exit.value());
    registers::halt_forever()
}
