//! The console: a serial port, or Xen's, behind a ring, from any context.
//!
//! A message is formatted into the ring under one lock with
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

mod uart;

use core::cell::UnsafeCell;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::percpu;
use super::registers::SavedInterrupts;
use super::xen;
use crate::context::Task;
use crate::irq::{self, Handled, Interrupt, IrqError};
use crate::work::Turn;
use crate::xen::{Domain, EventChannel};

const RING_BYTES: usize = 16 * 1024;
const RECEIVED_BYTES: usize = 1024;
/// Looks at the causes in one interrupt: what comes faster is taken by the next.
const CAUSES: u32 = 64;
/// Tries before the transmitter counts as dead: far above the 1.4 ms that a serial port takes for 16 bytes.
const POLLS: u32 = 1_000_000;

/// What takes the bytes.
enum Line {
    None,
    Serial,
    /// Xen's own log, until its ring is connected.
    XenLog,
    Xen(xen::Ring),
}

struct Transmitter {
    ring: [u8; RING_BYTES],
    /// Next byte to send and next free place; both run freely, the ring takes them modulo its size.
    head: usize,
    tail: usize,
    line: Line,
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

    /// Sends as much as the line takes now. Returns whether it took anything.
    fn send_some(&mut self) -> bool {
        let Self { line, ring, head, tail, .. } = self;
        let mut bytes = core::iter::from_fn(|| {
            let byte = (*head != *tail).then(|| ring[*head % RING_BYTES])?;
            *head = head.wrapping_add(1);
            Some(byte)
        });
        match line {
            Line::None => false,
            Line::Serial => uart::send(&mut bytes),
            Line::XenLog => {
                bytes.for_each(xen::early_write);
                true
            }
            Line::Xen(ring) => ring.send(&mut bytes),
        }
    }

    /// Makes room by polling. A transmitter that never becomes empty is given up, so that nothing hangs on it.
    fn wait_and_send(&mut self) {
        let mut polls = 0;
        while self.is_present() && !self.send_some() {
            polls += 1;
            if polls == POLLS {
                self.line = Line::None;
            }
            match self.line {
                Line::Xen(_) => xen::give_way(),
                _ => core::hint::spin_loop(),
            }
        }
        if !self.is_present() {
            self.head = self.tail;
        }
    }

    fn is_present(&self) -> bool {
        !matches!(self.line, Line::None)
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
        if let Line::Serial = self.line {
            let receives = self.listening && !self.is_received_full();
            uart::enable_interrupts(self.interrupt_driven && !self.is_empty(), receives);
        }
    }

    /// Takes in what has come, as far as there is room. Returns whether anything had.
    fn receive(&mut self) -> bool {
        let before = self.received_tail;
        while self.listening
            && !self.is_received_full()
            && let Some(byte) = self.take_one()
        {
            self.received[self.received_tail % RECEIVED_BYTES] = byte;
            self.received_tail = self.received_tail.wrapping_add(1);
        }
        before != self.received_tail
    }

