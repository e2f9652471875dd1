//! `cargo xtask run` with a stand-in for QEMU: a script that says on its standard output what an
//! image would, so that every way a run can go wrong is gone, in a second.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;
use sha2::{Digest, Sha256};

const SIZE: usize = 1 << 20;
const START: usize = 65_536;
const LENGTH: usize = 131_072;

struct Bench {
    directory: tempfile::TempDir,
}

struct Ran {
    success: bool,
    events: Vec<Value>,
    text: String,
}

impl Ran {
    fn event(&self, name: &str) -> &Value {
        self.events.iter().find(|event| event["event"] == name).unwrap_or_else(|| panic!("{name}: {}", self.text))
    }

    /// The run failed, said why, and told programs so too.
    fn failed(&self, why: &str) {
        assert!(!self.success, "{}", self.text);
        assert!(self.text.contains(why), "{why}: {}", self.text);
        let last = self.events.last().expect("a summary");
        assert_eq!((&last["event"], &last["result"]), (&"summary".into(), &"fail".into()));
        assert!(last["failures"].as_u64().unwrap() > 0);
    }
}

impl Bench {
    fn new() -> Self {
        let bench = Self { directory: tempfile::tempdir().unwrap() };
        fs::write(bench.path("disk.img"), content()).unwrap();
        let mut written = content();
        for offset in (START..START + LENGTH).step_by(8) {
            written[offset..offset + 8].copy_from_slice(&word(1, offset as u64).to_le_bytes());
        }
        fs::write(bench.path("written.img"), written).unwrap();
        // The smallest file that passes for an image: an ELF header and an empty segment.
        let mut elf = vec![0; 64 + 56];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (elf[32], elf[54], elf[56]) = (64, 56, 1);
        fs::write(bench.path("image.elf"), elf).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes the stand-in: `script` runs for everything but `--version`, with `$DISK` and
    /// `$WRITTEN` set.
    fn qemu(&self, version: &str, script: &str) -> PathBuf {
        let path = self.path("qemu");
        let text = format!(
            "#!/bin/sh\nif [ \"$1\" = --version ]; then echo '{version}'; exit 0; fi\nDISK={}\nWRITTEN={}\n{script}\n",
            self.path("disk.img").display(),
            self.path("written.img").display()
        );
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn run_with(&self, version: &str, script: &str, disk: &str, more: &[&str]) -> Ran {
        let qemu = self.qemu(version, script);
        let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(["run", "--json", "--workload", "verify", "--qemu"])
            .arg(qemu)
            .arg("--kernel")
            .arg(self.path("image.elf"))
            .arg("--disk")
            .arg(disk)
            .args(more)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let events = String::from_utf8(output.stdout).unwrap();
        Ran {
            success: output.status.success(),
            events: events.lines().map(|line| serde_json::from_str(line).expect(line)).collect(),
            text: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn run(&self, script: &str, access: &str) -> Ran {
        let disk = format!("{},{access}", self.path("disk.img").display());
        self.run_with("QEMU emulator version 7.2.0", script, &disk, &[])
    }
}

fn content() -> Vec<u8> {
    (0..SIZE / 8).flat_map(|i| word(99, 8 * i as u64).to_le_bytes()).collect()
}

/// The pattern once more, by the words of the protocol.
fn word(seed: u64, offset: u64) -> u64 {
    let mut z = seed ^ (offset / 8).wrapping_mul(0x9E3779B97F4A7C15);
    z ^= z >> 30;
    z = z.wrapping_mul(0xBF58476D1CE4E5B9);
    z ^= z >> 27;
    z = z.wrapping_mul(0x94D049BB133111EB);
    z ^ z >> 31
}

fn sha256() -> String {
    Sha256::digest(content()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn say(json: &str) -> String {
    format!("echo '{json}'\n")
}

/// What an image says of a disk that it only reads, up to its end.
fn good_words(read_only: bool, sha256: &str) -> String {
    [
        r#"{"event":"hello","machine":"m","cpus":1,"memory_bytes":1,"clock":"c","timer":"t","version":"0"}"#,
        r#"{"event":"first_io","nanoseconds":1}"#,
        &format!(
            r#"{{"event":"found","name":"vd0","serial":"uc-user-0","driver":"virtio-blk","controller":"c","capacity_bytes":{SIZE},"block_size":512,"physical_block_size":512,"queues":1,"queue_depth":128,"interrupts":"msi-x:2","features":[],"read_only":{read_only},"partitions":[]}}"#
        ),
        r#"{"event":"heap","heap":"locked","live_blocks":3,"live_bytes":400,"leaked_blocks":0,"leaked_bytes":0,"allocations":50,"failures":0}"#,
        &format!(r#"{{"event":"read","name":"vd0","bytes":{SIZE},"sha256":"{sha256}","nanoseconds":1}}"#),
        &format!(
            r#"{{"event":"cached","name":"vd0","bytes":{SIZE},"sha256":"{sha256}","nanoseconds":6,"hits":192,"misses":64,"evictions":0,"reads":9,"pages_read":256,"ahead":224,"ahead_used":222,"ahead_wasted":0,"again_bytes":524288,"again_hits":128,"again_misses":0}}"#
        ),
    ]
    .map(say)
    .concat()
}

const WRITTEN: &str = r#"{"event":"written","name":"vd0","start":65536,"bytes":131072,"flushed":true,"verified":true}"#;
const END: &str = r#"{"event":"end","failures":0,"allocations_in_io_path":0,"requests":5,"nanoseconds":9}"#;

fn good(read_only: bool) -> String {
    good_words(read_only, &sha256())
}

fn end() -> String {
    say(END) + "exit 33"
}

#[test]
fn a_good_run_succeeds_and_tells_everything() {
    let ran = Bench::new().run(&(good(true) + &end()), "ro");
    assert!(ran.success, "{}", ran.text);
    let names: Vec<_> = ran.events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["boot", "disk", "cached", "heap", "summary"]);
    assert_eq!(ran.event("disk")["sha256"], sha256());
    assert_eq!(ran.event("disk")["sha256_expected"], sha256());
    assert_eq!(ran.event("summary")["result"], "pass");
    assert_eq!(ran.event("boot")["image_bytes"], 120);
    assert!(ran.text.contains("everything held"));
}

#[test]
fn a_wrong_digest_fails() {
    Bench::new().run(&(good_words(true, "00ff") + &end()), "ro").failed("SHA-256 mismatch");
}

#[test]
fn a_disk_that_is_not_found_fails() {
    Bench::new().run(&(good(true).replace("uc-user-0", "other") + &end()), "ro").failed("did not find it");
}

#[test]
fn writes_are_believed_only_when_the_host_finds_them() {
    let say_so = good(false) + &say(WRITTEN);
    let write = "cp $WRITTEN $DISK\n";
    let stray = "printf x | dd of=$DISK bs=1 seek=65535 conv=notrunc 2>/dev/null\n";
    let access = "rw=64K:128K";

    let ran = Bench::new().run(&(write.to_owned() + &say_so + &end()), access);
    assert!(ran.success, "{}", ran.text);
    assert_eq!(ran.event("disk")["write_verified"], true);

    let ran = Bench::new().run(&(say_so.clone() + &end()), access);
    ran.failed("the host does not find what was written");
    assert_eq!(ran.event("disk")["write_verified"], false);

    let ran = Bench::new().run(&(write.to_owned() + stray + &say_so + &end()), access);
    ran.failed("outside the region");

    Bench::new().run(&(good(false) + &end()), access).failed("nothing was written");
}

#[test]
fn every_bad_end_is_told() {
    let bench = Bench::new();
    let panic = good(true) + "echo 'panicked at x'\necho '  #0 0x10'\nexit 37";
    bench.run(&panic, "ro").failed("the image panicked");
    assert!(bench.run(&panic, "ro").text.contains("panicked at x"), "the last screen is shown");
    bench.run(&(good(true) + "exit 0"), "ro").failed("went off or was reset");
    bench.run("echo 'cannot do that' >&2; exit 1", "ro").failed("QEMU did not start: cannot do that");
    bench.run(&(good(true) + "kill -9 $$"), "ro").failed("signal 9");
    bench.run(&(good(true) + &say(END) + "exit 35"), "ro").failed("without naming");
    let problem = say(r#"{"event":"problem","what":"it burns","disk":"vd0"}"#);
    bench.run(&(good(true) + &problem + &end()), "ro").failed("disk vd0: it burns");
}

#[test]
fn a_hang_is_ended() {
    let bench = Bench::new();
    let disk = bench.path("disk.img");
    let hang = good(true) + "echo still here\nexec sleep 1000";
    let ran = bench.run_with("QEMU emulator version 7.2.0", &hang, disk.to_str().unwrap(), &["--silence", "1"]);
    ran.failed("it hangs");
    assert!(ran.text.contains("still here"));
}

#[test]
fn an_unsuitable_qemu_is_named() {
    let bench = Bench::new();
    let disk = bench.path("disk.img");
    let run = |version: &str| bench.run_with(version, "exit 9", disk.to_str().unwrap(), &[]);
    run("QEMU emulator version 4.1.0").failed("is version 4.1; at least");
    run("Something else 1.0").failed("does not say which version");
    let missing = ["--qemu", "/nowhere/qemu"];
    let output = Command::new(env!("CARGO_BIN_EXE_xtask")).arg("run").args(missing).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("/nowhere/qemu"), "{said}");
}

#[test]
fn a_read_only_disk_is_left_alone() {
    let bench = Bench::new();
    bench.run(&(good(true) + &end()), "ro");
    assert!(fs::read(bench.path("disk.img")).unwrap() == content());
}
