//! Disks with real content for a run: a GPT, an ext4 and a FAT file system made by their own
//! `mkfs` programs, and a partition for the write phase.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use gpt::partition_types;
use sha2::{Digest, Sha256};

use super::digest::hex;
use super::gpt::{self as table, NewPartition};
use super::option::Bus;
use super::region::{Region, SCRATCH};
use super::{Backend, Disk, Files, content};
use crate::cli::{Machine, On};
use crate::host::program;

const MIB: u64 = 1 << 20;

/// A disk to prepare.
pub struct Recipe {
    pub label: &'static str,
    pub serial: &'static str,
    pub bus: Bus,
    pub block_size: u32,
}

/// One disk on virtio-blk, two LUNs on virtio-scsi and two targets on pvscsi, one of each two with blocks of 4096 bytes; one disk on
/// each channel of an IDE controller. Disks of Xen have no serial number: they are known by their names.
pub const RECIPES: [Recipe; 11] = [
    Recipe { label: "virtio-blk", serial: "uc-blk", bus: Bus::VirtioBlk, block_size: 512 },
    Recipe { label: "virtio-scsi LUN 0", serial: "uc-scsi-lun0", bus: Bus::VirtioScsi, block_size: 512 },
    Recipe { label: "virtio-scsi LUN 5", serial: "uc-scsi-lun5", bus: Bus::VirtioScsi, block_size: 4096 },
    Recipe { label: "pvscsi target 0", serial: "uc-pvscsi-target0", bus: Bus::Pvscsi, block_size: 512 },
    Recipe { label: "pvscsi target 5", serial: "uc-pvscsi-target5", bus: Bus::Pvscsi, block_size: 4096 },
    Recipe { label: "ide primary device 0", serial: "uc-ide-primary", bus: Bus::Ide, block_size: 512 },
    Recipe { label: "ide secondary device 0", serial: "uc-ide-secondary", bus: Bus::Ide, block_size: 512 },
    Recipe { label: "xvda", serial: "xvda", bus: Bus::Xen, block_size: 512 },
    Recipe { label: "xvdb", serial: "xvdb", bus: Bus::Xen, block_size: 4096 },
    Recipe { label: "VMBus LUN 0", serial: "uc-vmbus-lun0", bus: Bus::Storvsc, block_size: 512 },
    Recipe { label: "VMBus LUN 5", serial: "uc-vmbus-lun5", bus: Bus::Storvsc, block_size: 4096 },
];

/// The disks to prepare for a machine: those on `buses`, or on all that it has.
pub fn recipes(on: On, machine: Machine, buses: &[Bus]) -> Result<Vec<&'static Recipe>> {
    let (has, name): (&dyn Fn(Bus) -> bool, _) = match on {
        On::Qemu => (&|bus| machine.has(bus), machine.name()),
        On::Xen => (&|bus| bus == Bus::Xen, on.name()),
        On::Hyperv => (&|bus| bus == Bus::Storvsc, on.name()),
    };
    if let Some(bus) = buses.iter().find(|bus| !has(**bus)) {
        bail!("--bus {0}: {name} has no {0}", bus.name());
    }
    let wanted = |recipe: &&Recipe| has(recipe.bus) && (buses.is_empty() || buses.contains(&recipe.bus));
    Ok(RECIPES.iter().filter(wanted).collect())
}

/// Prepares one disk of `mib` MiB in `directory`.
pub fn prepare(directory: &Path, recipe: &Recipe, mib: u64, seed: u64) -> Result<Disk> {
    let path = directory.join(format!("{}.img", recipe.serial));
    let say = || format!("cannot prepare {}", path.display());
    File::create(&path).and_then(|file| file.set_len(mib * MIB)).with_context(say)?;
    let [ext4, fat, scratch] = layout(mib);
    let tree = directory.join("tree");
    fs::create_dir_all(&tree).with_context(say)?;
    let budget = fat.length / 4;
    let paths = content::write_tree(&tree, seed, budget)?;
    let mut bytes = 0;
    for path in &paths {
        bytes += fs::metadata(tree.join(path)).with_context(say)?.len();
    }
    let list = fs::read(tree.join(content::LIST)).with_context(say)?;
    let sha256 = hex(&Sha256::digest(list));
    let files = Files { fat, count: paths.len() as u64, bytes, sha256, seed, budget };
    place(&make_ext4(directory, &tree, ext4.length, recipe.block_size, seed)?, &path, ext4)?;
    place(&make_fat(directory, &tree, fat.length, recipe.block_size, seed)?, &path, fat)?;
    fs::remove_dir_all(&tree).with_context(say)?;
    let partitions = [
        NewPartition { name: "ext4", kind: partition_types::LINUX_FS, region: ext4 },
        NewPartition { name: "fat", kind: partition_types::BASIC, region: fat },
        NewPartition { name: SCRATCH, kind: partition_types::BASIC, region: scratch },
    ];
    table::write(&path, recipe.block_size, seed, &partitions)?;
    Ok(Disk {
        label: recipe.label.into(),
        backend: Backend::File(path),
        serial: recipe.serial.into(),
        bus: recipe.bus,
        block_size: recipe.block_size,
        bytes: mib * MIB,
        writable: Some(scratch),
        files: Some(files),
    })
}

/// ext4, FAT and scratch within `mib` (1 or more) MiB, of which a part is left free at either end.
fn layout(mib: u64) -> [Region; 3] {
    // A small disk is laid out in parts of a MiB, as if it were a larger one.
    let parts = match mib {
        0..4 => 16,
        4..16 => 4,
        _ => 1,
    };
    let (unit, units) = (MIB / parts, mib * parts);
    let (ext4, fat) = (units * 3 / 8, units / 4);
    let scratch = units - 2 - ext4 - fat;
    let mut start = unit;
    [ext4, fat, scratch].map(|length| {
        let region = Region { start, length: length * unit };
        start = region.end();
        region
    })
}

