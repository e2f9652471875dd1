//! Commands about what goes on in the background. Task context.

use super::disk::{allowed, bytes, range};
use super::{Bad, Session, Words};
use crate::cached;
use crate::disks::Disk;
use crate::load::{Load, Place};

pub(super) fn begin<'w>(session: &Session<'_>, mut words: Words<'w>) -> Result<(), Bad<'w>> {
    let disk = session.disk(&mut words)?;
    let lba = words.number("the first block")?;
    let blocks = words.number("the number of blocks")?;
    let seed = words.number_or("the seed", session.options.seed)?;
    words.end()?;
    let (lba, blocks) = range(disk, lba, blocks)?;
    let (start, length) = bytes(disk, (lba, blocks));
    let writes = allowed(session, disk).is_some_and(|(from, count)| start >= from && start + length <= from + count);
    if disk.load.borrow().is_some() {
        return Err(Bad::Busy("a load"));
    }
    let place = Place { first: lba, blocks, seed, writes };
    let load = Load::begin(session.cx, &disk.background, place).map_err(Bad::Failed)?;
    disk.news.set_load(&load);
    *disk.load.borrow_mut() = Some(load);
    let what = if writes { "reads and writes" } else { "reads" };
    session.say(format_args!("{} load: {what} of {blocks} blocks from {lba}", disk.name));
    Ok(())
}

pub(super) fn list<'w>(session: &Session<'_>, mut words: Words<'w>) -> Result<(), Bad<'w>> {
    words.end()?;
    for disk in session.disks {
        if let Some(load) = &*disk.load.borrow() {
            session.say(format_args!("{} load: {}", disk.name, load.counts(session.cx)));
        }
    }
    Ok(())
}

pub(super) fn end<'w>(session: &Session<'_>, mut words: Words<'w>) -> Result<(), Bad<'w>> {
    let disk = session.disk(&mut words)?;
    words.end()?;
    if stop(session, disk) { Ok(()) } else { Err(Bad::Absent("load on this disk")) }
}

/// Ends all that still goes on.
pub(super) fn stop_all(session: &Session<'_>) {
    for disk in session.disks {
        stop(session, disk);
    }
}

/// Whether there was anything to end.
fn stop(session: &Session<'_>, disk: &Disk) -> bool {
    let Some(load) = disk.load.borrow_mut().take() else { return false };
    let back = load.stop(session.cx);
    session.say(format_args!("{} load: {}", disk.name, load.counts(session.cx)));
    if !back {
        session.report.problem(&"requests did not come back", Some(&disk.name));
    }
    if let Some((start, length)) = allowed(session, disk) {
        cached::forget(session.cx, disk, start..start + length, session.report);
    }
    true
}
