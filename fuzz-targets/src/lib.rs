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
pub mod stack;
pub mod trace;
mod vmbus;
mod xen;

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
use stack::{Kind, Rules, cache, disks};
pub use vmbus::{vmbus_messages, vmbus_ring};
pub use xen::{blkif_ring, grant_evtchn, xenstore};

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
    target("blkif_ring", "what goes wrong with the responses and events of a Xen disk's rings, and when", blkif_ring),
    target(
        "block_script",
        "requests, faults, cancels, power cuts and pauses for a virtio-blk disk behind a queue",
        block_script,
    ),
    target("callouts", "a programme of starts, stops, drains and times for callouts of every level", callouts),
    target("command_line", "the words on the guest's command line", command_line),
    target("grant_evtchn", "a programme of grants and event channels, with few of both", grant_evtchn),
    target("ide_task_file", "the same for an IDE disk, whose drive and controller lie", ide_task_file),
    target(
        "page_cache",
        "reads, writes, syncs, pins, faults and power cuts for a page cache over virtio-blk",
        page_cache,
    ),
    target("partitions", "the blocks of a disk, of which GPT or MBR are read", partitions),
    target("pvscsi_rings", "requests for a PVSCSI disk, whose host lies in its rings", pvscsi_rings),
    target(
        "scsi_parsers",
        "answers to INQUIRY, VPD pages, REPORT LUNS, READ CAPACITY, MODE SENSE, and sense data",
        scsi_parsers,
    ),
    target("virtio_scsi", "requests for a virtio-scsi disk, whose host lies in its responses and rings", virtio_scsi),
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
    target("xenstore", "what goes wrong with xenstore's messages and a back end's states, and when", xenstore),
];

/// A script for virtio-blk on split rings, with faults, cuts, memory that runs out.
///
/// # Panics
/// If anything does not hold that [`stack`] looks at.
pub fn block_script(bytes: &[u8]) {
    disks(&[Kind::Blk], Rules::ROUGH, bytes);
}

/// A script for virtio-scsi whose host lies.
///
/// # Panics
/// As [`block_script`].
pub fn virtio_scsi(bytes: &[u8]) {
    disks(&[Kind::Scsi], Rules::HOSTILE, bytes);
}

/// A script for PVSCSI whose host lies.
///
/// # Panics
/// As [`block_script`].
pub fn pvscsi_rings(bytes: &[u8]) {
    disks(&[Kind::Pvscsi], Rules::HOSTILE, bytes);
}

/// A script for an IDE disk that lies.
///
/// # Panics
/// As [`block_script`].
pub fn ide_task_file(bytes: &[u8]) {
    disks(&[Kind::Ata], Rules::HOSTILE, bytes);
}

/// A script for a page cache over virtio-blk.
///
/// # Panics
/// As [`block_script`].
pub fn page_cache(bytes: &[u8]) {
    cache(Kind::Blk, Rules { pulls: false, pauses: false, ..Rules::ROUGH }, bytes);
}

/// A script for the callout wheel, with an ordered map beside it.
///
/// # Panics
/// If the two disagree.
pub fn wheel(bytes: &[u8]) {
    undercroft_timer::wheel::fuzz(bytes);
}
