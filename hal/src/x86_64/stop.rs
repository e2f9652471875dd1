//! The last screen: what a panic, an exception or the watchdog leaves behind.
//!
//! Contexts: all. Nothing here allocates, waits or takes a lock but the console's, which it breaks.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, Ordering};

use super::power::{self, Exit};
use super::{apic, clock, console, percpu, registers, stacks};

/// Frames that a backtrace shows.
const FRAMES: usize = 40;
/// Frames that it walks over: an endless recursion is told by its count.
const MOST_STEPS: usize = 100_000;

/// Zero, or the number plus one of the processor that is writing the last screen.
static STOPPER: AtomicU32 = AtomicU32::new(0);

/// Begins the last screen. Another processor that comes here later halts; a fault on this one while it writes
/// ends at once.
pub(super) fn begin() {
    registers::interrupts_disable();
    let me = percpu::id() as u32 + 1;
    match STOPPER.compare_exchange(0, me, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            // The others must not write over the last screen, nor go on with what is broken.
            if percpu::count() > 1 {
                apic::send_nmi_to_others();
            }
            console::break_lock();
        }
        Err(stopper) if stopper == me => {
            console::break_lock();
            console::print(format_args!("\n*** and again while stopping\n"));
            power::off(Exit::Panic)
        }
        Err(_) => registers::halt_forever(),
    }
}

/// Whether another processor is writing the last screen: this one is to halt.
pub(super) fn is_another() -> bool {
    let stopper = STOPPER.load(Ordering::Acquire);
    stopper != 0 && stopper != percpu::id() as u32 + 1
}

/// Ends the last screen and the machine.
pub(super) fn end() -> ! {
    // A host that goes on writing would write into whatever runs here next.
    crate::hyperv::last_words();
    power::off(Exit::Panic)
}

/// Prints the return addresses from a frame pointer up, the given instruction first.
pub(super) fn backtrace(instruction: u64, mut frame: u64) {
    let now = clock::nanoseconds();
    console::print(format_args!(
        "    processor {}, {}.{:06} ms after entry\nbacktrace:\n  #0 {instruction:#x}\n",
        percpu::id(),
        now / 1_000_000,
        now % 1_000_000
    ));
    let (mut shown, mut last, mut repeated) = (1, instruction, 0_u32);
    for _ in 0..MOST_STEPS {
        if shown == FRAMES || !stacks::is_readable(frame) {
            break;
        }
        // SAFETY: `is_readable` checked that both words lie on a mapped stack or in the image's data.
        let [next, address] =
            unsafe { core::ptr::read_volatile(core::ptr::with_exposed_provenance::<[u64; 2]>(frame as usize)) };
        if address == 0 {
            break;
        }
        if address == last {
            repeated += 1;
        } else {
            say_repeated(repeated);
            console::print(format_args!("  #{shown} {address:#x}\n"));
            (shown, last, repeated) = (shown + 1, address, 0);
        }
        if next == 0 || next == frame {
            break;
        }
        frame = next;
    }
    say_repeated(repeated);
}

fn say_repeated(times: u32) {
    if times > 0 {
        console::print(format_args!("     {times} times more\n"));
    }
}

/// Returns this function's caller and its frame pointer.
#[inline(always)]
fn here() -> (u64, u64) {
    let (instruction, frame);
    // SAFETY: reads two registers.
    unsafe {
        core::arch::asm!("lea {}, [rip]", "mov {}, rbp", out(reg) instruction, out(reg) frame,
                         options(nomem, nostack, preserves_flags))
    };
    (instruction, frame)
}

/// Prints the backtrace of the caller.
#[inline(always)]
pub(super) fn backtrace_here() {
    let (instruction, frame) = here();
    backtrace(instruction, frame);
}

/// Shows a panic and ends the machine with the panic value. The program's `#[panic_handler]` calls it.
pub fn panic(info: &PanicInfo<'_>) -> ! {
    begin();
    console::print(format_args!("\n*** undercroft stopped: panic\n    {}\n", info.message()));
    if let Some(location) = info.location() {
        console::print(format_args!("    at {location}\n"));
    }
    backtrace_here();
    end()
}

/// Shows one message and ends the machine with the panic value: for what is wrong with the machine and not with
/// the program, such as too little memory.
pub fn fatal(message: core::fmt::Arguments<'_>) -> ! {
    begin();
    console::print(format_args!("\n*** undercroft stopped: {message}\n"));
    end()
}
