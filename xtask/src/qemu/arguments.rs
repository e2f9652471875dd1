//! The command line of QEMU.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::cli::Machine;
use crate::disk::option::Bus;
use crate::disk::{Backend, Disk};

/// A virtual machine to start.
pub struct Vm<'a> {
    pub machine: Machine,
    pub cpus: u32,
    pub memory_mib: u32,
    pub kernel: &'a Path,
    pub initrd: Option<&'a Path>,
    pub command_line: &'a str,
    pub disks: &'a [Disk],
    pub extra: &'a [String],
}

/// LUNs in the order they are given to disks: sparse, as real arrays are.
const LUNS: [u32; 4] = [0, 5, 6, 200];
/// Targets of pvscsi in the order they are given to disks. QEMU's has 64, each with LUN 0 only.
const TARGETS: [u32; 3] = [0, 5, 63];

/// Channels and units of an IDE controller in the order they are given to disks.
const IDE: [(u32, u32); 4] = [(0, 0), (1, 0), (0, 1), (1, 1)];

impl Vm<'_> {
    /// Returns all arguments of QEMU.
    ///
    /// # Errors
    /// Names a file whose path cannot be told to QEMU (it takes UTF-8 only).
    pub fn arguments(&self) -> Result<Vec<OsString>> {
        let mut all = Arguments::default();
        all.put(&["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-accel", "tcg", "-cpu", "max"]);
        let machine = match self.machine {
            Machine::Q35 | Machine::Pc => self.machine.name(),
            Machine::Microvm => MICROVM,
        };
        all.put(&["-machine", machine, "-smp", &self.cpus.to_string()]);
        if self.machine == Machine::Microvm {
            // QEMU's virtio-mmio speaks the legacy interface unless told otherwise.
            all.put(&["-global", "virtio-mmio.force-legacy=false"]);
        }
        all.put(&["-m", &format!("{}M", self.memory_mib), "-serial", "stdio"]);
        all.put(&["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
        all.0.extend(["-kernel".into(), self.kernel.into()]);
        if let Some(initrd) = self.initrd {
            all.0.extend(["-initrd".into(), initrd.into()]);
        }
        all.put(&["-append", self.command_line]);
        self.disk_arguments(&mut all)?;
        all.put(&["-device", &self.device("virtio-rng", "")]);
        all.0.extend(self.extra.iter().map(OsString::from));
        Ok(all.0)
    }

    fn disk_arguments(&self, all: &mut Arguments) -> Result<()> {
        let mut luns = LUNS.into_iter().chain(LUNS[3] + 1..);
        if self.disks.iter().any(|disk| disk.bus == Bus::VirtioScsi) {
            all.put(&["-device", &self.device("virtio-scsi", ",id=scsi")]);
        }
        let mut targets = TARGETS.into_iter().chain((1..63).filter(|target| !TARGETS.contains(target)));
        if self.disks.iter().any(|disk| disk.bus == Bus::Pvscsi) {
            all.put(&["-device", "pvscsi,id=pvscsi"]);
        }
        let mut places = IDE.into_iter();
        // pc has one of its own; on q35 it is a card.
        let ide = if self.machine == Machine::Pc { "ide" } else { "pata" };
        if self.machine == Machine::Q35 && self.disks.iter().any(|disk| disk.bus == Bus::Ide) {
            all.put(&["-device", "piix3-ide,id=pata"]);
        }
        for (index, disk) in self.disks.iter().enumerate() {
            if !self.machine.has(disk.bus) {
                bail!("disk {}: {} has no {}", disk.label, self.machine.name(), disk.bus.name());
            }
            all.put(&["-blockdev", &blockdev(disk, index)?]);
            let common = format!(
                "drive=disk{index},serial={},logical_block_size={1},physical_block_size={1}",
                disk.serial, disk.block_size
            );
            let device = match disk.bus {
                Bus::VirtioBlk => self.device("virtio-blk", &format!(",{common}")),
                Bus::VirtioScsi => {
                    let lun = luns.next().unwrap_or_default();
                    format!("scsi-hd,bus=scsi.0,channel=0,scsi-id=0,lun={lun},{common}")
                }
                Bus::Pvscsi => {
                    let target = targets.next().context("pvscsi has 64 targets")?;
                    format!("scsi-hd,bus=pvscsi.0,channel=0,scsi-id={target},lun=0,{common}")
                }
                Bus::Xen => bail!("disk {}: no machine of QEMU's has disks of Xen", disk.label),
                Bus::Storvsc => bail!("disk {}: no machine of QEMU's has disks on VMBus", disk.label),
                Bus::Ide => {
                    ensure!(disk.block_size == 512, "disk {}: IDE disks of QEMU have blocks of 512 bytes", disk.label);
                    let (channel, unit) = places.next().context("an IDE controller has 4 places for disks")?;
                    format!("ide-hd,bus={ide}.{channel},unit={unit},{common}")
                }
            };
            all.put(&["-device", &device]);
        }
        Ok(())
    }

    fn device(&self, name: &str, options: &str) -> String {
        let transport = if self.machine == Machine::Microvm { "device" } else { "pci" };
        format!("{name}-{transport}{options}")
    }
}

/// The legacy devices that the image uses are switched on; nothing else is there but virtio-mmio.
const MICROVM: &str = "microvm,isa-serial=on,pit=on,pic=on,rtc=on";

fn blockdev(disk: &Disk, index: usize) -> Result<String> {
    let node = format!("disk{index}");
    let description = match &disk.backend {
        Backend::File(path) => {
            let name = path
                .to_str()
                .with_context(|| format!("disk {}: QEMU needs a path that is valid UTF-8", path.display()))?;
            let host_device = path.metadata().is_ok_and(|m| !m.is_file());
            json!({
                "driver": "raw", "node-name": node, "read-only": disk.writable.is_none(), "discard": "unmap",
                "file": {
                    "discard": "unmap", "driver": if host_device { "host_device" } else { "file" }, "filename": name, "locking": "on",
                    "read-only": disk.writable.is_none(),
                },
            })
        }
        Backend::Null => json!({
            "driver": "null-co", "node-name": node, "size": disk.bytes, "read-zeroes": false,
            "read-only": disk.writable.is_none(),
        }),
    };
    Ok(description.to_string())
}

#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn put(&mut self, words: &[&str]) {
        self.0.extend(words.iter().map(OsString::from));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::region::Region;

    fn disk(bus: Bus, file: &str, writable: bool) -> Disk {
        Disk {
            label: "x".into(),
            backend: Backend::File(file.into()),
            serial: "S1".into(),
            bus,
            block_size: 4096,
            bytes: 1 << 20,
            writable: writable.then_some(Region { start: 0, length: 4096 }),
            files: None,
        }
    }

    fn arguments(machine: Machine, disks: &[Disk]) -> Vec<String> {
        let vm = Vm {
            machine,
            cpus: 3,
            memory_mib: 77,
            kernel: Path::new("/k.elf"),
            initrd: None,
            command_line: "console=json disk=S1,ro",
            disks,
            extra: &["-trace".into(), "x".into()],
        };
        vm.arguments().unwrap().into_iter().map(|a| a.into_string().unwrap()).collect()
    }

    fn after<'a>(all: &'a [String], option: &str) -> Vec<&'a str> {
        all.windows(2).filter(|pair| pair[0] == option).map(|pair| pair[1].as_str()).collect()
    }

    #[test]
    fn a_disk_is_read_only_unless_it_may_be_written() {
        for writable in [false, true] {
            let all = arguments(Machine::Q35, &[disk(Bus::VirtioBlk, "/d,\"1.img", writable)]);
            let described: serde_json::Value = serde_json::from_str(after(&all, "-blockdev")[0]).unwrap();
            assert_eq!(described["read-only"], !writable);
            assert_eq!(described["file"]["read-only"], !writable);
            assert_eq!(described["file"]["filename"], "/d,\"1.img");
            assert_eq!(described["driver"], "raw", "never probed");
        }
    }

    #[test]
    fn the_machine_decides_the_transport() {
        let disks = [disk(Bus::VirtioBlk, "/a", true), disk(Bus::VirtioScsi, "/b", true)];
        let q35 = arguments(Machine::Q35, &disks).join(" ");
        assert!(q35.contains("virtio-blk-pci,drive=disk0") && q35.contains("virtio-scsi-pci,id=scsi"), "{q35}");
        let microvm = arguments(Machine::Microvm, &disks).join(" ");
        assert!(microvm.contains("virtio-blk-device,drive=disk0") && !microvm.contains("-pci"), "{microvm}");
    }

    #[test]
    fn luns_are_sparse_and_differ() {
        let disks = vec![disk(Bus::VirtioScsi, "/a", false); 6];
        let all = arguments(Machine::Pc, &disks);
        let luns: Vec<_> = all.iter().filter_map(|a| a.split("lun=").nth(1)?.split(',').next()).collect();
        assert_eq!(luns, ["0", "5", "6", "200", "201", "202"]);
    }

    #[test]
    fn ide_disks_are_on_both_channels() {
        let disks = vec![Disk { block_size: 512, ..disk(Bus::Ide, "/a", false) }; 4];
        for (machine, id, cards) in [(Machine::Pc, "ide", 0), (Machine::Q35, "pata", 1)] {
            let all = arguments(machine, &disks);
            assert_eq!(all.iter().filter(|a| *a == "piix3-ide,id=pata").count(), cards);
            let wanted = [(0, 0), (1, 0), (0, 1), (1, 1)];
            let wanted = wanted.map(|(channel, unit)| format!("ide-hd,bus={id}.{channel},unit={unit},"));
            assert!(wanted.iter().all(|place| all.iter().any(|a| a.starts_with(place))), "{all:?}");
        }
    }

    #[test]
    fn targets_are_sparse_and_differ_and_need_pci() {
        let disks = vec![disk(Bus::Pvscsi, "/a", false); 5];
        let all = arguments(Machine::Pc, &disks);
        assert_eq!(all.iter().filter(|a| *a == "pvscsi,id=pvscsi").count(), 1);
        let targets: Vec<_> = all.iter().filter_map(|a| a.split("scsi-id=").nth(1)?.split(',').next()).collect();
        assert_eq!(targets, ["0", "5", "63", "1", "2"]);
        let vm = |machine, count| Vm {
            machine,
            cpus: 1,
            memory_mib: 64,
            kernel: Path::new("/k.elf"),
            initrd: None,
            command_line: "",
            disks: &disks[..count],
            extra: &[],
        };
        assert!(
            vm(Machine::Microvm, 1).arguments().is_err_and(|error| error.to_string().contains("microvm has no pvscsi"))
        );
        assert!(vm(Machine::Microvm, 0).arguments().is_ok());
    }

    #[test]
    fn sizes_and_the_users_own_arguments_get_through() {
        let all = arguments(Machine::Pc, &[]);
        assert_eq!(after(&all, "-m"), ["77M"]);
        assert_eq!(after(&all, "-smp"), ["3"]);
        assert_eq!(after(&all, "-append"), ["console=json disk=S1,ro"]);
        assert_eq!(all[all.len() - 2..], ["-trace", "x"]);
    }
}
