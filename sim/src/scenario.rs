//! The scenarios: which programme, on which buses, and what may happen to it.

use undercroft_fuzz_targets::stack::{Kind, Rules, cache, disks};
use undercroft_fuzz_targets::{callouts, virtqueue_packed, virtqueue_split, wheel};

/// A scenario.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What happens in it.
    pub what: &'static str,
    /// How long its scripts are, in records: a quarter of this and up to five quarters.
    pub records: usize,
    /// Runs a script.
    pub run: fn(&[u8]),
}

const fn scenario(name: &'static str, what: &'static str, records: usize, run: fn(&[u8])) -> Scenario {
    Scenario { name, what, records, run }
}

const FAULTS: Rules = Rules { faults: true, ..Rules::QUIET };
const CUTS: Rules = Rules { cuts: true, ..Rules::QUIET };
const MEMORY: Rules = Rules { memory: true, ..Rules::QUIET };
const PAUSES: Rules = Rules { pauses: true, faults: true, ..Rules::QUIET };
const PULLS: Rules = Rules { pulls: true, ..Rules::QUIET };
const FILES: Rules = Rules { faults: true, cuts: true, memory: true, ..Rules::QUIET };
const MIXED: &[Kind] = &[Kind::Blk, Kind::BlkPacked, Kind::Mmio, Kind::Scsi, Kind::Pvscsi, Kind::Ata];

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    scenario("load", "two virtio-blk disks, nothing goes wrong: how fast the simulation is", 1200, |bytes| {
        disks(&[Kind::Blk, Kind::BlkPacked], Rules::QUIET, bytes);
    }),
    scenario("blk", "virtio-blk, split rings, everything", 300, |bytes| disks(&[Kind::Blk], Rules::ROUGH, bytes)),
    scenario("packed", "virtio-blk, packed rings, everything", 300, |bytes| {
        disks(&[Kind::BlkPacked], Rules::ROUGH, bytes);
    }),
    scenario("mmio", "virtio-blk behind MMIO, everything", 300, |bytes| disks(&[Kind::Mmio], Rules::ROUGH, bytes)),
    scenario("scsi", "virtio-scsi, everything", 300, |bytes| disks(&[Kind::Scsi], Rules::ROUGH, bytes)),
    scenario("pvscsi", "PVSCSI, everything", 300, |bytes| disks(&[Kind::Pvscsi], Rules::ROUGH, bytes)),
    scenario("ata", "IDE, everything", 200, |bytes| disks(&[Kind::Ata], Rules::ROUGH, bytes)),
    scenario("storvsc", "Hyper-V's storage: faults, memory that runs out, pauses", 200, |bytes| {
        disks(&[Kind::Storvsc], Rules { pulls: false, cuts: false, ..Rules::ROUGH }, bytes);
    }),
    scenario("mixed", "six disks on six buses: faults and memory that runs out", 400, |bytes| {
        disks(MIXED, Rules { memory: true, ..FAULTS }, bytes);
    }),
    scenario("recovery", "three buses: requests fail, are late and lost", 400, |bytes| {
        disks(&[Kind::Blk, Kind::Scsi, Kind::Pvscsi], FAULTS, bytes);
    }),
    scenario("hotplug", "five buses whose disks are pulled out", 200, |bytes| {
        disks(&[Kind::Blk, Kind::BlkPacked, Kind::Mmio, Kind::Scsi, Kind::Pvscsi], PULLS, bytes);
    }),
    scenario("memory", "three buses: memory runs out", 300, |bytes| {
        disks(&[Kind::BlkPacked, Kind::Pvscsi, Kind::Ata], MEMORY, bytes);
    }),
    scenario("power", "three buses whose power is cut", 300, |bytes| {
        disks(&[Kind::Blk, Kind::Scsi, Kind::Ata], CUTS, bytes);
    }),
    scenario(
        "pauses",
        "three buses: the machine stands still for seconds to hours, and its clock jumps",
        200,
        |bytes| {
            disks(&[Kind::Mmio, Kind::Scsi, Kind::Ata], PAUSES, bytes);
        },
    ),
    scenario("lies_blk", "virtio-blk whose host lies", 200, |bytes| disks(&[Kind::Blk], Rules::HOSTILE, bytes)),
    scenario("lies_packed", "packed rings whose host lies", 200, |bytes| {
        disks(&[Kind::BlkPacked], Rules::HOSTILE, bytes);
    }),
    scenario("lies_scsi", "virtio-scsi whose host lies", 200, |bytes| disks(&[Kind::Scsi], Rules::HOSTILE, bytes)),
    scenario("lies_pvscsi", "PVSCSI whose host lies", 200, |bytes| disks(&[Kind::Pvscsi], Rules::HOSTILE, bytes)),
    scenario("lies_storvsc", "Hyper-V's storage whose host lies", 150, |bytes| {
        disks(&[Kind::Storvsc], Rules::HOSTILE, bytes);
    }),
    scenario("cache_blk", "a page cache over virtio-blk: faults, memory, power cuts", 300, |bytes| {
        cache(Kind::Blk, FILES, bytes);
    }),
    scenario("cache_scsi", "the same over virtio-scsi", 300, |bytes| cache(Kind::Scsi, FILES, bytes)),
    scenario("callouts", "callouts of every level: starts, stops, drains, closes, jumps", 300, callouts),
    scenario("wheel", "the wheel beside an ordered map", 300, wheel),
    scenario("split", "a split ring and a device that lies", 300, virtqueue_split),
    scenario("packed_ring", "a packed ring and a device that lies", 300, virtqueue_packed),
];

/// By name.
pub fn find(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name)
}
