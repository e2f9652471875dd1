//! The ids of the audit's checklist. They are for ever: nothing is renumbered, and what no longer applies keeps its entry.

/// A part of the checklist.
pub struct Area {
    /// What stands in the ids, and the name of the file in `audit/` in small letters.
    pub name: &'static str,
    pub what: &'static str,
    /// Ids run from 01 to here.
    pub count: u32,
}

const fn area(name: &'static str, count: u32, what: &'static str) -> Area {
    Area { name, what, count }
}

pub const AREAS: [Area; 13] = [
    area("GEN", 5, "execution contexts and heaps"),
    area("ATA", 10, "ATA over PCI"),
    area("SVSC", 10, "Hyper-V storage"),
    area("BHQ", 1, "the bottom-half queue"),
    area("VQ", 4, "virtqueue"),
    area("VSCSI", 12, "virtio-scsi"),
    area("VBLK", 4, "virtio-blk"),
    area("PVS", 5, "VMware paravirtual SCSI"),
    area("XEN", 1, "Xen grant table"),
    area("XBLK", 5, "Xen block device"),
    area("PC", 47, "page cache and file system"),
    area("X", 35, "hazards beyond the audited paths"),
    area("P", 40, "patterns of later defects in the same code"),
];

impl Area {
    /// Its ids, in order.
    pub fn ids(&self) -> impl Iterator<Item = String> + '_ {
        (1..=self.count).map(|number| match self.name {
            "X" => format!("X{number:02}"),
            "P" => format!("P-{number:02}"),
            name => format!("A-{name}-{number:02}"),
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
        let items: u32 = AREAS.iter().filter(|area| !["X", "P"].contains(&area.name)).map(|area| area.count).sum();
        assert_eq!((items, AREAS.iter().flat_map(Area::ids).count()), (104, 179));
    }

    #[test]
    fn ids_belong_to_one_area() {
        for (id, area) in [
            ("A-VQ-04", Some("VQ")),
            ("A-PC-47", Some("PC")),
            ("X01", Some("X")),
            ("X35", Some("X")),
            ("P-40", Some("P")),
        ] {
            assert_eq!(area_of(id).map(|area| area.name), area);
        }
        for id in ["A-VQ-05", "A-VQ-4", "X36", "X1", "P-41", "A-P-01", "A-X-01", "A-VQ-00", ""] {
            assert!(area_of(id).is_none(), "{id}");
        }
    }
}
