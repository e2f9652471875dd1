//! The image as a domain of the real Xen, under QEMU.
//!
//! Xen and its first domain start once for `whole`, as people start them, and once more for everything else: that is done by a
//! [`Lab`], whose domains come one after the other.

mod hotplug;
mod matrix;
mod restart;
mod whole;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::conversation::Conversation;
use super::tally::Tally;
use crate::disk::pattern;
use crate::host::workspace;
use crate::image::build;
use crate::xen::domain::{Domain, Vbd, vbd_name};
use crate::xen::lab::{self, End, Lab, Setup};
use crate::xen::machine::{Drive, IMAGE};

const MIB: u64 = 1 << 20;
/// Bytes of each of the machine's disks.
const BYTES: u64 = 16 * MIB;
/// What they hold.
const SEED: u64 = 9;
/// How long a domain may take to end after its last word.
const PATIENCE: Duration = Duration::from_secs(30);
/// The block sizes of the machine's disks: `/dev/vda` and on.
const DISKS: [u32; 3] = [512, 4096, 512];

/// The group.
pub fn group(tally: &mut Tally) -> Result<()> {
    let directory = workspace::scratch()?;
    let image = build::build(None, directory.path())?;
    whole::checks(&image.whole, directory.path(), tally.is_long, tally)?;
    let mut stage = Stage::set(&image.stripped, directory.path(), tally.is_long)?;
    hotplug::checks(&mut stage, tally)?;
    restart::checks(&mut stage, tally)?;
    matrix::checks(&mut stage, tally.is_long, tally)
}

/// The lab, and what stands in it.
struct Stage {
    lab: Lab,
    /// The host's side of the disks.
    files: Vec<PathBuf>,
}

/// Domains of the stage, by their names: processors, disks, and what the image's command line says besides.
fn domains(is_long: bool) -> Vec<Domain> {
    let mut all = vec![hotplug::domain()];
    all.extend(restart::domains());
    all.extend(matrix::domains(is_long));
    all
}

impl Stage {
    fn set(image: &Path, directory: &Path, is_long: bool) -> Result<Self> {
        let files: Vec<PathBuf> = (0..DISKS.len()).map(|index| directory.join(format!("disk{index}"))).collect();
        let content: Vec<u8> = (0..BYTES / 8).flat_map(|word| pattern::word(SEED, word * 8).to_le_bytes()).collect();
        for file in &files {
            fs::write(file, &content).with_context(|| file.display().to_string())?;
        }
        let drives: Vec<Drive> = files
            .iter()
            .zip(DISKS)
            .map(|(file, block_size)| Drive { file: file.as_path(), block_size, writable: true })
            .collect();
        let setup = Setup {
            cpus: 2,
            domains: &domains(is_long),
            files: &[(IMAGE, image)],
            drives: &drives,
            directory,
            pin: None,
            extra: &[],
        };
        let lab = Lab::start(&setup)?;
        Ok(Self { lab, files })
    }

    /// A domain at its monitor's prompt.
    fn begin(&mut self, domain: &Domain) -> Result<Conversation> {
        Conversation::over(self.lab.begin(domain)?).with_context(|| format!("the domain {}", domain.name))
    }

    /// Ends the monitor and with it the domain; holds if all went well.
    fn quit(&mut self, image: Conversation, domain: &Domain) -> Result<()> {
        image.quit()?;
        let end = self.lab.end(domain, PATIENCE)?;
        ensure!(end == End::PowerOff, "the domain ended by {end:?}");
        Ok(())
    }
}

/// A domain of the image's.
fn image(name: &str, cpus: u32, disks: Vec<Vbd>, command_line: &str) -> Domain {
    Domain {
        name: name.into(),
        kernel: lab::path(IMAGE),
        ramdisk: None,
        command_line: format!("console=text workload=none end=monitor echo=off {command_line}"),
        memory_mib: 64,
        cpus,
        disks,
    }
}

/// A disk of the machine as the domain's disk number `index`.
fn vbd(target: &str, index: usize, writable: bool) -> Vbd {
    Vbd { target: target.into(), name: vbd_name(index), writable }
}
