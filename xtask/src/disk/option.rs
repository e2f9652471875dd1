//! `--disk FILE[,bus=virtio-blk|virtio-scsi|pvscsi|ide][,ro|rw[=START:LENGTH]]`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::ValueEnum;

use super::region::Region;

/// One `--disk`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskOption {
    /// `none`: no disk at all.
    None,
    File {
        file: PathBuf,
        bus: Bus,
        access: Access,
    },
}

/// The controller a disk sits on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Bus {
    /// virtio-blk, on PCI or on the memory bus
    VirtioBlk,
    /// A virtio-scsi host, on PCI or on the memory bus
    VirtioScsi,
    /// VMware's paravirtual SCSI adapter, on PCI
    Pvscsi,
    /// A PIIX3 IDE controller, on PCI; it has four places
    Ide,
    /// A virtual block device of Xen; with --on xen only, where there is no other
    Xen,
    /// A SCSI controller on VMBus; with --on hyperv only, where there is no other
    Storvsc,
}

impl Bus {
    pub fn name(self) -> &'static str {
        match self {
            Bus::VirtioBlk => "virtio-blk",
            Bus::VirtioScsi => "virtio-scsi",
            Bus::Pvscsi => "pvscsi",
            Bus::Ide => "ide",
            Bus::Xen => "xen",
            Bus::Storvsc => "storvsc",
        }
    }

    /// The driver of the image that finds its disks.
    pub fn driver(self) -> &'static str {
        match self {
            Bus::Ide => "ata",
            Bus::Xen => "xenblk",
            other => other.name(),
        }
    }

    /// Whether it is a PCI device only.
    pub fn needs_pci(self) -> bool {
        match self {
            Bus::VirtioBlk | Bus::VirtioScsi | Bus::Xen | Bus::Storvsc => false,
            Bus::Pvscsi | Bus::Ide => true,
        }
    }

    /// All names, for a message.
    fn names() -> String {
        Bus::value_variants().iter().map(|bus| bus.name()).collect::<Vec<_>>().join(", ")
    }
}

/// What the user allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    ReadOnly,
    /// Writing; without a region one is looked for on the disk.
    Write(Option<Region>),
}

impl FromStr for DiskOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = split_on_single_commas(text).into_iter();
        let file = words.next().unwrap_or_default();
        if file.is_empty() {
            return Err("no file is named".into());
        }
        let (mut bus, mut access) = (None, None);
        for word in words {
            let (key, value) = match word.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (word.as_str(), None),
            };
            match (key, value) {
                ("bus", Some(name)) => {
                    let known = Bus::value_variants().iter().find(|bus| bus.name() == name);
                    let new = known.ok_or_else(|| format!("unknown bus '{name}' ({})", Bus::names()))?;
                    once(&mut bus, *new, "bus")?;
                }
                ("ro", None) => once(&mut access, Access::ReadOnly, "ro or rw")?,
                ("rw", None) => once(&mut access, Access::Write(None), "ro or rw")?,
                ("rw", Some(range)) => once(&mut access, Access::Write(Some(parse_range(range)?)), "ro or rw")?,
                _ => return Err(format!("unknown option '{word}' (bus=..., ro, rw or rw=START:LENGTH)")),
            }
        }
        if file == "none" {
            return match (bus, access) {
                (None, None) => Ok(DiskOption::None),
                _ => Err("'none' takes no options (a file of that name is ./none)".into()),
            };
        }
        Ok(DiskOption::File {
            file: PathBuf::from(file),
            bus: bus.unwrap_or(Bus::VirtioBlk),
            access: access.unwrap_or(Access::ReadOnly),
        })
    }
}

fn once<T>(slot: &mut Option<T>, value: T, what: &str) -> Result<(), String> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("{what} is given twice")),
    }
}

/// Splits on commas; a doubled comma stands for one (as QEMU has it).
fn split_on_single_commas(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c != ',' {
            words.last_mut().expect("never empty").push(c);
        } else if rest.next_if_eq(&',').is_some() {
            words.last_mut().expect("never empty").push(',');
        } else {
            words.push(String::new());
        }
    }
    words
}

fn parse_range(text: &str) -> Result<Region, String> {
    let wrong = || format!("'{text}' is not START:LENGTH in bytes (suffixes K, M and G are understood)");
    let (start, length) = text.split_once(':').ok_or_else(wrong)?;
    let (start, length) = (parse_bytes(start).ok_or_else(wrong)?, parse_bytes(length).ok_or_else(wrong)?);
    if length == 0 {
        return Err(format!("the range '{text}' is empty"));
    }
    start.checked_add(length).ok_or_else(|| format!("the range '{text}' ends beyond 2^64"))?;
    Ok(Region { start, length })
}

fn parse_bytes(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 10),
        b'M' => (&text[..text.len() - 1], 20),
        b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DiskOption, String> {
        text.parse()
    }

    fn file(name: &str, bus: Bus, access: Access) -> Result<DiskOption, String> {
        Ok(DiskOption::File { file: name.into(), bus, access })
    }

    #[test]
    fn a_bare_file_is_read_only_on_virtio_blk() {
        assert_eq!(parse("a.img"), file("a.img", Bus::VirtioBlk, Access::ReadOnly));
    }

    #[test]
    fn bus_and_access_come_in_any_order() {
        let wanted = file("/d/a.img", Bus::VirtioScsi, Access::Write(None));
        assert_eq!(parse("/d/a.img,bus=virtio-scsi,rw"), wanted);
        assert_eq!(parse("/d/a.img,rw,bus=virtio-scsi"), wanted);
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        for bus in Bus::value_variants() {
            assert_eq!(bus.to_possible_value().unwrap().get_name(), bus.name());
            assert_eq!(parse(&format!("a,bus={}", bus.name())), file("a", *bus, Access::ReadOnly));
        }
    }

    #[test]
    fn a_range_takes_suffixes() {
        let region = Region { start: 1 << 20, length: 12345 };
        assert_eq!(parse("a,rw=1M:12345"), file("a", Bus::VirtioBlk, Access::Write(Some(region))));
    }

    #[test]
    fn doubled_commas_belong_to_the_name() {
        assert_eq!(parse("a,,b.img,ro"), file("a,b.img", Bus::VirtioBlk, Access::ReadOnly));
        assert_eq!(parse("a,,,ro"), file("a,", Bus::VirtioBlk, Access::ReadOnly));
    }

    #[test]
    fn none_stands_for_no_disk_and_a_path_for_a_file_of_that_name() {
        assert_eq!(parse("none"), Ok(DiskOption::None));
        assert_eq!(parse("./none"), file("./none", Bus::VirtioBlk, Access::ReadOnly));
        assert!(parse("none,rw").is_err());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, named) in [
            ("", "no file"),
            (",rw", "no file"),
            ("a,bus=floppy", "'floppy' (virtio-blk, virtio-scsi, pvscsi"),
            ("a,wr", "'wr'"),
            ("a,", "''"),
            ("a,ro=1", "'ro=1'"),
            ("a,ro,rw", "twice"),
            ("a,bus=virtio-blk,bus=virtio-scsi", "twice"),
            ("a,rw=5", "'5'"),
            ("a,rw=0:", "'0:'"),
            ("a,rw=0:-1", "'0:-1'"),
            ("a,rw=0:+1", "'0:+1'"),
            ("a,rw=0:0", "empty"),
            ("a,rw=18446744073709551615:1", "2^64"),
            ("a,rw=0:18446744073709551615G", "is not"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
