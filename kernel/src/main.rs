//! The bootable image: finds every disk, verifies and measures it.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use undercroft_hal::x86_64::{console, power};

undercroft_hal::x86_64_main!(main);

fn main() -> ! {
    console::print(format_args!("hello\n"));
    power::off(power::Exit::Success)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    console::print(format_args!("{info}\n"));
    power::off(power::Exit::Panic)
}
