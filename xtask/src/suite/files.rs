//! Files that are not what they were: on each bus, a byte of one file of ext4 and of one of FAT is changed on the host, and the image names just
//! those. File systems that lie are told of, and nothing else happens.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::guest::{self, text};
use super::tally::Tally;
use crate::disk::prepare::{self, RECIPES};
use crate::disk::{Backend, content};
use crate::host::workspace;

/// The prepared disks that are tried: one of each bus, the second with blocks of 4096 bytes.
const DISKS: [(usize, &str); 4] = [(0, "virtio-blk"), (2, "virtio-scsi"), (3, "pvscsi"), (5, "ide")];
/// The file whose byte is changed on ext4, and the one on FAT.
const CHANGED: [(&str, u64); 2] = [("ROUND0/FILE10.BIN", 1), ("ROUND0/DEEP/ER/FILE09.BIN", 2)];
const SEED: u64 = 11;
const MIB: u64 = 1 << 20;

pub fn checks(kernel: &str, tally: &mut Tally) -> Result<()> {
    for (at, bus) in DISKS {
        tally.check(&format!("files: two that were changed are named, on {bus}"), changed(kernel, at, bus));
    }
    tally.check("files: file systems that lie are told of and left alone", lies(kernel));
    Ok(())
}

fn run(kernel: &str, disk: &Path, bus: &str) -> Result<guest::Run> {
    // QEMU has no IDE disk that cannot be written; the scratch partition is, then.
    let access = if bus == "ide" { "rw" } else { "ro" };
    let disk = format!("{},bus={bus},{access}", text(disk));
    let arguments = ["--kernel", kernel, "--timeout", "120", "--workload", "verify", "--disk", &disk];
    guest::run(&arguments.map(str::to_owned))
}

/// A prepared disk, after `change`.
fn prepared(
    at: usize,
    directory: &Path,
    change: impl FnOnce(&mut Vec<u8>) -> Result<()>,
) -> Result<std::path::PathBuf> {
    let disk = prepare::prepare(directory, &RECIPES[at], 16, SEED)?;
    let Backend::File(path) = disk.backend else { anyhow::bail!("no file") };
    let mut bytes = fs::read(&path)?;
    change(&mut bytes)?;
    fs::write(&path, bytes)?;
    Ok(path)
}

fn changed(kernel: &str, at: usize, bus: &str) -> Result<()> {
    let directory = workspace::scratch()?;
    let tree = directory.path().join("again");
    fs::create_dir(&tree)?;
    // A quarter of the FAT partition, as for the disk.
    content::write_tree(&tree, SEED, MIB)?;
    let path = prepared(at, directory.path(), |bytes| {
        for (name, time) in CHANGED {
            let wanted = fs::read(tree.join(name)).with_context(|| name.to_owned())?;
            let wanted = &wanted[512..1024];
            // On ext4 first, on FAT then.
            let mut places = bytes.windows(wanted.len()).enumerate().filter(|(_, window)| *window == wanted);
            let (place, _) = places.nth(time as usize - 1).with_context(|| format!("{name} is not on the disk"))?;
            bytes[place + 100] ^= 0x10;
        }
        Ok(())
    })?;
    let run = run(kernel, &path, bus)?;
    ensure!(!run.success, "it is not noticed:\n{}", run.text);
    let failures: Vec<&str> = run.text.lines().filter(|line| line.starts_with("FAILED:")).collect();
    let told = |partition: u64, through: &str, name: &str| {
        let what = format!("partition {partition}, through its {through}: {name}: its SHA-256 is not");
        failures.iter().filter(|line| line.contains(&what)).count() == 1
    };
    for (name, partition) in CHANGED {
        ensure!(told(partition, "cache", name) && told(partition, "device", name), "{name}: {failures:#?}");
    }
    ensure!(failures.len() == 4, "others, too: {failures:#?}");
    Ok(())
}

/// An ext4 file system of more blocks than its partition has, and a FAT whose sectors have no size.
fn lies(kernel: &str) -> Result<()> {
    let directory = workspace::scratch()?;
    let path = prepared(0, directory.path(), |bytes| {
        let (ext4, fat) = (MIB as usize, 7 * MIB as usize);
        ensure!(bytes[ext4 + 1024 + 56..][..2] == [0x53, 0xef] && bytes[fat + 510..][..2] == [0x55, 0xaa], "moved");
        bytes[ext4 + 1024 + 4..][..4].fill(0xff);
        bytes[fat + 11..][..2].fill(0);
        Ok(())
    })?;
    let run = run(kernel, &path, "virtio-blk")?;
    ensure!(run.success, "{}", run.text);
    let told = "partition 1, through its cache: it is not mounted: the file system contradicts itself";
    ensure!(run.text.contains(told), "{}", run.text);
    ensure!(run.events("files").next().is_none(), "{:?}", run.events("files").collect::<Vec<_>>());
    Ok(())
}
