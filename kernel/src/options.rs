//! The image's command line (`docs/console-protocol.md`). Pure; any context.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use undercroft_xen::blk::Config;

/// Which phases run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// Read each disk whole, and write where it is allowed.
    pub verify: bool,
    /// Measure.
    pub speed: bool,
    /// Before the disks are found, measure the rings of their controllers without any driver.
    pub bare: bool,
    /// Write and read all disks at once, whatever fails.
    pub faults: bool,
    /// Write and flush all disks at once, until the power is cut.
    pub power: bool,
}

/// When the power workload says that a generation is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// When a flush that began after its writes had completed has succeeded.
    Flushed,
    /// A defect, for the test's own test: when its writes have completed.
    Unflushed,
    /// Another: when its writes and a flush that began before them have completed.
    Early,
}

/// What may be done with a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskRule {
    /// The disk's serial number.
    pub serial: String,
    /// The bytes that may be overwritten: start and length.
    pub writable: Option<(u64, u64)>,
}

/// What the command line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// JSON Lines on the console, instead of text for people.
    pub json: bool,
    /// The phases.
    pub workload: Workload,
    /// Seed of patterns and random sequences.
    pub seed: u64,
    /// Rules by serial number; a disk without one is read only.
    pub disks: Vec<DiskRule>,
    /// FAT file systems that files may be written to: the disk's serial number, and the partition's first byte and length.
    pub files: Vec<DiskRule>,
    /// How many disks must be found, if that is said.
    pub expected_disks: Option<u32>,
    /// Milliseconds for each row of the speed table.
    pub speed_ms: u64,
    /// Milliseconds of the fault workload.
    pub faults_ms: u64,
    /// Disks that must have come meanwhile before that time begins.
    pub arrivals: u64,
    /// Generations of each worker of the power workload.
    pub generations: u64,
    /// When the power workload says that a generation is durable.
    pub acks: Acks,
    /// Serial numbers of disks that the power workload writes through a page cache.
    pub cached: Vec<String>,
    /// Milliseconds that a request may take, and each rung of the recovery ladder, if not the defaults.
    pub deadline_ms: Option<u64>,
    /// What is asked of Xen's backends: how many rings, and how large.
    pub rings: Config,
    /// Stay in the monitor after the last phase.
    pub monitor: bool,
    /// The monitor shows what is typed.
    pub echo: bool,
}

/// A word of the command line that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadWord {
    word: String,
    why: &'static str,
}

impl fmt::Display for BadWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command line: '{}': {}", self.word, self.why)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            json: false,
            workload: Workload { verify: true, speed: true, bare: false, faults: false, power: false },
            seed: 1,
            disks: Vec::new(),
            files: Vec::new(),
            expected_disks: None,
            speed_ms: 300,
            faults_ms: 3000,
            arrivals: 0,
            generations: 100,
            acks: Acks::Flushed,
            cached: Vec::new(),
            deadline_ms: None,
            rings: Config::default(),
            monitor: false,
            echo: true,
        }
    }
}

/// Words that are not ours: a loader or the machine adds them.
fn is_foreign(key: &str) -> bool {
    key == "virtio_mmio.device"
}

/// Reads the command line. What cannot be understood is collected, and everything else holds.
pub fn parse(line: &str) -> (Options, Vec<BadWord>) {
    let (mut options, mut bad) = (Options::default(), Vec::new());
    for word in line.split_ascii_whitespace() {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        if is_foreign(key) {
            continue;
        }
        if let Err(why) = apply(&mut options, key, value) {
            bad.push(BadWord { word: word.to_string(), why });
        }
    }
    (options, bad)
}

