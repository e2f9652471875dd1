//! The serial console: a 16550 at port 0x3F8 behind a ring, from any context.
//!
//! Source: National Semiconductor PC16550D data sheet. A message is formatted into the ring under one lock with
//! interrupts off, so that lines never interleave and none is lost: when the ring is full the writer sends by
//! polling until there is room. Once `enable_interrupt` was called, the transmitter's own interrupt empties
//! the ring and a writer does not wait for the line.
//!
//! What is received goes into a second ring, by interrupt, once [`listen`] was called. A full ring stops receiving until [`read`] makes room:
//! what the port's own FIFO then cannot hold waits at the sender, where that knows how to.
//!
//! The lock is this file's own and not `IrqSpinLock`: the checks of that lock report through the console.
//! A panic breaks the lock if its own processor holds it (`break_lock`).
//!
//! Contexts: all, also before memory and per-CPU data exist.

use core::cell::UnsafeCell;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::percpu;
use super::port;
use super::registers::SavedInterrupts;
use crate::context::{HardIrq, Task};
use crate::irq::{self, Handled, Interrupt, IrqError};

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
const FIFO_BYTES: usize = 16;
const RING_BYTES: usize = 16 * 1024;
const RECEIVED_BYTES: usize = 1024;
/// Looks at the causes in one interrupt: what comes faster is taken by the next.
const CAUSES: u32 = 64;
/// Polls of the line status before the transmitter counts as dead: far above the 1.4 ms that 16 bytes take.
const POLLS: u32 = 1_000_000;

struct Transmitter {
    ring: [u8; RING_BYTES],
    /// Next byte to send and next free place; both run freely, the ring takes them modulo its size.
    head: usize,
    tail: usize,
    present: bool,
    interrupt_driven: bool,
    /// What was received and not yet read, as `ring`.
    received: [u8; RECEIVED_BYTES],
    received_head: usize,
    received_tail: usize,
    listening: bool,
}

impl Transmitter {
    fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    fn push(&mut self, byte: u8) {
        if self.tail.wrapping_sub(self.head) == RING_BYTES {
            self.wait_and_send();
        }
        self.ring[self.tail % RING_BYTES] = byte;
        self.tail = self.tail.wrapping_add(1);
    }

    /// Sends as much as the FIFO takes if the transmitter is empty. Returns whether it was.
    fn send_some(&mut self) -> bool {
        if port::read8(LINE_STATUS) & TRANSMITTER_EMPTY == 0 {
            return false;
        }
        for _ in 0..FIFO_BYTES {
            if self.is_empty() {
                break;
            }
            port::write8(DATA, self.ring[self.head % RING_BYTES]);
            self.head = self.head.wrapping_add(1);
        }
        true
    }

    /// Makes room by polling. A transmitter that never becomes empty is given up, so that nothing hangs on it.
    fn wait_and_send(&mut self) {
        let mut polls = 0;
        while self.present && !self.send_some() {
            polls += 1;
            if polls == POLLS {
                self.present = false;
            }
            core::hint::spin_loop();
        }
        if !self.present {
            self.head = self.tail;
        }
    }

    fn drain(&mut self) {
        while !self.is_empty() {
            self.wait_and_send();
        }
    }

    fn is_received_full(&self) -> bool {
        self.received_tail.wrapping_sub(self.received_head) == RECEIVED_BYTES
    }

    /// Turns on the interrupts for what there is to do.
    fn enable_interrupts(&self) {
        let sends = if self.interrupt_driven && !self.is_empty() { INTERRUPT_ON_EMPTY } else { 0 };
        let receives = if self.listening && !self.is_received_full() { INTERRUPT_ON_DATA } else { 0 };
        port::write8(INTERRUPT_ENABLE, sends | receives);
    }

    /// Takes in what has come, as far as there is room. Returns whether anything had.
    fn receive(&mut self) -> bool {
        let before = self.received_tail;
        while self.listening && !self.is_received_full() && port::read8(LINE_STATUS) & DATA_READY != 0 {
            self.received[self.received_tail % RECEIVED_BYTES] = port::read8(RECEIVED);
            self.received_tail = self.received_tail.wrapping_add(1);
        }
        before != self.received_tail
    }

    /// After a message: starts the transmitter's interrupt, or sends everything now where there is none.
    fn kick(&mut self) {
        if !self.interrupt_driven {
            self.drain();
        } else if !self.is_empty() {
            self.enable_interrupts();
            // Not every 16550 raises the interrupt when it is enabled with the transmitter empty (Firecracker's does
            // not): what is sent now brings it.
            self.send_some();
        }
    }
}

impl Write for Transmitter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.push(b'\r');
            }
            self.push(byte);
        }
        Ok(())
    }
}

struct Console {
    /// Zero, or the holder's processor number plus one.
    holder: AtomicU32,
    transmitter: UnsafeCell<Transmitter>,
}

// SAFETY: `transmitter` is reached only through `with`, which holds `holder` exclusively and has interrupts off.
unsafe impl Sync for Console {}

static CONSOLE: Console = Console {
    holder: AtomicU32::new(0),
    transmitter: UnsafeCell::new(Transmitter {
        ring: [0; RING_BYTES],
        head: 0,
        tail: 0,
        present: false,
        interrupt_driven: false,
        received: [0; RECEIVED_BYTES],
        received_head: 0,
        received_tail: 0,
        listening: false,
    }),
};

/// Set once the machine is stopping: messages are sent at once and other processors no longer write.
static STOPPING: AtomicBool = AtomicBool::new(false);

