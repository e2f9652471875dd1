//! The platform's own test image: its checks on every machine, and the last screen of every way to go wrong.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::tally::Tally;
use crate::host::{install, program, workspace};
use crate::image::symbols::Symbols;
use crate::qemu::process::{self, Exit, Limits};

/// QEMU's status for each value of the debug-exit port (`docs/console-protocol.md`).
const SUCCESS: i32 = 33;
const FAILURE: i32 = 35;
const PANIC: i32 = 37;

/// The device by which PCI, its interrupts and DMA are checked.
const EDU: &str = "edu";

/// Machines on which all checks must pass: name, `-machine`, `-cpu`, and more arguments.
const MACHINES: [(&str, &str, &str, &[&str]); 10] = [
    ("q35", "q35", "max", &["-device", EDU]),
    ("q35 with four processors and 5 GiB", "q35", "max", &["-smp", "4", "-m", "5120", "-device", EDU]),
    ("q35 with eight old processors", "q35", "qemu64", &["-smp", "8"]),
    ("q35 with an old processor", "q35", "qemu64", &[]),
    ("pc", "pc", "max", &["-device", EDU]),
    (
        "q35 behind a bridge",
        "q35",
        "max",
        &[
            "-device",
            "pcie-root-port,id=root",
            "-device",
            "pcie-pci-bridge,id=bridge,bus=root",
            "-device",
            "edu,bus=bridge,addr=3",
        ],
    ),
    ("pc with three processors", "pc", "max", &["-smp", "3", "-device", EDU]),
    ("microvm with two processors", "microvm", "max", &["-smp", "2"]),
    ("microvm", "microvm", "max", &[]),
    ("microvm without ACPI", "microvm,acpi=off", "max", &[]),
];

/// What must be on the last screen of a provoked fault. All end with the panic value.
const FAULTS: [(&str, &[&str]); 16] = [
    ("panic", &["stopped: panic", "on purpose", "platform_test/main.rs:", "#1 "]),
    ("null", &["page fault", "a null pointer", "rip ", " null_read "]),
    ("text", &["page fault", "write at 0x", "not allowed there", " write_to_text "]),
    ("constants", &["page fault", "write at 0x", "not allowed there"]),
    ("execute", &["page fault", "execution at 0x", "not allowed there"]),
    ("stack", &["double fault", "the stack overflowed", " deeper ", "times more"]),
    ("undefined", &["invalid opcode"]),
    ("hang", &["no progress for 1", "interrupts are on", "hang_with_interrupts_on"]),
    ("hang-off", &["no progress for 1", "interrupts are off", "hang_with_interrupts_off"]),
    ("idle", &["no progress for 1", "interrupts are on", "wait_until"]),
    ("irq-panic", &["stopped: panic", "in an interrupt", "platform_test/main.rs:", "interrupt_entry", "on_own_stack"]),
    ("heap-in-irq", &["stopped: panic", "an allocation in a hard interrupt"]),
    ("ap-panic", &["stopped: panic", "on another processor", "    processor 1,"]),
    ("ap-stack", &["double fault", "the stack overflowed", "    processor 1,"]),
    ("bottom-half-stack", &["double fault", "the stack overflowed", " deeper "]),
    ("nonsense", &["no such check: nonsense"]),
];

/// Lines that each side writes in the console check.
const LINES: usize = 200;

struct Screen {
    status: i32,
    lines: Vec<String>,
}

impl Screen {
    fn text(&self) -> String {
        self.lines.join("\n")
    }

    /// Ended with this status and says all this.
    fn must(&self, status: i32, words: &[&str]) -> Result<()> {
        let text = self.text();
        ensure!(self.status == status, "status {} instead of {status}:\n{text}", self.status);
        match words.iter().find(|word| !text.contains(**word)) {
            Some(word) => bail!("it does not say '{word}':\n{text}"),
            None => Ok(()),
        }
    }
}

pub fn group(tally: &mut Tally) -> Result<()> {
    install::tools(&install::QEMU)?;
    let image = build()?;
    for (name, machine, cpu, more) in MACHINES {
        let screen = boot(&image, machine, cpu, "check=all", more)?;
        tally.check(&format!("{name}: all checks pass"), screen.must(SUCCESS, &["all checks passed"]));
        if more.iter().any(|word| word.starts_with(EDU)) {
            let title = format!("{name}: PCI, its wired and message interrupts and DMA work");
            tally.check(&title, screen.must(SUCCESS, &["pci: wired and message"]));
        }
        if more.contains(&"5120") {
            let title = format!("{name}: what a device cannot reach travels through bounce buffers");
            tally.check(&title, screen.must(SUCCESS, &["bounced from 0x1"]));
        }
        tally.check(&format!("{name}: no console line is lost or mixed with another"), console(&screen));
    }
    for (check, words) in FAULTS {
        let screen = boot(&image, "q35", "max", &format!("check={check}"), &["-smp", "2"])?;
        tally.check(&format!("last screen: {check}"), screen.must(PANIC, words));
    }
    let more_rights = boot(&image, "microvm", "max", "check=hang-off", &[])?;
    tally.check("last screen: hang-off on microvm", more_rights.must(PANIC, &["interrupts are off"]));
    let failure = boot(&image, "q35", "max", "check=failure", &[])?;
    tally.check("a failure has its own status", failure.must(FAILURE, &[]));
    let breakpoint = boot(&image, "q35", "max", "check=breakpoint", &[])?;
    tally.check("a breakpoint returns", breakpoint.must(SUCCESS, &["breakpoint at", "and on"]));
    let little = boot(&image, "q35", "max", "check=all", &["-m", "16"])?;
    processors(&image, tally)?;
    tally.check("too little memory is said", little.must(PANIC, &["too little memory: 15 MiB", "the image needs"]));
    Ok(())
}

