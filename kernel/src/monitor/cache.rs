//! Commands about the page cache. Task context.

use undercroft_pagecache::{Stats, Totals};

use super::{Bad, Session, Words, device};
use crate::disks::Disk;

/// `cache`: all of it; `cache DISK`: one disk's; with a further word the disk's own cache is switched.
pub(super) fn cache<'w>(session: &Session<'_>, mut words: Words<'w>) -> Result<(), Bad<'w>> {
    if words.clone().optional().is_none() {
        let Some(cache) = session.pages.cache() else { return Err(Bad::Absent("memory for a page cache")) };
        let Totals { volumes, budget, held, share } = cache.totals(session.cx);
        session.say(format_args!(
            "{volumes} volumes share {} KiB, {} KiB each at least; {} KiB are held",
            budget * 4,
            share * 4,
            held * 4
        ));
        session.disks.iter().for_each(|disk| show(session, disk));
        return Ok(());
    }
    let disk = session.disk(&mut words)?;
    match words.optional() {
        Some(word) => {
            words.end()?;
            device::switch_cache(session, disk, word)
        }
        None => {
            show(session, disk);
            Ok(())
        }
    }
}

fn show(session: &Session<'_>, disk: &Disk) {
    let name = &disk.name;
    let Some(volume) = &disk.volume else {
        return session.say(format_args!("{name}: not cached"));
    };
    let stats = volume.stats(session.cx);
    let Stats { hits, misses, pages, clean, dirty, writing, reading, evictions, operations, .. } = stats;
    session.say(format_args!(
        "{name}: {} hits, {misses} misses: {} % were there; {evictions} pages evicted",
        hits,
        percent(hits, hits + misses)
    ));
    session.say(format_args!(
        "  memory for {pages} pages: {clean} clean, {dirty} dirty, {writing} on their way to the device, {reading} from it; \
         {operations} operations under way"
    ));
    let Stats { pages_read, reads, pages_written, writes, flushes, ahead, ahead_used, ahead_wasted, .. } = stats;
    session.say(format_args!(
        "  {pages_read} pages read in {reads} requests, {ahead} of them ahead, of which {ahead_used} were used ({} %) and {ahead_wasted} \
         evicted unused",
        percent(ahead_used, ahead)
    ));
    session.say(format_args!("  {pages_written} pages written in {writes} requests, {flushes} flushes"));
    let Stats { read_errors, write_errors, throttled, .. } = stats;
    if read_errors + write_errors + throttled > 0 {
        session.say(format_args!(
            "  {read_errors} reads failed, {write_errors} writes and flushes; writers waited {throttled} times"
        ));
    }
}

fn percent(part: u64, whole: u64) -> u64 {
    part.saturating_mul(100).checked_div(whole).unwrap_or(0)
}

/// Makes durable what all volumes hold, or one disk's.
pub(super) fn sync<'w>(session: &Session<'_>, mut words: Words<'w>) -> Result<(), Bad<'w>> {
    let disk = if words.clone().optional().is_some() { Some(session.disk(&mut words)?) } else { None };
    words.end()?;
    let absent = || Bad::Absent("page cache there");
    match disk {
        Some(disk) => disk.volume.as_ref().ok_or_else(absent)?.sync_all_blocking(session.cx),
        None => session.pages.cache().ok_or_else(absent)?.sync_all_blocking(session.cx),
    }
    .map_err(Bad::Failed)?;
    session.say(format_args!("everything written is durable"));
    Ok(())
}
