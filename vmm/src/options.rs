//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Parser;
use serde::Deserialize;

/// A Hyper-V machine on /dev/kvm, for images with a PVH entry.
#[derive(Parser)]
#[command(name = "undercroft-vmm", version)]
pub struct Options {
    /// The image: an ELF file with a PVH entry
    #[arg(long, value_name = "ELF")]
    pub kernel: PathBuf,
    /// The image's command line
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub append: String,
    /// Processors
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub cpus: u32,
    /// Memory in MiB
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(16..=1_000_000))]
    pub memory: u64,
    /// A disk, as a line of JSON: {"file": PATH, "serial": TEXT, "block_size": 512, "read_only": false, "ide": [0, 1]}. Repeatable; "ide" is for a disk as machines of generation 1 have it
    #[arg(long = "disk", value_name = "JSON")]
    pub disks: Vec<Disk>,
    /// The highest version of VMBus, as MAJOR.MINOR
    #[arg(long, value_name = "VERSION", default_value = "6.0", value_parser = version)]
    pub vmbus: u32,
    /// Sub-channels of the controller at most
    #[arg(long, default_value_t = 3)]
    pub sub_channels: u16,
    /// Takes commands at this socket while the machine runs, a line of JSON each
    #[arg(long, value_name = "SOCKET")]
    pub control: Option<PathBuf>,
    /// Says at the end, on standard error, what was counted
    #[arg(long)]
    pub counts: bool,
}

/// A disk.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Where its data is.
    pub file: PathBuf,
    /// What it says its serial number is.
    pub serial: String,
    /// Bytes of a logical block.
    #[serde(default = "block_size")]
    pub block_size: u32,
    /// Refuses writes.
    #[serde(default)]
    pub read_only: bool,
    /// The unit's number; the next free one without.
    pub lun: Option<u16>,
    /// Not on the SCSI controller: the disk of this channel and number (0 or 1 each) of an IDE controller, as a machine of generation 1 has it, by
    /// its storage channel.
    pub ide: Option<(u8, u8)>,
}

fn block_size() -> u32 {
    512
}

impl FromStr for Disk {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text)
    }
}

fn version(text: &str) -> Result<u32, String> {
    let parts =
        text.split_once('.').and_then(|(major, minor)| Some((major.parse::<u16>().ok()?, minor.parse::<u16>().ok()?)));
    let (major, minor) = parts.ok_or_else(|| format!("'{text}' is not MAJOR.MINOR"))?;
    Ok(u32::from(major) << 16 | u32::from(minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_disks() {
        assert_eq!((version("5.3"), version("2.4")), (Ok(0x5_0003), Ok(0x2_0004)));
        assert!(version("6").is_err() && version("6.x").is_err());
        let disk: Disk = r#"{"file": "/a,b", "serial": "s", "block_size": 4096}"#.parse().unwrap();
        assert_eq!((disk.file, disk.block_size, disk.read_only, disk.lun), ("/a,b".into(), 4096, false, None));
        assert!(r#"{"file": "/a", "serial": "s", "bus": "ide"}"#.parse::<Disk>().is_err());
    }
}