fn with<R>(work: impl FnOnce(&mut Transmitter) -> R) -> R {
    let interrupts = SavedInterrupts::disable();
    let me = percpu::id() as u32 + 1;
    while CONSOLE.holder.compare_exchange_weak(0, me, Ordering::Acquire, Ordering::Relaxed).is_err() {
        core::hint::spin_loop();
    }
    // SAFETY: the exchange above made this processor the only holder, and with interrupts off nothing on this
    // processor comes between until the release below; a non-maskable handler that panics breaks the lock and
    // never returns here.
    let result = work(unsafe { &mut *CONSOLE.transmitter.get() });
    CONSOLE.holder.store(0, Ordering::Release);
    drop(interrupts);
    result
}

/// Sets the port up: 115200 baud, 8N1, FIFOs on, interrupts off. Without a 16550 the console stays silent.
pub(super) fn init() {
    port::write8(SCRATCH, 0x5A);
    let present = port::read8(SCRATCH) == 0x5A;
    if present {
        port::write8(INTERRUPT_ENABLE, 0);
        port::write8(LINE_CONTROL, 0x80);
        port::write8(DATA, 1);
        port::write8(INTERRUPT_ENABLE, 0);
        port::write8(LINE_CONTROL, 0x03);
        port::write8(FIFO_CONTROL, 0x07);
        // DTR, RTS, and OUT2, which lets the interrupt out of the chip on a PC.
        port::write8(MODEM_CONTROL, 0x0B);
    }
    with(|transmitter| {
        transmitter.present = present;
        // Firmware may have left its last line open.
        let _ = transmitter.write_str("\n");
        transmitter.drain();
    });
}

/// Writes formatted text; text of one call is never mixed with that of another.
pub fn print(text: fmt::Arguments<'_>) {
    with(|transmitter| {
        // Writing into the ring cannot fail; an error can only come from a caller's own `Display`, whose text
        // then ends early.
        let _ = transmitter.write_fmt(text);
        transmitter.kick();
    });
}

/// Writes bytes as they are.
pub fn write(bytes: &[u8]) {
    with(|transmitter| {
        for &byte in bytes {
            transmitter.push(byte);
        }
        transmitter.kick();
    });
}

/// Lets the transmitter's interrupt empty the ring from now on. Its line must be routed to [`interrupt`].
pub(super) fn enable_interrupt() {
    with(|transmitter| {
        transmitter.interrupt_driven = transmitter.present && !STOPPING.load(Ordering::Relaxed);
        transmitter.kick();
    });
}

/// Handles the port's interrupt: takes in what has come, refills the FIFO, and turns off what has nothing to do. Returns whether
/// something came.
pub(super) fn interrupt() -> bool {
    with(|transmitter| {
        let mut came = false;
        for _ in 0..CAUSES {
            came |= transmitter.receive();
            transmitter.send_some();
            transmitter.enable_interrupts();
            // The line is edge-triggered: it must have been low for the next cause to be noticed.
            if port::read8(INTERRUPT_CAUSE) & NO_CAUSE != 0 {
                break;
            }
        }
        came
    })
}

/// Receives from the port until it is dropped, in task context.
#[derive(Debug)]
pub struct Listening {
    interrupt: Option<Interrupt>,
}

/// Begins to receive: `came` runs in the interrupt that brought something, for [`read`] to take.
///
/// # Errors
/// [`IrqError`] when the port's interrupt cannot be had; [`IrqError::Unsupported`] without a port.
pub fn listen(cx: &Task, came: impl Fn(&HardIrq) + Send + 'static) -> Result<Listening, IrqError> {
    if !with(|transmitter| transmitter.present) {
        return Err(IrqError::Unsupported);
    }
    let interrupt = irq::line(cx, super::ioapic::isa(4), move |cx| {
        if interrupt() {
            came(cx);
        }
        // Nobody shares it, and its cause may have been seen to before it came.
        Handled::Yes
    })?;
    with(|transmitter| {
        transmitter.listening = true;
        transmitter.enable_interrupts();
    });
    Ok(Listening { interrupt: Some(interrupt) })
}

impl Drop for Listening {
    fn drop(&mut self) {
        with(|transmitter| {
            transmitter.listening = false;
            transmitter.enable_interrupts();
        });
        drop(self.interrupt.take());
        // The line is the transmitter's alone again.
        super::interrupts::connect_console();
    }
}

/// Takes what was received, as much as `into` holds. Returns how many bytes those are.
pub fn read(into: &mut [u8]) -> usize {
    with(|transmitter| {
        let came = transmitter.received_tail.wrapping_sub(transmitter.received_head).min(into.len());
        for byte in &mut into[..came] {
            *byte = transmitter.received[transmitter.received_head % RECEIVED_BYTES];
            transmitter.received_head = transmitter.received_head.wrapping_add(1);
        }
        if came > 0 && transmitter.listening {
            transmitter.enable_interrupts();
        }
        came
    })
}

/// Waits until everything written has been sent.
pub fn flush() {
    with(Transmitter::drain);
}

/// Prepares the last screen: breaks the lock if this processor holds it, and sends by polling from now on.
pub(super) fn break_lock() {
    STOPPING.store(true, Ordering::Relaxed);
    let me = percpu::id() as u32 + 1;
    let _ = CONSOLE.holder.compare_exchange(me, 0, Ordering::Relaxed, Ordering::Relaxed);
    with(|transmitter| {
        transmitter.interrupt_driven = false;
        transmitter.listening = false;
        port::write8(INTERRUPT_ENABLE, 0);
        transmitter.drain();
    });
}