/// All processors take part; one that does not come up is left out and told; time-stamps that differ are noticed, and the
/// clock makes up for it.
fn processors(image: &Path, tally: &mut Tally) -> Result<()> {
    for (machine, cpus) in [("q35", "1"), ("q35", "8"), ("microvm", "4")] {
        let screen = boot(image, machine, "max", "check=processors", &["-smp", cpus])?;
        let told = format!("processors: {cpus} of {cpus}, 0 left out");
        tally.check(&format!("{machine}: {cpus} processors"), screen.must(SUCCESS, &[&told]));
    }
    let dud = boot(image, "q35", "max", "check=processors dud=2", &["-smp", "4"])?;
    tally
        .check("a processor that does not come up is left out", dud.must(SUCCESS, &["processors: 3 of 4, 1 left out"]));
    for (machine, cpus) in [("q35", "1"), ("pc", "2"), ("microvm", "4")] {
        let screen = boot(image, machine, "max", "check=backed", &["-smp", cpus])?;
        let caught = if cpus == "1" { "0 controls" } else { "2 controls" };
        let title = format!("{machine}: {cpus} processors forget a page before its frame is another's");
        tally.check(&title, screen.must(SUCCESS, &["backed pages: ", caught]));
    }
    let skew = boot(image, "q35", "max", "check=processors skew=50000000", &["-smp", "4"])?;
    let told = skew.lines.iter().any(|line| line.starts_with("processors: 4") && !line.ends_with(" 0 ticks apart"));
    let noticed = if told { Ok(()) } else { Err(anyhow::anyhow!("it is not noticed:\n{}", skew.text())) };
    tally.check("time-stamps that differ are made up for", skew.must(SUCCESS, &[]).and(noticed));
    let naive = boot(image, "q35", "max", "check=processors skew=50000000 naive=1", &["-smp", "4"])?;
    tally.check("time-stamps that differ would be noticed", naive.must(PANIC, &["the clock went back"]));
    Ok(())
}

/// The check can fail: lines lost, torn or mixed are noticed.
fn console(screen: &Screen) -> Result<()> {
    for (side, letter) in [("task", 't'), ("interrupt", 'i')] {
        for line in 0..LINES {
            let wanted = format!("<{side} {line} {letter:>64}>");
            let found = screen.lines.iter().filter(|line| **line == wanted).count();
            ensure!(found == 1, "'{wanted}' is there {found} times");
        }
    }
    Ok(())
}

fn build() -> Result<PathBuf> {
    const NAME: &str = "undercroft-platform-test";
    install::rust_target()?;
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--quiet", "--package", "undercroft-kernel", "--bin", NAME, "--features", "platform-test"]);
    cargo.args(["--target", install::TARGET, "--profile", "image"]);
    // The traps of debug builds are part of what is tested; their cost is not.
    cargo.args(["--config", "profile.image.debug-assertions=true"]);
    cargo.args(["--target-dir"]).arg(workspace::target().join("platform-test"));
    program::run(&mut cargo)?;
    Ok(workspace::target().join("platform-test").join(install::TARGET).join("image").join(NAME))
}

fn boot(image: &Path, machine: &str, cpu: &str, line: &str, more: &[&str]) -> Result<Screen> {
    let mut qemu = Command::new(program::find("qemu-system-x86_64")?);
    qemu.args(["-machine", machine, "-accel", "tcg", "-cpu", cpu, "-m", "64", "-append", line]);
    qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"]);
    qemu.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel"]).arg(image).args(more);
    let symbols = Symbols::of(image);
    let mut lines = Vec::new();
    let limits = Limits { whole: Duration::from_secs(120), silence: Duration::from_secs(60) };
    let outcome =
        process::run(&mut qemu, limits, |line, _| lines.push(symbols.explain(line.trim_end_matches('\r'))), || ())?;
    match outcome.exit {
        Exit::Status(status) => Ok(Screen { status, lines }),
        other => bail!("QEMU ended by {other:?}: {}\n{}", outcome.stderr, lines.join("\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Vec<String> {
        let side = |name: &'static str, letter: char| (0..LINES).map(move |n| format!("<{name} {n} {letter:>64}>"));
        side("task", 't').chain(side("interrupt", 'i')).collect()
    }

    #[test]
    fn a_lost_torn_or_doubled_line_is_noticed() {
        let check = |lines| console(&Screen { status: SUCCESS, lines });
        assert!(check(whole()).is_ok());
        let mut lost = whole();
        lost.remove(7);
        assert!(check(lost).is_err());
        let mut doubled = whole();
        doubled.push(doubled[3].clone());
        assert!(check(doubled).is_err());
        let mut torn = whole();
        torn[5].insert_str(9, "<interrupt");
        assert!(check(torn).is_err());
    }

    #[test]
    fn a_screen_must_have_the_status_and_the_words() {
        let screen = Screen { status: PANIC, lines: vec!["*** stopped: panic".into(), "    why".into()] };
        assert!(screen.must(PANIC, &["stopped", "why"]).is_ok());
        assert!(screen.must(SUCCESS, &["stopped"]).is_err());
        assert!(screen.must(PANIC, &["something else"]).is_err());
    }
}
