//! Bad input: one clear message that names the thing, a status that is not zero, and nothing
//! written to a file of the user's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::guest::{self, text};
use super::tally::Tally;
use crate::host::program;

/// Somebody who may do nothing: how root makes a file unreadable to the program under test.
const NOBODY: u32 = 65534;

pub fn checks(kernel: &str, tally: &mut Tally) -> Result<()> {
    // Not below the target directory, which others may be unable to reach.
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    disk_files(directory.path(), kernel, tally)?;
    unreachable(directory.path(), tally)?;
    machines(directory.path(), kernel, tally)
}

/// A disk file that will not do: (name, content, what is asked for, what the message speaks of).
type BadFile = (&'static str, Vec<u8>, &'static str, &'static str);

fn disk_files(directory: &Path, kernel: &str, tally: &mut Tally) -> Result<()> {
    let files: [BadFile; 7] = [
        ("empty", vec![], "ro", "empty"),
        ("tiny", vec![7; 100], "ro", "less than one block"),
        ("odd-sized", vec![7; 1_000_001], "ro", "multiple"),
        ("in another format", [b"QFI\xfb".as_slice(), &[0; 65_532]].concat(), "rw", "qcow2"),
        ("holding something", vec![7; 1 << 20], "rw", "rw=START:LENGTH"),
        ("shorter than the range", vec![0; 1 << 20], "rw=1M:512", "beyond"),
        ("with a range in parts of blocks", vec![0; 1 << 20], "rw=100:512", "whole blocks"),
    ];
    for (name, content, access, thing) in files {
        let path = directory.join("bad.img");
        fs::write(&path, &content)?;
        let run = run(kernel, &["--disk", &format!("{},{access}", text(&path))])?;
        let unchanged = || {
            ensure!(fs::read(&path)? == content, "the file has changed");
            run.failed_naming("bad.img")?;
            run.failed_naming(thing)
        };
        tally.check(&format!("bad input: a disk file {name}"), unchanged());
    }
    let one = |arguments: &[&str], thing: &str| run(kernel, arguments)?.failed_naming(thing);
    tally.check("bad input: a missing disk file", one(&["--disk", "/nowhere/x.img"], "/nowhere/x.img"));
    tally.check("bad input: a directory for a disk", one(&["--disk", &text(directory)], "neither a file"));
    tally.check("bad input: an unknown option of a disk", one(&["--disk", "x,fast"], "'fast'"));
    tally.check("bad input: an unknown option", one(&["--frobnicate"], "--frobnicate"));
    tally.check("bad input: an unknown machine", one(&["--machine", "z80"], "z80"));
    tally.check("bad input: no processors", one(&["--cpus", "0"], "--cpus"));
    tally.check("bad input: an image that is missing", {
        guest::run(&["--kernel", "/nowhere/image"].map(String::from))?.failed_naming("/nowhere/image")
    });
    tally.check("bad input: a locked disk file", locked(directory, kernel));
    Ok(())
}

fn run(kernel: &str, arguments: &[&str]) -> Result<guest::Run> {
    let common = ["--kernel", kernel, "--timeout", "60", "--workload", "verify"];
    guest::run(&common.iter().chain(arguments).map(|word| (*word).to_owned()).collect::<Vec<_>>())
}

/// The test holds the lock of a QEMU that writes to the disk.
fn locked(directory: &Path, kernel: &str) -> Result<()> {
    let path = directory.join("locked.img");
    fs::write(&path, vec![0; 1 << 20])?;
    let file = fs::File::open(&path)?;
    let lock =
        libc::flock { l_type: libc::F_RDLCK as i16, l_whence: libc::SEEK_SET as i16, l_start: 101, l_len: 1, l_pid: 0 };
    fcntl(&file, FcntlArg::F_OFD_SETLK(&lock)).context("cannot take the lock")?;
    let run = run(kernel, &["--disk", &text(&path)])?;
    run.failed_naming("locked.img")?;
    run.failed_naming("another program is using it")
}

/// What needs a user who may not do everything.
fn unreachable(directory: &Path, tally: &mut Tally) -> Result<()> {
    let program = directory.join("xtask");
    fs::copy(guest::program()?, &program).context("cannot copy this program")?;
    let disk = directory.join("unreadable.img");
    fs::write(&disk, vec![0; 4096])?;
    fs::set_permissions(&disk, fs::Permissions::from_mode(0o000))?;
    let unprivileged = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        if nix::unistd::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command.args(["run", "--json"]).args(arguments).current_dir("/");
        command
    };
    let unreadable = || guest::finish(&mut unprivileged(&["--disk", &text(&disk)]))?.failed_naming("permission");
    tally.check("bad input: an unreadable disk file", unreadable());
    // Where neither programs nor the means to install them are found.
    let helpless = || {
        let run = guest::finish(unprivileged(&[]).env("PATH", "/nowhere"))?;
        run.failed_naming("qemu-system-x86_64")?;
        run.failed_naming("apt-get install")
    };
    tally.check("bad input: QEMU missing and not to be installed", helpless());
    Ok(())
}

/// What shows only with a machine: its own defects and those of QEMU.
fn machines(directory: &Path, kernel: &str, tally: &mut Tally) -> Result<()> {
    let one = |arguments: &[&str], thing: &str| run(kernel, arguments)?.failed_naming(thing);
    let old = stand_in(directory, "old-qemu", "echo QEMU emulator version 4.2.0")?;
    tally.check("bad input: QEMU too old", one(&["--disk", "none", "--qemu", &old], "version 4.2"));
    let dying = "[ \"$1\" = --version ] && echo QEMU emulator version 7.2.0 && exit 0\nkill -SEGV $$";
    let dying = stand_in(directory, "dying-qemu", dying)?;
    tally.check("bad input: QEMU dying", one(&["--disk", "none", "--qemu", &dying], "killed by signal 11"));
    let wrong = ["--disk", "none", "--qemu-arg=-no-such-option"];
    tally.check("bad input: an argument QEMU does not know", one(&wrong, "no-such-option"));
    tally.check("bad input: no disk at all", one(&["--disk", "none"], "disk"));
    tally.check("bad input: too little memory", one(&["--disk", "none", "--memory", "4"], "memory"));
    tally.check("bad input: a disk that answers errors", one(&failing_disk(), "disk"));
    tally.check("bad input: a disk that answers errors only at its end", one(&failing_disk_end(), "disk"));
    Ok(())
}

fn stand_in(directory: &Path, name: &str, script: &str) -> Result<String> {
    program::find("sh")?;
    let path: PathBuf = directory.join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(text(&path))
}

const FAILING_DEVICE: &str = "--qemu-arg=virtio-blk-pci,drive=failing,serial=failing";

/// A disk whose every read fails with EIO, by QEMU's blkdebug.
fn failing_disk() -> [&'static str; 6] {
    [
        "--disk",
        "none",
        "--qemu-arg=-blockdev",
        "--qemu-arg=driver=blkdebug,node-name=failing,image.driver=null-co,image.size=16777216,image.read-zeroes=on,inject-error.0.event=none,inject-error.0.iotype=read",
        "--qemu-arg=-device",
        FAILING_DEVICE,
    ]
}

/// The same, in its last sectors only.
fn failing_disk_end() -> [&'static str; 6] {
    let mut arguments = failing_disk();
    arguments[3] = "--qemu-arg=driver=blkdebug,node-name=failing,image.driver=null-co,image.size=16777216,image.read-zeroes=on,inject-error.0.event=none,inject-error.0.iotype=read,inject-error.0.sector=30000";
    arguments
}
