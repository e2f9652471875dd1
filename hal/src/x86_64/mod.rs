//! The x86_64 platform: from the first instruction to a running machine.
//!
//! The image is entered through the PVH note (`entry`) on QEMU, Xen PVH, Firecracker and Cloud Hypervisor alike, with
//! one processor running, and starts the others (`processors`) before the program's main. A program names its main by [`x86_64_main!`](crate::x86_64_main), its heap as [`Heap`], and calls
//! [`stop::panic`] from its panic handler; everything else comes through `hal`.

mod apic;
pub mod backed;
mod clock;
pub mod console;
mod copy;
mod descriptors;
mod entry;
mod exceptions;
mod firmware;
mod heap;
pub mod hyperv;
mod interrupts;
mod ioapic;
mod layout;
pub mod machine;
mod memory;
mod paging;
mod pci;
mod percpu;
mod platform;
mod port;
pub mod power;
mod processors;
#[cfg(feature = "provoke")]
pub mod provoke;
mod registers;
mod shootdown;
mod stacks;
mod start;
pub mod stop;
mod timer;
mod trampoline;
mod vectors;
pub mod watchdog;
pub mod xen;

pub use heap::{Frames, Heap};
pub use platform::X86;

/// Names the function that runs, in task context, when the platform is up: `fn main(task: &Task) -> Exit`. What it returns
/// is how the machine is powered off.
#[macro_export]
macro_rules! x86_64_main {
    ($main:path) => {
        #[unsafe(no_mangle)]
        fn undercroft_main(task: &$crate::Task) -> $crate::x86_64::power::Exit {
            let main: fn(&$crate::Task) -> $crate::x86_64::power::Exit = $main;
            main(task)
        }
    };
}
