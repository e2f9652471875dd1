//! A disk's partitions, for the report. Task context.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use undercroft_block::adapter;
use undercroft_block::partition::{self, Entry, Kind, Scheme};
use undercroft_hal::Task;

use crate::disks::Disk;
use crate::json::{Object, Value};
use crate::report::Report;

/// A partition, shown as a JSON object.
pub(crate) struct Part {
    entry: Entry,
    block_size: u64,
}

/// Reads a disk's table. One that cannot be used is told, and counts as none: what is on a disk is its owner's business, not a failure here.
pub(crate) fn read(cx: &Task, disk: &Disk, report: &Report) -> Vec<Part> {
    let block_size = u64::from(disk.device.info().block_size);
    let wrapped = adapter::Disk::new(Arc::clone(&disk.device), 1);
    let table = match partition::read(cx, &wrapped) {
        Ok(Some(table)) => table,
        Ok(None) => return Vec::new(),
        Err(error) => {
            report.text(format_args!("{}: the partition table is not used: {error}", disk.name));
            return Vec::new();
        }
    };
    if let Scheme::GptBackup(primary) = table.scheme {
        report.text(format_args!("{}: the backup partition table is used; primary: {primary}", disk.name));
    }
    table.entries.into_iter().map(|entry| Part { entry, block_size }).collect()
}

/// The usual name of a kind of partition, or its number.
struct KindName(Kind);

impl fmt::Display for KindName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.name() {
            Some(name) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}

impl Part {
    // A table is as large as the disk at most, whose bytes saturate.
    fn first_byte(&self) -> u64 {
        self.entry.first.saturating_mul(self.block_size)
    }

    fn bytes(&self) -> u64 {
        self.entry.blocks.saturating_mul(self.block_size)
    }

    /// The partition as a line for people.
    pub(crate) fn line(&self) -> impl fmt::Display + '_ {
        struct Line<'a>(&'a Part);
        impl fmt::Display for Line<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Part { entry, .. } = self.0;
                let (bytes, first) = (self.0.bytes() >> 10, self.0.first_byte() >> 10);
                write!(f, "partition {} {:?}: {bytes} KiB at {first} KiB, ", entry.number, entry.name)?;
                KindName(entry.kind).fmt(f)
            }
        }
        Line(self)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let object = Object {
            event: None,
            fields: &[
                ("index", Value::Number(u64::from(self.entry.number))),
                ("kind", Value::Text(&KindName(self.entry.kind))),
                ("name", Value::Text(&self.entry.name)),
                ("first_byte", Value::Number(self.first_byte())),
                ("bytes", Value::Number(self.bytes())),
            ],
        };
        object.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::{String, ToString};

    #[test]
    fn as_json_and_as_a_line() {
        let entry =
            Entry { number: 5, first: 2048, blocks: 4096, kind: Kind::Mbr(0x99), name: String::from("a \"b\"") };
        let mut part = Part { entry, block_size: 512 };
        let json = r#"{"index":5,"kind":"99","name":"a \"b\"","first_byte":1048576,"bytes":2097152}"#;
        assert_eq!(part.to_string(), json);
        part.entry.kind = Kind::Mbr(0x83);
        assert_eq!(part.line().to_string(), r#"partition 5 "a \"b\"": 2048 KiB at 1024 KiB, linux"#);
        part.entry.first = u64::MAX;
        assert_eq!(part.first_byte(), u64::MAX);
    }
}
