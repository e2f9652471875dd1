//! Every file of every file system of a disk, against the list in its root: through the cache, and from the device itself. Task context.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use sha2::{Digest, Sha256};
use undercroft_hal::{Instant, Task};

use super::{Error, Mounted, Through, manifest, open, store, table};
use crate::disks::Disk;
use crate::json::{Object, Value};
use crate::options::Options;
use crate::report::Report;
use crate::verify::Sum;

/// Directories within directories, at most.
const DEEPEST: usize = 32;
/// Files and directories that are counted.
const MOST: u64 = 1_000_000;

/// What was found in a file system.
#[derive(Default)]
struct Found {
    files: u64,
    directories: u64,
    bytes: u64,
    /// Files whose sums are those of the list.
    checked: u64,
    wrong: u64,
    /// The list's own sum.
    list: Option<[u8; 32]>,
}

/// Checks all file systems of a disk, and writes to a FAT file system whose place the options name. A file that is not as the list says, or cannot be
/// read, is a problem; a file system that makes no sense is only told of: what is on a disk is its owner's business.
pub(crate) fn phase(cx: &Task, disk: &Disk, options: &Options, report: &Report) {
    let Some(table) = table(cx, disk) else { return };
    let size = u64::from(disk.device.info().block_size);
    for (at, entry) in table.entries.iter().enumerate() {
        let place = (entry.first.saturating_mul(size), entry.blocks.saturating_mul(size));
        let serial = &disk.device.identity().serial;
        let writable = options.files.iter().any(|rule| rule.serial == *serial && rule.writable == Some(place));
        let mut stored = false;
        for through in [Through::Cache, Through::Device] {
            let place = Place { disk, index: entry.number, through };
            cx.lend(|lent| {
                let Some(part) = open(lent, disk, &table, at, through, writable && through == Through::Cache) else {
                    return;
                };
                match Mounted::mount(part) {
                    Ok(None) => {}
                    Err(error) => place.note(&format_args!("it is not mounted: {error}"), report),
                    Ok(Some(mounted)) => {
                        place.check(&mounted, report);
                        if writable && through == Through::Cache {
                            stored = place.store(mounted, options.seed, report);
                        } else if stored {
                            place.find(&mounted, options.seed, report);
                        }
                    }
                }
            });
        }
    }
}

/// A file system.
struct Place<'a> {
    disk: &'a Disk,
    index: u32,
    through: Through,
}

