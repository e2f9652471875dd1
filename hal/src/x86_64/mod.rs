//! The x86_64 platform: from the first instruction to a running machine.
//!
//! Entered through the PVH note ([`entry`]), on QEMU, Xen PVH, Firecracker and Cloud Hypervisor alike.

pub mod console;
mod entry;
mod exceptions;
mod layout;
mod percpu;
mod port;
pub mod power;
mod registers;
mod stacks;
mod start;
pub mod stop;
mod vectors;

/// Names the function that runs when the platform is up: `fn main() -> !`, in task context, interrupts on.
#[macro_export]
macro_rules! x86_64_main {
    ($main:path) => {
        #[unsafe(no_mangle)]
        fn undercroft_main() -> ! {
            let main: fn() -> ! = $main;
            main()
        }
    };
}
