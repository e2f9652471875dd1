//! One run of the image on disks of ours, which ends by itself or by a power cut.

use std::cell::RefCell;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::fuse::Fuse;
use super::nbd::{Server, Story};
use super::plan::{SECTOR, SECTORS, WORKERS};
use crate::cli::Machine;
use crate::image::build::Image;
use crate::qemu::arguments::Vm;
use crate::qemu::process::{self, Exit, Limits};
use crate::report::event::Event;
use crate::report::session::Session;

/// A disk: its serial number, QEMU's device, and whether it is written through a page cache.
pub struct Place {
    pub bus: &'static str,
    pub serial: &'static str,
    device: &'static str,
    pub cached: bool,
}

const fn place(bus: &'static str, serial: &'static str, device: &'static str, cached: bool) -> Place {
    Place { bus, serial, device, cached }
}

/// Two disks of each controller. The first has little room, so that requests wait, and are merged.
pub const PLACES: [Place; 8] = [
    place("virtio-blk", "blkq", "virtio-blk-pci,queue-size=8", false),
    place("virtio-blk", "blkc", "virtio-blk-pci", true),
    place("virtio-scsi", "scsiq", "scsi-hd,bus=scsi.0,lun=0", false),
    place("virtio-scsi", "scsic", "scsi-hd,bus=scsi.0,lun=5", true),
    place("pvscsi", "pvscsiq", "scsi-hd,bus=pvscsi.0,scsi-id=0", false),
    place("pvscsi", "pvscsic", "scsi-hd,bus=pvscsi.0,scsi-id=5", true),
    place("ide", "ideq", "ide-hd,bus=pata.0,unit=0", false),
    place("ide", "idec", "ide-hd,bus=pata.1,unit=0", true),
];

/// The first sector that is written.
pub const START: u64 = 64;
/// Bytes of a disk.
pub const BYTES: usize = 2 << 20;

const _: () = assert!((START + SECTORS) as usize * SECTOR < BYTES);

/// What to run.
pub struct Run<'a> {
    pub image: &'a Image,
    /// For sockets.
    pub directory: &'a Path,
    pub seed: u64,
    /// The word of the command line.
    pub acks: &'a str,
    pub generations: u64,
    /// The power is cut so many events after each worker's first acknowledgement.
    pub cut: Option<u64>,
}

impl Run<'_> {
    /// Runs it on disks that hold this: what happened at each, and what the image said.
    ///
    /// # Errors
    /// It did not end as it was to.
    pub fn run(&self, disks: &[Vec<u8>]) -> Result<(Vec<Story>, Session)> {
        let (fuse, mut servers, mut extra) = (Arc::new(Fuse::default()), Vec::new(), Vec::new());
        for device in ["virtio-scsi-pci,id=scsi", "pvscsi,id=pvscsi", "piix3-ide,id=pata"] {
            extra.extend(["-device".to_owned(), device.to_owned()]);
        }
        let mut line = format!(
            "console=json workload=power seed={} generations={} acks={} disks={}",
            self.seed,
            self.generations,
            self.acks,
            PLACES.len()
        );
        for (number, (place, bytes)) in PLACES.iter().zip(disks).enumerate() {
            let (serial, device) = (place.serial, place.device);
            let socket = self.directory.join(format!("{serial}-{}", self.seed));
            let seed = self.seed.wrapping_mul(PLACES.len() as u64).wrapping_add(number as u64);
            servers.push(Server::start(&socket, bytes.clone(), seed, Arc::clone(&fuse))?);
            let path = socket.to_str().context("a path that is not UTF-8")?;
            let node = json!({"driver": "nbd", "node-name": serial, "server": {"type": "unix", "path": path}});
            let mut device = format!("{device},drive={serial},serial={serial},werror=report,rerror=report");
            // In every other run SCSI disks make writes durable themselves, for which their queues flush otherwise.
            if self.seed.is_multiple_of(2) && device.starts_with("scsi-hd") {
                device += ",dpofua=on";
            }
            extra.extend(["-blockdev".into(), node.to_string(), "-device".into(), device]);
            line += &format!(" disk={serial},rw,{},{}", START * SECTOR as u64, SECTORS * SECTOR as u64);
            if place.cached {
                line += &format!(" cached={serial}");
            }
        }
        let session = self.boot(&line, &extra, &fuse, &servers)?;
        Ok((servers.into_iter().map(Server::end).collect(), session))
    }

    fn boot(&self, line: &str, extra: &[String], fuse: &Fuse, servers: &[Server]) -> Result<Session> {
        let vm = Vm {
            machine: Machine::Q35,
            cpus: 2,
            memory_mib: 128,
            kernel: &self.image.stripped,
            initrd: None,
            command_line: line,
            disks: &[],
            extra,
        };
        let mut command = Command::new(crate::host::program::find("qemu-system-x86_64")?);
        command.args(vm.arguments()?);
        let limits = Limits { whole: Duration::from_secs(120), silence: Duration::from_secs(40) };
        let (session, process) = (RefCell::new(Session::default()), RefCell::new(0));
        let mut first = [[false; WORKERS as usize]; PLACES.len()];
        let mut is_lit = false;
        let take = |text: &str, at| {
            // The last line may have been cut off with the power.
            if text.starts_with('{') && !text.ends_with('}') && is_lit {
                return;
            }
            let Some(Event::Ack { disk, worker, generation }) = session.borrow_mut().take(text, at) else { return };
            let Some(number) = PLACES.iter().position(|place| place.serial == disk) else { return };
            servers[number].ack(worker, generation);
            if let Some(seen) = first[number].get_mut(worker as usize) {
                *seen = true;
            }
            if let Some(events) = self.cut.filter(|_| !is_lit && first.as_flattened().iter().all(|seen| *seen)) {
                is_lit = true;
                fuse.light(*process.borrow(), events);
            }
        };
        let outcome = process::run_known(&mut command, limits, |number| *process.borrow_mut() = number, take, || {})?;
        let session = session.into_inner();
        let wanted = if self.cut.is_some() { Exit::Signal(9) } else { Exit::Status(33) };
        if outcome.exit != wanted || !session.problems.is_empty() {
            let screen = session.screen.iter().cloned().collect::<Vec<_>>().join("\n");
            bail!("{:?}: {}\n{}\n{screen}", outcome.exit, session.problems.join("; "), outcome.stderr);
        }
        Ok(session)
    }
}
