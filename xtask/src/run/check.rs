//! What the host finds on a disk after the machine is off: the pattern where it was to be
//! written, and everything else as it was.

use std::fs::File;

use crate::disk::digest::{Digests, digest};
use crate::disk::region::Region;
use crate::disk::{Backend, Disk, pattern, stored};
use crate::report::session::Session;
use crate::report::text::bytes;

/// What was found on one disk.
#[derive(Default)]
pub struct Afterwards {
    /// Whether the region holds the pattern; `None` if it was not to be written.
    pub pattern_holds: Option<bool>,
    pub said: Vec<String>,
    pub failures: Vec<String>,
}

/// Looks at a disk after the run. A disk that was attached read only is not read again.
pub fn afterwards(disk: &Disk, before: Option<&Digests>, session: &Session, (seed, stores): (u64, bool)) -> Afterwards {
    let mut result = Afterwards::default();
    let (Backend::File(path), Some(region), Some(before)) = (&disk.backend, disk.writable, before) else {
        return result;
    };
    let label = &disk.label;
    let mut unharmed = false;
    match digest(path, disk.bytes, &disk.changing(stores)) {
        Ok(after) if after.outside == before.outside => unharmed = true,
        Ok(_) => {
            result.failures.push(format!("disk {label}: bytes outside the region allowed for writing have changed"))
        }
        Err(error) => result.failures.push(format!("disk {label}: after the run: {error:#}")),
    }
    if let Some(files) = disk.files.as_ref().filter(|_| stores) {
        let name = session.by_serial(&disk.serial).map(|seen| &seen.found.name);
        let stored = session.stored.iter().any(|stored| Some(&stored.name) == name);
        match stored::check(path, files, stored, seed) {
            Ok(()) => result.said.push(format!("{label}: its FAT file system is sound, and holds {}", {
                if stored { "what it held and the files that were written" } else { "what it held" }
            })),
            Err(error) => result.failures.push(format!("disk {label}: on its FAT file system: {error:#}")),
        }
    }
    let written = session.by_serial(&disk.serial).is_some_and(|seen| seen.written.is_some());
    if written {
        let mismatch = File::open(path).and_then(|mut file| pattern::first_mismatch(&mut file, seed, region));
        result.pattern_holds = Some(matches!(mismatch, Ok(None)));
        match mismatch {
            Ok(None) if unharmed => result.said.push(held(label, region)),
            Ok(None) => {}
            Ok(Some(offset)) => result
                .failures
                .push(format!("disk {label}: the host does not find what was written, first at byte {offset}")),
            Err(error) => result.failures.push(format!("disk {label}: after the run: {error}")),
        }
    }
    result
}

fn held(label: &str, region: Region) -> String {
    format!(
        "{label}: the host finds the {} written at {}, and nothing else changed",
        bytes(region.length),
        bytes(region.start)
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::disk::option::Bus;
    use crate::report::session::tests::{A_GOOD_RUN, session};

    const REGION: Region = Region { start: 4096, length: 8192 };

    fn disk(path: &Path) -> Disk {
        Disk {
            label: "d".into(),
            backend: Backend::File(path.into()),
            serial: "S1".into(),
            bus: Bus::VirtioBlk,
            block_size: 512,
            bytes: 1 << 20,
            writable: Some(REGION),
            files: None,
        }
    }

    /// The result after `change` was made to a disk that held only zeros before the run.
    fn after(change: impl FnOnce(&mut [u8])) -> Afterwards {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut content = vec![0; 1 << 20];
        std::fs::write(file.path(), &content).unwrap();
        let before = digest(file.path(), 1 << 20, &[REGION]).unwrap();
        for offset in (REGION.start..REGION.end()).step_by(8) {
            content[offset as usize..offset as usize + 8].copy_from_slice(&pattern::word(7, offset).to_le_bytes());
        }
        change(&mut content);
        std::fs::write(file.path(), &content).unwrap();
        afterwards(&disk(file.path()), Some(&before), &session(A_GOOD_RUN), (7, true))
    }

    #[test]
    fn the_pattern_and_nothing_else_is_right() {
        let found = after(|_| ());
        assert_eq!((found.failures, found.pattern_holds), (vec![], Some(true)));
    }

    #[test]
    fn a_lost_write_is_found() {
        let found = after(|content| content[5000..5512].fill(0));
        assert_eq!((found.failures.len(), found.pattern_holds), (1, Some(false)));
    }

    #[test]
    fn a_stray_write_is_found_on_either_side() {
        for at in [0, 4095, 12288, (1 << 20) - 1] {
            let found = after(|content| content[at] = 1);
            assert_eq!((found.failures.len(), found.pattern_holds), (1, Some(true)), "{at}");
        }
    }
}