fn make_ext4(directory: &Path, tree: &Path, bytes: u64, block_size: u32, seed: u64) -> Result<PathBuf> {
    let file = blank(directory, "ext4.part", bytes)?;
    let uuid = table::guid(seed, 100).to_string();
    let mut command = Command::new(program::find("mkfs.ext4")?);
    // The clock of the file system stands still: all but the change times of inodes follows from
    // the seed.
    command.env("E2FSPROGS_FAKE_TIME", content::WHEN.to_string());
    command.args(["-q", "-F", "-L", "undercroft", "-U", &uuid, "-E"]);
    command.arg(format!("hash_seed={uuid},root_owner=0:0"));
    command.args(["-b", if block_size > 1024 { "4096" } else { "1024" }, "-d"]).arg(tree).arg(&file);
    program::run(&mut command)?;
    Ok(file)
}

fn make_fat(directory: &Path, tree: &Path, bytes: u64, block_size: u32, seed: u64) -> Result<PathBuf> {
    let file = blank(directory, "fat.part", bytes)?;
    let mut command = Command::new(program::find("mkfs.vfat")?);
    command.args(["--invariant", "-n", "UNDERCROFT", "-i"]).arg(format!("{:08x}", seed as u32));
    command.args(["-S", &block_size.to_string()]).arg(&file);
    program::run(&mut command)?;
    let mut entries = fs::read_dir(tree)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    entries.sort();
    let mut command = Command::new(program::find("mcopy")?);
    command.env("MTOOLS_SKIP_CHECK", "1").args(["-s", "-Q", "-m", "-i"]).arg(&file).args(entries).arg("::/");
    program::run(&mut command)?;
    Ok(file)
}

fn blank(directory: &Path, name: &str, bytes: u64) -> Result<PathBuf> {
    let path = directory.join(name);
    File::create(&path)
        .and_then(|file| file.set_len(bytes))
        .with_context(|| format!("cannot create {}", path.display()))?;
    Ok(path)
}

/// Moves the file of a partition to its place on the disk.
fn place(partition: &Path, disk: &Path, region: Region) -> Result<()> {
    let say = || format!("cannot write {}", disk.display());
    let mut from = File::open(partition).with_context(say)?;
    let mut to = File::options().write(true).open(disk).with_context(say)?;
    to.seek(SeekFrom::Start(region.start)).with_context(say)?;
    io::copy(&mut from, &mut to).with_context(say)?;
    fs::remove_file(partition).with_context(say)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_follow_each_other_and_leave_room_for_both_tables() {
        for mib in [1, 3, 4, 5, 15, 16, 17, 64, 1000] {
            let parts = layout(mib);
            let unit = parts[0].start;
            assert!(unit == MIB || mib < 16);
            assert_eq!(parts[1].start, parts[0].end());
            assert_eq!(parts[2].start, parts[1].end());
            assert_eq!(parts[2].end(), mib * MIB - unit);
        }
    }

    #[test]
    fn the_machine_and_the_user_choose_the_buses() {
        let serials = |machine, buses: &[Bus]| {
            recipes(On::Qemu, machine, buses)
                .map(|recipes| recipes.iter().map(|recipe| recipe.serial).collect::<Vec<_>>())
        };
        let elsewhere = RECIPES.iter().filter(|recipe| matches!(recipe.bus, Bus::Xen | Bus::Storvsc)).count();
        assert_eq!(serials(Machine::Q35, &[]).unwrap().len(), RECIPES.len() - elsewhere);
        assert_eq!(serials(Machine::Microvm, &[]).unwrap(), ["uc-blk", "uc-scsi-lun0", "uc-scsi-lun5"]);
        assert_eq!(serials(Machine::Pc, &[Bus::Pvscsi]).unwrap(), ["uc-pvscsi-target0", "uc-pvscsi-target5"]);
        let error = serials(Machine::Microvm, &[Bus::Pvscsi]).unwrap_err().to_string();
        assert_eq!(error, "--bus pvscsi: microvm has no pvscsi");
    }

    /// Each prepared disk, looked at with other programs than those that made it.
    #[test]
    fn the_file_systems_are_sound_and_hold_the_tree() {
        for recipe in &RECIPES {
            let directory = tempfile::tempdir().unwrap();
            let disk = prepare(directory.path(), recipe, 16, 5).unwrap();
            let Backend::File(path) = &disk.backend else { panic!("a file") };
            let found = table::read(&File::open(path).unwrap()).unwrap();
            assert_eq!(found.block_size, recipe.block_size);
            assert_eq!(disk.writable, Some(found.partitions[2].region));
            let cut = |index: usize| {
                let region = found.partitions[index].region;
                let part = directory.path().join("part");
                let mut from = File::open(path).unwrap();
                from.seek(SeekFrom::Start(region.start)).unwrap();
                io::copy(&mut io::Read::take(from, region.length), &mut File::create(&part).unwrap()).unwrap();
                part
            };
            program::run(Command::new(program::find("e2fsck").unwrap()).arg("-fn").arg(cut(0))).unwrap();
            let part = cut(1);
            program::run(Command::new(program::find("fsck.vfat").unwrap()).arg("-n").arg(&part)).unwrap();
            let copy = directory.path().join("copy.bin");
            let mut mcopy = Command::new(program::find("mcopy").unwrap());
            program::run(mcopy.arg("-i").arg(&part).arg("::/ROUND0/DEEP/ER/FILE05.BIN").arg(&copy)).unwrap();
            assert_eq!(fs::metadata(copy).unwrap().len(), 1023);
        }
    }
}
