//! From the first Rust instruction to the program's main.

use super::{console, percpu};

unsafe extern "Rust" {
    safe fn undercroft_main() -> !;
}

/// Continues from the entry code, on the boot stack, with the temporary page tables.
pub(super) extern "C" fn start(_start_info: u64) -> ! {
    percpu::adopt(0);
    console::init();
    undercroft_main()
}
