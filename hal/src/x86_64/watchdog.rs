//! The image's watchdog: a program that makes no progress ends with a readable last screen, never in silence.
//!
//! The program says that it makes progress by [`pet`]. The timer's interrupt looks several times per period; a second
//! look goes by the PIT through a non-maskable interrupt, so that a program that hangs with interrupts off is found
//! too.
//!
//! Contexts: [`pet`] and [`start`] everywhere.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::exceptions::{self, Frame};
use super::{apic, clock, console, interrupts, ioapic, percpu, port, stop, timer};

/// Nanoseconds without progress that are too many; zero while the watchdog is off.
static LIMIT: AtomicU64 = AtomicU64::new(0);
static LAST_PROGRESS: AtomicU64 = AtomicU64::new(0);
static NEXT_LOOK: AtomicU64 = AtomicU64::new(u64::MAX);
/// Looks by non-maskable interrupt, for the last screen.
static NMI_LOOKS: AtomicU32 = AtomicU32::new(0);

/// Starts the watchdog: from now on, `seconds` without a call of [`pet`] end the machine with the panic value.
pub fn start(seconds: u32) {
    pet();
    let limit = u64::from(seconds.max(1)) * 1_000_000_000;
    LIMIT.store(limit, Ordering::Relaxed);
    NEXT_LOOK.store(clock::nanoseconds() + limit / 4, Ordering::Relaxed);
    let interrupts = super::registers::SavedInterrupts::disable();
    timer::arm();
    drop(interrupts);
    start_nmi();
}

/// Says that the program makes progress.
#[inline]
pub fn pet() {
    LAST_PROGRESS.store(clock::nanoseconds(), Ordering::Relaxed);
}

/// Stops the watchdog, for a program that waits for people.
pub fn stop() {
    LIMIT.store(0, Ordering::Relaxed);
    NEXT_LOOK.store(u64::MAX, Ordering::Relaxed);
    for line in pit_lines() {
        let _ = ioapic::mask(line);
    }
}

/// Where the PIT's output may arrive. A machine whose tables do not say may have it on pin 0 or, as PCs do, on pin 2, where
/// nothing else can be.
fn pit_lines() -> [u32; 2] {
    match ioapic::isa(0).number {
        0 => [0, 2],
        told => [told; 2],
    }
}

/// When the timer should look next.
pub(super) fn next_look() -> u64 {
    // The boot processor looks for all.
    if percpu::id() == 0 { NEXT_LOOK.load(Ordering::Relaxed) } else { u64::MAX }
}

fn overdue() -> Option<u64> {
    let limit = LIMIT.load(Ordering::Relaxed);
    let idle = clock::nanoseconds().saturating_sub(LAST_PROGRESS.load(Ordering::Relaxed));
    (limit != 0 && idle > limit).then_some(idle)
}

/// The timer's look, with interrupts off.
pub(super) fn look() {
    let now = clock::nanoseconds();
    if now < next_look() {
        return;
    }
    NEXT_LOOK.store(now + LIMIT.load(Ordering::Relaxed) / 4, Ordering::Relaxed);
    if let Some(idle) = overdue() {
        stop::begin();
        report(idle, "interrupts are on");
        stop::backtrace_here();
        stop::end()
    }
}

/// A non-maskable interrupt came. Returns whether it was the watchdog's.
pub(super) fn nmi(frame: &Frame) -> bool {
    if LIMIT.load(Ordering::Relaxed) == 0 {
        // A straggler of a stopped watchdog, or the machine's own report of bad hardware.
        return NMI_LOOKS.load(Ordering::Relaxed) != 0;
    }
    NMI_LOOKS.fetch_add(1, Ordering::Relaxed);
    // The timer's look, four of which are in a period, comes first if it comes at all: this one waits half a period longer.
    let Some(idle) = overdue().filter(|idle| *idle > LIMIT.load(Ordering::Relaxed) / 2 * 3) else { return true };
    stop::begin();
    report(idle, "interrupts are off or are not delivered");
    exceptions::dump(frame);
    stop::backtrace(frame.rip, frame.rbp);
    stop::end()
}

fn report(idle: u64, how: &str) {
    console::print(format_args!(
        "\n*** undercroft stopped: no progress for {} ms (watchdog; {how})\n    \
         stray interrupts {}, looks by nmi {}\n",
        idle / 1_000_000,
        interrupts::stray(),
        NMI_LOOKS.load(Ordering::Relaxed),
    ));
}

/// Lets the PIT raise a non-maskable interrupt every 55 ms, the longest that it can count.
fn start_nmi() {
    // Channel 0, low byte then high byte, mode 2 (rate), from the top.
    port::write8(0x43, 0x34);
    port::write8(0x40, 0);
    port::write8(0x40, 0);
    for line in pit_lines() {
        // Without an I/O APIC pin for it the timer's look has to do.
        let _ = ioapic::route_nmi(line, apic::id());
    }
}
