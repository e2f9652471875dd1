//! The bootable image: finds every disk, verifies and measures it.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use core::panic::PanicInfo;

use undercroft_hal::Task;
use undercroft_hal::x86_64::power::Exit;
use undercroft_hal::x86_64::{Heap, console, machine, stop};

undercroft_hal::x86_64_main!(main);

#[global_allocator]
static HEAP: Heap = Heap::new();

fn main(_task: &Task) -> Exit {
    let (all, free) = machine::memory();
    console::print(format_args!(
        "hello from {} ({}), {} processors, {} MiB, {} MiB free, clock {}, timer {}\n",
        machine::hypervisor(),
        machine::firmware(),
        machine::processors(),
        all >> 20,
        free >> 20,
        machine::clock(),
        machine::timer(),
    ));
    Exit::Success
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    stop::panic(info)
}
