//! The image's monitor: a session over the serial port, as a user types it.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::guest;
use super::tally::Tally;

/// A line that is typed, and what its answer says.
const SESSION: [(&str, &[&str]); 34] = [
    ("help", &["disks", "latency", "quit"]),
    ("disks", &["virtio-blk0: virtio-blk at pci", "virtio-scsi1", "undercroft-scratch"]),
    ("read virtio-blk0 1", &["45 46 49 20 50 41 52 54", "EFI PART", "512 bytes, sha256 "]),
    // The scratch partition begins where the others end.
    ("write virtio-blk0 22528 64 5", &["64 blocks from 22528 written with seed 5, flushed, read back equal"]),
    ("verify virtio-blk0 22528 64 5", &["64 blocks from 22528 hold the pattern of seed 5"]),
    ("verify virtio-blk0 22528 64 6", &["DO NOT HOLD the pattern of seed 6"]),
    ("verify virtio-scsi0", &["virtio-scsi0 sha256 "]),
    ("stats", &["CPU 0 bottom halves: ", "CPU 1 run queue: ", "waited, in ns: "]),
    ("latency", &["from an interrupt, in cycles (p50, p99): to its handler "]),
    ("stress 3", &[" 0 violations", "the race programme found nothing"]),
    ("stress", &["error: how many seconds is missing"]),
    ("callouts", &["CPU 0: ", " run, ", "late, up to us: "]),
    ("heaps", &["locked heap: ", "dma heap: ", "reserve for write-back: "]),
    ("cpus", &["CPU 0: interrupts of devices ", "CPU 1: interrupts of devices "]),
    ("irq", &["handlers, 0 interrupts that nobody claimed"]),
    ("queues", &["virtio-blk0: ", " merged; busy "]),
    ("cache", &["volumes share ", "virtio-blk0: ", " were there", "pages written in "]),
    ("ls virtio-blk0/1", &["README.TXT", "ROUND0/", "lost+found/", "entries (ext4)"]),
    ("ls virtio-scsi1/2/ROUND0/DEEP", &["ER/", "1 entries (fat)"]),
    ("cat pvscsi0/1/README.TXT", &["A disk prepared by cargo xtask run with seed 1.", " bytes, sha256 "]),
    ("cat ata0/2/ROUND0/DEEP/ER/FILE05.BIN", &["00000000  ", "1023 bytes, sha256 "]),
    ("cat virtio-blk0/1/ROUND0", &["error: it is a directory"]),
    ("cat virtio-blk0/1/NO FILE", &["error: there is no such file or directory"]),
    ("ls virtio-blk0/3", &["error: this machine has no file system there that is known"]),
    ("ls virtio-blk0/9", &["error: this machine has no partition of that number"]),
    ("sync", &["everything written is durable"]),
    ("frobnicate now", &["error: 'frobnicate': there is no such command"]),
    ("read virtio-blk7 0", &["error: 'virtio-blk7': there is no such disk"]),
    ("read virtio-blk0 zero", &["error: 'zero': the first block is to be a number"]),
    ("read virtio-blk0 0x7fffffffffffffff 2", &["error: 2 blocks from 9223372036854775807: not on the disk"]),
    ("write virtio-blk0 0 1", &["error: 1 blocks from 0: the disk may not be written there"]),
    ("help \u{1b}[31m\u{7}me", &["error: '[31mme': a word too many"]),
    ("\u{fffd}\u{fffd}", &["error: '\\u{fffd}\\u{fffd}': there is no such command"]),
    ("", &[]),
];

pub fn checks(kernel: &str, tally: &mut Tally) -> Result<()> {
    let script: String = SESSION.iter().map(|(line, _)| format!("{line}\n")).collect();
    // All at once: faster than it is worked on, and nothing is lost.
    let (success, text) = converse(kernel, script.as_bytes())?;
    let good = || {
        ensure!(success, "{text}");
        Ok(())
    };
    tally.check("monitor: a session ends well at the end of its input", good());
    let answers: Vec<&str> = text.split("undercroft> ").skip(1).collect();
    for (at, (line, words)) in SESSION.iter().enumerate() {
        let answer = || {
            let answer = answers.get(at).with_context(|| format!("no answer:\n{text}"))?;
            match words.iter().find(|word| !answer.contains(**word)) {
                Some(word) => bail!("it does not say '{word}':\n{answer}"),
                None => Ok(()),
            }
        };
        tally.check(&format!("monitor: {}", line.escape_default()), answer());
    }
    let (success, text) = converse(kernel, &[vec![b'x'; 5000], b"\n\xff\xfe\nquit\n".to_vec()].concat())?;
    let told = || {
        ensure!(success, "{text}");
        ensure!(text.contains("error: the line is longer than 200 characters"), "{text}");
        ensure!(text.contains("error: the line is not UTF-8"), "{text}");
        Ok(())
    };
    tally.check("monitor: a line that is too long, and one that is not text", told());
    Ok(())
}

/// `cargo xtask run --monitor` with this on its standard input: whether it succeeded, and what it printed.
fn converse(kernel: &str, input: &[u8]) -> Result<(bool, String)> {
    let mut command = Command::new(guest::program()?);
    command.args(["run", "--monitor", "--kernel", kernel, "--disk-size", "16", "--timeout", "120"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().context("cannot run this program again")?;
    let mut pipe = child.stdin.take().context("no standard input")?;
    let input = input.to_vec();
    let writer = std::thread::spawn(move || pipe.write_all(&input));
    let output = child.wait_with_output().context("cannot wait for this program")?;
    let _ = writer.join();
    Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).replace('\r', "")))
}
