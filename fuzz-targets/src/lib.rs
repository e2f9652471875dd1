//! What fuzzing does with bytes: one function for each trust boundary or algorithm.
//!
//! `fuzz/` wraps each for libFuzzer; the inputs that are kept in `fuzz/corpus/<target>/` replay here as ordinary tests, and by the program
//! `replay`. A function panics when what it tries does not hold, and only then; it depends on its bytes alone. See `docs/fuzzing.md`.
#![forbid(unsafe_code)]

mod bytes;
mod callouts;
mod command_line;
mod firmware;
mod packed;
mod partitions;
mod scsi;
mod split;
mod vmbus;

#[cfg(test)]
mod replay;

pub use bytes::Bytes;
pub use callouts::callouts;
pub use command_line::command_line;
pub use firmware::acpi;
pub use packed::virtqueue_packed;
pub use partitions::partitions;
pub use scsi::scsi_parsers;
pub use split::virtqueue_split;
pub use vmbus::{vmbus_messages, vmbus_ring};

/// What the guest allocates in a hard interrupt or under a spinlock ends the program.
#[global_allocator]
static ALLOCATOR: undercroft_hal::hosted::TrapAlloc = undercroft_hal::hosted::TrapAlloc::strict();

/// A target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: of its file in `fuzz/fuzz_targets`, of its folder in `fuzz/corpus`, and of its test.
    pub name: &'static str,
    /// What its bytes are.
    pub what: &'static str,
    /// Runs them.
    pub run: fn(&[u8]),
}

const fn target(name: &'static str, what: &'static str, run: fn(&[u8])) -> Target {
    Target { name, what, run }
}

/// All of them.
pub const TARGETS: &[Target] = &[
    target("acpi", "ACPI tables, the firmware's memory map and modules", acpi),
    target("callouts", "a programme of starts, stops, drains and times for callouts of every level", callouts),
    target("command_line", "the words on the guest's command line", command_line),
    target("partitions", "the blocks of a disk, of which GPT or MBR are read", partitions),
    target(
        "scsi_parsers",
        "answers to INQUIRY, VPD pages, REPORT LUNS, READ CAPACITY, MODE SENSE, and sense data",
        scsi_parsers,
    ),
    target(
        "virtqueue_packed",
        "what a driver asks of a packed ring, and what the device writes into it",
        virtqueue_packed,
    ),
    target(
        "virtqueue_split",
        "what a driver asks of a split ring, and what the device writes into it",
        virtqueue_split,
    ),
    target(
        "vmbus_messages",
        "what goes wrong with a Hyper-V host's messages, posts and offers, and when",
        vmbus_messages,
    ),
    target(
        "vmbus_ring",
        "what goes wrong with the packets, fields and signals of a Hyper-V host's rings, and when",
        vmbus_ring,
    ),
    target("wheel", "a script for the callout wheel, with an ordered map beside it", wheel),
];

/// A script for the callout wheel, with an ordered map beside it.
///
/// # Panics
/// If the two disagree.
pub fn wheel(bytes: &[u8]) {
    undercroft_timer::wheel::fuzz(bytes);
}
