//! The command about the disks' queues. Task context.

use undercroft_block::Error;
use undercroft_block::queue::{QueueStats, Rung};

use super::{Bad, Session, Words};

pub(super) fn queues<'w>(session: &Session<'_>, mut words: Words<'w>) -> Result<(), Bad<'w>> {
    words.end()?;
    for disk in session.disks {
        show(session, &disk.name, &disk.queue.stats());
    }
    Ok(())
}

fn show(session: &Session<'_>, name: &str, stats: &QueueStats) {
    let QueueStats { accepted, completed, split, parts, flushes, waited, most_waiting, merged, busy, .. } = *stats;
    session.say(format_args!(
        "{name}: {accepted} requests, {completed} completed; {split} cut into {parts} parts, {flushes} flushed"
    ));
    session.say(format_args!(
        "  now {} at the device of at most {}, {} wait; {waited} waited, at most {most_waiting} at once; {merged} merged; busy {busy} times",
        stats.at_device, stats.depth, stats.waiting
    ));
    if stats.overdue > 0 {
        session.say(format_args!(
            "  {} overdue, {} finished late, {} sent again, {} lost with their buffers, {} of those came back",
            stats.overdue, stats.late, stats.resent, stats.orphans, stats.orphans_returned
        ));
    }
    for (rung, stats) in Rung::ALL.iter().zip(&stats.rungs).filter(|(_, stats)| stats.asked + stats.skipped > 0) {
        session.say(format_args!(
            "  {rung:?}: asked {}, skipped {}, helped {}, within {} us",
            stats.asked,
            stats.skipped,
            stats.helped,
            stats.longest.as_micros()
        ));
    }
    for (error, count) in Error::ALL.iter().zip(stats.errors).filter(|(_, count)| *count > 0) {
        session.say(format_args!("  {count} times: {error} ({:?})", error.fault()));
    }
}
