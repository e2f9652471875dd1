//! The image's command line (`docs/console-protocol.md`).

use std::fmt::Write;

use crate::cli::RunOptions;
use crate::disk::Disk;

pub fn command_line(options: &RunOptions, disks: &[Disk]) -> String {
    let console = if options.monitor { "text" } else { "json" };
    let mut line = format!("console={console} workload={} seed={}", options.workload.name(), options.seed);
    if options.monitor {
        // Who types sees it already.
        line.push_str(" end=monitor echo=off");
    }
    if let Some(milliseconds) = options.speed_ms {
        let _ = write!(line, " speed_ms={milliseconds}");
    }
    let _ = write!(line, " disks={}", disks.len());
    for disk in disks {
        if let Some(files) = disk.files.as_ref().filter(|_| options.workload.verifies()) {
            let _ = write!(line, " files={},rw,{},{}", disk.serial, files.fat.start, files.fat.length);
        }
        let _ = match disk.writable {
            None => write!(line, " disk={},ro", disk.serial),
            Some(region) => write!(line, " disk={},rw,{},{}", disk.serial, region.start, region.length),
        };
    }
    line
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};
    use crate::disk::Backend;
    use crate::disk::option::Bus;
    use crate::disk::region::Region;

    #[test]
    fn everything_asked_for_is_on_the_line() {
        let Command::Run(options) =
            Cli::parse_from(["xtask", "run", "--workload", "verify", "--seed", "9", "--speed-ms", "50"]).command
        else {
            panic!("run");
        };
        let disk = |serial: &str, writable| Disk {
            label: String::new(),
            backend: Backend::Null,
            serial: serial.into(),
            bus: Bus::VirtioBlk,
            block_size: 512,
            bytes: 4096,
            writable,
            files: None,
        };
        let disks = [disk("a", None), disk("b", Some(Region { start: 512, length: 1024 }))];
        assert_eq!(
            command_line(&options, &disks),
            "console=json workload=verify seed=9 speed_ms=50 disks=2 disk=a,ro disk=b,rw,512,1024"
        );
        let Command::Run(options) = Cli::parse_from(["xtask", "run", "--monitor"]).command else { panic!("run") };
        assert_eq!(command_line(&options, &[]), "console=text workload=none seed=1 end=monitor echo=off disks=0");
    }
}
