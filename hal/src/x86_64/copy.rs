//! Copies of memory: what the compiler calls for them.
//!
//! Processors copy by string instructions as fast as they can. QEMU's interpreter takes each word of one as an instruction of its own, with all that
//! this costs: there a plain loop is twice as fast. Which it is, is asked once ([`init`]); until then, and wherever it is not that interpreter, copies
//! are string instructions, as those of the compiler's own library.
//!
//! UNSAFETY: the compiler's contract for `memcpy`, in assembly, since a loop in Rust may be made a call of itself.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};

use super::registers;

/// Whether string instructions are interpreted word by word.
static INTERPRETED: AtomicBool = AtomicBool::new(false);

/// What QEMU's interpreter calls itself, at CPUID 0x4000_0000 (`target/i386/cpu.c`).
const TCG: [u32; 3] = [u32::from_le_bytes(*b"TCGT"), u32::from_le_bytes(*b"CGTC"), u32::from_le_bytes(*b"GTCG")];

/// Asks what the machine is.
pub(super) fn init() {
    let found = registers::cpuid(0x4000_0000, 0);
    let interpreted = registers::is_virtual() && [found.ebx, found.ecx, found.edx] == TCG;
    INTERPRETED.store(interpreted, Ordering::Relaxed);
}

/// Copies `len` bytes from `from` to `to`: what the compiler calls.
///
/// # Safety
/// `from` is valid for reads of `len` bytes and `to` for writes, and they do not overlap.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    let lines = if INTERPRETED.load(Ordering::Relaxed) { len / 64 } else { 0 };
    // SAFETY: 1. `lines` times 64 bytes, then the words and bytes that are left: `len` bytes of both, by the caller's contract; 2. the direction flag is
    // clear at the entry of every function, and no instruction here sets it; 3. the stack is not touched.
    unsafe {
        asm!(
            "test {lines}, {lines}",
            "jz 3f",
            "2:",
            "mov {a}, [rsi]",
            "mov {b}, [rsi + 8]",
            "mov {c}, [rsi + 16]",
            "mov {d}, [rsi + 24]",
            "mov [rdi], {a}",
            "mov [rdi + 8], {b}",
            "mov [rdi + 16], {c}",
            "mov [rdi + 24], {d}",
            "mov {a}, [rsi + 32]",
            "mov {b}, [rsi + 40]",
            "mov {c}, [rsi + 48]",
            "mov {d}, [rsi + 56]",
            "mov [rdi + 32], {a}",
            "mov [rdi + 40], {b}",
            "mov [rdi + 48], {c}",
            "mov [rdi + 56], {d}",
            "add rsi, 64",
            "add rdi, 64",
            "dec {lines}",
            "jnz 2b",
            "3:",
            "rep movsq",
            "mov ecx, {bytes:e}",
            "rep movsb",
            lines = inout(reg) lines => _,
            bytes = in(reg) len % 8,
            a = out(reg) _,
            b = out(reg) _,
            c = out(reg) _,
            d = out(reg) _,
            inout("rcx") (len - lines * 64) / 8 => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack),
        );
    }
    to
}
