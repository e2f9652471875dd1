//! Commands about files: `ls` and `cat`, through the page cache. Task context.
//!
//! A path is a disk, a partition's number, and names: `virtio-blk0/1/DIRECTORY/FILE`. Names with spaces are taken as they are: the path is all that is
//! left of the line.

use super::{Bad, Session, Words};
use crate::files::{self, Error, Mounted, Through};
use crate::verify::Sum;
use sha2::{Digest, Sha256};

/// Bytes of a file that are shown.
const SHOWN: usize = 2048;
/// Bytes of a row of a file that is no text.
const ROW: usize = 16;

/// What a path is to be there for.
fn with_path<'w>(
    session: &Session<'_>,
    mut words: Words<'w>,
    run: impl FnOnce(&Mounted, &str) -> Result<(), Error>,
) -> Result<(), Bad<'w>> {
    let whole = words.rest().ok_or(Bad::Missing("the path: DISK/PARTITION/NAMES"))?;
    let mut parts = whole.splitn(3, '/');
    let name = parts.next().unwrap_or_default();
    let disk = session.disks.iter().find(|disk| disk.name == name).ok_or(Bad::NoDisk(name))?;
    let number = parts.next().filter(|number| !number.is_empty()).ok_or(Bad::Missing("the partition's number"))?;
    let path = parts.next().unwrap_or_default();
    let wanted = number.parse::<u32>().map_err(|_| Bad::NotANumber("the partition", number))?;
    let table = files::table(session.cx, disk).ok_or(Bad::Absent("partition table on that disk"))?;
    let at = table.entries.iter().position(|entry| entry.number == wanted);
    let at = at.ok_or(Bad::Absent("partition of that number"))?;
    session.cx.lend(|lent| {
        let part = files::open(lent, disk, &table, at, Through::Cache, false);
        let mounted = Mounted::mount(part.ok_or(Bad::Absent("page cache there"))?).map_err(Bad::File)?;
        let mounted = mounted.ok_or(Bad::Absent("file system there that is known"))?;
        run(&mounted, path).map_err(Bad::File)
    })
}

pub(super) fn ls<'w>(session: &Session<'_>, words: Words<'w>) -> Result<(), Bad<'w>> {
    with_path(session, words, |mounted, path| {
        let items = mounted.list(path)?;
        for item in &items {
            let kind = match (item.directory, item.other) {
                (true, _) => "/",
                (false, true) => " (neither a file nor a directory)",
                _ => "",
            };
            session.say(format_args!("{:>12}  {}{kind}", item.bytes, item.name.escape_debug()));
        }
        session.say(format_args!("{} entries ({})", items.len(), mounted.name()));
        Ok(())
    })
}

pub(super) fn cat<'w>(session: &Session<'_>, words: Words<'w>) -> Result<(), Bad<'w>> {
    with_path(session, words, |mounted, path| {
        let (mut sum, mut head, mut kept) = (Sha256::new(), [0; SHOWN], 0);
        let bytes = mounted.read(path, |bytes| {
            sum.update(bytes);
            let room = bytes.len().min(SHOWN - kept);
            head[kept..kept + room].copy_from_slice(&bytes[..room]);
            kept += room;
            session.report.alive();
        })?;
        let head = &head[..kept];
        let text = |byte: &u8| (b' '..127).contains(byte) || b"\n\r\t".contains(byte);
        if head.iter().all(text) {
            let lines = core::str::from_utf8(head).unwrap_or_default().lines();
            lines.for_each(|line| session.say(format_args!("{}", line.escape_debug())));
        } else {
            for (at, row) in head[..kept.min(16 * ROW)].chunks(ROW).enumerate() {
                session.say(format_args!("{:08x}  {}", at * ROW, super::disk::Row(row)));
            }
        }
        session.say(format_args!("{bytes} bytes, sha256 {}", Sum(sum.finalize().into())));
        Ok(())
    })
}
