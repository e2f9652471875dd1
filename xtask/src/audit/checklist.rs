//! The ids of the audit's checklist. They are for ever: nothing is renumbered, and what no longer applies keeps its entry.

/// A part of the checklist.
pub struct Area {
    /// The name of the file in `audit/`, in capital letters.
    pub name: &'static str,
    pub what: &'static str,
    series: &'static [Series],
}

/// Ids that differ in their number only.
struct Series {
    before: &'static str,
    /// Numbers run from 1 to here.
    count: u32,
    /// How many digits they have at least.
    digits: usize,
}

const fn series(before: &'static str, count: u32) -> Series {
    Series { before, count, digits: 2 }
}

const fn area(name: &'static str, series: &'static [Series], what: &'static str) -> Area {
    Area { name, what, series }
}

pub const AREAS: [Area; 14] = [
    area("GEN", &[series("A-GEN-", 5)], "execution contexts and heaps"),
    area("ATA", &[series("A-ATA-", 10)], "ATA over PCI"),
    area("SVSC", &[series("A-SVSC-", 10)], "Hyper-V storage"),
    area("BHQ", &[series("A-BHQ-", 1)], "the bottom-half queue"),
    area("VQ", &[series("A-VQ-", 4)], "virtqueue"),
    area("VSCSI", &[series("A-VSCSI-", 12)], "virtio-scsi"),
    area("VBLK", &[series("A-VBLK-", 4)], "virtio-blk"),
    area("PVS", &[series("A-PVS-", 5)], "VMware paravirtual SCSI"),
    area("XEN", &[series("A-XEN-", 1)], "Xen grant table"),
    area("XBLK", &[series("A-XBLK-", 5)], "Xen block device"),
    area("PC", &[series("A-PC-", 47)], "page cache and file system"),
    area("X", &[series("X", 35)], "hazards beyond the audited paths"),
    area("P", &[series("P-", 40)], "patterns of later defects in the same code"),
    area(
        "TIMER",
        &[series("T-", 45), series("W-", 22), Series { before: "I-", count: 12, digits: 1 }],
        "callouts: races, wheels, invariants",
    ),
];

impl Area {
    /// Its ids, in order.
    pub fn ids(&self) -> impl Iterator<Item = String> + '_ {
        self.series.iter().flat_map(|Series { before, count, digits }| {
            (1..=*count).map(move |number| format!("{before}{number:0digits$}"))
        })
    }
}

/// The area of an id; `None` for one that is not on the checklist.
pub fn area_of(id: &str) -> Option<&'static Area> {
    AREAS.iter().find(|area| area.ids().any(|known| known == id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checklist_has_its_size() {
        let count = |wanted: &dyn Fn(&str) -> bool| AREAS.iter().flat_map(Area::ids).filter(|id| wanted(id)).count();
        assert_eq!((count(&|id| id.starts_with("A-")), count(&|id| id.starts_with('X'))), (104, 35));
        assert_eq!(count(&|id| ["T-", "W-", "I-"].iter().any(|series| id.starts_with(series))), 45 + 22 + 12);
        assert_eq!(count(&|_| true), 104 + 35 + 40 + 79);
    }

    #[test]
    fn ids_belong_to_one_area() {
        for (id, area) in [
            ("A-VQ-04", Some("VQ")),
            ("A-PC-47", Some("PC")),
            ("X01", Some("X")),
            ("X35", Some("X")),
            ("P-40", Some("P")),
            ("T-01", Some("TIMER")),
            ("T-45", Some("TIMER")),
            ("W-22", Some("TIMER")),
            ("I-1", Some("TIMER")),
            ("I-12", Some("TIMER")),
        ] {
            assert_eq!(area_of(id).map(|area| area.name), area);
        }
        for id in [
            "T-46", "T-1", "W-23", "I-01", "I-13", "A-VQ-05", "A-VQ-4", "X36", "X1", "P-41", "A-P-01", "A-X-01",
            "A-VQ-00", "",
        ] {
            assert!(area_of(id).is_none(), "{id}");
        }
    }
}
