//! Commands to a machine that runs: disks that come, go and change their size.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::json;

use crate::disks;
use crate::host::Host;
use crate::options::Disk;

/// A command: a line of JSON.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Command {
    /// Plugs a disk in.
    Add(Disk),
    /// Pulls the disk with this unit number out.
    Remove { lun: u16 },
    /// Changes the size of a disk, and of what it shows, in bytes.
    Resize { lun: u16, bytes: u64 },
    /// Asks what was counted.
    Counts {},
}

/// Units in use, so that a new disk gets the next number.
pub type Used = Arc<Mutex<usize>>;

/// Listens at `socket`, in a thread.
pub fn listen(socket: &Path, host: &Arc<Host>, used: &Used) -> Result<()> {
    let listener = UnixListener::bind(socket).with_context(|| format!("cannot listen at {}", socket.display()))?;
    let (host, used) = (Arc::clone(host), Arc::clone(used));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (host, used) = (Arc::clone(&host), Arc::clone(&used));
            thread::spawn(move || serve(stream, &host, &used));
        }
    });
    Ok(())
}

fn serve(mut stream: UnixStream, host: &Host, used: &Used) {
    let Ok(input) = stream.try_clone() else { return };
    for line in BufReader::new(input).lines().map_while(Result::ok) {
        let answer = match perform(&line, host, used) {
            Ok(answer) => json!({"return": answer}),
            Err(error) => json!({"error": format!("{error:#}")}),
        };
        if writeln!(stream, "{answer}").is_err() {
            return;
        }
    }
}

fn perform(line: &str, host: &Host, used: &Used) -> Result<serde_json::Value> {
    match serde_json::from_str(line).context("not a command")? {
        Command::Add(disk) => {
            ensure!(disk.ide.is_none(), "a disk of an IDE controller is there from the start, or not at all");
            let unit = disks::open(&disk)?;
            let mut used = used.lock().unwrap_or_else(PoisonError::into_inner);
            let number = disk.lun.unwrap_or_else(|| disks::number(*used));
            *used += 1;
            host.with(|model, _| model.add_lun(0, 0, number, unit));
            Ok(json!({"lun": number}))
        }
        Command::Remove { lun } => {
            host.with(|model, _| model.remove_lun(0, 0, lun)).context("no such disk")?;
            Ok(json!({}))
        }
        Command::Resize { lun, bytes } => {
            host.with(|model, _| model.resize(0, 0, lun, bytes / 512));
            Ok(json!({}))
        }
        Command::Counts {} => Ok(json!(host.counts())),
    }
}