    fn take_one(&self) -> Option<u8> {
        match &self.line {
            Line::None | Line::XenLog => None,
            Line::Serial => uart::take(),
            Line::Xen(ring) => ring.take(),
        }
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
        line: Line::None,
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

/// Finds a line: a serial port, or else Xen's log until [`connect`]. Without any the console stays silent.
pub(super) fn init() {
    let line = if uart::init() {
        Line::Serial
    } else if xen::is_here() {
        Line::XenLog
    } else {
        Line::None
    };
    with(|transmitter| {
        transmitter.line = line;
        // Firmware may have left its last line open.
        let _ = transmitter.write_str("\n");
        transmitter.drain();
    });
}

/// Goes over to the ring of Xen's console, where that is the console and there is one. The page tables are final.
pub(super) fn connect() {
    let Some(ring) = xen::console() else { return };
    with(|transmitter| {
        if let Line::XenLog = transmitter.line {
            transmitter.line = Line::Xen(ring);
        }
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
        transmitter.interrupt_driven = matches!(transmitter.line, Line::Serial) && !STOPPING.load(Ordering::Relaxed);
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
            if !uart::has_cause() {
                break;
            }
        }
        came
    })
}

/// Receives until it is dropped, in task context.
#[derive(Debug)]
pub struct Listening {
    source: Option<Source>,
}

/// What tells that something has come. Held for its drop.
#[derive(Debug)]
enum Source {
    Serial(#[expect(dead_code, reason = "dropped, it ends")] Interrupt),
    Xen(EventChannel),
}

/// CPU that is told of Xen's console.
const XEN_CPU: usize = 0;

/// Begins to receive: `came` runs after something has come, for [`read`] to take, in the interrupt that brought it or in a bottom half.
/// `xen` is needed where the console is Xen's.
///
/// # Errors
/// [`IrqError`] when the port's interrupt cannot be had; [`IrqError::Unsupported`] without a port.
pub fn listen(cx: &Task, xen: Option<&Domain>, came: impl Fn() + Send + Sync + 'static) -> Result<Listening, IrqError> {
    /// What takes the bytes, without what it is reached by.
    enum Kind {
        Serial,
        Xen(u32),
    }
    let kind = with(|transmitter| match &transmitter.line {
        Line::Serial => Some(Kind::Serial),
        Line::Xen(ring) => Some(Kind::Xen(ring.port)),
        Line::None | Line::XenLog => None,
    });
    let source = match (kind, xen) {
        (Some(Kind::Serial), _) => Source::Serial(irq::line(cx, super::ioapic::isa(4), move |_| {
            if interrupt() {
                came();
            }
            // Nobody shares it, and its cause may have been seen to before it came.
            Handled::Yes
        })?),
        (Some(Kind::Xen(port)), Some(domain)) => {
            let taken = move |_: &_, _: &_| {
                if with(Transmitter::receive) {
                    came();
                }
                Turn::Done
            };
            Source::Xen(EventChannel::adopt(cx, domain, port, XEN_CPU, taken).map_err(|_| IrqError::Unsupported)?)
        }
        _ => return Err(IrqError::Unsupported),
    };
    with(|transmitter| {
        transmitter.listening = true;
        transmitter.enable_interrupts();
    });
    if let Source::Xen(channel) = &source {
        // For what came before.
        channel.schedule();
    }
    Ok(Listening { source: Some(source) })
}

impl Drop for Listening {
    fn drop(&mut self) {
        with(|transmitter| {
            transmitter.listening = false;
            transmitter.enable_interrupts();
        });
        let is_serial = matches!(self.source, Some(Source::Serial(_)));
        drop(self.source.take());
        if is_serial {
            // The line is the transmitter's alone again.
            super::interrupts::connect_console();
        }
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
            // Nobody tells again of what was left in Xen's ring.
            if let Line::Xen(_) = transmitter.line {
                transmitter.receive();
            }
        }
        came
    })
}

/// Waits until everything written has been sent, and taken where that can be told.
pub fn flush() {
    with(|transmitter| {
        transmitter.drain();
        let mut polls = 0;
        while let Line::Xen(ring) = &transmitter.line
            && !ring.is_drained()
            && polls < POLLS
        {
            xen::give_way();
            polls += 1;
        }
    });
}

/// Prepares the last screen: breaks the lock if this processor holds it, and sends by polling from now on.
pub(super) fn break_lock() {
    STOPPING.store(true, Ordering::Relaxed);
    let me = percpu::id() as u32 + 1;
    let _ = CONSOLE.holder.compare_exchange(me, 0, Ordering::Relaxed, Ordering::Relaxed);
    with(|transmitter| {
        transmitter.interrupt_driven = false;
        transmitter.listening = false;
        transmitter.enable_interrupts();
        transmitter.drain();
    });
}
