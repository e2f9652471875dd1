//! What the machine tells at start: memory map, command line, ACPI tables. Parsers over byte slices.
//!
//! Nothing here is trusted: firmware has bugs and a hypervisor may lie. Every parser is bounds-checked, ends
//! after a bounded number of steps, never panics, and works on any host, where its tests run.
//!
//! Contexts: all (nothing here allocates).

pub mod acpi;
pub mod bytes;
pub mod command_line;
pub mod memory_map;
pub mod pvh;
