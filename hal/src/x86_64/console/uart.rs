//! The 16550 at port 0x3F8.
//!
//! Source: National Semiconductor PC16550D data sheet. Contexts: all; one caller at a time.

use crate::x86_64::port;

const BASE: u16 = 0x3F8;
/// Transmit holding register; the divisor's low byte while DLAB is set.
const DATA: u16 = BASE;
/// Receive buffer register, where reads go.
const RECEIVED: u16 = BASE;
const INTERRUPT_ENABLE: u16 = BASE + 1;
/// Interrupt identification, where reads go.
const INTERRUPT_CAUSE: u16 = BASE + 2;
const FIFO_CONTROL: u16 = BASE + 2;
const LINE_CONTROL: u16 = BASE + 3;
const MODEM_CONTROL: u16 = BASE + 4;
const LINE_STATUS: u16 = BASE + 5;
const SCRATCH: u16 = BASE + 7;

const TRANSMITTER_EMPTY: u8 = 1 << 5;
const DATA_READY: u8 = 1;
const INTERRUPT_ON_DATA: u8 = 1;
const NO_CAUSE: u8 = 1;
const INTERRUPT_ON_EMPTY: u8 = 1 << 1;

/// Bytes that an empty transmitter takes at once.
pub(super) const FIFO_BYTES: usize = 16;

/// Sets the port up: 115200 baud, 8N1, FIFOs on, interrupts off. Returns whether there is one.
pub(super) fn init() -> bool {
    port::write8(SCRATCH, 0x5A);
    if port::read8(SCRATCH) != 0x5A {
        return false;
    }
    port::write8(INTERRUPT_ENABLE, 0);
    port::write8(LINE_CONTROL, 0x80);
    port::write8(DATA, 1);
    port::write8(INTERRUPT_ENABLE, 0);
    port::write8(LINE_CONTROL, 0x03);
    port::write8(FIFO_CONTROL, 0x07);
    // DTR, RTS, and OUT2, which lets the interrupt out of the chip on a PC.
    port::write8(MODEM_CONTROL, 0x0B);
    true
}

/// Sends up to [`FIFO_BYTES`] bytes if the transmitter is empty. Returns whether it was.
pub(super) fn send(bytes: &mut dyn Iterator<Item = u8>) -> bool {
    if port::read8(LINE_STATUS) & TRANSMITTER_EMPTY == 0 {
        return false;
    }
    bytes.take(FIFO_BYTES).for_each(|byte| port::write8(DATA, byte));
    true
}

/// Takes a byte that came.
pub(super) fn take() -> Option<u8> {
    (port::read8(LINE_STATUS) & DATA_READY != 0).then(|| port::read8(RECEIVED))
}

/// Turns on the interrupts of a transmitter that is empty, and of bytes that came.
pub(super) fn enable_interrupts(on_empty: bool, on_data: bool) {
    let sends = if on_empty { INTERRUPT_ON_EMPTY } else { 0 };
    let receives = if on_data { INTERRUPT_ON_DATA } else { 0 };
    port::write8(INTERRUPT_ENABLE, sends | receives);
}

/// Whether an interrupt has a cause left.
pub(super) fn has_cause() -> bool {
    port::read8(INTERRUPT_CAUSE) & NO_CAUSE == 0
}