impl Place<'_> {
    /// Tells what the owner of a disk may want to know.
    fn note(&self, what: &dyn core::fmt::Display, report: &Report) {
        let (name, index, through) = (&self.disk.name, self.index, self.through.name());
        report.text(format_args!("{name}: partition {index}, through its {through}: {what}"));
    }

    fn problem(&self, what: &dyn core::fmt::Display, report: &Report) {
        let (index, through) = (self.index, self.through.name());
        report.problem(&format_args!("partition {index}, through its {through}: {what}"), Some(&self.disk.name));
    }

    fn check(&self, mounted: &Mounted, report: &Report) {
        let begun = Instant::now();
        let found = match self.look(mounted, report) {
            Ok(found) => found,
            Err((path, error)) => return self.note(&format_args!("{path}: {error}"), report),
        };
        self.show(mounted.name(), &found, begun.elapsed().as_nanos() as u64, report);
    }

    fn look(&self, mounted: &Mounted, report: &Report) -> Result<Found, (String, Error)> {
        let mut found = Found::default();
        count(mounted, &mut found)?;
        let mut list = Vec::new();
        let read = mounted.read(manifest::NAME, |bytes| {
            let room = manifest::MOST - list.len().min(manifest::MOST);
            list.extend_from_slice(&bytes[..bytes.len().min(room)]);
            report.alive();
        });
        match read {
            Err(Error::NotFound) => return Ok(found),
            Err(error) => return Err((manifest::NAME.into(), error)),
            Ok(_) => {}
        }
        found.list = Some(Sha256::digest(&list).into());
        let Some(lines) = manifest::parse(&list) else {
            return Err((manifest::NAME.into(), Error::Corrupt));
        };
        for (wanted, path) in lines {
            let mut sum = Sha256::new();
            let read = mounted.read(path, |bytes| {
                sum.update(bytes);
                report.alive();
            });
            let sum: [u8; 32] = sum.finalize().into();
            match read {
                Ok(_) if sum == wanted => found.checked += 1,
                Ok(_) => {
                    found.wrong += 1;
                    self.problem(&format_args!("{path}: its SHA-256 is not the one in {}", manifest::NAME), report);
                }
                Err(error) => {
                    found.wrong += 1;
                    self.problem(&format_args!("{path}: {error}"), report);
                }
            }
        }
        Ok(found)
    }

    fn show(&self, system: &'static str, found: &Found, nanos: u64, report: &Report) {
        let Found { files, directories, bytes, checked, wrong, list } = found;
        let (name, index, through) = (&self.disk.name, self.index, self.through.name());
        if !report.is_json() {
            return report.text(format_args!(
                "  {name} partition {index}: {system} through its {through}: {files} files with {bytes} bytes in \
                 {directories} directories; {checked} are as the list says, {wrong} are not"
            ));
        }
        let list = list.map(|sum| format!("{}", Sum(sum))).unwrap_or_default();
        report.json(&Object {
            event: Some("files"),
            fields: &[
                ("name", Value::Text(name)),
                ("partition", Value::Number(u64::from(index))),
                ("system", Value::Text(&system)),
                ("through", Value::Text(&through)),
                ("files", Value::Number(*files)),
                ("directories", Value::Number(*directories)),
                ("bytes", Value::Number(*bytes)),
                ("checked", Value::Number(*checked)),
                ("wrong", Value::Number(*wrong)),
                ("list_sha256", Value::Text(&list)),
                ("nanoseconds", Value::Number(nanos)),
            ],
        });
    }

    /// Writes through the cache, unmounts and syncs. `true` if that went well.
    fn store(&self, mounted: Mounted, seed: u64, report: &Report) -> bool {
        let result = store::store(&mounted, seed).and_then(|()| match mounted {
            Mounted::Fat(fat) => fat.unmount(),
            Mounted::Ext4(_) => Err(Error::Unsupported),
        });
        if let Err(error) = result {
            self.problem(&format_args!("writing files failed: {error}"), report);
        }
        result.is_ok()
    }

    /// What was written is found on the device itself.
    fn find(&self, mounted: &Mounted, seed: u64, report: &Report) {
        match store::find(mounted, seed) {
            Ok(()) => {}
            Err((path, Some(error))) => return self.problem(&format_args!("{path}: {error}"), report),
            Err((path, None)) => return self.problem(&format_args!("{path}: it is not what was written"), report),
        }
        let (name, index) = (&self.disk.name, self.index);
        let (files, bytes) = store::stored(seed).fold((0, 0), |(files, all), file| (files + 1, all + file.bytes));
        if !report.is_json() {
            return report.text(format_args!(
                "  {name} partition {index}: {files} files with {bytes} bytes written through the cache, synced, found on the device"
            ));
        }
        report.json(&Object {
            event: Some("stored"),
            fields: &[
                ("name", Value::Text(name)),
                ("partition", Value::Number(u64::from(index))),
                ("files", Value::Number(files)),
                ("bytes", Value::Number(bytes as u64)),
            ],
        });
    }
}

/// Counts what a file system holds.
fn count(mounted: &Mounted, found: &mut Found) -> Result<(), (String, Error)> {
    // Without recursion: the stack is not the disk's to fill.
    let mut left = alloc::vec![(String::new(), 0)];
    while let Some((path, depth)) = left.pop() {
        let items = mounted.list(&path).map_err(|error| (path.clone(), error))?;
        for item in items {
            if item.directory {
                found.directories += 1;
                let below = format!("{path}/{}", item.name);
                if depth == DEEPEST || found.directories > MOST {
                    return Err((below, Error::TooMuch));
                }
                left.push((below, depth + 1));
            } else {
                found.files += 1;
                found.bytes = found.bytes.saturating_add(item.bytes);
            }
        }
    }
    Ok(())
}
