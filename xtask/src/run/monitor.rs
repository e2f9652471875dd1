//! `cargo xtask run --monitor`: the image at its prompt, with our standard input and output.

use anyhow::Result;

use super::boot::{self, Boot};
use crate::disk::{Backend, digest};
use crate::qemu::process::{self, Exit};
use crate::report::verdict::SUCCESS;
use crate::report::voice::Voice;

/// What the image prints when it is ready for a line.
const PROMPT: &str = "undercroft> ";

/// Boots, and lets the user talk with the image. False if it failed, or wrote where it may not.
pub fn monitor(boot: &Boot, stores: bool, voice: Voice) -> Result<bool> {
    let outside = |when: &str| -> Result<Vec<_>> {
        let one = |disk: &crate::disk::Disk| match (&disk.backend, disk.writable) {
            (Backend::File(path), Some(_)) => {
                digest::digest(path, disk.bytes, &disk.changing(stores)).map(|digests| Some(digests.outside))
            }
            _ => Ok(None),
        };
        boot.disks.iter().map(one).collect::<Result<_>>().map_err(|error| error.context(when.to_owned()))
    };
    let before = outside("before the run")?;
    let exit = process::converse(&mut boot::command(boot)?, boot.limits.whole, PROMPT, "\nquit\n")?;
    let mut good = exit == Exit::Status(SUCCESS);
    if !good {
        voice.say(&format!("FAILED: the monitor ended by {exit:?}"));
    }
    for (disk, (before, after)) in boot.disks.iter().zip(before.iter().zip(outside("after the run")?)) {
        if *before != after {
            voice.say(&format!(
                "FAILED: disk {}: bytes outside the region allowed for writing have changed",
                disk.label
            ));
            good = false;
        }
    }
    Ok(good)
}