fn apply(options: &mut Options, key: &str, value: &str) -> Result<(), &'static str> {
    match key {
        "console" => {
            options.json = match value {
                "text" => false,
                "json" => true,
                _ => return Err("the console carries 'text' or 'json'"),
            };
        }
        "workload" => {
            let (verify, speed) = match value {
                "all" => (true, true),
                "verify" => (true, false),
                "speed" => (false, true),
                "bench" => (false, true),
                "none" | "faults" | "power" => (false, false),
                _ => return Err("the workload is 'all', 'verify', 'speed', 'bench', 'faults', 'power' or 'none'"),
            };
            let (bare, faults, power) = (value == "bench", value == "faults", value == "power");
            options.workload = Workload { verify, speed, bare, faults, power };
        }
        "seed" => options.seed = number(value)?,
        "disk" => options.disks.push(rule(value)?),
        "files" => match rule(value)? {
            DiskRule { writable: None, .. } => return Err("a file system is SERIAL,rw,START,LENGTH"),
            place => options.files.push(place),
        },
        "disks" => options.expected_disks = Some(u32::try_from(number(value)?).map_err(|_| "the number is too large")?),
        "speed_ms" => match number(value)? {
            ms @ 1..=600_000 => options.speed_ms = ms,
            _ => return Err("a row of the speed table takes 1 to 600000 milliseconds"),
        },
        "faults_ms" => match number(value)? {
            ms @ 1..=20_000 => options.faults_ms = ms,
            _ => return Err("the fault workload takes 1 to 20000 milliseconds"),
        },
        "arrivals" => options.arrivals = number(value)?,
        "generations" => match number(value)? {
            count @ 1..=1_000_000_000 => options.generations = count,
            _ => return Err("the power workload has 1 to 1000000000 generations"),
        },
        "acks" => {
            options.acks = match value {
                "flushed" => Acks::Flushed,
                "unflushed" => Acks::Unflushed,
                "early" => Acks::Early,
                _ => return Err("the acks are 'flushed', 'unflushed' or 'early'"),
            };
        }
        "cached" if !value.is_empty() => options.cached.push(value.to_string()),
        "cached" => return Err("there is no serial number"),
        "deadline_ms" => match number(value)? {
            ms @ 1..=600_000 => options.deadline_ms = Some(ms),
            _ => return Err("a request may take 1 to 600000 milliseconds"),
        },
        "rings" => {
            const WRONG: &str = "it is a number of rings and the power of two of a ring's pages, at most 4";
            let (queues, order) = value.split_once(',').ok_or(WRONG)?;
            let queues = u16::try_from(number(queues)?).ok().filter(|&queues| queues > 0).ok_or(WRONG)?;
            let ring_order = u32::try_from(number(order)?).ok().filter(|&order| order <= 4).ok_or(WRONG)?;
            options.rings = Config { queues, ring_order };
        }
        "end" => {
            options.monitor = match value {
                "poweroff" => false,
                "monitor" => true,
                _ => return Err("the end is 'poweroff' or 'monitor'"),
            };
        }
        "echo" => {
            options.echo = match value {
                "on" => true,
                "off" => false,
                _ => return Err("the echo is 'on' or 'off'"),
            };
        }
        _ => return Err("there is no such option"),
    }
    Ok(())
}

fn number(text: &str) -> Result<u64, &'static str> {
    // Not `parse` alone: that takes a plus sign.
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("not a decimal number");
    }
    text.parse().map_err(|_| "the number is too large")
}

fn rule(text: &str) -> Result<DiskRule, &'static str> {
    const FORM: &str = "a disk is SERIAL,ro or SERIAL,rw,START,LENGTH";
    let mut parts = text.split(',');
    let serial = parts.next().filter(|serial| !serial.is_empty()).ok_or(FORM)?.to_string();
    let writable = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some("ro"), None, None, None) => None,
        (Some("rw"), Some(start), Some(length), None) => {
            let (start, length) = (number(start)?, number(length)?);
            start.checked_add(length).ok_or("the range ends beyond any disk")?;
            Some((start, length))
        }
        _ => return Err(FORM),
    };
    Ok(DiskRule { serial, writable })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_at_once() {
        let line = "console=json workload=verify seed=18446744073709551615 disk=a,ro disk=b,rw,512,4096 files=b,rw,8192,4096 disks=2 \
                    speed_ms=5 faults_ms=77 arrivals=3 generations=6 acks=early cached=b deadline_ms=400 rings=2,4 end=monitor echo=off virtio_mmio.device=512@0xfeb02a00:12";
        let (options, bad) = parse(line);
        assert_eq!(bad, []);
        let disks = alloc::vec![
            DiskRule { serial: "a".into(), writable: None },
            DiskRule { serial: "b".into(), writable: Some((512, 4096)) },
        ];
        assert_eq!(
            options,
            Options {
                json: true,
                workload: Workload { verify: true, speed: false, bare: false, faults: false, power: false },
                seed: u64::MAX,
                disks,
                files: alloc::vec![DiskRule { serial: "b".into(), writable: Some((8192, 4096)) }],
                expected_disks: Some(2),
                speed_ms: 5,
                faults_ms: 77,
                arrivals: 3,
                generations: 6,
                acks: Acks::Early,
                cached: alloc::vec!["b".into()],
                deadline_ms: Some(400),
                rings: Config { queues: 2, ring_order: 4 },
                monitor: true,
                echo: false,
            }
        );
    }

    #[test]
    fn an_empty_line_means_the_defaults() {
        assert_eq!(parse("  "), (Options::default(), alloc::vec![]));
    }

    #[test]
    fn bad_words_are_named_and_the_rest_holds() {
        for word in [
            "seed=",
            "seed=+1",
            "seed=-1",
            "seed=18446744073709551616",
            "seed=0x10",
            "speed_ms=0",
            "speed_ms=600001",
            "faults_ms=20001",
            "generations=0",
            "acks=later",
            "cached=",
            "deadline_ms=0",
            "rings=1",
            "rings=0,1",
            "rings=1,5",
            "disks=4294967296",
            "disk=",
            "disk=a",
            "disk=,ro",
            "disk=a,ro,1",
            "disk=a,rw",
            "disk=a,rw,1",
            "disk=a,rw,1,2,3",
            "disk=a,rw,18446744073709551615,1",
            "files=a,ro",
            "files=a,rw,1",
            "workload=some",
            "console=",
            "end=never",
            "echo=maybe",
            "colour=red",
            "quiet",
            "=",
        ] {
            let (options, bad) = parse(&alloc::format!("{word} disks=7"));
            assert_eq!(bad.len(), 1, "{word}");
            assert!(bad[0].to_string().contains(word), "{}", bad[0]);
            assert_eq!(options.expected_disks, Some(7), "{word}");
        }
    }
}
