//! The command `script`: what comes of it follows from its words alone. Task context.

use super::disk::{allowed, bytes, range};
use super::{Bad, Session, Words};
use crate::cached;
use crate::script::{self, Script};

/// Blocks of a script's range, its steps and requests at a time, at most.
const BLOCKS: u64 = 1 << 15;
const STEPS: u64 = 100_000;
const DEPTH: u64 = 64;

pub(super) fn script<'w>(session: &Session<'_>, mut words: Words<'w>) -> Result<(), Bad<'w>> {
    let disk = session.disk(&mut words)?;
    let lba = words.number("the first block")?;
    let blocks = words.number("the number of blocks")?;
    let seed = words.number("the seed")?;
    let word = words.clone().optional().unwrap_or_default();
    let steps = words.number("the number of steps")?;
    if steps > STEPS {
        return Err(Bad::TooLarge("the number of steps", word));
    }
    let word = words.clone().optional().unwrap_or_default();
    let depth = words.number_or("the depth", 8)?;
    if depth > DEPTH {
        return Err(Bad::TooLarge("the depth", word));
    }
    words.end()?;
    let (start, length) = bytes(disk, range(disk, lba, blocks)?);
    if blocks > BLOCKS {
        return Err(Bad::TooMany(blocks, BLOCKS));
    }
    if !allowed(session, disk).is_some_and(|(from, count)| start >= from && start + length <= from + count) {
        return Err(Bad::NotAllowed(lba, blocks));
    }
    // Both are at most what was looked at.
    let script = Script { first: lba, blocks, seed, steps: steps as u32, depth: depth as usize };
    let outcome = script::run(session.cx, &disk.device, script);
    cached::forget(session.cx, disk, start..start + length, session.report);
    let came = outcome.map_err(Bad::Failed)?;
    session.say(format_args!(
        "script of {steps} steps: {} reads, {} writes, {} flushes; {} wrong, {} failed",
        came.reads, came.writes, came.flushes, came.wrong, came.failed
    ));
    match came.error {
        Some(error) => Err(Bad::Failed(error)),
        None => Ok(()),
    }
}
